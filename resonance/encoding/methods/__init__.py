"""The registry of methods: how an encoding sets its angular frequencies. One file a method.

A method is a function (constants, head_dim, seq_len) -> theta, float64 [d/2], registered by name. Every module of
this folder is loaded; a package of yours registers by the entry point group `resonance.methods`. Imports numpy alone,
and no method by name: a method's file counts for the encodings that use it and for no other (`record.identity`).

Legend: d head dimension (even), j = 0 .. d/2-1 the feature, theta_j angular frequency in rad per position.
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Protocol

import numpy as np

ENTRY_POINT_GROUP = "resonance.methods"


class Constants(Protocol):
    """What a method may read of a filled spec; `EncodingSpec` says what each means."""

    base: float
    scale: float
    train_length: int | None
    beta_fast: float
    beta_slow: float
    ramp: str
    blend: str
    truncate: bool
    ntk_rule: str
    parameters: Mapping[str, float | tuple[float, ...]]


Method = Callable[[Constants, int, int | None], np.ndarray]
_METHODS: dict[str, Method] = {}
_MODULES: dict[str, str] = {}


def register(
    name: str, *, needs_train_length: bool = False, needs_scale: bool = False, parameters: Mapping | None = None
) -> Callable[[Method], Method]:
    """Add a method to the registry: a function (constants, head_dim, seq_len) -> theta, float64 [d/2].

    needs_train_length  it has no table without L; needs_scale: nor without s
    parameters          fields of its own by name, which a spec gives under `parameters`, with their defaults;
                        None: must be given. A number, or a sequence of numbers (one a feature, say)

    A package sets these as attributes of its function. Two further attributes: `attention_factor(constants) ->
    float`, the amplitude where it is not 1; `breaks(constants) -> (L_c, ..)`, the lengths past which the table is
    another, for a method whose table takes few forms.

    Raises ValueError for a name that is taken.
    """

    def add(method: Method) -> Method:
        if name in _METHODS:
            raise ValueError(f"method {name} is registered already, by {_MODULES[name]}; choose another name")
        method.needs_train_length, method.needs_scale = needs_train_length, needs_scale
        method.parameters = dict(parameters or {})
        _METHODS[name], _MODULES[name] = method, method.__module__
        return method

    return add


@cache
def _load() -> None:
    for info in iter_modules(__path__):
        import_module(f"{__name__}.{info.name}")
    for point in entry_points(group=ENTRY_POINT_GROUP):
        method = point.load()
        asked = ("needs_train_length", "needs_scale", "parameters")
        register(point.name, **{key: getattr(method, key) for key in asked if hasattr(method, key)})(method)
        _MODULES[point.name] = point.module


def method_names() -> list[str]:
    """Every method that a spec may name, RoPE first and those of other packages last."""
    _load()
    return sorted(_METHODS, key=lambda name: (not _MODULES[name].startswith(f"{__name__}."), name != "rope"))


def method_of(name: str) -> Method:
    _load()
    return _METHODS[name]


def module_of(name: str) -> str:
    """The module that a method's code is in, by its full name."""
    _load()
    return _MODULES[name]


def powers(base: float, head_dim: int) -> np.ndarray:
    """base^(-2j/d), float64 [d/2]: what every method starts from."""
    return base ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
