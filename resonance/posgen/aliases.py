"""Which untrained distances a head falls for, by the mean logit that its weights give every one (`probe.kernels`).

A head that learned to look k positions back does so by its fast features, and these come (nearly) into phase again at
k + n*lambda: an alias. Inside the trained distances the other features hold it down, for training punishes it; past
them nothing did. Imports numpy alone.

Legend: H heads of all layers, T distances 0 .. T - 1; `trained`: how many of them training had.
"""

import numpy as np

LOOKS = 2.0
"""Nats. A head looks somewhere if its mean logit at the best trained distance is this far above that at all of them."""
MARGIN = 1.0
"""Nats. An untrained distance is an alias if the mean logit of a head that looks somewhere is at most this far below
its best at a trained one: a key there draws about as much attention as the one that the head learned to look at."""
RISES = 0.4
"""Nats above the best trained distance where a fall is expected; chosen on 18 models before the runs that test it."""
WINDOWS = (8, 16, 32)
"""Distances that a window leaves, beside the window of all trained ones."""


def above_trained(kernel_HT: np.ndarray, trained: int) -> np.ndarray:
    """How far any head that looks somewhere stands above its best trained distance, [T], in nats (below: negative)."""
    best, mean = kernel_HT[:, :trained].max(axis=1), kernel_HT[:, :trained].mean(axis=1)
    return (kernel_HT - best[:, None])[best - mean >= LOOKS].max(axis=0, initial=-np.inf)


def leak(kernel_HT: np.ndarray, trained: int) -> float:
    """The share of attention that goes to untrained distances if logits are their means: over heads that look
    somewhere and queries past L, each with all distances up to the first token in view."""
    K = kernel_HT - kernel_HT[:, :trained].max(axis=1, keepdims=True)
    weight = np.exp(K[-K[:, :trained].mean(axis=1) >= LOOKS])
    outside = weight[:, trained:].cumsum(axis=1)
    return float((outside / (outside + weight[:, :trained].sum(axis=1, keepdims=True))).mean()) if len(weight) else 0.0


def masks(above_T: np.ndarray, trained: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Which distances may be seen, bool [T], by name.

    window_W  the nearest W; window_trained, all that training had
    aliases   all but the aliases among the untrained ones
    control   all but as many untrained distances that are none, drawn by the seed
    """
    distances = np.arange(len(above_T))
    found = {f"window_{width}": distances < width for width in WINDOWS} | {"window_trained": distances < trained}
    alias = (distances >= trained) & (above_T >= -MARGIN)
    others = np.flatnonzero((distances >= trained) & ~alias)
    drawn = np.random.default_rng(seed).choice(others, min(alias.sum(), len(others)), replace=False)
    return found | {"aliases": ~alias, "control": ~np.isin(distances, drawn)}


def predicted_falls(above_T: np.ndarray, trained: int) -> np.ndarray:
    """Where accuracy is to fall, by the weights: the peak of every stretch of untrained distances above `RISES`."""
    over = np.flatnonzero((above_T >= RISES) & (np.arange(len(above_T)) >= trained))
    stretches = np.split(over, np.flatnonzero(np.diff(over) > 1) + 1)
    return np.array([stretch[above_T[stretch].argmax()] for stretch in stretches if len(stretch)], dtype=int)
