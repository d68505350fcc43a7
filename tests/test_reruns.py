"""What a change reruns: one edit at a time in a copy of a finished smoke run, and the jobs that Snakemake then wants.

docs/reruns.md is this file's list as a page: `python tests/test_reruns.py` writes it, and a test compares. One of each
kind is asked of Snakemake in every run of the tests, all of them with `-m slow`; all others are checked on one dry run,
by what its jobs would be told (config) or compute with (code).
"""

import re
import sys
from collections import Counter
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

from resonance.record.identity import code_of
from resonance.workflow.preset import load
from workflow_copy import LAST, ROOT, Edits, copy_of_repository, copy_of_run, environment_of, jobs_of, snakemake, wanted

PAGE = ROOT / "docs/reruns.md"
PRESET, ENCODINGS, PROTOCOLS, LLM_PROTOCOLS = (
    f"config/{name}.yaml" for name in ("smoke", "encodings", "protocols", "llm_protocols")
)

TABLE1 = {"study_table": 2, "verdict": 1}
ONE = {
    "study_table": 1,
    "verdict": 1,
    "study_shortcuts": 1,
    "figure3_one": 1,
}  # what is made of one protocol's evaluations
BOTH = {**TABLE1, "study_shortcuts": 2, "figure3_one": 2}
PERPLEXITY, PASSKEY = {"figure4_one": 1}, {"passkey_figure": 1}


def answered(count: int) -> dict[str, int]:
    return {"leval_answer": count, "leval_score": count, "table2_stand_in": 1}


def measured(count: int) -> dict[str, int]:
    """What is asked of so many language models, each of one encoding and strategy: two evaluations and L-Eval."""
    return {"llm_evaluate": 2 * count, **PERPLEXITY, **PASSKEY, **answered(count)}


FINETUNED = {"llm_finetune": 2, **measured(2)}
LANGUAGE_MODELS = {"llm_base": 1, "llm_finetune": 2, **measured(4)}
EVALUATED = {"posgen_evaluate": 24, **BOTH}
TRAINED = {"posgen_train_one": 18, **EVALUATED}
# What trains also evaluates; what evaluates also scores the rules that need no training.
POSGEN = {"posgen_baseline": 6, **TRAINED}
TABLE2 = {"table2_one": 1, "table2_stand_in": 1}
EVERY_FIGURE = {**BOTH, "figure1": 1, "figure2": 1, **TABLE2, **PERPLEXITY, **PASSKEY}
MINE = {"posgen_train_one": 3, "posgen_evaluate": 6, **BOTH}
"""What is made with one more method: trained under `paper`, measured under both protocols."""
YARN = ("yarn_ramp", "yarn_blend", "yarn_beta_fast", "yarn_beta_slow", "yarn_lengths", "yarn_temperature")


class Change(NamedTuple):
    """What is edited, in words; where (`*`: every such file, in its first place); and the jobs by rule that Snakemake
    then wants. old: nothing for an end of a file, or for a new one. more: what must be edited beside it."""

    what: str
    path: str
    old: str
    new: str
    jobs: dict[str, int]
    more: tuple[tuple[str, str, str], ...] = ()

    def make(self, edits: Edits) -> None:
        for path, old, new in ((self.path, self.old, self.new), *self.more):
            for file in sorted(edits.folder.glob(path)) if "*" in path else [edits.folder / path]:
                text = file.read_text() if file.exists() else ""
                assert old in text, f"{path} no longer holds {old!r}: mend the test"
                changed = text + new if old == "" else text.replace(old, new, 1 if "*" in path else -1)
                edits.write(str(file.relative_to(edits.folder)), changed)


