"""Who may import whom, and who may load torch (resonance/__init__.py says it in words)."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "resonance").rglob("*.py"))

WITHOUT_TORCH = [
    "resonance.encoding.spec",
    "resonance.encoding.frequencies",
    "resonance.record.settings",
    "resonance.posgen.protocol",
    "resonance.workflow.preset",
    "resonance.record.provenance",
    "resonance.record.paths",
    "resonance.record.rows",
    "resonance.record.stats",
    "resonance.record.files",
    "resonance.record.identity",
    "resonance.llm.settings",
    "resonance.llm.protocol",
    "resonance.llm.runs",
    "resonance.leval.counts",
    "resonance.leval.settings",
    "resonance.leval.catalogue",
    "resonance.llm.text",
    "resonance.leval.reading",
    "resonance.leval.scoring",
    "resonance.leval.files",
    "resonance.leval.journal",
    "resonance.leval.made",
    "resonance.leval.questions",
    "resonance.leval.cost",
    "resonance.posgen.tasks",
    "resonance.plan",
    "resonance.workflow.plan",
    "resonance.cli",
]

# What a file of a room may import of ours.
ALLOWED = {
    "encoding": ("resonance.encoding",),
    "record": ("resonance.record", "resonance.encoding.spec"),
    "posgen": ("resonance.posgen", "resonance.record", "resonance.encoding"),
    "llm": ("resonance.llm", "resonance.record", "resonance.encoding"),
    "plan": ("resonance.plan", "resonance.record", "resonance.llm.text"),
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


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_module_loads_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or f"{module} loads torch"


@pytest.mark.parametrize("module", ["resonance.leval.scoring", "resonance.leval.files", "resonance.cli"])
def test_module_loads_without_transformers(module: str) -> None:
    code = f"import sys, {module}; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_torch_check_can_fail() -> None:
    code = "import sys, resonance.encoding.rotary; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 1


@pytest.mark.parametrize("path", [p for p in FILES if p.parent.name in ALLOWED], ids=label)
def test_no_import_runs_up_or_across(path: Path) -> None:
    allowed = ALLOWED[path.parent.name]
    assert [name for name in imported(path) if not any(within(name, module) for module in allowed)] == []


@pytest.mark.parametrize("path", [p for p in FILES if p.stem not in ("cli", "__main__")], ids=label)
def test_nobody_imports_the_command_line(path: Path) -> None:
    assert [name for name in imported(path) if within(name, "resonance.cli")] == []


def test_every_room_is_covered_by_a_rule() -> None:
    rooms = {p.parent.name for p in FILES if p.parent != ROOT / "resonance"}
    assert rooms == set(ALLOWED)
