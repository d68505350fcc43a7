"""How encodings and tasks are called and coloured, everywhere alike; how a figure is saved.

Figures are made without pyplot, hence without any window or global state.
"""

from pathlib import Path

import matplotlib
import matplotlib.style
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from resonance.record.files import replacing

matplotlib.use("Agg")
matplotlib.style.use(["default", str(Path(__file__).with_name("style.mplstyle"))])  # not the user's own matplotlibrc

TEXT_WIDTH = 6.3
"""Inches, both columns of an ACL page."""

_METHODS = {"rope": "RoPE", "linear": "Linear (PI)", "ntk": "NTK", "dynamic_ntk": "Dynamic NTK", "yarn": "YaRN"}
_OTHERS = {"local_rule": "Local rule", "chance": "Chance"}
_TASKS = {"recursive": "Recursive", "cot": "CoT", "semi_recursive": "Semi-recursive"}
_RESONANCE = "resonance_"

# Okabe and Ito's palette, told apart by colour-blind readers: one hue a method.
_HUES = {"rope": "#0072B2", "yarn": "#D55E00", "linear": "#009E73", "ntk": "#CC79A7", "dynamic_ntk": "#E69F00"}
_OTHER_HUE = "#555555"

TRAINED = "#404040"
UNSEEN = "#D55E00"
"""Positions below L, and from L on."""


def encoding_title(name: str) -> str:
    """`resonance_yarn` as a reader knows it: Resonance YaRN. A name of one's own keeps its letters."""
    if name in _OTHERS:
        return _OTHERS[name]
    method = name.removeprefix(_RESONANCE)
    title = _METHODS.get(method, method.replace("_", " "))
    return f"Resonance {title}" if name.startswith(_RESONANCE) else title


def task_title(name: str) -> str:
    return _TASKS.get(name, name.replace("_", " ").capitalize())


def in_order(tasks: set[str]) -> list[str]:
    """Tasks in the paper's order, others after them."""
    return [task for task in _TASKS if task in tasks] + sorted(tasks - set(_TASKS))


def encodings_in_order(encodings: set[str]) -> list[str]:
    """RoPE first, each method's Resonance right after it, methods of one's own last."""
    methods = list(_METHODS)

    def place(name: str) -> tuple:
        method = name.removeprefix(_RESONANCE)
        return (methods.index(method) if method in methods else len(methods), method, name != method)

    return sorted(encodings, key=place)


def pairs(encodings: list[str]) -> list[tuple[str, str]]:
    """(resonance_X, X) for every X of which both are there."""
    return [(_RESONANCE + name, name) for name in encodings if _RESONANCE + name in encodings]


def line(encoding: str) -> dict:
    """Plot arguments of an encoding: a pair shares its hue, plain light and dashed, Resonance full and solid."""
    hue = to_rgb(_HUES.get(encoding.removeprefix(_RESONANCE), _OTHER_HUE))
    if encoding.startswith(_RESONANCE):
        return {"color": hue, "linestyle": "-", "zorder": 3}
    return {"color": tuple(1 - 0.65 * (1 - part) for part in hue), "linestyle": (0, (3.5, 1.5)), "zorder": 2}


def save(figure: Figure, stem: Path, title: str) -> None:
    """stem.pdf, .svg and .png, each whole; without a date, so that equal figures are equal bytes."""
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
    for suffix, undated in dates.items():
        with replacing(Path(f"{stem}.{suffix}")) as temporary:
            figure.savefig(temporary, format=suffix, metadata={"Title": title, **undated})
