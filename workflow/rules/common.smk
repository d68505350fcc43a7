# The only rule file with Python. Reads and checks the whole config before the graph is built, and
# turns names into paths. Knows names and paths; never torch.
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(workflow.basedir))

from resonance.record import config as settings, paths, runs
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
    """threads, mem_mb, runtime or gpu of a kind of rule, from the preset."""
    resources = CONFIG.preset.resources
    return getattr(getattr(resources, kind) or getattr(resources, kind.removeprefix("llm_")), what)


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


def posgen_files(template, **wildcards):
    """A template over every protocol and task."""
    return expand(at(template), protocol=POSGEN.protocols, task=POSGEN.tasks, **wildcards)


def posgen_evaluations(protocol):
    """Every evaluation of a protocol: encodings x tasks x seeds, each beside the run it measures."""
    return [
        path
        for encoding in POSGEN.encodings
        for path in expand(
            at(paths.EVALUATION),
            protocol=protocol,
            task=POSGEN.tasks,
            train_encoding=CONFIG.train_encoding(protocol, encoding),
            encoding=encoding,
            seed=POSGEN.seeds,
        )
    ]


def posgen_trained(template):
    """A template over every training: what protocols' encodings share is trained once."""
    return [
        path
        for protocol in POSGEN.protocols
        for name in sorted({CONFIG.train_encoding(protocol, encoding) for encoding in POSGEN.encodings})
        for path in expand(at(template), protocol=protocol, task=POSGEN.tasks, train_encoding=name, seed=POSGEN.seeds)
    ]


TABLES = expand(at(paths.TABLE1) + ".{kind}", protocol=POSGEN.protocols, kind=["csv", "md", "tex", "html"])
FIGURES = expand(
    figure("{name}.{kind}"),
    name=["fig1_rotation_angles", "fig2_dependencies"]
    + expand("fig3_validation_loss_{protocol}", protocol=POSGEN.protocols),
    kind=["pdf", "svg", "png"],
)


wildcard_constraints:
    protocol="[^/]+",
    task="[^/]+",
    stage="data|train|evaluate|base|perplexity|(text|finetune)_[^/]+",
    train_encoding="[^/]+",
    encoding="[^/]+",
    seed="[0-9]+",