def in_config() -> list[Change]:
    trained_as_rope = {"posgen_encoding": 2, "posgen_train_one": 6, "posgen_evaluate": 9, **BOTH}
    yarn = {"posgen_encoding": 2, "posgen_train_one": 3, "posgen_evaluate": 6, **BOTH, "llm_encoding": 1,
            "llm_finetune": 1, **measured(1)}  # fmt: skip
    untuned = {"llm_encoding": 1, **measured(1)}
    encodings = [
        ("rope", "{method: rope}", "{method: rope, train_length: 32}", {**trained_as_rope, **untuned}),
        ("resonance_rope", "{method: rope, resonance", "{method: rope, train_length: 32, resonance", trained_as_rope),
        ("yarn", "{method: yarn}", "{method: yarn, truncate: false}", yarn),
        ("resonance_yarn", "{method: yarn, resonance", "{method: yarn, truncate: false, resonance", yarn),
        ("dynamic_ntk", "{method: dynamic_ntk}", "{method: dynamic_ntk, scale: 3.0}", untuned),
        ("ntk", "{method: ntk}", "{method: ntk, scale: 3.0}", {}),
    ]
    settings = [
        ("posgen.seeds: one more", "seeds: [42]\n  data", "seeds: [42, 7]\n  data", TRAINED),
        ("posgen.seeds: another", "seeds: [42]\n  data", "seeds: [7]\n  data", TRAINED),
        ("posgen.data.seed", "seed: 0\n  model", "seed: 1\n  model",
         {"posgen_settings": 12, "posgen_data_one": 6, "posgen_baseline": 6, **TRAINED}),
        ("posgen.training.steps of one protocol and task", "released:\n        {recursive: 8,",
         "released:\n        {recursive: 9,",
         {"posgen_settings": 1, "posgen_train_one": 2, "posgen_evaluate": 4, **ONE}),
        ("posgen.training.checkpoint_seconds", "checkpoint_seconds: 30", "checkpoint_seconds: 31", {}),
        ("posgen.evaluation.test_sequences", "test_sequences: 20", "test_sequences: 21",
         {"posgen_settings": 6, "posgen_evaluate": 24, **BOTH}),
        ("llm.finetuning.seed", "seed: 0\n    micro", "seed: 1\n    micro", {"llm_settings": 1, **FINETUNED}),
        ("llm.models.tiny.strategies.long.steps", "length: 256, steps: 2", "length: 256, steps: 3",
         {"llm_settings": 1, **FINETUNED}),
        ("llm.perplexity.seed", "pieces: 2}}, seed: 0}", "pieces: 2}}, seed: 1}",
         {"llm_settings": 1, "llm_evaluate": 4, **PERPLEXITY}),
        ("llm.passkey.seed", "repetitions: 2, seed: 0", "repetitions: 2, seed: 1",
         {"llm_settings": 1, "llm_evaluate": 4, **PASSKEY}),
        ("llm.finetuning.encodings: one more", "resonance_yarn]\n    seed", "resonance_yarn, ntk]\n    seed",
         {"llm_encoding": 1, "llm_finetune": 1, "llm_evaluate": 2, **PERPLEXITY, **PASSKEY}),
        ("llm.finetuning.checkpoint_every", "checkpoint_every: 1", "checkpoint_every: 2", {}),
        ("leval.made.seed: other questions", "questions: 4, seed: 0", "questions: 4, seed: 1",
         {"leval_settings": 1, "leval_tasks": 1, **answered(4)}),
        ("leval.max_new_tokens", "max_new_tokens: 8", "max_new_tokens: 7", {"leval_settings": 1, **answered(4)}),
        ("resources.train: threads, memory, time", "train: {threads: 1, mem_mb: 4000, runtime: 30",
         "train: {threads: 2, mem_mb: 5000, runtime: 40", {}),
    ]  # fmt: skip
    return [
        *(Change(f"encoding `{name}`", ENCODINGS, f"\n{name}: {old}", f"\n{name}: {new}", jobs)
          for name, old, new, jobs in encodings),
        *(Change(f"`{name}`", PRESET, old, new, jobs) for name, old, new, jobs in settings),
    ]  # fmt: skip


