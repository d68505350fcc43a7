# What all rule files need; the preset, read and checked before the graph is built, and names turned into paths.
# Knows names and paths; never torch.
import csv
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(workflow.basedir))

from resonance.record import paths
from resonance.record.identity import code_of
from resonance.record.settings import SettingsError
from resonance.workflow import preset as presets, scheduler, slurm

for key in config:
    if key != "preset":
        raise WorkflowError(
            f"--config {key}: no such key; the only one is preset, everything else stands in config/<preset>.yaml"
        )
try:
    CONFIG = presets.load(Path(workflow.basedir) / "config", str(config.get("preset", "laptop")))
except SettingsError as error:
    raise WorkflowError(str(error))
PRESET = CONFIG.name
scheduler.one_timer_at_a_time()
FIGURE_KINDS = ["pdf", "svg", "png"]
TABLE_KINDS = ["csv", "md", "tex", "html"]
PAIRED_KINDS = [".csv", "_pairs.csv", ".md", ".tex", ".html"]
DRAWING = "../../envs/figures.yaml"
# What `all` makes; the other files add to it.
TABLES, FIGURES = [], []

# profiles/default, which every run reads, gives this machine's cores: they bound the threads of what runs here,
# and would cut those of jobs that are sent to another machine (--jobs says that they are).
if workflow.nodes:
    workflow.register_resource("_cores", None)
    slurm.send_patiently(Path(workflow.basedir))


def at(template):
    """A path template of this preset, its other wildcards left open."""
    return template.replace("{preset}", PRESET)


def log_of(name):
    """The log of a rule's job: its name, then its wildcards as folders."""
    return at(f"{paths.LOGS}/{name}.log")


def benchmark_of(name):
    """Time and memory of a rule's job."""
    return at(f"{paths.BENCHMARKS}/{name}.tsv")


def threads_of(kind):
    return CONFIG.resources.of(kind).threads


def asked(kind):
    """mem_mb, runtime and gpu of a kind of rule, from the preset.

    Snakemake tells which try of a job it is, and not why the last one failed: so memory and time both grow. Time
    does not for fine-tunings, which go on from their checkpoint and have their whole time again.
    """
    asks = CONFIG.resources.of(kind)

    def growing(least):
        return lambda wildcards, attempt: attempt * least

    runtime = asks.runtime if kind == "llm_train" else growing(asks.runtime)
    return {"mem_mb": growing(asks.mem_mb), "runtime": runtime, "gpu": asks.gpu}


def environment(half, device):
    """The conda environment of the rules of posgen or llm; on a GPU the one with CUDA's libraries and compiler."""
    return f"../../envs/{half}-cuda.yaml" if device == "cuda" else f"../../envs/{half}.yaml"


def methods_of(*names):
    """The methods of some encodings, whose code counts for them alone."""
    return [CONFIG.posgen.encodings[name].get("method", "rope") for name in names]


def settings_at(wing, stage):
    """Of a wing, by its paths, the settings of one stage."""
    return at(wing.SETTINGS).replace("{stage}", stage)


def code_at(wing, stage, methods=()):
    """What one stage computes with, and the methods of its encodings."""
    return code_of(wing.CODE.format(stage=stage), methods=methods)


wildcard_constraints:
    protocol="[^/]+",
    task="[^/]+",
    stage="[^/]+",
    train_encoding="[^/]+",
    encoding="[^/]+",
    seed="[0-9]+",


def nothing_of(target):
    """The input of a target that this preset has nothing for: whoever asks for it is told, in place of an empty success."""

    def refuse(wildcards):
        raise WorkflowError(f"preset {PRESET} has nothing of {target}; say in config/{PRESET}.yaml what it is to run")

    return refuse
