"""How encodings and tasks are called and coloured, everywhere alike; how a figure is saved.

Figures are made without pyplot, hence without any window or global state.
"""

import textwrap
from pathlib import Path

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.ticker import NullLocator

from resonance.record.files import replacing

matplotlib.use("Agg")
matplotlib.style.use(["default", str(Path(__file__).with_name("style.mplstyle"))])  # not the user's own matplotlibrc
for _font in Path(matplotlib.get_data_path(), "fonts/ttf").glob("STIX*.ttf"):
    fontManager.addfont(_font)  # the user's list of fonts may be that of a matplotlib which is gone

TEXT_WIDTH = 6.3
"""Inches, both columns of an ACL page."""

_METHODS = {"rope": "RoPE", "linear": "Linear (PI)", "ntk": "NTK", "dynamic_ntk": "Dynamic NTK", "yarn": "YaRN"}
_OTHERS = {"local_rule": "Local rule", "chance": "Chance"}
_TASKS = {"recursive": "Recursive", "cot": "CoT", "semi_recursive": "Semi-recursive"}
_TASKS |= {f"{name}_keyed": f"{title} (keyed)" for name, title in _TASKS.items()}
_RESONANCE = "resonance_"

# Okabe and Ito's palette, told apart by colour-blind readers: one hue a method.
_HUES = {"rope": "#0072B2", "yarn": "#D55E00", "linear": "#009E73", "ntk": "#CC79A7", "dynamic_ntk": "#E69F00"}
_OTHER_HUE = "#555555"

MARKS = ("o", "^", "s", "D", "v")
"""Of what was fine-tuned, and how."""

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


def method_place(method: str) -> tuple[int, str]:
    """A method's place among the others: ours first, in the paper's order."""
    methods = list(_METHODS)
    return (methods.index(method) if method in methods else len(methods), method)


def encodings_in_order(encodings: set[str]) -> list[str]:
    """RoPE first, each method's Resonance right after it, methods of one's own last."""
    return sorted(
        encodings, key=lambda name: (*method_place(name.removeprefix(_RESONANCE)), name.startswith(_RESONANCE))
    )


def pair_title(resonance: str, plain: str, between: str = "−") -> str:
    return f"{encoding_title(resonance)} {between} {encoding_title(plain)}"


def pairs(encodings: list[str]) -> list[tuple[str, str]]:
    """(resonance_X, X) for every X of which both are there."""
    return [(_RESONANCE + name, name) for name in encodings if _RESONANCE + name in encodings]


def line(encoding: str) -> dict:
    """Plot arguments of an encoding: a pair shares its hue; plain is light, dashed and wide, so that Resonance, full,
    solid and thin, never hides it.
    """
    hue = to_rgb(_HUES.get(encoding.removeprefix(_RESONANCE), _OTHER_HUE))
    if encoding.startswith(_RESONANCE):
        return {"color": hue, "linestyle": "-", "linewidth": 1.0, "zorder": 3}
    light = tuple(1 - 0.65 * (1 - part) for part in hue)
    return {"color": light, "linestyle": (0, (2, 0.8)), "linewidth": 2.2, "zorder": 2}


def hue(method: str) -> str:
    return _HUES.get(method, _OTHER_HUE)


def note(figure: Figure, text: str, small: bool = False) -> None:
    """What a figure is of, above it: a line, or small ones."""
    figure.suptitle(wrapped(text) if small else text, x=0.01, ha="left", **({"fontsize": 6.5} if small else {}))


Series = tuple[str, str, list[tuple]]
"""Colour, mark, and (name, mean, low, high); low and high are None for a single run, which has no bar."""


def differences(axes: Axes, names: dict[str, str], title: str, series: dict[str, Series], apart: float) -> None:
    """A panel of intervals about 0: a row a name under its title, the first on top, and in it a dot with a bar a series
    under its label, one below the other."""
    axes.axvline(0, color=TRAINED, linewidth=0.8)
    axes.set_yticks(range(len(names)), list(names.values())[::-1])
    axes.set_title(title)
    axes.grid(axis="x")
    for n, (label, (color, marker, points)) in enumerate(series.items()):
        lift = apart * ((len(series) - 1) / 2 - n)
        places = {name: len(names) - 1 - k + lift for k, name in enumerate(names)}
        for name, _, low, high in points:
            if low is not None:
                axes.plot([low, high], [places[name]] * 2, color=color, linewidth=1, solid_capstyle="butt", zorder=2)
        means, where = [mean for _, mean, *_ in points], [places[name] for name, *_ in points]
        axes.plot(means, where, marker, color=color, label=label, zorder=3)


def legend(figure: Figure, columns: int = 4) -> None:
    """One legend under all panels, every label once."""
    handles = {}
    for axes in figure.axes:
        handles |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(columns, len(handles)))


def lengths(axes: Axes, ticks: list[int], train_length: int | None) -> None:
    """A logarithmic axis of lengths in tokens, and L on it."""
    if train_length:
        axes.axvline(train_length, color=TRAINED, linewidth=0.6, linestyle=":")
        at = {"xytext": (2, -2), "textcoords": "offset points", "va": "top", "fontsize": 6.5, "color": TRAINED}
        axes.annotate("L", (train_length, 1), xycoords=axes.get_xaxis_transform(), **at)
    axes.set_xscale("log")
    axes.set_xticks(ticks)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(PLAIN)
    axes.grid(axis="y")


PLAIN = "{x:g}"
"""A tick of a logarithmic axis, not as a power of ten."""


def wrapped(text: str, width: int = 125) -> str:
    """A note above a figure, broken into lines."""
    return "\n".join(textwrap.wrap(text, width, break_on_hyphens=False))


def save(figure: Figure, stem: Path, title: str) -> None:
    """stem.pdf, .svg and .png, each whole; without a date, so that equal figures are equal bytes."""
    dates = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}
    for suffix, undated in dates.items():
        with replacing(Path(f"{stem}.{suffix}")) as temporary:
            figure.savefig(temporary, format=suffix, metadata={"Title": title, **undated})