# Another value of every choice of a protocol, by what it is now; below, where that is another for a field of this
# name, or goes with a second field.
OTHER = {
    "distinct": "combinations", "combinations": "distinct", "evaluated": "unscaled", "unscaled": "evaluated",
    "wavelength": "index", "index": "wavelength", "frequency": "wavelength", "sequence": "table", "table": "sequence",
    "true": "false", "false": "true", "all": "all_but_feed_forward", "all_but_feed_forward": "all",
    "sqrt_head_dim": "initialisation", "initialisation": "sqrt_head_dim", "interleaved": "half_split",
    "constant": "one_cycle", "one_cycle": "constant", "last": "best_in_distribution", "best_in_distribution": "last",
    "exact": "micro_batches", "paper": "bloc97", "random": "first", "truncated": "sliding",
    "[rope, linear, ntk, dynamic_ntk, yarn]": "[rope, yarn]", "32.0": "16.0", "1.0": "0.5", "2.0": "3.0", "0.0": "1.0",
    "0": "1", "2": "3", "5": "6", "6": "5", "64": "32", "256": "128", "0.05": "0.1", "0.1": "0.2", "0.9": "0.8",
    "0.999": "0.99", "1e-2": "2e-2", "2e-5": "1e-5",
}  # fmt: skip
TOGETHER = {
    ("paper", "start_token", "false"): {"start_token": "true", "num_extra_tokens": "5"},
    ("paper", "yarn_blend", "wavelength"): {"yarn_blend": "frequency"},
    ("paper", "chunks", "all"): {"chunks": "first_of_65536"},
    ("paper", "warmup_steps", "0"): {"warmup_steps": "1", "warmup_fraction": "0.0"},
}


def in_protocols() -> list[Change]:
    """Every choice of every protocol that the smoke preset uses."""

    def jobs(name: str, field: str) -> dict[str, int]:
        paper = name == "paper"
        trainings, evaluations = (12, 12) if paper else (6, 12)
        if field == "prefixes":  # P1; what both protocols use is drawn once, under the first
            drawn = {"posgen_settings": 3, "posgen_data_one": 3, "posgen_baseline": 6, **TRAINED}
            return drawn if paper else {"posgen_baseline": 3, "posgen_train_one": 6, "posgen_evaluate": 12, **ONE}
        if field == "train_encoding":  # P2; rope and yarn share a training under `unscaled`
            return {**({} if paper else {"posgen_train_one": 6}), "posgen_evaluate": 6, **ONE}
        if field in YARN:  # P3, P4; under `released` they are in the evaluation's table alone
            return {"posgen_encoding": 2, **({"posgen_train_one": 6} if paper else {}), "posgen_evaluate": 6, **ONE}
        return {"posgen_settings": 3, "posgen_train_one": trainings, "posgen_evaluate": evaluations, **ONE}

    def llm_jobs(field: str) -> dict[str, int]:
        if field in YARN:
            return {"llm_encoding": 2, **FINETUNED}
        if field == "ntk_rule":
            return {"llm_encoding": 1, **measured(1)}
        if field == "resonance_methods":  # what it allows, no more
            return {}
        if field in ("documents", "window", "stride"):
            return {"llm_settings": 1, "llm_evaluate": 4, **PERPLEXITY}
        return {"llm_settings": 1, **FINETUNED}

    changes = []
    for path, name in ((PROTOCOLS, "paper"), (PROTOCOLS, "released"), (LLM_PROTOCOLS, "paper")):
        block = re.search(rf"^{name}:\n((?:  .*\n)+)", (ROOT / path).read_text(), re.MULTILINE)[0]
        for field, value in re.findall(r"^  (\w+): (\[.*?\]|\S+)", block, re.MULTILINE):
            edited = block
            for key, other in TOGETHER.get((name, field, value), {field: OTHER.get(value)}).items():
                edited = re.sub(rf"^  {key}: (\[.*?\]|\S+)", f"  {key}: {other}", edited, flags=re.MULTILINE)
            wants = llm_jobs(field) if path == LLM_PROTOCOLS else jobs(name, field)
            changes.append(Change(f"`{name}`: `{field}`", path, block, edited, wants))
    return changes


