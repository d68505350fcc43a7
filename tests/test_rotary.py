"""Rotary and rotate: Theorem 1 bit for bit, relative positions, and a dense float64 reference."""

import numpy as np
import pytest
import torch

from resonance.encoding.frequencies import frequency_table, precritical
from resonance.encoding.ops import turn
from resonance.encoding.rotary import Rotary
from resonance.encoding.spec import EncodingSpec

ROPE, RESONANCE = EncodingSpec(), EncodingSpec(resonance=True)
SHORT = EncodingSpec(resonance=True, base=100.0)  # d = 8: periods 6, 20, 63, 199
YARN = EncodingSpec(method="yarn", scale=4.0, train_length=64)
LAYOUTS = ["half_split", "interleaved"]
LENGTHS = [(64, 64, 256), (128, 4096, 32768)]  # d, L, L': PosGen's and LLaMA2's


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def as_complex(x: torch.Tensor, layout: str) -> torch.Tensor:
    """x [..., D] as D/2 complex numbers."""
    half = x.shape[-1] // 2
    if layout == "half_split":
        return torch.complex(x[..., :half], x[..., half:])
    return torch.complex(x[..., 0::2], x[..., 1::2])


def bits(cos: torch.Tensor, sin: torch.Tensor) -> np.ndarray:
    """Two float32 tables as one int64: equal if and only if both are bitwise equal."""
    both = torch.stack((cos, sin), dim=-1).contiguous().numpy()
    return both.view(np.int64)[..., 0]


# Theorem 1: the feature gap of eq. 8, through the table that a model uses


@pytest.mark.parametrize(("head_dim", "train_length", "test_length"), LENGTHS)
def test_theorem_1_resonance_has_no_feature_gap_bit_for_bit(head_dim: int, train_length: int, test_length: int) -> None:
    """Every unseen position's cos and sin are bitwise those of a seen one, so eq. 8 is 0 for every x."""
    rotary = Rotary(RESONANCE, head_dim=head_dim, num_positions=test_length)
    table = bits(*rotary.tables(test_length))
    inside = np.flatnonzero(precritical(frequency_table(ROPE, head_dim).theta, train_length))
    assert len(inside) == {64: 9, 128: 46}[head_dim]
    for j in inside:
        assert np.isin(table[train_length:, j], table[:train_length, j]).all(), f"feature {j}"


@pytest.mark.parametrize(("head_dim", "train_length", "test_length"), LENGTHS)
def test_plain_rope_has_a_feature_gap_on_every_precritical_feature(
    head_dim: int, train_length: int, test_length: int
) -> None:
    """How far the worst unseen position stands from every seen one: rad, the least and greatest feature's."""
    cos, sin = Rotary(ROPE, head_dim=head_dim, num_positions=test_length).tables(test_length)
    angle = torch.atan2(sin, cos).double().numpy() % (2 * np.pi)
    inside = np.flatnonzero(precritical(frequency_table(ROPE, head_dim).theta, train_length))
    gaps = []
    for j in inside:
        seen = np.sort(angle[:train_length, j])
        seen = np.concatenate((seen[-1:] - 2 * np.pi, seen, seen[:1] + 2 * np.pi))
        after = np.searchsorted(seen, angle[train_length:, j])
        nearest = np.minimum(seen[after] - angle[train_length:, j], angle[train_length:, j] - seen[after - 1])
        gaps.append(nearest.max())
    expected = {64: (0.0076, 0.1277), 128: (0.0007, 0.0257)}[head_dim]  # float32 angles are good to 3e-7
    assert (min(gaps), max(gaps)) == pytest.approx(expected, abs=5e-5)


def test_m_times_theta_in_float32_would_leave_a_gap() -> None:
    """Why the table is packed: at 4096 -> 32768 the naive float32 product misses a seen angle by 1e-3 and more."""
    theta = torch.from_numpy(frequency_table(RESONANCE, 128).theta).float()
    positions = torch.arange(32768)
    naive = torch.cos(positions[:, None].float() * theta)
    packed, _ = Rotary(RESONANCE, head_dim=128, num_positions=32768).tables(32768)
    worst = (naive - packed).abs().max().item()
    assert 1e-3 < worst < 1e-2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rotating_by_a_period_is_the_identity_bit_for_bit(layout: str) -> None:
    rotary = Rotary(SHORT, head_dim=8, num_positions=256, pair_layout=layout)
    x = random(1, 8)
    for j, period in enumerate(frequency_table(SHORT, 8).period.tolist()):
        pair = [j, j + 4] if layout == "half_split" else [2 * j, 2 * j + 1]
        turned, _ = rotary(x, x, torch.tensor([period]))
        assert torch.equal(turned[0, pair], x[0, pair])
        other = [i for i in range(8) if i not in pair]
        assert not torch.equal(turned[0, other], x[0, other])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors_one_period_apart_are_bitwise_equal_on_that_feature(layout: str) -> None:
    rotary = Rotary(RESONANCE, head_dim=64, num_positions=256, pair_layout=layout)
    x = random(1, 64).expand(256, 64)
    turned = as_complex(rotary(x, x)[0], layout)
    periods = frequency_table(RESONANCE, 64).period
    for j in np.flatnonzero(periods < 256):
        assert torch.equal(turned[periods[j] :, j], turned[: -periods[j], j])


