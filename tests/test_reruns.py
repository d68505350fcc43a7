"""What a change reruns: one edit at a time in a copy of a finished smoke run, and the jobs that Snakemake then wants.

docs/reruns.md is this file's list as a page: `python tests/test_reruns.py` writes it, and a test compares.
"""

import re
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from workflow_copy import ROOT, Edits, snakemake, wanted

PAGE = ROOT / "docs/reruns.md"
PRESET, ENCODINGS, PROTOCOLS, LLM_PROTOCOLS = (
    f"config/{name}.yaml" for name in ("smoke", "encodings", "protocols", "llm_protocols")
)

ONE = {"study_table": 1, "study_shortcuts": 1, "figure3_one": 1}  # what is made of one protocol's evaluations
BOTH = {rule: 2 * count for rule, count in ONE.items()}
FIGURE4 = {"figure4_one": 1}


def answered(count: int) -> dict[str, int]:
    return {"leval_answer": count, "leval_score": count, "table2_stand_in": 1}


def measured(count: int) -> dict[str, int]:
    """What is asked of so many language models, each of one encoding and strategy."""
    passkeys = {"llm_passkey": count, "passkey_figure": 1}
    return {"llm_evaluate": count, **FIGURE4, **passkeys, **answered(count)}


FINETUNED = {"llm_finetune": 2, **measured(2)}
LANGUAGE_MODELS = {"llm_base": 1, "llm_finetune": 2, **measured(4)}
TRAINED = {"posgen_train_one": 18, "posgen_evaluate": 24, **BOTH}
TABLE2 = {"table2_one": 1, "table2_stand_in": 1}
EVERY_FIGURE = {**BOTH, "figure1": 1, "figure2": 1, **TABLE2, **FIGURE4, "passkey_figure": 1}
YARN = ("yarn_ramp", "yarn_blend", "yarn_beta_fast", "yarn_beta_slow", "yarn_lengths", "yarn_temperature")


class Change(NamedTuple):
    """What is edited, in words; where; and the jobs by rule that Snakemake then wants."""

    what: str
    path: str
    old: str
    new: str
    jobs: dict[str, int]


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
         {"llm_settings": 1, "llm_evaluate": 4, **FIGURE4}),
        ("llm.passkey.seed", "repetitions: 2, seed: 0", "repetitions: 2, seed: 1",
         {"llm_settings": 1, "llm_passkey": 4, "passkey_figure": 1}),
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
            return {"llm_settings": 1, "llm_evaluate": 4, **FIGURE4}
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
        "table1_posgen.py": {"study_table": 2},
        "shortcuts.py": {"study_shortcuts": 2},
        "fig1_rotation_angles.py": {"figure1": 1},
        "fig2_dependencies.py": {"figure2": 1},
        "fig3_validation_loss.py": {"figure3_one": 2},
        "fig4_perplexity.py": FIGURE4,
        "passkey.py": {"passkey_figure": 1},
        "table2_leval.py": {"table2_one": 1},
        "table2_stand_in.py": {"table2_stand_in": 1},
        "leval.py": TABLE2,
        "rounding.py": {},
        "ablation.py": {},
        "style.py": EVERY_FIGURE,
        "style.mplstyle": EVERY_FIGURE,
        "inputs.py": EVERY_FIGURE,
        "tables.py": {"study_table": 2, **TABLE2, **FIGURE4, "passkey_figure": 1},
    }
    # What trains also evaluates; what evaluates also scores the rules that need no training.
    posgen = {"posgen_baseline": 6, **TRAINED}
    code = {
        "posgen/tasks.py": {"posgen_data_one": 6, **posgen},
        "posgen/decoder.py": posgen,
        "posgen/train.py": posgen,
        "posgen/evaluate.py": {"posgen_baseline": 6, "posgen_evaluate": 24, **BOTH},
        "posgen/progress.py": {},
        "encoding/frequencies.py": {**posgen, **LANGUAGE_MODELS},
        "encoding/rotary.py": {**posgen, **LANGUAGE_MODELS},
        "encoding/hf.py": LANGUAGE_MODELS,
        "llm/text.py": {"llm_pack": 2, "leval_tasks": 1, **LANGUAGE_MODELS},
        "llm/models.py": LANGUAGE_MODELS,
        "llm/finetune.py": LANGUAGE_MODELS,
        "llm/perplexity.py": measured(4),
        "llm/passkey.py": {"llm_passkey": 4, "passkey_figure": 1},
        "llm/generate.py": {"llm_passkey": 4, "passkey_figure": 1, **answered(4)},
        "llm/made.py": {"leval_tasks": 1, **answered(4)},
        "llm/scoring.py": {"leval_tasks": 1, **answered(4)},
        "record/config.py": {},
        "cli.py": {},
    }
    evaluate = '"python -m resonance posgen evaluate'
    return [
        *(Change("a script", f"figures/{name}", "\n", "\n\n", jobs) for name, jobs in figures.items()),
        Change("the paper's numbers", "config/published.yaml", "\n", "\n\n", {"study_table": 2, "table2_one": 1}),
        Change("a system text", "config/leval.yaml", "answer as briefly", "be as brief",
               {"leval_settings": 1, **answered(4)}),
        *(Change("code", f"resonance/{name}", "\nimport ", "\nimport sys as _\nimport ", jobs)
          for name, jobs in code.items()),
        Change("a comment", "resonance/posgen/train.py", "\nimport ", "\n# why\nimport ", {}),
        Change("a docstring", "resonance/posgen/train.py", '"""Training a', '"""So: training a', {}),
        Change("a rule's command", "workflow/rules/posgen.smk", evaluate, evaluate.replace("-m", "-W ignore -m"),
               {"posgen_evaluate": 24, **BOTH}),
        Change("a comment", "workflow/rules/posgen.smk", "# PosGen:", "# Of PosGen:", {}),
        *(Change("an environment, without `--sdm conda`", f"envs/{name}.yaml", "channels:", "# so\nchannels:", {})
          for name in ("figures", "posgen", "llm")),
    ]  # fmt: skip