def in_files() -> list[Change]:
    """Scripts of figures, environments, rules and the package's code."""
    figures = {
        "table1_posgen.py": TABLE1,
        "verdict.py": {"verdict": 1},
        "summary.py": {},
        "shortcuts.py": {"study_shortcuts": 2},
        "fig1_rotation_angles.py": {"figure1": 1},
        "fig2_dependencies.py": {"figure2": 1},
        "fig3_validation_loss.py": {"figure3_one": 2},
        "fig4_perplexity.py": PERPLEXITY,
        "passkey.py": PASSKEY,
        "table2_leval.py": {"table2_one": 1},
        "table2_stand_in.py": {"table2_stand_in": 1},
        "leval.py": TABLE2,
        "rounding.py": {},
        "aliases.py": {},
        "falls.py": {},
        "probes.py": {},
        "ablation.py": {},
        "leaderboard.py": {},
        "pages.py": {},
        "style.py": EVERY_FIGURE,
        "style.mplstyle": EVERY_FIGURE,
        "inputs.py": EVERY_FIGURE,
    }
    code = {
        "posgen/tasks.py": {"posgen_data_one": 6, **POSGEN, "figure2": 1},
        "posgen/decoder.py": POSGEN,
        "posgen/train.py": POSGEN,
        "posgen/evaluate.py": {"posgen_baseline": 6, **EVALUATED},
        "posgen/preset.py": {},
        "posgen/cost.py": {},
        "posgen/paths.py": {},
        "posgen/cli.py": {},
        "posgen/ranking/train.py": {},
        "encoding/frequencies.py": {**POSGEN, **LANGUAGE_MODELS, "figure1": 1},
        "encoding/rounding.py": {**POSGEN, **LANGUAGE_MODELS, "figure1": 1},
        "encoding/rotary.py": {**POSGEN, **LANGUAGE_MODELS},
        "encoding/methods/ntk.py": {},
        "hf/swap.py": LANGUAGE_MODELS,
        "llm/text.py": {"llm_pack": 2, "leval_tasks": 1, **LANGUAGE_MODELS},
        "llm/models.py": LANGUAGE_MODELS,
        "llm/finetune.py": LANGUAGE_MODELS,
        "llm/perplexity.py": {"llm_evaluate": 4, **PERPLEXITY},
        "llm/evaluations/perplexity.py": {"llm_evaluate": 4, **PERPLEXITY},
        "llm/passkey.py": {"llm_evaluate": 4, **PASSKEY},
        "llm/generate.py": {"llm_evaluate": 4, **PASSKEY, **answered(4)},
        "leval/made.py": {"leval_tasks": 1, **answered(4)},
        "leval/scoring.py": {"leval_tasks": 1, **answered(4)},
        "record/progress.py": {},
        "record/checkpoint.py": {},
        "record/provenance.py": {},
        "record/tables.py": {**TABLE1, **TABLE2, **PERPLEXITY, **PASSKEY},
        "workflow/preset.py": {},
        "workflow/plan.py": {},
        "cli.py": {},
    }
    evaluate = '"python -m resonance posgen evaluate'
    return [
        *(Change("a script", f"figures/{name}", "", "\n" if "." + name.split(".")[1] != ".py" else CODE, jobs)
          for name, jobs in figures.items()),
        Change("the paper's numbers", "config/published.yaml", "", "\n", {**TABLE1, "table2_one": 1}),
        Change("a system text", "config/leval.yaml", "answer as briefly", "be as brief",
               {"leval_settings": 1, **answered(4)}),
        *(Change("code", f"resonance/{name}", "", CODE, jobs) for name, jobs in code.items()),
        *in_functions(),
        Change("a comment, and a word of the docstring", "resonance/**/*.py", '"""', '"""So: ', {},
               (("resonance/**/*.py", "", "# why\n"), ("figures/*.py", '"""', '"""So: '),
                ("figures/*.py", "", "# why\n"))),
        Change("a rule's command", "workflow/rules/posgen.smk", evaluate, evaluate.replace("-m", "-W ignore -m"),
               EVALUATED),
        Change("a comment", "workflow/rules/posgen.smk", "# PosGen:", "# Of PosGen:", {}),
        *(Change("an environment, without `--sdm conda`", f"envs/{name}.yaml", "channels:", "# so\nchannels:", {})
          for name in ("figures", "posgen", "llm")),
    ]  # fmt: skip