# Relative positions (eq. 6)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("spec", [ROPE, RESONANCE, YARN], ids=["rope", "resonance_rope", "yarn"])
def test_the_dot_product_depends_on_the_distance_only(spec: EncodingSpec, layout: str) -> None:
    table = frequency_table(spec, 64)
    q, k = random(64, seed=1, dtype=torch.float64), random(64, seed=2, dtype=torch.float64)
    far, distance = torch.tensor([0, 1, 17, 64, 100, 180]), 60

    angle = torch.arange(256)[:, None] * torch.from_numpy(table.theta)
    products = (
        turn(q.expand(6, 64), angle.cos()[far + distance], angle.sin()[far + distance], layout)
        * turn(k.expand(6, 64), angle.cos()[far], angle.sin()[far], layout)
    ).sum(-1)
    assert (products - products[0]).abs().max() < 1e-11  # float64

    rotary = Rotary(spec, head_dim=64, num_positions=256, pair_layout=layout)
    products = (
        rotary.at(far + distance)(q.expand(6, 64), q.expand(6, 64))[0]
        * rotary.at(far)(k.expand(6, 64), k.expand(6, 64))[0]
    ).sum(-1)
    assert (products - products[0]).abs().max() < 1e-5  # float32 tables
    other = (
        rotary.at(far + distance + 1)(q.expand(6, 64), q.expand(6, 64))[0]
        * rotary.at(far)(k.expand(6, 64), k.expand(6, 64))[0]
    ).sum(-1)
    assert (other - products).abs().min() > 1e-2, "and it does depend on the distance"


# Named references


@pytest.mark.parametrize("spec", [ROPE, RESONANCE, SHORT, YARN], ids=["rope", "resonance_rope", "short", "yarn"])
@pytest.mark.parametrize("num_positions", [1, 7, 64, 5000])
def test_packed_table_equals_a_dense_float64_reference(spec: EncodingSpec, num_positions: int) -> None:
    table = frequency_table(spec, 64, num_positions)
    positions = np.arange(num_positions)[:, None]
    reduced = np.where(table.period > 0, positions % np.maximum(table.period, 1), positions)
    cos, sin = Rotary(spec, head_dim=64, num_positions=num_positions).tables(num_positions)
    assert cos.dtype == sin.dtype == torch.float32 and cos.shape == sin.shape == (num_positions, 32)
    expected = table.attention_factor * np.exp(1j * reduced * table.theta)
    half_ulp = 2**-24 * table.attention_factor
    np.testing.assert_allclose(cos.double(), expected.real, rtol=0, atol=half_ulp)  # float32
    np.testing.assert_allclose(sin.double(), expected.imag, rtol=0, atol=half_ulp)


def test_interleaved_equals_half_split_up_to_the_permutation() -> None:
    x = random(3, 20, 16)
    order = torch.cat((torch.arange(0, 16, 2), torch.arange(1, 16, 2)))  # [2j ..., 2j+1 ...]
    turned = {
        layout: Rotary(RESONANCE, head_dim=16, num_positions=20, pair_layout=layout)(y, y)[0]
        for layout, y in (("interleaved", x), ("half_split", x[..., order]))
    }
    assert torch.equal(turned["interleaved"][..., order], turned["half_split"])


def test_the_amplitude_is_folded_in_once() -> None:
    """YaRN's factor a: rotated vectors are a times as long, so logits carry a squared, and no more."""
    factor = frequency_table(YARN, 64).attention_factor
    assert factor == pytest.approx(1.13863, abs=1e-5)
    rotary, q = Rotary(YARN, head_dim=64, num_positions=64), random(64, 64)
    turned, also = rotary(q, q)
    assert torch.allclose(turned.norm(dim=-1), factor * q.norm(dim=-1), rtol=1e-6)  # float32
    assert torch.allclose((turned * also).sum(-1), factor**2 * (q * q).sum(-1), rtol=2e-6)


# Positions


