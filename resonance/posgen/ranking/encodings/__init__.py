"""The registry of position encodings. One file an encoding (or a family), with its paper's equation and source.

A package of yours registers a class by the entry point group `resonance.encodings`; a file is named by its path.
"""

import importlib.util
import re
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules

from resonance.posgen.ranking.encoding import PositionEncoding

ENTRY_POINT_GROUP = "resonance.encodings"
_ENCODINGS: dict[str, type[PositionEncoding]] = {}


def register(name: str) -> Callable[[type[PositionEncoding]], type[PositionEncoding]]:
    """Add an encoding under a name. Raises ValueError for a name that is taken."""

    def add(made: type[PositionEncoding]) -> type[PositionEncoding]:
        if name in _ENCODINGS and _ENCODINGS[name].__module__ != made.__module__:  # else a file that runs again
            raise ValueError(f"encoding {name} is registered already; choose another name")
        _ENCODINGS[name] = made
        return made

    return add


@cache
def encodings() -> dict[str, type[PositionEncoding]]:
    """Every registered encoding by name."""
    for info in iter_modules(__path__):
        import_module(f"{__name__}.{info.name}")
    for point in entry_points(group=ENTRY_POINT_GROUP):
        try:
            made = point.load()
        except Exception as error:  # whatever a stranger's code raises
            raise ValueError(
                f"encoding {point.name} = {point.value}, which {point.dist.name} registers, does not load "
                f"({type(error).__name__}: {error}); mend or uninstall that package"
            ) from error
        register(point.name)(made)
    return _ENCODINGS


def file_of(asked: str) -> tuple[str, str]:
    """The file and the class, or "", of FILE.py[:NAME]; twice "" for a name."""
    found = re.fullmatch(r"(.*\.py)(?::(\w+))?", asked)
    return (found[1], found[2] or "") if found else ("", "")


def named(asked: str) -> tuple[str, type[PositionEncoding]]:
    """The encoding of a registered name, or of FILE.py[:NAME], with what it is called.

    Raises ValueError, one line: an unknown name, a file that does not run, or one that holds none or several.
    """
    path, wanted = file_of(asked)
    if not path:
        if asked not in encodings():
            raise ValueError(
                "an encoding must be a file (NAME.py or NAME.py:CLASS) or one of "
                f"{', '.join(sorted(encodings()))}, got {asked!r}"
            )
        return asked, encodings()[asked]
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file; `resonance posgen template` prints one to start from")
    spec = importlib.util.spec_from_file_location(f"ranked_{Path(path).stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a stranger's code raises
        raise ValueError(f"{path} does not run, {type(error).__name__}: {error}; mend it first") from error
    found = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, PositionEncoding) and value.__module__ == module.__name__
    }
    if wanted and wanted not in found:
        raise ValueError(f"{path} must hold the class {wanted}, got {', '.join(found) or 'no PositionEncoding'}")
    if not wanted and len(found) != 1:
        raise ValueError(
            f"{path} must hold one subclass of PositionEncoding, got {', '.join(found) or 'none'}; "
            f"name one: {path}:NAME"
        )
    name = wanted or next(iter(found))
    if encodings().get(name, found[name]) is not found[name]:
        raise ValueError(f"{path}: {name} is the name of a registered encoding; rename the class")
    return name, found[name]
