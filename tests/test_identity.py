"""Which code a command computes with, what of it counts, and how two identities are told apart."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from resonance.record import identity as identities
from resonance.record.identity import code_of, differences, digest, identity, what_counts

ROOT = Path(__file__).resolve().parents[1]
TRAIN = "resonance.posgen.stages:train"


def modules(*entries: str, methods: tuple[str, ...] = ()) -> set[str]:
    return {line.split()[0] for line in code_of(*entries, methods=methods)}


def test_a_training_computes_with_the_decoder_and_the_encoding_and_not_with_files_or_progress():
    used = modules(TRAIN)
    assert {TRAIN, "resonance.posgen.train", "resonance.posgen.decoder", "resonance.encoding.frequencies"} <= used
    assert not [name for name in used if name.startswith(("resonance.llm", "resonance.leval", "resonance.workflow"))]
    assert not [name for name in used if name.endswith((".cli", ".paths", ".cost", ".preset"))]
    for name in ("checkpoint", "files", "identity", "progress", "provenance", "job"):
        assert f"resonance.record.{name}" not in used, "what moves results makes none"
    assert "resonance.posgen.evaluate" not in used and "figures.style" not in used


def test_a_method_counts_for_its_encodings_alone():
    without = modules(TRAIN)
    assert not [name for name in without if name.startswith("resonance.encoding.methods.")]
    assert modules(TRAIN, methods=("rope",)) - without == {"resonance.encoding.methods.rope"}
    assert modules(TRAIN, methods=("ntk", "rope")) - without == {
        f"resonance.encoding.methods.{name}" for name in ("ntk", "shared", "rope")
    }


@pytest.mark.parametrize("entry", ["resonance.posgen.trane", "resonance.posgen.stages:trane", "figures.fig0"])
def test_a_missing_module_or_function_is_an_error(entry):
    with pytest.raises(FileNotFoundError):
        code_of(entry)


# A package of two commands, to change.

TREE = {
    "__init__": "",
    "stages": '''"""Two commands."""

from resonance.toy import left, right
from resonance.toy.paths import PLACE
from resonance.toy.settings import A, B
from resonance.record.files import write_text

LIMIT = 3
TABLE = {"one": LIMIT}


def marked(function):
    return function


@marked
def one(x):
    """What one does."""
    from resonance.toy.lazy import two

    write_text(PLACE, two(x))
    return left.f(A, x, TABLE)


def two(x):
    return _help(B) + right.g(x)


def _help(y):
    return y
''',
    "settings": "class A:\n    x: int\n\n\nclass B:\n    y: int\n",
    "left": "from resonance.toy import behind\n",
    "right": "VALUE = 1\n",
    "behind": "VALUE = 2\n",
    "lazy": "VALUE = 3\n",
    "paths": "PLACE = 4\n",
    "beside": "VALUE = 5\n",
}


@pytest.fixture
def toy(tmp_path, monkeypatch) -> Callable[[str, str, str], tuple[list[str], list[str]]]:
    """Edits the package, and gives the code of both commands."""

    def forget() -> None:
        for function in vars(identities).values():
            if hasattr(function, "cache_clear"):
                function.cache_clear()

    folder = tmp_path / "resonance/toy"
    folder.mkdir(parents=True)
    for name, text in TREE.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "right.txt").write_text("beside\n")
    monkeypatch.setattr(identities, "ROOT", tmp_path)

    def code(path: str = "left.py", old: str = "", new: str = "") -> tuple[list[str], list[str]]:
        file: Path = folder / path
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new) if old else file.read_text() + new)
        forget()
        return code_of("resonance.toy.stages:one"), code_of("resonance.toy.stages:two")

    yield code
    forget()


@pytest.mark.parametrize(
    ("path", "old", "new", "changes"),
    [
        ("stages.py", "return left.f(A, x, TABLE)", "return left.f(A, 2 * x, TABLE)", "one"),
        ("stages.py", "LIMIT = 3", "LIMIT = 4", "one"),
        ("stages.py", "    return function", "    return print or function", "one"),
        ("stages.py", "@marked", "@marked  # so", ""),
        ("stages.py", "    return y", "    return -y", "two"),
        ("stages.py", "right.g(x)", "right.h(x)", "two"),
        ("stages.py", "What one does", "What it does", ""),
        ("stages.py", "", "\n\ndef three(x):\n    return x\n", ""),
        ("stages.py", "import left, right", "import beside, left, right", ""),
        ("stages.py", "import A, B", "import A, B, C", ""),
        ("stages.py", "import left, right", "import right\nfrom resonance.toy import behind as left", "one"),
        ("settings.py", "x: int", "x: float", "one"),
        ("settings.py", "y: int", "y: float", "two"),
        ("settings.py", "", "\n\nclass C:\n    z: int\n", ""),
        ("left.py", "", "VALUE = 0\n", "one"),
        ("behind.py", "2", "3", "one"),
        ("lazy.py", "3", "4", "one"),
        ("right.py", "1", "2", "two"),
        ("right.txt", "beside", "besides", "two"),
        ("paths.py", "4", "5", ""),
        ("beside.py", "5", "6", ""),
    ],
)
def test_a_command_counts_with_what_it_uses_of_its_module_and_the_modules_behind(toy, path, old, new, changes):
    before, after = toy(), toy(path, old, new)
    assert [name for name, a, b in zip(("one", "two"), before, after, strict=True) if a != b] == changes.split()


def test_the_code_of_a_command_is_the_same_in_every_process():
    """Whatever order Python's sets are in there: a line of imports that several functions share is put in order."""
    commands = [f"resonance.posgen.stages:{name}" for name in ("generate", "train", "evaluate")]
    commands += ["resonance.llm.stages:finetune", "resonance.leval.stages:answer", "resonance.workflow.study:collect"]
    code = f"from resonance.record.identity import code_of\nprint([code_of(entry) for entry in {commands!r}])"
    said = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True,
            text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert said == {f"{[code_of(entry) for entry in commands]}\n"}


SOURCE = '''"""A header."""

import math  # for pi


def area(r):
    """pi r^2"""
    "another string alone"
    return math.pi * r**2 + len("""# no comment""")
'''


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("A header", "Another header", True),
        ("  # for pi", "", True),
        ("pi r^2", "pi times\n    r^2", True),
        ("\n\n\ndef", "\n\ndef", True),
        ("r**2", "r**3", False),
        ("# no comment", "# no remark", False),
        ("    return", "    if r:\n        return", False),
    ],
)
def test_comments_docstrings_and_blank_lines_do_not_count(old, new, same):
    assert old in SOURCE
    assert (what_counts(SOURCE) == what_counts(SOURCE.replace(old, new))) is same


def test_what_counts_still_compiles():
    compile(what_counts(SOURCE.replace("return", "pass; return")), "area", "exec")


def test_an_identity_names_every_setting_and_module_and_says_where_two_differ():
    ours = identity({"run": {"steps": 8, "task": "cot"}, "seed": 1}, ["resonance.a 12", "resonance.b 34"])
    assert ours == {
        "run.steps": "8", "run.task": "cot", "seed": "1", "code resonance.a": "12", "code resonance.b": "34",
    }  # fmt: skip
    theirs = identity({"run": {"steps": 9, "task": "cot"}}, ["resonance.a 12", "resonance.b 56"])
    assert differences(ours, theirs) == [
        "code resonance.b is 34 here, 56 there", "run.steps is 8 here, 9 there", "seed is 1 here, absent there",
    ]  # fmt: skip
    assert differences(ours, dict(reversed(ours.items()))) == []
    assert digest(ours) == digest(dict(reversed(ours.items()))) != digest(theirs)