CODE = "\n_ = None\n"
"""A line that a module's numbers do not depend on, and that nobody can know of."""
ELSEWHERE = "elsewhere/mine.py"


def in_functions() -> list[Change]:
    """One place of the package each, that changes numbers."""
    more = """
import numpy as np
from resonance.encoding.methods import register


@register("more")
def more(spec, head_dim, seq_len=None):
    return np.linspace(1.0, 0.01, head_dim // 2)
"""
    in_table = "encodings: [rope, resonance_rope, yarn, resonance_yarn]\n  seeds: [42]\n  data"
    rope = {"posgen_train_one": 12, "posgen_evaluate": 18, **BOTH, **LANGUAGE_MODELS, "figure1": 1}
    yarn = {"posgen_train_one": 6, "posgen_evaluate": 12, **BOTH, **FINETUNED}
    return [
        Change("statistics: another level", "resonance/record/stats.py", "0.975", "0.95",
               {**TABLE1, "leval_score": 4, **TABLE2, **PERPLEXITY, **PASSKEY}),
        Change("what a training depends on: another vocabulary", "resonance/posgen/settings.py",
               "self.data.modulus + self.choices.num_extra_tokens",
               "self.data.modulus + self.choices.num_extra_tokens + 3", POSGEN),
        Change("Table 2: `decode`", "resonance/leval/counts.py", "def decode(task: str, percent: float) -> int:\n",
               "def decode(task: str, percent: float) -> int:\n    percent = percent / 2\n",
               {"leval_score": 4, **TABLE2}),
        Change("a command: every evaluated value", "resonance/posgen/stages.py", "for name in NAMES}, **row}",
               'for name in NAMES}, **row, "value": 0.5}', EVALUATED),
        Change("RoPE's exponents", "resonance/encoding/methods/rope.py", "powers(spec.base, head_dim)",
               "powers(spec.base, head_dim) ** 1.01", rope),
        Change("YaRN's temperature", "resonance/encoding/methods/yarn.py", "0.1 * math.log", "0.2 * math.log", yarn),
        Change("a task: the pointer of semi_recursive", "resonance/posgen/tasks.py",
               "return (position - rule.prefix_length) // 2", "return (position - rule.prefix_length) // 3",
               {"posgen_data_one": 6, **POSGEN, "figure2": 1}),
        Change("a method of another package, of encoding `mine`", ELSEWHERE, "0.01", "0.02", MINE),
        Change("a method and an encoding more, in the preset's list", "resonance/encoding/methods/more.py", "", more,
               {"posgen_encoding": 2, **MINE},
               ((ENCODINGS, "\nrope: {", "\nmore: {method: more}\nrope: {"),
                (PRESET, in_table, in_table.replace("[rope,", "[more, rope,")))),
    ]  # fmt: skip


CHANGES = [*in_config(), *in_protocols(), *in_files()]
# After these the jobs themselves are others: only a dry run of their own tells.
OTHER_JOBS = {
    "`posgen.seeds: one more`", "`posgen.seeds: another`", "`llm.finetuning.encodings: one more`",
    *(f"`{name}`: `{field}`" for name in ("paper", "released") for field in ("prefixes", "train_encoding")),
}  # fmt: skip
# One of each kind in every run of the tests, all of them with `-m slow`.
QUICK = {
    *OTHER_JOBS,
    "encoding `yarn`",
    "a rule's command",
    "a comment, and a word of the docstring",
    *(change.what for change in in_functions()),
}
QUICK_FILES = {"figures/table1_posgen.py", "resonance/llm/models.py"}


