"""Who may import whom, and who may load torch (resonance/__init__.py says it in words)."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from resonance.leval.catalogue import ALL_TASKS
from resonance.llm.evaluations import evaluations
from resonance.posgen.rows import BASELINE, EVALUATION, TRAINING
from resonance.posgen.tasks import TASKS
from resonance.record.settings import read_yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "resonance").rglob("*.py"))
ROOMS = ("encoding", "hf", "record", "posgen", "llm", "leval", "workflow")

# What a file of a room may import of ours, beside its own room.
ALLOWED = {
    "encoding": (),
    "hf": ("resonance.encoding",),
    "record": ("resonance.encoding.spec", "resonance.encoding.methods"),
    "posgen": ("resonance.record", "resonance.encoding"),
    "llm": ("resonance.record", "resonance.encoding", "resonance.hf"),
    "leval": ("resonance.llm", "resonance.record", "resonance.encoding", "resonance.hf"),
    "workflow": ("resonance.posgen", "resonance.llm", "resonance.leval", "resonance.record", "resonance.encoding"),
    "figures": tuple(f"resonance.{room}" for room in ROOMS if room not in ("hf", "workflow")),
}

# The modules that load torch, or transformers: all others load without, in a fraction of the time.
WITH_TORCH = {
    f"resonance.{room}.{name}"
    for room, names in {
        "encoding": ("ops", "reference", "rotary"),
        "hf": ("attention", "export", "gguf_file", "inspect", "module", "parameters", "structure", "swap"),
        "record": ("checkpoint",),
        "posgen": (
            "decoder",
            "draws",
            "evaluate",
            "probe",
            "step",
            "train",
            *(f"ranking.{name}" for name in ("check", "cost", "decoder", "encoding", "rank", "template", "train")),
            *(
                f"ranking.encodings{name}"
                for name in (
                    "",
                    ".alibi",
                    ".cope",
                    ".fire",
                    ".fope",
                    ".nope",
                    ".p_rope",
                    ".randomized",
                    ".rotary",
                    ".sinusoidal",
                    ".t5",
                    ".window",
                )
            ),
        ),
        "llm": (
            "attention",
            "base",
            "checkpoints",
            "convert",
            "finetune",
            "generate",
            "models",
            "passkey",
            "perplexity",
            "tails",
        ),
        "leval": ("answering",),
    }.items()
    for name in names
}


def name_of(path: Path) -> str:
    """A module's full name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in [*FILES, *sorted((ROOT / "figures").glob("*.py"))]}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(module: str, *, inside: bool) -> Iterator[str]:
    """Every module of ours that a module imports; inside: in a function too. None of what types alone need."""

    def statements(node: ast.AST) -> Iterator[ast.stmt]:
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside:
                continue
            if isinstance(inner, ast.If) and "TYPE_CHECKING" in ast.unparse(inner.test):
                continue
            yield inner
            yield from statements(inner)

    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in statements(parsed(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (above, node.module) if part)
            whole = [f"{source}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else source for name in whole]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in ("resonance", "figures"))


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def room_of(module: str) -> str:
    first, _, rest = module.partition(".")
    return first if first == "figures" else rest.partition(".")[0]


def test_what_has_no_use_for_torch_loads_without_it() -> None:
    """All in one interpreter, which then loads torch, so that the check can fail."""
    without = [name for name in MODULES if name not in WITH_TORCH and name != "resonance.__main__"]
    code = (
        "import importlib, json, sys\n"
        "loaded = lambda: [name for name in ('torch', 'transformers') if name in sys.modules]\n"
        f"said = {{}}\nfor name in {[*without, 'resonance.encoding.rotary']}:\n"
        "    importlib.import_module(name)\n    said[name] = loaded()\nprint(json.dumps(said))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.pop("resonance.encoding.rotary") == ["torch"]
    first = next((name for name, loaded in said.items() if loaded), None)
    assert first is None, f"{first} loads {said[first]}"
    assert len(said) > 70


@pytest.mark.parametrize("module", sorted(WITH_TORCH))
def test_what_is_said_to_need_torch_imports_it(module: str) -> None:
    text = MODULES[module].read_text()
    direct = re.search(r"^(import|from) (torch|transformers)\b", text, re.MULTILINE)
    assert direct or WITH_TORCH & set(imports(module, inside=False)), "list it no longer"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if room_of(name) in ALLOWED))
def test_no_import_runs_up_or_across(module: str) -> None:
    room = room_of(module)
    allowed = (room if room == "figures" else f"resonance.{room}", *ALLOWED[room])
    assert [name for name in imports(module, inside=True) if not any(within(name, each) for each in allowed)] == []


def test_every_room_is_covered_by_a_rule() -> None:
    rooms = {path.relative_to(ROOT / "resonance").parts[0] for path in FILES if path.parent != ROOT / "resonance"}
    assert rooms == set(ROOMS) == set(ALLOWED) - {"figures"}


def test_nobody_imports_a_command_line_but_the_one_that_puts_them_together() -> None:
    found = {name: {each for each in imports(name, inside=True) if each.endswith(".cli")} for name in MODULES}
    wings = {f"resonance.{room}.cli" for room in ("hf", "posgen", "llm", "leval", "workflow")}
    assert {name: clis for name, clis in found.items() if clis} == {
        "resonance.cli": wings,
        "resonance.__main__": {"resonance.cli"},
    }


@pytest.mark.parametrize("inside", [False, True], ids=["on loading", "at any time"])
def test_no_module_needs_itself(inside: bool) -> None:
    """Among all modules, so inside a room too. An evaluation of a language model and the module that measures it know
    each other, the second only once a model is to be measured (`llm.evaluations`)."""
    graph = {name: set(imports(name, inside=inside)) - {name} for name in MODULES}
    if inside:
        for name in evaluations():
            graph[f"resonance.llm.evaluations.{name}"] -= {f"resonance.llm.{name}"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_check_for_cycles_can_fail() -> None:
    graph = {name: set(imports(name, inside=True)) for name in MODULES}
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()


# record/ knows no task, model or metric


@cache
def registered() -> set[str]:
    """Names that wings give to what they measure, and presets to their models."""
    kinds = [TRAINING, EVALUATION, BASELINE, *(each.kind for each in evaluations().values())]
    presets = [read_yaml(path) for path in (ROOT / "config").glob("*.yaml")]
    models = {name for preset in presets for name in (preset.get("llm") or {}).get("models", {})}
    metrics = {metric for kind in kinds for metric in kind.metrics}
    return {*TASKS, *ALL_TASKS, *evaluations(), *models, *metrics, *(kind.name for kind in kinds)}


ENGLISH = {"found", "training", "evaluation", "baseline", "recursive", "loss", "accuracy", "cot", "tiny"}
"""Names that are words of the language too: these are looked for as values, among strings and names alone."""


@pytest.mark.parametrize("path", sorted((ROOT / "resonance/record").glob("*.py")), ids=lambda path: path.stem)
def test_the_record_knows_no_task_model_or_metric(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    names = registered()
    assert {"semi_recursive", "perplexity", "ood_accuracy", "llama2_7b", "coursera"} <= names
    assert [name for name in sorted(names - ENGLISH) if re.search(rf"\b{re.escape(name)}\b", text)] == []
    strings = {node.value for node in ast.walk(parsed(path)) if isinstance(node, ast.Constant)}
    assert sorted(names & strings) == []
