# Names and paths of PosGen, for posgen.smk: what a preset's key `posgen` asks for.
from resonance.posgen import paths as posgen_paths
from resonance.posgen.tasks import SPLITS
from resonance.workflow.study import measured_path

POSGEN = CONFIG.posgen
STUDIES = POSGEN.settings.all_studies
POSGEN_ENVIRONMENT = environment("posgen", POSGEN.settings.training.device)


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


def posgen_measured(study):
    """What a study is collected of: its evaluations, or its probes."""
    return [str(measured_path(PRESET, study, cell)) for cell in POSGEN.cells(study)]


def posgen_trained(template, study):
    """A template over every training of a study."""
    return [at(template).format(**training._asdict()) for training in POSGEN.trainings(study)]


def drawn(split):
    """The sequences that a protocol uses, drawn under the first protocol that uses the same."""
    template = at(posgen_paths.SEQUENCES).replace("{split}", split)
    return lambda wildcards: expand(template, protocol=POSGEN.data_protocol(wildcards.protocol), task=wildcards.task)


def trained(template):
    """A file of the run that an evaluation measures."""
    return lambda wildcards: at(template).format(
        **(dict(wildcards) | {"protocol": POSGEN.train_protocol(wildcards.protocol, wildcards.train_encoding)})
    )
