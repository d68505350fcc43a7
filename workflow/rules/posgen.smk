# PosGen: settings -> sequences -> training -> evaluation. One rule, one subcommand of the package. The name of a
# stage is a target of the Snakefile; a rule that makes one of many such things is called by it and `_one`.


localrules:
    posgen_settings,
    posgen_encoding,


rule posgen_settings:
    output:
        at(paths.SETTINGS),
    log:
        log_of("posgen_settings/{protocol}/{task}/{stage}"),
    conda:
        "../../envs/figures.yaml"
    params:
        json=settings_json,
    shell:
        "printf '%s\\n' {params.json:q} > {output:q} 2> {log:q}"


rule posgen_encoding:
    output:
        at(paths.ENCODING),
    log:
        log_of("posgen_encoding/{protocol}/{encoding}"),
    conda:
        "../../envs/figures.yaml"
    params:
        json=encoding_json,
    shell:
        "printf '%s\\n' {params.json:q} > {output:q} 2> {log:q}"


rule posgen_data_one:
    input:
        settings=at(paths.SETTINGS).replace("{stage}", "data"),
    output:
        expand(at(paths.SEQUENCES), split=SPLITS, allow_missing=True),
    log:
        log_of("posgen_data/{protocol}/{task}"),
    benchmark:
        benchmark_of("posgen_data/{protocol}/{task}")
    conda:
        environment("posgen")
    threads: need("data", "threads")
    resources:
        mem_mb=need("data", "mem_mb"),
        runtime=need("data", "runtime"),
        gpu=need("data", "gpu"),
    params:
        outputs=lambda wildcards, output: [f"--output={path}" for path in output],
        code=code_of("resonance.posgen.tasks"),
    shell:
        "python -m resonance posgen generate {input.settings:q} {params.outputs:q} > {log:q} 2>&1"


rule posgen_baseline:
    input:
        settings=lambda wildcards: expand(
            at(paths.SETTINGS),
            protocol=CONFIG.data_protocol(wildcards.protocol),
            task=wildcards.task,
            stage="data",
        ),
        test=drawn("test"),
    output:
        at(paths.BASELINE),
    log:
        log_of("posgen_baseline/{protocol}/{task}"),
    benchmark:
        benchmark_of("posgen_baseline/{protocol}/{task}")
    conda:
        environment("posgen")
    threads: need("data", "threads")
    resources:
        mem_mb=need("data", "mem_mb"),
        runtime=need("data", "runtime"),
        gpu=need("data", "gpu"),
    params:
        code=code_of("resonance.posgen.tasks", "resonance.posgen.evaluate"),
    shell:
        "python -m resonance posgen baseline {input.settings:q} {input.test:q} {wildcards.protocol:q} {output:q}"
        " > {log:q} 2>&1"


rule posgen_train_one:
    input:
        settings=at(paths.SETTINGS).replace("{stage}", "train"),
        encoding=at(paths.ENCODING).replace("{encoding}", "{train_encoding}"),
        train=drawn("train"),
        validation=drawn("validation"),
    output:
        at(paths.MODEL),
        at(paths.SNAPSHOTS),
        at(paths.TRAINING),
        at(paths.RUN),
    log:
        log_of("posgen_train/{protocol}/{task}/{train_encoding}/seed{seed}"),
    benchmark:
        benchmark_of("posgen_train/{protocol}/{task}/{train_encoding}/seed{seed}")
    conda:
        environment("posgen")
    threads: need("train", "threads")
    resources:
        mem_mb=need("train", "mem_mb"),
        runtime=need("train", "runtime"),
        gpu=need("train", "gpu"),
        # Here and not in params: results do not depend on it, and a change of a resource reruns nothing.
        checkpoint_seconds=POSGEN.training.checkpoint_seconds,
    params:
        folder=at(paths.RUN_FOLDER),
        code=code_of("resonance.posgen.train"),
    shell:
        "python -m resonance posgen train {input.settings:q} {input.encoding:q} {input.train:q} {input.validation:q}"
        " {params.folder:q} --seed {wildcards.seed} --threads {threads}"
        " --checkpoint-seconds {resources.checkpoint_seconds} > {log:q} 2>&1"


rule posgen_evaluate:
    input:
        model=trained(paths.MODEL),
        snapshots=trained(paths.SNAPSHOTS),
        run=trained(paths.RUN),
        settings=at(paths.SETTINGS).replace("{stage}", "evaluate"),
        encoding=at(paths.ENCODING),
        validation=drawn("validation"),
        test=drawn("test"),
    output:
        at(paths.EVALUATION),
    log:
        log_of("posgen_evaluate/{protocol}/{task}/{train_encoding}/seed{seed}/{encoding}"),
    benchmark:
        benchmark_of("posgen_evaluate/{protocol}/{task}/{train_encoding}/seed{seed}/{encoding}")
    conda:
        environment("posgen")
    threads: need("evaluate", "threads")
    resources:
        mem_mb=need("evaluate", "mem_mb"),
        runtime=need("evaluate", "runtime"),
        gpu=need("evaluate", "gpu"),
    params:
        code=code_of("resonance.posgen.evaluate"),
    shell:
        "python -m resonance posgen evaluate {input.model:q} {input.encoding:q} {input.settings:q}"
        " {input.validation:q} {input.test:q} {output:q} --protocol {wildcards.protocol:q} --threads {threads}"
        " > {log:q} 2>&1"


rule posgen_collect:
    input:
        evaluations=lambda wildcards: posgen_evaluations(wildcards.study),
    output:
        at(paths.STUDY),
    log:
        log_of("posgen_collect/{study}"),
    benchmark:
        benchmark_of("posgen_collect/{study}")
    conda:
        "../../envs/figures.yaml"
    threads: need("render", "threads")
    resources:
        mem_mb=need("render", "mem_mb"),
        runtime=need("render", "runtime"),
        gpu=need("render", "gpu"),
    params:
        preset=PRESET,
        code=code_of("resonance.record.study"),
    shell:
        "python -m resonance posgen collect {params.preset:q} {wildcards.study:q} {output:q} > {log:q} 2>&1"
