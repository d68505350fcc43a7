"""Typed settings: the one base class, and one clear line for every way to get them wrong."""

import difflib
import json
import re
import reprlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from resonance.record.files import read_json

Count = Annotated[int, Field(ge=1, le=2**40)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""Of numpy's global generator, which transformers seeds, and so of all."""
_NAME = r"[A-Za-z][A-Za-z0-9_]{0,63}"


def check_name(name: object) -> str:
    """A name that may enter a path. Raises ValueError for any other."""
    if not isinstance(name, str) or not re.fullmatch(_NAME, name):
        raise ValueError(
            f"a name must be letters, digits and _, a letter first, 64 at most: it enters paths; got {_shown(name)}"
        )
    return name


Name = Annotated[str, AfterValidator(check_name), Field(json_schema_extra={"pattern": f"^{_NAME}$"})]
"""Whatever a config names itself and a path holds."""


class Settings(BaseModel):
    """Frozen, strict, closed: a key that no field takes is an error, never ignored."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces. Equal settings give equal strings."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


S = TypeVar("S", bound=Settings)


_LINE = 1000
"""Characters of a line, before what is not printable is written out."""


class SettingsError(ValueError):
    """Bad settings, in one line for the user."""

    def __init__(self, message: str) -> None:
        message = message if len(message) <= _LINE else f"{message[:_LINE]}..."
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


def check_known(key: str, name: object, names: Iterable[str], where: str) -> None:
    """Raises SettingsError where a name stands for nothing: with the names that there are, and the nearest of them."""
    if name not in (names := list(names)):
        cure = f"; did you mean {near}?" if (near := _nearest(name, names)) else ""
        raise SettingsError(f"{key}: {_shown(name)} is not in {where}, which names {', '.join(names) or 'none'}{cure}")


def _nearest(name: object, names: list[str]) -> str | None:
    return next(iter(difflib.get_close_matches(str(name), names, n=1)), None)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


def _shown(value: object) -> str:
    """A value in a message: cut where it is long or deep, for a page of aliases of aliases has no end."""
    return _REPR.repr(value)


def parse(kind: type[S], values: object, source: str) -> S:
    """values as `kind`. Raises SettingsError: `source: key: rule, got value; cure`, one line."""
    if not isinstance(values, dict):
        raise SettingsError(f"{source}: must be a mapping of keys to values, got {type(values).__name__}")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"{source}: {_first_problem(error, kind)}") from None


def read_settings(kind: type[S], path: Path) -> S:
    """The settings that a file of the workflow holds."""
    return parse(kind, read_json(path), str(path))


def read_yaml(path: Path) -> object:
    """A YAML file's content. Raises SettingsError if absent, malformed, or with a key given twice."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such file") from None
    except OSError as error:
        raise SettingsError(f"{path}: must be a file that can be read ({error.strerror}); mend it") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SettingsError(f"{path}{line}: not valid YAML: {reason}") from None
    except (ValueError, RecursionError) as error:  # a thousand brackets
        raise SettingsError(f"{path}: not valid YAML: {error}") from None


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML lets a later key silently replace an earlier one; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | None):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice; keep one", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _checked(construct: Callable) -> Callable:
    """A constructor of PyYAML that refuses what it cannot read, where it stands: `!!int ""`, `!!bool maybe`."""

    def checked(loader: yaml.SafeLoader, node: yaml.Node) -> object:
        try:
            value = construct(loader, node)
        except (ValueError, LookupError, AttributeError, OverflowError):
            value = None
        if value is None or (isinstance(value, int) and value.bit_length() > _LONGEST):
            kind = node.tag.rpartition(":")[2]
            said = f"{_shown(node.value)} is no {kind}, or too long a one"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark)
        return value

    return checked


_LONGEST = 10_000
"""Bits of a whole number; Python prints none of more than 4,300 digits."""
for _kind in ("int", "float", "bool", "timestamp", "binary"):
    _tag = f"tag:yaml.org,2002:{_kind}"
    _UniqueKeyLoader.add_constructor(_tag, _checked(yaml.SafeLoader.yaml_constructors[_tag]))
# 2e-3 is a float to everybody but YAML 1.1, which wants 2.0e-3 and otherwise hands over a string.
_UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _first_problem(error: ValidationError, kind: type[Settings]) -> str:
    # A key that is no key first: where one is misspelt, another is missing.
    problem = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in problem["loc"] if part != "[key]") or "settings"
    if problem["type"] == "extra_forbidden":
        name = str(problem["loc"][-1])
        known = _fields_at(kind, problem["loc"][:-1])
        near = _nearest(name, known)
        cure = f"did you mean {near}?" if near else f"the keys here are {', '.join(known)}"
        return f"{key}: no such key; {cure}"
    if problem["type"] == "missing":
        return f"{key}: must be given; config/README.md says what it means"
    rule = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    rule = rule[0].lower() + rule[1:]
    if problem["type"] == "value_error":
        return f"{key}: {rule}"
    return f"{key}: {rule}, got {_shown(problem['input'])}; config/README.md says what it means"


def _fields_at(kind: type[Settings], location: tuple) -> list[str]:
    for part in location:
        field = kind.model_fields.get(part) if isinstance(kind, type) and issubclass(kind, Settings) else None
        if field is None:
            break
        kind = field.annotation
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, Settings) else []