def name_of(change: Change) -> str:
    return f"{change.path}: {change.what}"


def marked(change: Change):
    quick = change.what in QUICK or change.path in QUICK_FILES
    return pytest.param(change, id=name_of(change), marks=[] if quick else pytest.mark.slow)


def counted(jobs) -> dict[str, int]:
    return dict(Counter(jobs))


@pytest.mark.workflow
@pytest.mark.parametrize("change", [marked(change) for change in CHANGES if change.path != ELSEWHERE])
def test_a_change_reruns_what_depends_on_it_and_nothing_else(finished, edits, change):
    change.make(edits)
    assert wanted(finished) == change.jobs


@pytest.fixture(scope="module")
def with_mine(smoke_run, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """A copy of the finished run with one more encoding, whose method is of a package that is installed there, and the
    environment that knows it. Nothing was trained with it: empty files are taken for its results."""
    folder = copy_of_run(smoke_run, tmp_path_factory.mktemp("mine") / "repository")
    elsewhere = folder / ELSEWHERE
    about = elsewhere.parent / "mine-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[resonance.methods]\nmine = mine:mine\n")
    elsewhere.write_text(
        "import numpy as np\n\n\ndef mine(spec, head_dim, seq_len=None):\n"
        "    return np.linspace(1.0, 0.01, head_dim // 2)\n"
    )
    made = Edits(folder)
    made.replace(ENCODINGS, "\nrope: {", "\nmine: {method: mine}\nrope: {")
    made.replace(PRESET, "resonance_yarn]\n  seeds: [42]\n  data", "resonance_yarn, mine]\n  seeds: [42]\n  data")
    environment = {**environment_of(folder), "PYTHONPATH": str(elsewhere.parent)}
    planned = jobs_of(snakemake(folder, "--dry-run", environment=environment).stdout)
    outputs = [output for _, said in planned for output in said.get("output", [])]
    for output in outputs:
        (folder / output).parent.mkdir(parents=True, exist_ok=True)
        (folder / output).touch()
    assert snakemake(folder, *outputs, "--touch", "--force", environment=environment).returncode == 0
    return folder, environment


@pytest.mark.workflow
def test_a_method_of_another_package_counts_for_its_own_encodings(with_mine):
    (change,) = [change for change in CHANGES if change.path == ELSEWHERE]
    folder, environment = with_mine
    assert wanted(folder, environment=environment) == {}, "--touch takes what it touches as made"
    edits = Edits(folder)
    change.make(edits)
    assert wanted(folder, environment=environment) == change.jobs
    edits.undo()
    edits.replace("resonance/encoding/methods/yarn.py", "0.1 * math.log", "0.2 * math.log")
    (yarn,) = [change.jobs for change in CHANGES if change.what == "YaRN's temperature"]
    assert wanted(folder, environment=environment) == yarn, "none of mine among them"


# Every other change, on the jobs of one dry run: those that a change touches, and all behind them.


@pytest.fixture(scope="module")
def jobs(tmp_path_factory) -> list[tuple[str, dict[str, list[str]]]]:
    """Those behind `all`, each after those that it needs."""
    folder = copy_of_repository(tmp_path_factory.mktemp("jobs") / "repository")
    found = [job for job in jobs_of(snakemake(folder, "--forceall", "--dry-run").stdout) if job[0] not in LAST]
    made_by = {output: number for number, (_, said) in enumerate(found) for output in said["output"]}
    needs = {number: {made_by.get(path) for path in said.get("input", [])} for number, (_, said) in enumerate(found)}
    return [found[number] for number in TopologicalSorter(needs).static_order() if number is not None]


