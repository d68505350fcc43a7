"""Why models fail past L: kernels against the rotation itself, masks, aliases of a head made by hand, first falls."""

import numpy as np
import pytest
import torch

from resonance.encoding.rotary import Rotary
from resonance.encoding.spec import EncodingSpec
from resonance.posgen import aliases, probe
from resonance.posgen.draws import generator
from resonance.posgen.evaluate import ByPosition
from resonance.posgen.probe_rows import PROBED
from resonance.posgen.settings import EvaluationSettings
from resonance.posgen.train import make_decoder, make_rotary, to_inputs

YARN = EncodingSpec(method="yarn", scale=4.0, train_length=12, beta_fast=2.0, resonance=True)
TRAINED = 63


def head(wavelengths: dict[float, float], k: int, length: int = 256) -> np.ndarray:
    """The kernel [1, T] of a head that looks k back by features of some wavelengths, with these weights in nats."""
    distances = np.arange(length)
    return sum(w * np.cos(2 * np.pi * (distances - k) / lam) for lam, w in wavelengths.items())[None]


@pytest.mark.parametrize("pair_layout", ["interleaved", "half_split"])
@pytest.mark.parametrize("spec", [EncodingSpec(), YARN], ids=["rope", "yarn"])
def test_a_kernel_is_the_logit_of_mean_query_and_mean_key(spec, pair_layout, make_run, make_sequences) -> None:
    run = make_run(pair_layout=pair_layout)
    decoder, x_NT = make_decoder(run, generator(1, 0)), make_sequences(run)["test"]
    found = probe.kernels(run, decoder, spec, x_NT, 20)
    assert found.shape == (4, 20), "two layers of two heads"
    # The first layer, by hand: its input is the normed embedding of the tokens fed, from the first column asked for.
    inputs, _, first = to_inputs(run, x_NT[:, : run.data.train_length])
    attention = decoder.layers[0].attention
    with torch.no_grad():
        hidden = decoder.layers[0].attention_norm(decoder.embedding(inputs))[:, first:]
        q, k = (w(hidden).mean((0, 1)).view(2, 1, 8) for w in (attention.q, attention.k))
        rotary = Rotary(spec, head_dim=8, num_positions=24, pair_layout=pair_layout)
        turned, _ = rotary.at(20)(q.expand(2, 20, 8)[None].contiguous(), k.expand(2, 20, 8)[None].contiguous())
        amplitude = rotary.tables(1)[0].max()  # the key at position 0 is scaled and not turned
        by_hand = (turned[0] * k * amplitude).sum(-1) * attention.scale
    np.testing.assert_allclose(found[:2], by_hand.numpy(), atol=1e-5)


def test_a_head_with_one_fast_feature_has_an_alias_every_wavelength() -> None:
    """k + n*20; the first untrained one, 64, is where accuracy is to fall. A slow feature takes the later ones away."""
    bare = aliases.above_trained(head({20.0: 8.0}, 4) + 1e-3 * np.arange(256), TRAINED)
    masks = aliases.masks(bare, TRAINED)
    hidden = np.flatnonzero(~masks["aliases"])
    assert {64, 84, 104} <= set(hidden) and not {70, 74, 94} & set(hidden)
    assert set(hidden) <= {n + d for n in range(64, 256, 20) for d in (-1, 0, 1, 2)}
    held = aliases.above_trained(head({20.0: 8.0, 1000.0: 60.0}, 4), TRAINED)
    assert not np.flatnonzero(~aliases.masks(held, TRAINED)["aliases"]).any()
    assert (
        aliases.predicted_falls(aliases.above_trained(head({19.0: 8.0, 7.0: 1.0}, 4) * 1.2, TRAINED), TRAINED).size == 0
    )
    near = head({20.0: 8.0}, 4)
    near[:, :TRAINED] *= 0.9  # what training holds down
    assert aliases.predicted_falls(aliases.above_trained(near, TRAINED), TRAINED)[:2].tolist() == [64, 84]


def test_a_head_that_looks_nowhere_has_no_alias() -> None:
    assert np.isneginf(aliases.above_trained(head({20.0: 0.5}, 4), TRAINED)).all()
    assert aliases.leak(head({20.0: 0.5}, 4), TRAINED) == 0.0


