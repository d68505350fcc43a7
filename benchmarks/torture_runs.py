"""Small runs of every wing, for `benchmarks.torture` to break: the lines of the workflow's rules, by hand, in seconds.

CHAIN holds the lines, each reading what those before it wrote; OUTPUTS what each writes, the last file last; READERS
who reads a kind of file.
"""

import contextlib
import importlib
import io
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from figures.inputs import run as run_figure
from resonance.cli import main
from resonance.leval import questions
from resonance.leval.rows import ANSWERS
from resonance.llm.base import Base
from resonance.llm.evaluations import evaluations
from resonance.llm.rows import TRAINING as LLM_TRAINING
from resonance.llm.settings import Text
from resonance.llm.text import Packed
from resonance.posgen.rows import BASELINE, EVALUATION, STUDY, TRAINING
from resonance.posgen.stages import read_split, read_trained
from resonance.record.encoding import read_encoding
from resonance.record.files import write_text
from resonance.record.rows import read_rows
from resonance.workflow.preset import load

ROOT = Path(__file__).resolve().parents[1]
_POSGEN = "results/smoke/posgen"
_DATA, _RUN = f"{_POSGEN}/data", f"{_POSGEN}/runs/paper/cot/rope/seed42"
_SPLITS = ("train", "validation", "test")
_TUNED = "llm/runs/yarn/long"

CHAIN = {
    "posgen generate": [
        "posgen", "generate", "settings/data.json", *(f"--output={_DATA}/{split}.parquet" for split in _SPLITS)],
    "posgen generate, another task": [
        "posgen", "generate", "settings/other.json", *(f"--output=other/{split}.parquet" for split in _SPLITS)],
    "posgen baseline": [
        "posgen", "baseline", "settings/data.json", f"{_DATA}/test.parquet", "paper", f"{_DATA}/baseline.parquet"],
    "posgen train": [
        "posgen", "train", "settings/train.json", "encodings/rope.json", f"{_DATA}/train.parquet",
        f"{_DATA}/validation.parquet", _RUN, "--seed=42"],
    "posgen train, another seed": [
        "posgen", "train", "settings/train.json", "encodings/rope.json", f"{_DATA}/train.parquet",
        f"{_DATA}/validation.parquet", "other/seed7", "--seed=7"],
    "posgen evaluate": [
        "posgen", "evaluate", f"{_RUN}/model.safetensors", "encodings/rope.json", "settings/evaluate.json",
        f"{_DATA}/validation.parquet", f"{_DATA}/test.parquet", f"{_RUN}/eval/rope.parquet"],
    "collect": [
        "collect", "smoke", "table1", "study.parquet", "--protocol=paper", "--task=cot", "--encoding=rope", "--seed=42",
        f"--folder={ROOT / 'config'}"],
    "figures.table1_posgen": [
        "figures.table1_posgen", "--output=table1", "--preset=smoke", "--protocol=paper", "--encoding=rope",
        f"--evaluation={_RUN}/eval/rope.parquet", f"--published={ROOT / 'config/published.yaml'}",
        f"--baseline={_DATA}/baseline.parquet"],
    "llm pack": ["llm", "pack", "settings/text.json", "llm/text"],
    "llm base": ["llm", "base", "settings/base.json", "llm/base/base.json", "--text=llm/text"],
    "llm finetune": [
        "llm", "finetune", "settings/finetune.json", "encodings/yarn.json", "llm/base/base.json", "llm/text", _TUNED],
    **{f"llm evaluate {name}": [
        "llm", "evaluate", name, f"settings/{name}.json", "encodings/yarn.json", "llm/base/base.json", "long",
        f"{_TUNED}/{name}.parquet", *texts, f"--model={_TUNED}/model"]
       for name, texts in (("perplexity", ["--text=code=llm/text", "--train-text=llm/text"]), ("passkey", []))},
    "leval tasks": ["leval", "tasks", "settings/tasks.json", "leval/tasks"],
    "leval answer": [
        "leval", "answer", "settings/answer.json", "encodings/yarn.json", "llm/base/base.json", "long", "leval/tasks",
        "leval/predictions", "leval/run.json", "--journal=leval/journal", f"--model={_TUNED}/model"],
    "leval score": [
        "leval", "score", "leval/predictions", "--model=tiny", "--encoding=yarn", "--strategy=long",
        "--record=leval/run.json", "--output=leval/scores.parquet"],
}  # fmt: skip

OUTPUTS = {
    "posgen generate": [f"{_DATA}/{split}.parquet" for split in _SPLITS],
    "posgen baseline": [f"{_DATA}/baseline.parquet"],
    "posgen train": [
        f"{_RUN}/{n}" for n in ("snapshots.safetensors", "model.safetensors", "train.parquet", "run.json")
    ],
    "posgen evaluate": [f"{_RUN}/eval/rope.parquet"],
    "collect": ["study.parquet"],
    "figures.table1_posgen": [f"table1{kind}" for kind in (".csv", "_pairs.csv", ".md", ".tex", ".html")],
    "llm pack": ["llm/text/tokens.bin", "llm/text/documents.parquet"],
    "llm base": ["llm/base/model", "llm/base/train.parquet", "llm/base/run.json", "llm/base/base.json"],
    "llm finetune": [f"{_TUNED}/{name}" for name in ("model", "train.parquet", "run.json")],
    "llm evaluate perplexity": [f"{_TUNED}/perplexity.parquet"],
    "llm evaluate passkey": [f"{_TUNED}/passkey.parquet"],
    "leval tasks": [f"leval/tasks/{name}" for name in ("line_end.jsonl", "line_end_blind.jsonl", "tasks.json")],
    "leval answer": ["leval/predictions", "leval/run.json"],
    "leval score": ["leval/scores.parquet"],
}


