"""What a new method, task, evaluation, model and figure take: made in a copy of the repository, the files counted.

docs/adding.md says the same in words.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from workflow_copy import ROOT, copy_of_repository, environment_of, jobs_of, snakemake

METHOD = '''"""Half the angle."""

import numpy as np

from resonance.encoding.methods import Constants, powers, register


@register("halved")
def halved(spec: Constants, head_dim: int, seq_len: int | None = None) -> np.ndarray:
    """theta_j = b^(-2j/d) / 2."""
    return powers(spec.base, head_dim) / 2
'''

EVALUATION = '''"""The first logit of a text, which says nothing."""

import polars as pl

from resonance.llm.evaluations import Evaluation
from resonance.llm.rows import NAMES
from resonance.llm.settings import Running
from resonance.record.rows import Kind
from resonance.record.settings import Count, Settings


class FirstSettings(Settings):
    """How long a text is read."""

    length: Count
    """Tokens."""


class FirstRun(Running):
    """What a measurement depends on."""

    model: str
    length: int


FIRST = Kind("first", {**NAMES, "metric": pl.String, "value": pl.Float64}, {"first_logit": "the first logit"})


def _units(model, tokenizer, texts, run):
    import torch

    def first():
        logits = model(input_ids=torch.tensor([tokenizer.encode("a" * run.length)])).logits
        return [{"metric": "first_logit", "value": float(logits[0, 0, 0])}]

    return {"first": first}


EVALUATION = Evaluation(
    name="first",
    settings=FirstSettings,
    kind=FIRST,
    run=FirstRun,
    run_of=lambda llm, protocol, model: FirstRun(model=model, length=llm.first.length, **llm.running()),
    models=lambda llm: list(llm.models),
    check=lambda llm: None,
    windows=lambda llm, model, follows_length: [llm.first.length],
    units=_units,
    disk=1e3,
)
'''

FIGURE = '''"""A line."""

from matplotlib.figure import Figure

from figures import style
from figures.inputs import Output, Preset, run


def main(output: Output, preset: Preset) -> None:
    """One line, of no rows."""
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    style.save(figure, output, f"A line (preset {preset})")


if __name__ == "__main__":
    run(main)
'''

MODEL = """    small:
      source: train:tiny
      title: a smaller one
      stand_in: true
      train_length: 64
      rope_base: 1e4
      scale: 4.0
      tiny: {d_model: 16, d_ff: 32, num_layers: 1, num_heads: 1, text: code, steps: 2, sequences_per_step: 2,
             learning_rate: 3e-3}
      strategies: {}
      lengths: [32, 64]
  texts:
