"""Whether a result is still this result: one function, asked by rules, checkpoints, journals and collected rows.

`identity(settings, code)`: settings are what the numbers depend on; code is a hash of every module of ours that a
command imports, wherever the import stands, comments and docstrings aside. A short list of plumbing is left out. What a
registry finds by name is imported by no line, so it is added by who uses it: a method counts for its encodings alone.
Modules are read and never imported.
"""

import ast
import hashlib
import io
import json
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from resonance.encoding.methods import module_of

ROOT = Path(__file__).resolve().parents[2]
PLUMBING = tuple(
    f"resonance.record.{name}"
    for name in ("checkpoint", "files", "identity", "job", "journal", "progress", "provenance")
)
"""Modules that move results and make none, the wings' `paths` with them: where files lie, how they are written, what is
told about them."""


def code_of(*entries: str, methods: Iterable[str] = ()) -> list[str]:
    """`module hash` of all that some entries compute with, sorted.

    entries  modules by their full name, or `module:function` for one function and what it uses of its module
    methods  names of the registry of methods that are used beside

    Raises FileNotFoundError for a module or function that is not there.
    """
    return list(_code_of((*entries, *map(module_of, methods))))


@cache
def _code_of(entries: tuple[str, ...]) -> tuple[str, ...]:
    found: dict[str, str] = {}
    waiting = list(entries)
    while waiting:
        entry = waiting.pop()
        if entry in found or entry in PLUMBING or entry.endswith(".paths"):
            continue
        module, _, function = entry.partition(":")
        found[entry], names = _read(module, function)
        waiting += names
    return tuple(f"{entry} {found[entry]}" for entry in sorted(found))


@cache
def _read(module: str, function: str) -> tuple[str, tuple[str, ...]]:
    """The hash of a module or of one of its functions, and the modules of ours that it imports."""
    text = _of_function(module, function) if function else _text(module)
    return _hash(text, module), tuple(_imports(text, module, by_name=bool(function)))


def identity(settings: Mapping[str, object], code: Iterable[str] = ()) -> dict[str, str]:
    """Everything that a result depends on, by name, as text; a mapping among the settings gives a name a key."""
    flat: dict[str, str] = {}
    for name, value in settings.items():
        parts = {f"{name}.{key}": part for key, part in value.items()} if isinstance(value, Mapping) else {name: value}
        flat |= {
            key: part if isinstance(part, str) else json.dumps(part, sort_keys=True) for key, part in parts.items()
        }
    return flat | {f"code {line.split()[0]}": line.split()[1] for line in code}


def digest(of: Mapping[str, str]) -> str:
    """A short name of an identity."""
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """`name is .. here, .. there` of all that two identities do not share."""
    return [
        f"{name} is {_short(ours.get(name))} here, {_short(theirs.get(name))} there"
        for name in sorted(ours.keys() | theirs.keys())
        if ours.get(name) != theirs.get(name)
    ]


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


def _of_function(module: str, name: str) -> str:
    """The source of one function or class with what it uses of its module, imports by the names that it uses."""
    text = _text(module)
    lines, defined, imported = text.splitlines(keepends=True), {}, {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:  # a line may import for several functions
                alone = ast.copy_location(type(node)(**{**vars(node), "names": [alias]}), node)
                imported[alias.asname or alias.name.split(".")[0]] = alone
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined |= {target.id: node for target in targets if isinstance(target, ast.Name)}
    if name not in defined:
        raise FileNotFoundError(f"{module} has no {name}")
    used, waiting = {}, [name]
    while waiting:
        each = waiting.pop()
        node = defined.get(each) or imported.get(each)
        if node is None or each in used:
            continue
        used[each] = node
        if each in defined:
            waiting += _global_names(node)
    source = []
    nodes = {id(node): node for node in used.values()}.values()
    for node in sorted(nodes, key=lambda node: (node.lineno, ast.unparse(node))):  # a line may hold several imports
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
        is_import = isinstance(node, ast.Import | ast.ImportFrom)
        source.append(f"{ast.unparse(node)}\n" if is_import else "".join(lines[first - 1 : node.end_lineno]))
    return "".join(source)


def _global_names(node: ast.AST) -> set[str]:
    """The names that a definition reads and does not bind itself."""
    read, bound = set(), set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            (read if isinstance(inner.ctx, ast.Load) else bound).add(inner.id)
        elif isinstance(inner, ast.arg):
            bound.add(inner.arg)
        elif isinstance(inner, ast.Import | ast.ImportFrom):
            bound |= {alias.asname or alias.name.split(".")[0] for alias in inner.names}
    return read - bound


def _imports(text: str, module: str, by_name: bool = False) -> Iterator[str]:
    """Every module of the same package, or of this project, that a text imports, by its full name; by_name: of modules
    of settings, which many commands share, only the classes and functions that it names."""
    roots = (module.split(".")[0], "resonance", "figures")
    package = module if _path(module).name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(part for part in (above, node.module) if part)
            if by_name and source.endswith(".settings"):
                yield from (f"{source}:{alias.name}" for alias in node.names)
                continue
            names = [source, *(f"{source}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.split(".")[0] in roots and name not in ("resonance", "figures") and _path(name).exists():
                yield name


@cache
def _text(module: str) -> str:
    return _path(module).read_text(encoding="utf-8")


def _hash(text: str, module: str) -> str:
    """Of what counts in a text, and of the files beside the module that bear its name (style.mplstyle of style.py)."""
    found, path = hashlib.sha256(what_counts(text).encode()), _path(module)
    for beside in sorted(path.parent.glob(f"{path.stem}.*")):
        if beside != path and beside.suffix not in (".pyc", ".so"):
            found.update(beside.read_bytes())
    return found.hexdigest()[:8]


@cache
def _path(module: str) -> Path:
    """Its file, which need not exist."""
    if module.split(".")[0] in ("resonance", "figures"):
        place = ROOT / module.replace(".", "/")
        return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    try:
        found = find_spec(module)
    except ModuleNotFoundError:  # a name of a module, and no module
        found = None
    return Path(found.origin) if found and found.origin else Path(module)


def _short(value: str | None) -> str:
    return "absent" if value is None else value if len(value) <= 60 else f"{value[:57]}..."
