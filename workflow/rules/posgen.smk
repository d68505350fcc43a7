# PosGen: settings -> sequences -> training -> evaluation -> rows of a study. One rule, one subcommand of the package. A
# stage's per-job rule is named `<stage>_one`; the stage itself is a target of the Snakefile.


rule posgen_data_one:
    input:
        settings=settings_at(posgen_paths, "data"),
    output:
        expand(at(posgen_paths.SEQUENCES), split=SPLITS, allow_missing=True),
    log:
        log_of("posgen_data_one/{protocol}/{task}"),
    benchmark:
        benchmark_of("posgen_data_one/{protocol}/{task}")
    conda:
        POSGEN_ENVIRONMENT
    threads: threads_of("data")
    resources:
        **asked("data"),
    params:
        outputs=lambda wildcards, output: [f"--output={path}" for path in output],
        code=code_at(posgen_paths, "generate"),
    shell:
        "python -m resonance posgen generate {input.settings:q} {params.outputs:q} > {log:q} 2>&1"


rule posgen_baseline:
    input:
        settings=lambda wildcards: expand(
            settings_at(posgen_paths, "data"), protocol=POSGEN.data_protocol(wildcards.protocol), task=wildcards.task
        ),
        test=drawn("test"),
    output:
        at(posgen_paths.BASELINE),
    log:
        log_of("posgen_baseline/{protocol}/{task}"),
    benchmark:
        benchmark_of("posgen_baseline/{protocol}/{task}")
    conda:
        POSGEN_ENVIRONMENT
    threads: threads_of("data")
    resources:
        **asked("data"),
    params:
        code=code_at(posgen_paths, "baseline"),
    shell:
        "python -m resonance posgen baseline {input.settings:q} {input.test:q} {wildcards.protocol:q} {output:q}"
        " > {log:q} 2>&1"


rule posgen_train_one:
    input:
        settings=settings_at(posgen_paths, "train"),
        encoding=at(posgen_paths.ENCODING).replace("{encoding}", "{train_encoding}"),
        train=drawn("train"),
        validation=drawn("validation"),
    output:
        at(posgen_paths.MODEL),
        at(posgen_paths.SNAPSHOTS),
        at(posgen_paths.TRAINING),
        at(posgen_paths.RUN),
    log:
        log_of("posgen_train_one/{protocol}/{task}/{train_encoding}/seed{seed}"),
    benchmark:
        benchmark_of("posgen_train_one/{protocol}/{task}/{train_encoding}/seed{seed}")
    conda:
        POSGEN_ENVIRONMENT
    threads: threads_of("train")
    resources:
        **asked("train"),
        # Here and not in params: results do not depend on it, and a change of a resource reruns nothing.
        checkpoint_seconds=POSGEN.settings.training.checkpoint_seconds,
    params:
        folder=at(posgen_paths.RUN_FOLDER),
        code=lambda wildcards: code_at(posgen_paths, "train", methods=methods_of(wildcards.train_encoding)),
    shell:
        "python -m resonance posgen train {input.settings:q} {input.encoding:q} {input.train:q} {input.validation:q}"
        " {params.folder:q} --seed {wildcards.seed} --threads {threads}"
        " --checkpoint-seconds {resources.checkpoint_seconds} > {log:q} 2>&1"


rule posgen_evaluate:
    input:
        model=trained(posgen_paths.MODEL),
        snapshots=trained(posgen_paths.SNAPSHOTS),
        run=trained(posgen_paths.RUN),
        settings=settings_at(posgen_paths, "evaluate"),
        encoding=at(posgen_paths.ENCODING),
        validation=drawn("validation"),
        test=drawn("test"),
    output:
        at(posgen_paths.EVALUATION),
    log:
        log_of("posgen_evaluate/{protocol}/{task}/{train_encoding}/seed{seed}/{encoding}"),
    benchmark:
        benchmark_of("posgen_evaluate/{protocol}/{task}/{train_encoding}/seed{seed}/{encoding}")
    conda:
        POSGEN_ENVIRONMENT
    threads: threads_of("evaluate")
    resources:
        **asked("evaluate"),
    params:
        code=lambda wildcards: code_at(posgen_paths, "evaluate", methods=methods_of(wildcards.encoding)),
    shell:
        "python -m resonance posgen evaluate {input.model:q} {input.encoding:q} {input.settings:q} {input.validation:q}"
        " {input.test:q} {output:q} --protocol {wildcards.protocol:q} --threads {threads} > {log:q} 2>&1"


rule posgen_probe:
    input:
        model=trained(posgen_paths.MODEL),
        snapshots=trained(posgen_paths.SNAPSHOTS),
        run=trained(posgen_paths.RUN),
        settings=settings_at(posgen_paths, "evaluate"),
        encoding=at(posgen_paths.ENCODING),
        test=drawn("test"),
    output:
        at(posgen_paths.PROBE),
    log:
        log_of("posgen_probe/{protocol}/{task}/{train_encoding}/seed{seed}/{encoding}"),
    benchmark:
        benchmark_of("posgen_probe/{protocol}/{task}/{train_encoding}/seed{seed}/{encoding}")
    conda:
        POSGEN_ENVIRONMENT
    threads: threads_of("evaluate")
    resources:
        **asked("evaluate"),
    params:
        code=lambda wildcards: code_at(posgen_paths, "probe", methods=methods_of(wildcards.encoding)),
    shell:
        "python -m resonance posgen probe {input.model:q} {input.encoding:q} {input.settings:q} {input.test:q}"
        " {output:q} --protocol {wildcards.protocol:q} --threads {threads} > {log:q} 2>&1"


rule posgen_collect:
    input:
        measured=lambda wildcards: posgen_measured(wildcards.study),
    output:
        at(posgen_paths.STUDY),
    log:
        log_of("posgen_collect/{study}"),
    benchmark:
        benchmark_of("posgen_collect/{study}")
    conda:
        DRAWING
    threads: threads_of("render")
    resources:
        **asked("render"),
    params:
        preset=PRESET,
        code=code_of("resonance.workflow.study:collect"),
    shell:
        "python -m resonance collect {params.preset:q} {wildcards.study:q} {output:q} > {log:q} 2>&1"
