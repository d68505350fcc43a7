"""Figure 1: the rotation angles m*theta_6 of RoPE and of Resonance RoPE, seen in training and after."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.inputs import Output, Preset, run
from resonance.encoding.frequencies import FrequencyTable, frequency_table
from resonance.encoding.spec import EncodingSpec

# Figure 1's caption; head dimension and base, which it leaves out, from section 6.1.1.
FEATURE, TRAIN_LENGTH, TEST_LENGTH = 6, 64, 128
HEAD_DIM, BASE = 64, 10_000.0

FULL_TURN = 2 * np.pi
WINDOW = (-0.07, 0.78)
"""Radians shown enlarged: the first few positions of every turn."""


def angles(table: FrequencyTable, feature: int, positions: np.ndarray) -> np.ndarray:
    """m*theta mod 2*pi in rad; with an integer period from m mod period, hence equal bit by bit."""
    period = table.period[feature]
    if period:
        return positions % period * table.theta[feature]
    return positions * table.theta[feature] % FULL_TURN


def largest_gap(trained: np.ndarray, unseen: np.ndarray) -> float:
    """max over n >= L of min over m < L of |angle_n - angle_m| on the circle, in rad.

    Eq. 8 as printed takes the minimum over n too; Theorem 1 speaks of every n, as here.
    """
    distance = np.abs(unseen[:, None] - trained[None, :])
    return float(np.minimum(distance, FULL_TURN - distance).min(axis=1).max())


def main(output: Output, preset: Preset) -> None:
    """Figure 1 of the paper. Needs no run: the preset is only noted in the files."""
    figure = Figure(figsize=(style.TEXT_WIDTH, 3.5), layout="constrained")
    axes = figure.subplots(2, 2, width_ratios=[1.25, 1], sharex="col", sharey="col")
    positions = np.arange(TEST_LENGTH)
    for (whole, enlarged), resonance in zip(axes, (False, True), strict=True):
        table = frequency_table(EncodingSpec(method="rope", resonance=resonance, base=BASE), HEAD_DIM)
        angle, wavelength = angles(table, FEATURE, positions), table.wavelength[FEATURE]
        gap = largest_gap(angle[:TRAIN_LENGTH], angle[TRAIN_LENGTH:])
        name = style.encoding_title("resonance_rope" if resonance else "rope")
        shown = f"{wavelength:.0f}" if resonance else f"{wavelength:.2f}"
        whole.set_title(rf"{name}, wavelength $\lambda_{FEATURE}={shown}$ positions")
        enlarged.set_title("largest gap: exactly 0 rad" if gap == 0 else f"largest gap: {gap:.3f} rad")
        draw_whole(whole, positions, angle)
        draw_enlarged(enlarged, positions, angle, wavelength)
    axes[1, 0].set_xlabel(r"position $m$")
    axes[1, 1].set_xlabel(r"turn of the circle, $\lfloor m/\lambda_6\rfloor$")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, handletextpad=0.2, markerscale=1.7
    )
    style.save(figure, output, f"Figure 1: rotation angles (preset {preset})")


def draw_whole(axes: Axes, positions: np.ndarray, angle: np.ndarray) -> None:
    """Every angle over its position, and the strip that is shown enlarged."""
    axes.axvspan(TRAIN_LENGTH - 0.5, TEST_LENGTH, color=style.UNSEEN, alpha=0.07, linewidth=0)
    axes.axhspan(*WINDOW, color="#BBBBBB", alpha=0.4, linewidth=0)
    labels = {True: rf"trained on, $m<{TRAIN_LENGTH}$", False: rf"unseen, ${TRAIN_LENGTH}\leq m<{TEST_LENGTH}$"}
    for seen, label in labels.items():
        chosen = (positions < TRAIN_LENGTH) == seen
        axes.plot(positions[chosen], angle[chosen], linestyle="none", markersize=2, label=label, **marks(seen))
    axes.set(xlim=(-2, TEST_LENGTH), ylim=(-0.15, FULL_TURN + 0.1), ylabel=rf"$m\theta_{FEATURE}$ mod $2\pi$ (rad)")
    axes.set_xticks(range(0, TEST_LENGTH + 1, 32))
    axes.set_yticks([0, np.pi, FULL_TURN], ["0", r"$\pi$", r"$2\pi$"])


def draw_enlarged(axes: Axes, positions: np.ndarray, angle: np.ndarray, wavelength: float) -> None:
    """The strip by turns: a line at every angle trained on, a bar from an unseen angle to the nearest."""
    trained = angle[:TRAIN_LENGTH]
    for value in trained:
        axes.axhline(value, color="#AAAAAA", linewidth=0.5, zorder=1)
    turn = np.floor(positions / wavelength)
    for position in positions[(angle > WINDOW[0]) & (angle < WINDOW[1] - 0.03)]:
        at = (turn[position], angle[position])
        nearest = trained[np.abs(trained - angle[position]).argmin()]
        axes.vlines(turn[position], *sorted((angle[position], nearest)), color=style.UNSEEN, linewidth=1.6)
        axes.plot(*at, markersize=3.2, **marks(position < TRAIN_LENGTH))
        axes.annotate(str(position), at, xytext=(4, 0), textcoords="offset points", va="center", fontsize=6.5,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4})  # fmt: skip
    axes.set(xlim=(-0.4, turn.max() + 0.6), ylim=WINDOW, ylabel="the same, enlarged (rad)")
    axes.set_xticks(range(int(turn.max()) + 1))


def marks(seen: bool) -> dict:
    return {"marker": "o", "color": style.TRAINED} if seen else {"marker": "D", "color": style.UNSEEN, "zorder": 3}


if __name__ == "__main__":
    run(main)