"""


DRAWINGS = "workflow/rules/figures_names.smk"


class Touched:
    """A copy of the repository, and the files that are new or changed in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = copy_of_repository(folder), set()

    def write(self, path: str, text: str) -> None:
        (self.folder / path).write_text(text)
        self.files.add(path)

    def replace(self, path: str, old: str, new: str) -> None:
        text = (self.folder / path).read_text()
        assert text.count(old) == 1, f"{path} no longer holds {old!r} once: mend the test"
        self.write(path, text.replace(old, new))

    def insert(self, path: str, before: str, new: str) -> None:
        self.replace(path, before, new + before)

    def python(self, code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=self.folder, env=environment_of(self.folder), capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def jobs(self, *targets: str) -> list[tuple[str, dict]]:
        planned = snakemake(self.folder, *targets, "--dry-run")
        assert planned.returncode == 0, planned.stdout[-2000:] + planned.stderr[-2000:]
        return jobs_of(planned.stdout)


@pytest.fixture
def copy(tmp_path: Path) -> Touched:
    return Touched(tmp_path / "repository")


def test_a_method_takes_three_files(copy: Touched) -> None:
    copy.write("resonance/encoding/methods/halved.py", METHOD)
    copy.insert("config/encodings.yaml", "\nrope: {method: rope}", "\nhalved: {method: halved}")
    rows = "  encodings: [rope, resonance_rope, yarn, resonance_yarn]\n  seeds: [42]\n  data"
    copy.replace("config/smoke.yaml", rows, rows.replace("rope,", "rope, halved,", 1))
    said = copy.python(
        "from resonance.encoding import EncodingSpec, frequency_table as f\n"
        "print(2 * f(EncodingSpec(method='halved'), 8).theta[1] == f(EncodingSpec(), 8).theta[1])"
    )
    assert said == "True" and len(copy.files) <= 3
    jobs = [(rule, about.get("wildcards", [])) for rule, about in copy.jobs("table1")]
    assert sum("encoding=halved" in wildcards for rule, wildcards in jobs if rule == "posgen_evaluate") == 6
    trained = [wildcards for rule, wildcards in jobs if rule == "posgen_train_one"]
    assert sum("train_encoding=halved" in wildcards for wildcards in trained) == 3  # `released` trains RoPE (P2)


def test_a_task_takes_two_files(copy: Touched) -> None:
    copy.insert(
        "resonance/posgen/tasks.py",
        "TASKS = {\n",
        "def _close(rule, position):\n    return position - rule.k - 1\n\n\n",
    )
    copy.insert(
        "resonance/posgen/tasks.py", '}\n"""Every task by name.', '    "nearest": Task(_close, _sum, _nothing),\n'
    )
    text = (copy.folder / "config/smoke.yaml").read_text()
    text = text.replace("tasks: [recursive, cot, semi_recursive]\n  encodings: [rope, resonance_rope, yarn",
                        "tasks: [recursive, nearest]\n  encodings: [rope, resonance_rope, yarn", 1)  # fmt: skip
    text = re.sub(r"\{recursive: ", "{nearest: 8, recursive: ", text)
    copy.write("config/smoke.yaml", text)
    said = copy.python(
        "import numpy as np\nfrom resonance.posgen.tasks import Rule, generate, local_rule\n"
        "rule = Rule(task='nearest', modulus=7, j=1, k=3)\n"
        "x = generate(rule, np.array([[1, 2, 3, 4]]), 12)\n"
        "print((rule.h(x[:, rule.dependencies(11)].T) == x[:, 11]).all(), (local_rule(rule, x) == -1).all())"
    )
    assert said == "True True" and len(copy.files) <= 2
    trained = [about["wildcards"] for rule, about in copy.jobs("table1") if rule == "posgen_train_one"]
    assert any("task=nearest" in wildcards for wildcards in trained)


def test_an_evaluation_takes_two_files_and_with_a_figure_four(copy: Touched) -> None:
    copy.write("resonance/llm/evaluations/first.py", EVALUATION)
    copy.replace("config/smoke.yaml", "  passkey: {lengths", "  first: {length: 8}\n  passkey: {lengths")
    copy.write("figures/line.py", FIGURE)
    copy.insert(DRAWINGS, "}\n\nTABLES +=", '    "line": drawing("line", figure_at(figure("line"), None, None)),\n')
    assert len(copy.files) <= 4
    path = "results/smoke/llm/tiny/runs/rope/untuned/first.parquet"
    found = [about for rule, about in copy.jobs(path) if rule == "llm_evaluate"]
    assert [about["output"] for about in found] == [[path]] and "evaluation=first" in found[0]["wildcards"]
    said = copy.python(
        "from pathlib import Path\nfrom resonance.workflow.preset import load\nfrom resonance.llm import cost\n"
        "from resonance.record.job import Job, RuleResources\nllm = load(Path('config'), 'smoke').llm\n"
        "names = {'model': 'tiny', 'encoding': 'rope', 'strategy': 'untuned', 'evaluation': 'first'}\n"
        "asks = RuleResources(threads=1, mem_mb=1, runtime=1, gpu=0)\n"
        "print(cost.COSTS['llm_evaluate'](llm, Job('llm_evaluate', names, asks)).work.flop > 0)"
    )
    assert said == "True"


def test_a_figure_takes_three_files_and_is_drawn(copy: Touched) -> None:
    copy.write("figures/line.py", FIGURE)
    copy.write("workflow/report/line.rst", "A line.\n")
    copy.insert(
        DRAWINGS, "}\n\nTABLES +=", '    "line": drawing("line", figure_at(figure("line"), "line", "A line")),\n'
    )
    assert len(copy.files) <= 3
    done = snakemake(copy.folder, "results/smoke/figures/line.png", "--cores", "1")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert (copy.folder / "results/smoke/figures/line.svg").stat().st_size > 1000


def test_a_model_takes_one_file(copy: Touched) -> None:
    copy.replace("config/smoke.yaml", "  texts:\n", MODEL)
    assert copy.files == {"config/smoke.yaml"}
    bases = [about["wildcards"] for rule, about in copy.jobs("perplexity") if rule == "llm_base"]
    assert sorted(bases) == [["model=small"], ["model=tiny"]]


def test_the_page_says_the_same() -> None:
    page = (ROOT / "docs/adding.md").read_text(encoding="utf-8")
    said = re.findall(r"^\| ([^|]+) \| (\d)[^|]* \|", page, re.MULTILINE)
    assert dict(said) == {
        "a position encoding of any kind, [to rank it](rank.md)": "1",  # tests/test_ranking.py does so
        "a method": "3", "a method in a package of yours": "2", "a task of PosGen": "2",
        "an evaluation of language models": "2", "a language model": "1", "a figure or table": "3",
    }  # fmt: skip
    assert "| an evaluation of language models | 2, with a figure 4 |" in page
