# The only rule file with Python. Reads and checks the whole config before the graph is built, and
# turns names into paths. Knows names and paths; never torch.
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(workflow.basedir))

from resonance.record import config as settings, paths, runs
from resonance.record.code import code_of
from resonance.record.settings import SettingsError

for key in config:
    if key != "preset":
        raise WorkflowError(
            f"--config {key}: no such key; the only one is preset, everything else stands in config/<preset>.yaml"
        )
try:
    CONFIG = settings.load(Path(workflow.basedir) / "config", str(config.get("preset", "laptop")))
except SettingsError as error:
    raise WorkflowError(str(error))
PRESET = CONFIG.preset.preset
POSGEN = CONFIG.preset.posgen
SPLITS = ["train", "validation", "test"]

# profiles/default, which every run reads, gives this machine's cores: they bound the threads of what runs here,
# and would cut those of jobs that are sent to another machine (--jobs says that they are).
if workflow.nodes:
    workflow.register_resource("_cores", None)


def at(template):
    """A path template of this preset, its other wildcards left open."""
    return template.replace("{preset}", PRESET)


def log_of(name):
    """The log of a rule's job: its name, then its wildcards as folders."""
    return at(f"{paths.LOGS}/{name}.log")


def benchmark_of(name):
    """Time and memory of a rule's job."""
    return at(f"{paths.BENCHMARKS}/{name}.tsv")


def figure(name):
    """A file of the paper's figures."""
    return at(f"{paths.FIGURES}/{name}")


def need(kind, what):
    """threads, mem_mb, runtime or gpu of a kind of rule, from the preset.

    Snakemake tells which try of a job it is, and not why the last one failed: so memory and time both grow. Time
    does not for fine-tunings, which go on from their checkpoint and have their whole time again.
    """
    asked = getattr(CONFIG.preset.resources.of(kind), what)
    if what == "mem_mb" or (what == "runtime" and kind != "llm_train"):
        return lambda wildcards, attempt: attempt * asked
    return asked


def environment(half):
    """The conda environment of the rules of posgen or llm; on a GPU the one with CUDA's libraries and compiler."""
    settings_of = {"posgen": POSGEN.training, "llm": CONFIG.preset.llm}[half]
    return f"../../envs/{half}-cuda.yaml" if settings_of and settings_of.device == "cuda" else f"../../envs/{half}.yaml"


def settings_json(wildcards):
    """What one stage of one task depends on, as JSON: the file changes if and only if this does."""
    made = {
        "data": lambda: runs.data_run(CONFIG, wildcards.protocol, wildcards.task),
        "train": lambda: runs.train_run(CONFIG, wildcards.protocol, wildcards.task),
        "evaluate": lambda: runs.evaluate_run(CONFIG),
    }
    return made[wildcards.stage]().to_json()


def encoding_json(wildcards):
    return CONFIG.posgen_spec(wildcards.protocol, wildcards.encoding).to_json()


def stem_of_output(wildcards, output):
    """What the files of a table or figure have in common, up to their ending."""
    return os.path.splitext(output[0])[0]


def posgen_data(template, **wildcards):
    """A template of a task's data, over every study's protocols and tasks, each drawn once."""
    return sorted(
        {
            path
            for study in POSGEN.all_studies.values()
            for protocol in study.protocols
            for path in expand(at(template), protocol=CONFIG.data_protocol(protocol), task=study.tasks, **wildcards)
        }
    )


def posgen_evaluations(study, protocol=None):
    """Every evaluation of a study, or those under one of its protocols."""
    cells = [cell for cell in CONFIG.study_cells(study) if protocol in (None, cell.protocol)]
    return [at(paths.EVALUATION).format(**cell._asdict()) for cell in cells]


def baselines_of_study(wildcards):
    """What needs no training, for every task of a study."""
    return expand(at(paths.BASELINE), protocol=wildcards.protocol, task=POSGEN.all_studies[wildcards.study].tasks)