def touched(jobs, changed: Callable[[str, dict[str, str]], bool]) -> dict[str, int]:
    """The jobs that are changed, by rule and wildcards, and those that read what others of them make; by rule."""
    made, found = set(), []
    for rule, said in jobs:
        of = dict(pair.split("=") for pair in said.get("wildcards", []))
        if changed(rule, of) or made & set(said.get("input", [])):
            made |= set(said["output"])
            found.append(rule)
    return counted(found)


@pytest.mark.workflow
@pytest.mark.parametrize(
    "change", [change for change in (*in_config(), *in_protocols()) if change.what not in OTHER_JOBS], ids=name_of
)
def test_a_change_of_config_reaches_its_jobs_alone(change, jobs, config_folder):
    now = load(ROOT / "config", "smoke")
    change.make(Edits(config_folder.parent))
    after = load(config_folder, "smoke")
    assert touched(jobs, lambda *job: now.written(*job) != after.written(*job)) == change.jobs


# By rule or evaluation, where its code begins.
STAGES = {
    "posgen_data_one": "resonance.posgen.stages:generate",
    "posgen_baseline": "resonance.posgen.stages:baseline",
    "posgen_train_one": "resonance.posgen.stages:train",
    "posgen_evaluate": "resonance.posgen.stages:evaluate",
    "llm_pack": "resonance.llm.stages:pack",
    "llm_base": "resonance.llm.stages:base",
    "llm_finetune": "resonance.llm.stages:finetune",
    "perplexity": "resonance.llm.stages:evaluate resonance.llm.evaluations.perplexity",
    "passkey": "resonance.llm.stages:evaluate resonance.llm.evaluations.passkey",
    "leval_tasks": "resonance.leval.stages:tasks",
    "leval_answer": "resonance.leval.stages:answer",
    "leval_score": "resonance.leval.stages:score",
    "study_table": "figures.table1_posgen",
    "verdict": "figures.verdict",
    "study_shortcuts": "figures.shortcuts",
    "figure1": "figures.fig1_rotation_angles",
    "figure2": "figures.fig2_dependencies",
    "figure3_one": "figures.fig3_validation_loss",
    "figure4_one": "figures.fig4_perplexity",
    "passkey_figure": "figures.passkey",
    "table2_one": "figures.table2_leval",
    "table2_stand_in": "figures.table2_stand_in",
}


@pytest.fixture(scope="module")
def computed_with() -> dict[str, set[str]]:
    """By rule, the modules that its code is of."""
    return {rule: {line.split()[0] for line in code_of(*entries.split())} for rule, entries in STAGES.items()}


@pytest.mark.workflow
@pytest.mark.parametrize("change", [change for change in in_files() if change.new == CODE], ids=name_of)
def test_a_change_of_code_reaches_the_rules_that_compute_with_it(change, jobs, computed_with):
    module = change.path.removesuffix(".py").replace("/", ".")

    def changed(rule: str, of: dict[str, str]) -> bool:
        return module in computed_with.get(of["evaluation"] if rule == "llm_evaluate" else rule, ())

    assert touched(jobs, changed) == change.jobs


# The page


def page() -> str:
    lines = [PAGE.read_text(encoding="utf-8").split("\n| file |")[0]] if PAGE.exists() else [""]
    lines.append("| file | what is changed | jobs of `snakemake all` on the smoke preset |\n| --- | --- | --- |")
    for change in CHANGES:
        jobs = ", ".join(f"{rule} {count}" for rule, count in change.jobs.items()) or "none"
        path = ", ".join(dict.fromkeys(f"`{path}`" for path in (change.path, *(path for path, _, _ in change.more))))
        lines.append(f"| {path} | {change.what} | {jobs} |")
    return "\n".join(lines) + "\n"


def test_the_page_holds_the_table_that_the_tests_check():
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python tests/test_reruns.py"


if __name__ == "__main__":
    sys.exit(PAGE.write_text(page(), encoding="utf-8") == 0)
