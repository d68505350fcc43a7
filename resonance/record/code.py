"""The code that a rule computes with, as short hashes of its modules: Snakemake reruns a job where one has changed.

A module counts with every module of `encoding`, `posgen` and `llm` that it imports, directly or not. Comments,
docstrings and blank lines do not count, nor do `record` and what reports progress: no result depends on them.
Modules are read and never imported.
"""

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("resonance.encoding", "resonance.posgen", "resonance.llm")


def code_of(*modules: str) -> list[str]:
    """`module hash` of some modules and of all that they compute with, sorted."""
    found, waiting = set(), list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += [name for name in imports(module) if name.startswith(ROOMS) and not name.endswith(".progress")]
    return [f"{module} {_hash(module)}" for module in sorted(found)]


@cache
def imports(module: str) -> tuple[str, ...]:
    """Every module of ours that a module imports, wherever in its file, by its full name."""
    return tuple(_imports(module))


def _imports(module: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(_path(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.startswith("resonance.") and _path(name).exists())


def what_counts(text: str) -> str:
    """Source text without comments, docstrings and blank lines."""
    lines = text.splitlines(keepends=True)
    cuts, before = [], tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        # A string that begins a statement is nobody's value.
        stands_alone = token.type == tokenize.STRING and before in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        if token.type == tokenize.COMMENT or stands_alone:
            cuts.append((token.start, token.end))
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            before = token.type
    for (first, left), (last, right) in reversed(cuts):
        lines[first - 1 : last] = [lines[first - 1][:left] + lines[last - 1][right:]]
    return "\n".join(line.rstrip() for line in lines if line.strip())


@cache
def _hash(module: str) -> str:
    return hashlib.sha256(what_counts(_path(module).read_text(encoding="utf-8")).encode()).hexdigest()[:8]


def _path(module: str) -> Path:
    """Its file, which need not exist."""
    place = ROOT / module.replace(".", "/")
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