def posgen_trained(template, study):
    """A template over every training of a study: what encodings and protocols share is trained once."""
    found = {at(template).format(**(c._asdict() | {"protocol": c.train_protocol})) for c in CONFIG.study_cells(study)}
    return sorted(found)


def drawn(split):
    """The sequences that a protocol uses, drawn under the first protocol that uses the same."""
    template = at(paths.SEQUENCES).replace("{split}", split)
    return lambda wildcards: expand(template, protocol=CONFIG.data_protocol(wildcards.protocol), task=wildcards.task)


def trained(template):
    """A file of the run that an evaluation measures."""
    return lambda wildcards: at(template).format(
        **(dict(wildcards) | {"protocol": CONFIG.train_protocol(wildcards.protocol, wildcards.train_encoding)})
    )


# Tables and figures of every study; {protocol}: one for each of its protocols.
STUDY_STEMS = {
    "table1": (["table1_{protocol}"], ["fig3_validation_loss_{protocol}", "shortcuts_table1_{protocol}"]),
    "extended": (["extended_{protocol}"], []),
    "keyed": (["keyed_{protocol}"], ["shortcuts_keyed_{protocol}"]),
    "rounding": (["rounding"], ["rounding"]),
    "ablation": (["ablation"], ["ablation"]),
}


def study_tables(study):
    """The tables of a study, none where the preset leaves it out."""
    stems = [f"{at(paths.TABLES)}/{stem}.{{kind}}" for stem in STUDY_STEMS[study][0] if study in POSGEN.all_studies]
    return of_protocols(study, stems, ["csv", "md", "tex", "html"])


def study_figures(study):
    stems = [figure(f"{stem}.{{kind}}") for stem in STUDY_STEMS[study][1] if study in POSGEN.all_studies]
    return of_protocols(study, stems, ["pdf", "svg", "png"])


def stem_of_figure(wildcards, output):
    """The same of the figure, where a rule makes a table first."""
    return os.path.splitext(output[1])[0]


def of_protocols(study, stems, kinds):
    return expand(stems, protocol=POSGEN.all_studies[study].protocols, kind=kinds) if stems else []


# Files of measured rows that the repository keeps, for published.smk: STUDY_PART.parquet.
KEPT = sorted(path.stem for path in Path(workflow.basedir, at(paths.KEPT)).glob("*.parquet"))


def kept(study):
    """A study's files."""
    return [f"{at(paths.KEPT)}/{stem}.parquet" for stem in KEPT if stem.split("_")[0] == study]


def published(name):
    """A file drawn of the kept rows."""
    return f"{at(paths.PUBLISHED)}/{name}"


def published_files(wildcards):
    """Every table, and the figures of those that have one."""
    if not KEPT:
        raise WorkflowError(f"results-published/ keeps nothing of preset {PRESET}; ask for one that it names")
    whole = [study for study, (tables, _) in STUDY_STEMS.items() if study in tables and kept(study)]
    stems = whole + [stem for stem in KEPT if stem.split("_")[0] not in whole]
    return expand(published("tables/{stem}.{kind}"), stem=stems, kind=["csv", "md", "tex", "html"]) + expand(
        published("figures/{stem}.{kind}"), stem=whole, kind=["pdf", "svg", "png"]
    )


TABLES = study_tables("table1")
FIGURES = study_figures("table1") + expand(
    figure("{name}.{kind}"), name=["fig1_rotation_angles", "fig2_dependencies"], kind=["pdf", "svg", "png"]
)


wildcard_constraints:
    study="table1|extended|keyed|rounding|ablation",
    protocol="[^/]+",
    task="[^/]+",
    stage="data|train|evaluate|base|perplexity|passkey|(text|finetune)_[^/]+",
    train_encoding="[^/]+",
    encoding="[^/]+",
    seed="[0-9]+",
