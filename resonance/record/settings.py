"""Typed settings: the one base class, and one clear line for every way to get them wrong."""

import difflib
import json
import re
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resonance.record.files import read_json

Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Frozen, strict, closed: a key that no field takes is an error, never ignored."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces. Equal settings give equal strings."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


S = TypeVar("S", bound=Settings)


class SettingsError(ValueError):
    """Bad settings, in one line for the user."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


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
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if getattr(error, "problem_mark", None) else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SettingsError(f"{path}{line}: not valid YAML: {reason}") from None
    except (ValueError, RecursionError) as error:  # 2001-99-99, !!int abc, a thousand brackets
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
        close = difflib.get_close_matches(name, known, n=1)
        cure = f"did you mean {close[0]}?" if close else f"the keys here are {', '.join(known)}"
        return f"{key}: no such key; {cure}"
    if problem["type"] == "missing":
        return f"{key}: must be given; config/README.md says what it means"
    rule = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    rule = rule[0].lower() + rule[1:]
    if problem["type"] == "value_error":
        return f"{key}: {rule}"
    return f"{key}: {rule}, got {problem['input']!r}; config/README.md says what it means"


def _fields_at(kind: type[Settings], location: tuple) -> list[str]:
    for part in location:
        field = kind.model_fields.get(part) if isinstance(kind, type) and issubclass(kind, Settings) else None
        if field is None:
            break
        kind = field.annotation
    return list(kind.model_fields) if isinstance(kind, type) and issubclass(kind, Settings) else []
