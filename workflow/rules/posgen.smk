# PosGen: settings -> sequences -> training -> evaluation -> rows of a study. One rule, one subcommand of the package. A
# stage's per-job rule is named `<stage>_one`; the stage itself is a target of the Snakefile.
from resonance.posgen import paths as posgen_paths
from resonance.posgen.tasks import SPLITS

POSGEN = CONFIG.posgen
STUDIES = POSGEN.settings.all_studies
POSGEN_ENVIRONMENT = environment("posgen", POSGEN.settings.training.device)


def settings_json(wildcards):
    """What one stage of one task depends on, as JSON: the file changes if and only if this does."""
    made = {
        "data": lambda: POSGEN.data_run(wildcards.protocol, wildcards.task),
        "train": lambda: POSGEN.train_run(wildcards.protocol, wildcards.task),
        "evaluate": POSGEN.evaluate_run,
    }
    return made[wildcards.stage]().to_json()


def posgen_data(template, **wildcards):
    """A template of a task's data, over every study's protocols and tasks, each drawn once."""
    return sorted(
        {
            path
            for study in STUDIES.values()
            for protocol in study.protocols
            for path in expand(at(template), protocol=POSGEN.data_protocol(protocol), task=study.tasks, **wildcards)
        }
    )


def posgen_evaluations(study, protocol=None):
    """Every evaluation of a study, or those under one of its protocols."""
    cells = [cell for cell in POSGEN.cells(study) if protocol in (None, cell.protocol)]
    return [at(posgen_paths.EVALUATION).format(**cell._asdict()) for cell in cells]


def posgen_trained(template, study):
    """A template over every training of a study."""
    return [at(template).format(**training._asdict()) for training in POSGEN.trainings(study)]


def posgen_code(stage):
    return posgen_paths.CODE.format(stage=stage)


def settings_of(stage):
    return at(posgen_paths.SETTINGS).replace("{stage}", stage)


def drawn(split):
    """The sequences that a protocol uses, drawn under the first protocol that uses the same."""
    template = at(posgen_paths.SEQUENCES).replace("{split}", split)
    return lambda wildcards: expand(template, protocol=POSGEN.data_protocol(wildcards.protocol), task=wildcards.task)


def trained(template):
    """A file of the run that an evaluation measures."""
    return lambda wildcards: at(template).format(
        **(dict(wildcards) | {"protocol": POSGEN.train_protocol(wildcards.protocol, wildcards.train_encoding)})
    )


localrules:
    posgen_settings,
    posgen_encoding,


rule posgen_settings:
    output:
        at(posgen_paths.SETTINGS),
    log:
        log_of("posgen_settings/{protocol}/{task}/{stage}"),
    conda:
        DRAWING
    params:
        json=settings_json,
    shell:
        "printf '%s\\n' {params.json:q} > {output:q} 2> {log:q}"


rule posgen_encoding:
    output:
        at(posgen_paths.ENCODING),
    log:
        log_of("posgen_encoding/{protocol}/{encoding}"),
    conda:
        DRAWING
    params:
        json=lambda wildcards: POSGEN.spec(wildcards.protocol, wildcards.encoding).to_json(),
    shell:
        "printf '%s\\n' {params.json:q} > {output:q} 2> {log:q}"


rule posgen_data_one:
    input:
        settings=settings_of("data"),
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
        code=code_of(posgen_code("generate")),
    shell:
        "python -m resonance posgen generate {input.settings:q} {params.outputs:q} > {log:q} 2>&1"


rule posgen_baseline:
    input:
        settings=lambda wildcards: expand(
            settings_of("data"), protocol=POSGEN.data_protocol(wildcards.protocol), task=wildcards.task
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
        code=code_of(posgen_code("baseline")),
    shell:
        "python -m resonance posgen baseline {input.settings:q} {input.test:q} {wildcards.protocol:q} {output:q}"
        " > {log:q} 2>&1"


rule posgen_train_one:
    input:
        settings=settings_of("train"),
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
        code=lambda wildcards: code_of(posgen_code("train"), methods=methods_of(wildcards.train_encoding)),
    shell:
        "python -m resonance posgen train {input.settings:q} {input.encoding:q} {input.train:q} {input.validation:q}"
        " {params.folder:q} --seed {wildcards.seed} --threads {threads}"
        " --checkpoint-seconds {resources.checkpoint_seconds} > {log:q} 2>&1"


rule posgen_evaluate:
    input:
        model=trained(posgen_paths.MODEL),
        snapshots=trained(posgen_paths.SNAPSHOTS),
        run=trained(posgen_paths.RUN),
        settings=settings_of("evaluate"),
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
        code=lambda wildcards: code_of(posgen_code("evaluate"), methods=methods_of(wildcards.encoding)),
    shell:
        "python -m resonance posgen evaluate {input.model:q} {input.encoding:q} {input.settings:q} {input.validation:q}"
        " {input.test:q} {output:q} --protocol {wildcards.protocol:q} --threads {threads} > {log:q} 2>&1"


rule posgen_collect:
    input:
        evaluations=lambda wildcards: posgen_evaluations(wildcards.study),
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
