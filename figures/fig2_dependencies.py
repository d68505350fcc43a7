"""Figure 2: what a new token depends on in PosGen's three tasks."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.path import Path as Curve

from figures import style
from figures.inputs import Output, Preset, run
from resonance.posgen.tasks import PAPER_TASKS, Rule, generate

# Figure 2's caption: modulus 7, j = 1, k = 3, and the 12th token, which is x_11.
MODULUS, FAR, NEAR, GENERATED = 7, 1, 3, 11
PREFIX = (3, 3, 3, 6)
"""The given tokens, ours: chosen so that the three twelfth tokens differ and no summand is 0."""

RED, GIVEN = "#C00000", "#E8E8E8"
SIDE, BOTTOM = 0.86, -0.7
"""Side of a box and lower end of a panel, in positions; a box stands on 0."""


def main(output: Output, preset: Preset) -> None:
    """Figure 2 of the paper. Needs no run: the preset is only noted in the files."""
    rules = [Rule(task=task, modulus=MODULUS, j=FAR, k=NEAR) for task in PAPER_TASKS]
    tops = [SIDE + 0.2 + arc_height(min(rule.dependencies(GENERATED))) for rule in rules]
    figure = Figure(figsize=(style.TEXT_WIDTH, 2.9), layout="constrained")
    panels = figure.subplots(len(rules), 1, height_ratios=[top - BOTTOM for top in tops])
    for axes, rule, top in zip(panels, rules, tops, strict=True):
        tokens = generate(rule, np.array([PREFIX]), GENERATED + 1)[0]
        draw_tokens(axes, tokens, rule.prefix_length)
        for position in rule.dependencies(GENERATED):
            draw_arrow(axes, position)
        axes.text(-0.8, SIDE / 2, style.task_title(rule.task), va="center", ha="right", fontsize=8.5)
        axes.text(GENERATED + 0.8, SIDE / 2, written_out(rule, tokens), va="center", linespacing=1.5)
        axes.set(xlim=(-3.1, GENERATED + 5.6), ylim=(BOTTOM, top), aspect="equal")
        axes.axis("off")
    style.save(figure, output, f"Figure 2: dependencies of the three tasks (preset {preset})")


def written_out(rule: Rule, tokens: np.ndarray) -> str:
    """h in symbols and in numbers, far token first: 3 + 1 + 5 + 2 = 11, 11 mod 7 = 4. Section 6.1.1."""
    positions = rule.dependencies(GENERATED)
    symbols = " + ".join(f"x_{{{position}}}" for position in positions)
    numbers = " + ".join(str(tokens[position]) for position in positions)
    total = tokens[positions].sum()
    return (
        rf"$x_{{{GENERATED}}} = {symbols}$ mod {rule.modulus}" + "\n"
        rf"${numbers} = {total} \equiv {tokens[GENERATED]}$ (mod {rule.modulus})"
    )


def draw_tokens(axes: Axes, tokens: np.ndarray, num_given: int) -> None:
    """A box a token: the given ones grey, the one being generated red; its position beneath."""
    for position, token in enumerate(tokens):
        new = position == GENERATED
        axes.add_patch(
            Rectangle(
                (position - SIDE / 2, 0), SIDE, SIDE,
                facecolor=GIVEN if position < num_given else "white",
                edgecolor=RED if new else "black", linewidth=1.4 if new else 0.6,
            )
        )  # fmt: skip
        axes.text(position, SIDE / 2, str(token), ha="center", va="center_baseline", color=RED if new else "black")
        axes.text(position, -0.12, rf"$x_{{{position}}}$", ha="center", va="top", fontsize=6.5, color="#555555")


def arc_height(position: int) -> float:
    """How high the arc from a dependency rises above the boxes: the higher, the farther it comes from."""
    return 0.35 + 0.12 * (GENERATED - position)


def draw_arrow(axes: Axes, position: int) -> None:
    """An arc from a dependency to the new token."""
    start = SIDE + 0.06
    control = start + arc_height(position) * 4 / 3  # a cubic arc rises to 3/4 of its control points
    points = [(position, start), (position, control), (GENERATED, control), (GENERATED, start)]
    curve = Curve(points, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
    axes.add_patch(FancyArrowPatch(path=curve, arrowstyle="-|>", mutation_scale=6, linewidth=0.8, color="#404040"))


if __name__ == "__main__":
    run(main)
