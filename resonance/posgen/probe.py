"""Why a trained decoder fails past L: where its heads look, and what it says when they may not look there.

How high a head's mean logit stands at a distance follows from its weights and the encoding alone (`kernels`), so the
aliases (`posgen.aliases`) are known before a position past L is read. The causal test is to hide them.

Legend: H heads of all layers, T positions.
"""

from collections.abc import Iterator

import numpy as np
import torch

from resonance.encoding.frequencies import frequency_table
from resonance.encoding.rotary import Rotary
from resonance.encoding.spec import EncodingSpec
from resonance.posgen.aliases import above_trained, leak, masks, predicted_falls
from resonance.posgen.decoder import Decoder
from resonance.posgen.draws import generator
from resonance.posgen.evaluate import ByPosition, measure
from resonance.posgen.settings import EvaluationSettings, TrainRun
from resonance.posgen.train import make_decoder, make_rotary, spread, to_inputs

FALL = 0.05
"""How much lower the mean accuracy of five positions is than that of the five before them, where it falls."""
_AROUND = 5


@torch.no_grad()
def kernels(run: TrainRun, decoder: Decoder, spec: EncodingSpec, x_NT: np.ndarray, length: int) -> np.ndarray:
    """The mean logit of every head at distances 0 .. length - 1, [H, length], in nats, in closed form.

    With q and k the mean query and key before rotation over tokens inside L, feature j as a complex number,

        K(D) = scale * A^2 * sum over j of Re( q_j conj(k_j) exp(i theta_j D) )

    A is the table's amplitude. What depends on content is left out, so it is the part that position alone decides.
    """
    table = frequency_table(spec, run.model.head_dim, seq_len=length)
    inputs, _, first = to_inputs(run, x_NT[:, : run.data.train_length])
    device, found = run.training.device, []

    def keep(module: torch.nn.Module, arguments: tuple) -> None:
        mean = [_complex(w(arguments[0][:, first:]), module.num_heads, run).mean((0, 1)) for w in (module.q, module.k)]
        found.append((mean[0] * mean[1].conj()).cpu().numpy() * module.scale * table.attention_factor**2)

    hooks = [layer.attention.register_forward_pre_hook(keep) for layer in decoder.layers]
    decoder(inputs.to(device), make_rotary(run, spec, x_NT.shape[1]).at(inputs.shape[1]))
    for hook in hooks:
        hook.remove()
    turned = np.exp(1j * np.outer(table.theta, np.arange(length)))
    return (np.concatenate(found) @ turned).real


def _complex(x_BTI: torch.Tensor, num_heads: int, run: TrainRun) -> torch.Tensor:
    """[B, T, inner] as complex features [B, T, heads, D/2]."""
    x = x_BTI.double().unflatten(-1, (num_heads, -1))
    if run.choices.pair_layout == "interleaved":
        return torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.complex(*x.chunk(2, dim=-1))


def trained_distances(run: TrainRun) -> int:
    """How many distances training had: 0 .. this - 1 (the last token is not fed; P9's start token is)."""
    return run.data.train_length - 1 + run.choices.start_token


def seen(run: TrainRun, allowed_T: np.ndarray) -> torch.Tensor:
    """Which keys each query may see, bool [T, T], of the distances that it may look over.

    The start token (P9) is always seen: every trained query had it in view, and many heads rest on it.
    """
    distance = torch.arange(len(allowed_T))[:, None] - torch.arange(len(allowed_T))
    found = (distance >= 0) & torch.from_numpy(allowed_T)[distance.clamp(min=0)]
    if run.choices.start_token:
        found[:, 0] = True
    return found.to(run.training.device)