CHANGES = [*in_config(), *in_protocols(), *in_files()]
# One of each kind in every run of the tests, all of them with `-m slow`.
QUICK = {
    "encoding `yarn`", "`posgen.seeds: one more`", "`posgen.training.checkpoint_seconds`", "`llm.finetuning.seed`",
    "`released`: `yarn_beta_fast`", "a comment", "a docstring", "a rule's command",
}  # fmt: skip
QUICK_FILES = {"figures/table1_posgen.py", "resonance/posgen/train.py"}


def marked(change: Change):
    quick = change.what in QUICK or change.path in QUICK_FILES
    return pytest.param(change, id=f"{change.path}: {change.what}", marks=[] if quick else pytest.mark.slow)


@pytest.mark.workflow
@pytest.mark.parametrize("change", [marked(change) for change in CHANGES])
def test_a_change_reruns_what_depends_on_it_and_nothing_else(finished, edits, change):
    edits.replace(change.path, change.old, change.new)
    assert wanted(finished) == change.jobs


@pytest.mark.workflow
def test_touching_takes_a_change_of_code_as_made(smoke_run, tmp_path):
    folder = Path(shutil.copytree(smoke_run, tmp_path / "repository", symlinks=True))
    Edits(folder).replace("resonance/posgen/decoder.py", "\nimport ", "\nimport sys as _\nimport ")
    assert wanted(folder)["posgen_train_one"] == 18
    assert snakemake(folder, "--touch").returncode == 0
    assert wanted(folder) == {}


def page() -> str:
    lines = [(ROOT / "docs/reruns.md").read_text().split("\n| file |")[0]] if PAGE.exists() else [""]
    lines.append("| file | what is changed | jobs of `snakemake all` on the smoke preset |\n| --- | --- | --- |")
    for change in CHANGES:
        jobs = ", ".join(f"{rule} {count}" for rule, count in change.jobs.items()) or "none"
        lines.append(f"| `{change.path}` | {change.what} | {jobs} |")
    return "\n".join(lines) + "\n"


def test_the_page_holds_the_table_that_the_tests_check():
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python tests/test_reruns.py"


if __name__ == "__main__":
    sys.exit(PAGE.write_text(page(), encoding="utf-8") == 0)
