"""Who may import whom, and who may load torch (resonance/__init__.py says it in words)."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resonance.encoding.methods import method_names
from resonance.llm.evaluations import evaluations
from resonance.posgen.rows import MEASURED
from resonance.posgen.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "resonance").rglob("*.py"))
FIGURES = sorted((ROOT / "figures").glob("*.py"))

# Those that compute with torch; every other module of ours, figures too, loads without it.
WITH_TORCH = {
    "encoding": {"ops", "reference", "rotary"},
    "hf": {"attention", "module", "swap"},
    "record": {"checkpoint"},
    "posgen": {"decoder", "evaluate", "step", "train"},
    "llm": {"checkpoints", "convert", "finetune", "generate", "models", "passkey", "perplexity"},
    "leval": {"answering"},
    "workflow": set(),
}

# What a file of a room may import of ours.
ALLOWED = {
    "encoding": ("resonance.encoding",),
    "hf": ("resonance.hf", "resonance.encoding"),
    "record": ("resonance.record", "resonance.encoding.spec", "resonance.encoding.methods"),
    "posgen": ("resonance.posgen", "resonance.record", "resonance.encoding"),
    "llm": ("resonance.llm", "resonance.record", "resonance.encoding", "resonance.hf"),
    "leval": ("resonance.leval", "resonance.llm", "resonance.record", "resonance.encoding", "resonance.hf"),
    "workflow": ("resonance.workflow", "resonance.posgen", "resonance.llm", "resonance.leval", "resonance.record"),
}


def imported(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports, wherever in the file, by its full name."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (above, node.module) if part)
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "resonance")


def within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[1] if len(parts) > 2 else ""


def without_torch() -> list[str]:
    ours = [path for path in FILES if path.stem not in WITH_TORCH.get(room(path), ()) and path.stem != "__main__"]
    # The evaluations are torch-free whatever they are called.
    ours += [path for path in FILES if path.parent.name == "evaluations" and path not in ours]
    return [module(path) for path in [path for path in ours if room(path) != "hf"] + FIGURES]


def loaded_after(*modules: str) -> set[str]:
    """The modules of torch and transformers that one interpreter has after importing ours, one by one."""
    code = (
        "import sys, importlib\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    for heavy in ('torch', 'transformers'):\n"
        "        if heavy in sys.modules: sys.exit(f'{name} loads {heavy}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    return {done.stderr.strip()} - {""}


def test_what_computes_nothing_loads_no_torch() -> None:
    assert loaded_after(*without_torch()) == set()


def test_the_torch_check_can_fail() -> None:
    assert loaded_after("resonance.encoding.rotary") == {"resonance.encoding.rotary loads torch"}


@pytest.mark.parametrize("path", [p for p in FILES if room(p)], ids=label)
def test_no_import_runs_up_or_across(path: Path) -> None:
    allowed = ALLOWED[room(path)]
    assert [name for name in imported(path) if not any(within(name, module) for module in allowed)] == []


def test_nobody_imports_a_command_line_but_the_root() -> None:
    for path in [*FILES, *FIGURES]:
        if path != ROOT / "resonance/cli.py" and path.stem != "__main__":
            assert not [name for name in imported(path) if re.search(r"(^|\.)cli(\.|$)", name)], label(path)


def test_no_two_modules_import_each_other_however_far_around() -> None:
    """Imports within functions count too: a circle that is put off is still one."""
    modules = {module(path): path for path in FILES}
    arrows = {name: {to for to in imported(path) if to in modules} - {name} for name, path in modules.items()}
    for name, path in modules.items():
        if path.name == "__init__.py":  # a package is no module of its own: its files may say where it is
            arrows[name] = {to for to in arrows[name] if not within(to, name)}
    left = dict(arrows)
    while leaves := [name for name, to in left.items() if not to & left.keys()]:
        for name in leaves:
            del left[name]
    assert {name: to & left.keys() for name, to in left.items()} == {}


def test_every_room_is_covered_by_a_rule() -> None:
    assert {room(path) for path in FILES} - {""} == set(ALLOWED) == set(WITH_TORCH)


def test_record_knows_no_task_model_or_metric() -> None:
    names = {*TASKS, *MEASURED, *evaluations(), "llama2", "smollm2", "tiny", "coursera", "tpo"} - {"accuracy", "loss"}
    for path in (ROOT / "resonance/record").glob("*.py"):
        found = names & set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
        assert not found, f"{label(path)} names {sorted(found)}"
    assert "yarn" in method_names()