def test_leak_counts_the_distances_in_view() -> None:
    """A flat alias level: two untrained distances as high as the one trained peak, all else far below."""
    kernel = np.full((1, 6), -50.0)
    kernel[0, [1, 4, 5]] = 0.0
    kernel[0, 0] = -40.0
    assert aliases.leak(kernel, 4) == pytest.approx((1 / 2 + 2 / 3) / 2, abs=1e-6)


def test_the_control_hides_as_many_other_untrained_distances() -> None:
    above = aliases.above_trained(head({20.0: 8.0}, 4), TRAINED)
    masks = aliases.masks(above, TRAINED)
    alias, control = (set(np.flatnonzero(~masks[name])) for name in ("aliases", "control"))
    assert len(alias) == len(control) > 0 and not alias & control and min(alias | control) >= TRAINED
    assert masks["window_8"].sum() == 8 and masks["window_trained"].sum() == TRAINED


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_what_is_hidden_cannot_be_seen_and_the_start_token_can(protocol, make_run, make_sequences) -> None:
    run = make_run(protocol)
    decoder, x_NT = make_decoder(run, generator(1, 0)), make_sequences(run)["test"]
    inputs, _, _ = to_inputs(run, x_NT)
    rotation = make_rotary(run, YARN, run.data.test_length).at(inputs.shape[1])
    keys = probe.seen(run, np.arange(inputs.shape[1]) < 4)
    assert keys.triu(1).sum() == 0, "never more than the past"
    changed, start = inputs.clone(), int(run.choices.start_token)
    changed[:, start : inputs.shape[1] - 8] = (changed[:, start : inputs.shape[1] - 8] + 1) % run.data.modulus
    with torch.no_grad():  # two layers of windows of 4 reach 6 back
        as_it_was, other = (decoder(tokens, rotation, keys)[:, -1] for tokens in (inputs, changed))
        assert torch.equal(as_it_was, other)
        assert not torch.equal(decoder(inputs, rotation)[:, -1], decoder(changed, rotation)[:, -1])
        if start:
            changed = inputs.clone()
            changed[:, 0] = 0
            assert not torch.equal(as_it_was, decoder(changed, rotation, keys)[:, -1])


@pytest.mark.parametrize(("protocol", "reach"), [("paper", 17), ("released", 18)])
def test_the_first_fall_is_told_as_the_distance_to_the_first_token(protocol, reach, make_run) -> None:
    run, positions = make_run(protocol), np.arange(4, 40)

    def fall(accuracy: np.ndarray) -> int | None:
        return probe.first_fall(ByPosition(positions, accuracy), run)

    assert fall(np.where(positions < 18, 1.0, 0.8)) == reach, "predicted at 18 by the query before it"
    assert fall(np.where(positions < 8, 1.0, 0.8)) is None, "a trained position"
    assert fall(np.ones(len(positions))) is None
    assert fall(np.where(positions < 18, 1.0, 0.97)) is None, "less than falls by chance"


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_a_probe_says_what_was_asked_for_and_changes_nothing_unmasked(protocol, make_run, make_sequences) -> None:
    run = make_run(protocol)
    decoder, sequences = make_decoder(run, generator(1, 0)), make_sequences(run)
    settings = EvaluationSettings(curve_sequences=5, test_sequences=12, batch_size=4, precision="fp32")
    rows = list(probe.probe(run, YARN, 1, decoder.state_dict(), sequences["test"], settings))
    assert {row["metric"] for row in rows} <= set(PROBED)
    by_mask = {row["mask"]: row["value"] for row in rows if row["metric"] == "ood_accuracy"}
    assert list(by_mask) == ["none", "window_8", "window_16", "window_32", "window_trained", "aliases", "control"]
    plain = probe.measure(run, decoder, make_rotary(run, YARN, run.data.test_length), sequences["test"], settings)
    assert by_mask["none"] == plain.summary(run.data.train_length)["ood_accuracy"]
    attention = [row["value"] for row in rows if row["metric"] == "attention"]
    assert sum(attention) == pytest.approx(1, abs=1e-2)
    at = [row["position"] for row in rows if row["metric"] == "accuracy" and row["mask"] == "none"]
    assert at == list(range(4, 24))