def test_packed_features_are_exact_at_any_position() -> None:
    """Up to 2^40, where float32 positions have long lost their units."""
    periods = frequency_table(SHORT, 8).period.tolist()
    assert periods == [6, 20, 63, 199]
    rotary = Rotary(SHORT, head_dim=8, num_positions=199)
    assert rotary.periodic_everywhere
    positions = [2**40 - 1, 2**40, 2**31 + 5, 10**9 + 7, 199, 12345]
    cos, sin = rotary.tables(torch.tensor(positions))
    once_cos, once_sin = rotary.tables(199)
    for row, m in enumerate(positions):
        for j, period in enumerate(periods):
            assert cos[row, j] == once_cos[m % period, j] and sin[row, j] == once_sin[m % period, j]


def test_positions_may_come_in_any_order_shape_and_integer_type() -> None:
    rotary = Rotary(RESONANCE, head_dim=8, num_positions=50)
    cos, sin = rotary.tables(50)
    asked = torch.tensor([[49, 0, 7], [7, 7, 1]])
    for dtype in (torch.int64, torch.int32, torch.uint8):
        found = rotary.tables(asked.to(dtype))
        assert torch.equal(found[0], cos[asked]) and torch.equal(found[1], sin[asked])


def test_default_positions_count_from_0() -> None:
    rotary, q, k = Rotary(ROPE, head_dim=8, num_positions=9), random(2, 9, 8), random(2, 9, 8, seed=1)
    for found, expected in zip(rotary(q, k), rotary(q, k, torch.arange(9)), strict=True):
        assert torch.equal(found, expected)


def test_a_longer_table_holds_the_same_numbers() -> None:
    for spec in (ROPE, RESONANCE, YARN):
        short = Rotary(spec, head_dim=64, num_positions=64).tables(64)
        long = Rotary(spec, head_dim=64, num_positions=1000).tables(64)
        assert torch.equal(short[0], long[0]) and torch.equal(short[1], long[1])


def test_tables_are_buffers_that_no_checkpoint_holds() -> None:
    rotary = Rotary(RESONANCE, head_dim=64, num_positions=256)
    assert rotary.state_dict() == {} and list(rotary.parameters()) == []
    assert len(list(rotary.buffers())) == 4


# Types


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_data_is_turned_in_float32_and_rounded_once(layout: str, dtype: torch.dtype) -> None:
    rotary, x = Rotary(RESONANCE, head_dim=64, num_positions=300, pair_layout=layout), random(300, 64, dtype=dtype)
    turned, _ = rotary(x, x)
    assert turned.dtype == dtype
    assert torch.equal(turned, rotary(x.float(), x.float())[0].to(dtype))


# Errors


def test_a_position_past_the_table_is_refused_where_a_feature_has_no_period() -> None:
    for spec in (ROPE, RESONANCE):  # RESONANCE at 64: its slow periods are longer than the table
        rotary = Rotary(spec, head_dim=64, num_positions=64)
        rotary.tables(64)
        for positions in (65, torch.tensor([0, 64])):
            with pytest.raises(ValueError, match=r"^positions must be < num_positions = 64, got 64; make the Rotary"):
                rotary.tables(positions)


@pytest.mark.parametrize("positions", [torch.tensor([3, -1]), -1], ids=["tensor", "int"])
def test_a_negative_position_is_refused(positions: torch.Tensor | int) -> None:
    with pytest.raises(ValueError, match=r"must be >= 0, got -1"):
        Rotary(SHORT, head_dim=8, num_positions=199).tables(positions)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float_positions_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"^positions must be integers, got torch"):
        Rotary(ROPE, head_dim=8, num_positions=8).tables(torch.arange(4, dtype=dtype))


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^head_dim must be an even integer >= 2, got 7"):
        Rotary(ROPE, head_dim=7, num_positions=8)
    with pytest.raises(ValueError, match=r"^num_positions must be >= 1, got 0"):
        Rotary(ROPE, head_dim=8, num_positions=0)
    with pytest.raises(ValueError, match=r"^pair_layout must be one of half_split, interleaved, got 'neox'"):
        Rotary(ROPE, head_dim=8, num_positions=8, pair_layout="neox")


def test_turn_refuses_what_does_not_fit() -> None:
    cos = torch.ones(5, 4)
    with pytest.raises(ValueError, match=r"^cos and sin must have one shape that ends in at most 3, half of the last"):
        turn(torch.ones(5, 6), cos, cos)
    with pytest.raises(ValueError, match=r"^cos and sin must have one shape that ends in at most 4"):
        turn(torch.ones(5, 8), cos, torch.ones(4))
    with pytest.raises(ValueError, match=r"^pair_layout must be one of half_split, interleaved, got ''"):
        turn(torch.ones(5, 8), cos, cos, "")