def first_fall(found: ByPosition, run: TrainRun) -> int | None:
    """Where accuracy first falls past the trained distances: by `FALL` between five positions and the five after them.

    Told as the largest distance in view there, from the query to the first token, so that an alias at D shows as a fall
    at D. Of neighbouring positions that all fall, the one that falls most. None: it never does.
    """
    a, reach = found.accuracy, found.positions - 1 + run.choices.start_token
    fall = np.zeros(len(a))
    for i in range(_AROUND, len(a) - _AROUND + 1):
        fall[i] = a[i - _AROUND : i].mean() - a[i : i + _AROUND].mean()
    falls = (fall > FALL) & (reach >= trained_distances(run))
    if not falls.any():
        return None
    start = int(falls.argmax())
    end = start + int(np.append(~falls[start:], True).argmax())
    return int(reach[start + int(fall[start:end].argmax())])


@torch.no_grad()
def attention(run: TrainRun, decoder: Decoder, rotary: Rotary, x_NT: np.ndarray) -> np.ndarray:
    """The attention that queries from L on give to each distance, [T]: the mean over queries, heads and sequences."""
    inputs, _, _ = to_inputs(run, x_NT)
    length, found = inputs.shape[1], []

    def keep(module: torch.nn.Module, arguments: tuple) -> None:
        x, rotation = arguments[:2]
        q, k = (w(x).unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for w in (module.q, module.k))
        q, k = rotation(q, k)
        past = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        scores = ((q @ k.transpose(-1, -2)).float() * module.scale).masked_fill(~past, float("-inf"))
        found.append(scores.softmax(-1).mean((0, 1)).double().cpu())

    hooks = [layer.attention.register_forward_pre_hook(keep) for layer in decoder.layers]
    decoder(inputs.to(run.training.device), rotary.at(length))
    for hook in hooks:
        hook.remove()
    mean_TT, start = torch.stack(found).mean(0), trained_distances(run)
    by_distance = [mean_TT.diagonal(-d)[max(start - d, 0) :] for d in range(length)]
    return np.array([float(of.sum()) / (length - start) for of in by_distance])


def probe(
    run: TrainRun,
    spec: EncodingSpec,
    seed: int,
    weights: dict[str, torch.Tensor],
    test_NT: np.ndarray,
    settings: EvaluationSettings,
) -> Iterator[dict]:
    """Rows (mask, position, metric, value), `rows.PROBE`: accuracy as it is and under every mask, and what the weights
    say of the distances."""
    decoder = make_decoder(run, generator(seed, 0)).to(run.training.device)
    decoder.load_state_dict(weights)
    rotary = make_rotary(run, spec, run.data.test_length)
    test = test_NT[spread(len(test_NT), settings.test_sequences)]
    length, trained = run.data.test_length - 1 + run.choices.start_token, trained_distances(run)
    kernel = kernels(run, decoder, spec, test, length)
    above = above_trained(kernel, trained)
    mass = attention(run, decoder, rotary, test[spread(len(test), settings.batch_size)])

    def row(mask: str, metric: str, value: float, position: int | None = None) -> dict:
        return {"mask": mask, "position": position, "metric": metric, "value": float(value)}

    by_mask = {"none": None} | masks(above, trained)
    for mask, allowed in by_mask.items():
        keys = None if allowed is None else seen(run, allowed)
        found = measure(run, decoder, rotary, test, settings, keys)
        summary = found.summary(run.data.train_length)
        for metric in ("in_distribution_accuracy", "ood_accuracy", "ood_accuracy_even", "ood_accuracy_odd"):
            yield row(mask, metric, summary[metric])
        yield row(mask, "hidden", 0 if allowed is None else (~allowed[trained:]).sum())
        if mask in ("none", "aliases"):
            for position, accuracy in zip(found.positions, found.accuracy, strict=True):
                yield row(mask, "accuracy", accuracy, int(position))
        fall = first_fall(found, run)
        if fall is not None:
            yield row(mask, "first_fall", fall)
    yield row("none", "predicted_leak", leak(kernel, trained))
    alias = np.flatnonzero(~by_mask["aliases"])
    for metric, found in (("first_alias", alias), ("predicted_fall", predicted_falls(above, trained))):
        if len(found):
            yield row("none", metric, found[0])
    for metric, by_distance in (("above_trained", above), ("attention", mass)):
        for distance in np.flatnonzero(np.isfinite(by_distance)):
            yield row("none", metric, round(by_distance[distance], 4), int(distance))