def _tuned(path: Path) -> None:
    """Fine-tuned weights as a command reads them, from their folder in the runs."""
    root = path.parents[5]
    spec = read_encoding(root / "encodings/yarn.json").to_dict()
    Base.read(root / "llm/base/base.json").check_tuned(path.parent, "tiny", "long", spec)


def _answers(path: Path) -> None:
    """Answers as `leval score --record` reads them."""
    status, said = call(CHAIN["leval score"], path.parents[2])
    if status:
        raise ValueError(said.strip())


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    **{
        name: (f"{_RUN}/{name}", lambda path: read_trained(path.with_name("model.safetensors")))
        for name in ("model.safetensors", "snapshots.safetensors", "run.json")
    },
    "sequences": (f"{_DATA}/test.parquet", lambda path: read_split(path, "test", task="cot")),
    "evaluation": (f"{_RUN}/eval/rope.parquet", lambda path: read_rows(path, EVALUATION)),
    "curve": (f"{_RUN}/train.parquet", lambda path: read_rows(path, TRAINING)),
    "baseline": (f"{_DATA}/baseline.parquet", lambda path: read_rows(path, BASELINE)),
    "study": ("study.parquet", lambda path: read_rows(path, STUDY)),
    "packed text": ("llm/text/documents.parquet", lambda path: Packed(path.parent)),
    "packed tokens": ("llm/text/tokens.bin", lambda path: Packed(path.parent)),
    "base.json": ("llm/base/base.json", Base.read),
    "base weights": ("llm/base/model/model.safetensors", lambda path: Base.read(path.parents[1] / "base.json")),
    "fine-tuned weights": (f"{_TUNED}/model/model.safetensors", _tuned),
    "fine-tuning curve": (f"{_TUNED}/train.parquet", lambda path: read_rows(path, LLM_TRAINING)),
    "perplexity": (f"{_TUNED}/perplexity.parquet", lambda path: read_rows(path, evaluations()["perplexity"].kind)),
    "passkey": (f"{_TUNED}/passkey.parquet", lambda path: read_rows(path, evaluations()["passkey"].kind)),
    "questions": ("leval/tasks/line_end.jsonl", lambda path: questions.read(path.parent)),
    "list of questions": ("leval/tasks/tasks.json", lambda path: questions.read(path.parent)),
    "answers": ("leval/predictions/line_end.jsonl", _answers),
    "scores": ("leval/scores.parquet", lambda path: read_rows(path, ANSWERS)),
}


def call(line: list[str], folder: Path) -> tuple[int, str]:
    """A command in this process and in a folder: its status and what it says on stderr; 99 and the traceback where an
    error gets through."""
    said = io.StringIO()
    with (
        contextlib.chdir(folder),
        patch.object(sys, "argv", ["resonance", *(line[1:] if line[0].startswith("figures.") else line)]),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(said),
    ):
        try:
            run_figure(importlib.import_module(line[0]).main) if line[0].startswith("figures.") else main()
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
        except BaseException:
            return 99, said.getvalue() + traceback.format_exc()
    return 0, said.getvalue()


def make_runs(folder: Path) -> Path:
    """Every line of CHAIN in a folder, with the settings that the smoke preset gives them. Raises RuntimeError."""
    preset = load(ROOT / "config", "smoke")
    posgen, llm, leval = preset.posgen, preset.llm, preset.leval
    code = llm.settings.texts["code"]

    def at_hand(text: Text) -> Text:
        return text.model_copy(update={"source": f"path:{ROOT / text.source.removeprefix('path:')}"})

    made = {
        "settings/data": posgen.data_run("paper", "cot"),
        "settings/other": posgen.data_run("paper", "recursive"),
        "settings/train": posgen.train_run("paper", "cot"),
        "settings/evaluate": posgen.evaluate_run(),
        "encodings/rope": posgen.spec("paper", "rope"),
        "encodings/yarn": llm.spec("tiny", "yarn"),
        "settings/text": llm.text_run("tiny", "code").model_copy(update={"text": at_hand(code)}),
        "settings/base": llm.model_run("tiny"),
        "settings/finetune": llm.finetune_run("tiny", "long"),
        "settings/passkey": llm.evaluation_run("tiny", "passkey"),
        "settings/answer": leval.answer_run("tiny"),
    }
    perplexity, asked = llm.evaluation_run("tiny", "perplexity"), leval.tasks_run()
    corpora = {"code": perplexity.settings.corpora["code"]}
    made["settings/perplexity"] = perplexity.model_copy(
        update={
            "settings": perplexity.settings.model_copy(update={"corpora": corpora}),
            "min_tokens": {"code": code.min_tokens},
        }
    )
    made["settings/tasks"] = asked.model_copy(update={"text": at_hand(asked.text)})
    for name, values in made.items():
        write_text(Path(folder) / f"{name}.json", values.to_json())
    for name, line in CHAIN.items():
        status, said = call(line, folder)
        if status:
            raise RuntimeError(f"{name} ended with {status}: {said}")
        for output in OUTPUTS.get(name, []):
            if (Path(folder) / output).is_dir():
                (Path(folder) / output / ".snakemake_timestamp").touch()  # as in the folders that a rule declares
    return Path(folder)
