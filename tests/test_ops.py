"""resonance::rotate, compiled and as the torch reference: every test here runs on both.

Both use the same float32 arithmetic, uncontracted, so they are asked for the same bits.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad

from resonance.encoding import EncodingSpec, ops
from resonance.encoding.frequencies import frequency_table
from resonance.encoding.ops import Table, rotate, rotate_one
from resonance.encoding.rotary import Rotary

ROOT = Path(__file__).resolve().parents[1]
RESONANCE = EncodingSpec(resonance=True)
SHORT = EncodingSpec(resonance=True, base=100.0)  # head dimension 8: periods 6, 20, 63, 199
# Rounding of the result: half an ulp of numbers up to about 6; float32 also rounds products and sums.
TOLERANCE = {torch.float64: 1e-14, torch.float32: 2e-6, torch.float16: 2.5e-3, torch.bfloat16: 2e-2}
_REFERENCE = ops._register("resonance_reference")


@pytest.fixture(params=["compiled", "reference"], autouse=True)
def implementation(request, monkeypatch) -> Iterator[str]:
    if request.param == "compiled" and ops._compiled is None:
        pytest.skip("the extension is not built here")
    if request.param == "reference":
        monkeypatch.setattr(ops, "_ops", torch.ops.resonance_reference)
        monkeypatch.setattr(ops, "_compiled", None)
    return request.param


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64).to(dtype)


def tables(num_positions: int, half: int, dtype: torch.dtype = torch.float32, seed: int = 9) -> Table:
    angle = random(num_positions, half, dtype=torch.float64, seed=seed) * 10
    return Table(angle.cos().to(dtype), angle.sin().to(dtype))


def expected(x, cos, sin, interleaved, conjugate=False) -> torch.Tensor:
    """The rotation as complex multiplication in float64. x [B, H, T, D], cos and sin [B or 1, T, R/2]."""
    half = cos.shape[-1]
    turned, x = x.double().clone(), x.double()
    first = slice(0, 2 * half, 2) if interleaved else slice(0, half)
    second = slice(1, 2 * half, 2) if interleaved else slice(half, 2 * half)
    z = torch.complex(x[..., first], x[..., second])
    z = z * torch.complex(cos.double(), -sin.double() if conjugate else sin.double()).unsqueeze(1)
    turned[..., first], turned[..., second] = z.real, z.imag
    return turned


def draw_case(seed: int) -> dict:
    """A random call: shapes, strides, layout, dtype, table, positions up to 2^40."""
    draw = generator(seed)

    def one_of(*values):
        return values[int(torch.randint(len(values), (), generator=draw))]

    batch, heads, kv_heads = one_of(0, 1, 1, 2, 3), one_of(1, 2, 4, 5), one_of(0, 1, 2, 3)
    num_positions, half = one_of(0, 1, 2, 7, 33, 70), one_of(1, 2, 3, 4, 8, 15, 16, 20, 32, 64, 65)
    head_dim = 2 * half + one_of(0, 0, 0, 1, 2, 16)
    dtype = one_of(torch.float32, torch.bfloat16, torch.float16, torch.float64)
    kind = one_of("contiguous", "BTHD", "sliced", "padded", "expanded")

    def data(num_heads: int) -> torch.Tensor:
        shape = {
            "contiguous": (batch, num_heads, num_positions, head_dim),
            "BTHD": (batch, num_positions, num_heads, head_dim),
            "sliced": (batch, num_heads + 2, 2 * num_positions, head_dim),
            "padded": (batch, num_heads, num_positions, head_dim + 3),
            "expanded": (batch, 1, num_positions, head_dim),
        }[kind]
        x = torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)
        if kind == "BTHD":
            return x.transpose(1, 2)
        if kind == "sliced":
            return x[:, 1 : 1 + num_heads, ::2]
        if kind == "padded":
            return x[..., 1 : 1 + head_dim]
        return x.expand(-1, num_heads, -1, -1) if kind == "expanded" else x

    packed = one_of(True, False)
    amplitude = one_of(1.0, 1.0, 1.1386)
    wide = torch.float64 if dtype == torch.float64 and one_of(True, False) else torch.float32
    positions, limit = None, num_positions + 5
    if packed:
        modulus = torch.randint(1, 90, (half,), generator=draw)
        start = torch.cat((torch.zeros(1, dtype=torch.int64), modulus.cumsum(0)[:-1]))
        angle = torch.randn(int(modulus.sum()), generator=draw, dtype=torch.float64) * 9
        limit = 2**40
        table = Table(angle.cos().to(wide), angle.sin().to(wide), start, modulus, None, amplitude)
    else:
        angle = torch.randn((limit, half), generator=draw, dtype=torch.float64) * 9
        table = Table(angle.cos().to(wide), angle.sin().to(wide), amplitude=amplitude)
    which = one_of("none", "shared", "each", "offset")
    if which != "none":
        positions = torch.randint(limit, (batch, num_positions), generator=draw)
        if which == "shared":
            positions = torch.randint(limit, (num_positions,), generator=draw)
        if which == "offset" and packed:
            positions = positions[:, :1] + torch.arange(num_positions)
    return {
        "q": data(heads), "k": data(kv_heads), "table": table, "positions": positions,
        "layout": one_of(*ops.PAIR_LAYOUTS), "conjugate": one_of(False, True),
    }  # fmt: skip


def rows_of(table: Table, positions: torch.Tensor | None, num_positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [B or 1, T, R/2] of a case, looked up the plain way; amplitude in float64."""
    m = torch.arange(num_positions) if positions is None else positions
    m = m if m.ndim == 2 else m[None]
    if table.start is not None:
        index = table.start + m[..., None] % table.modulus
        return table.cos[index].double() * table.amplitude, table.sin[index].double() * table.amplitude
    return table.cos[m].double() * table.amplitude, table.sin[m].double() * table.amplitude


# Against float64, and against each other


def test_thousands_of_random_calls_equal_float64_to_rounding(implementation: str) -> None:
    for seed in range(3000):
        case = draw_case(seed)
        q, k, table, positions = case["q"], case["k"], case["table"], case["positions"]
        kept = q.clone(), k.clone()
        turned = rotate(q, k, table, positions, pair_layout=case["layout"], conjugate=case["conjugate"])
        cos, sin = rows_of(table, positions, q.shape[2])
        for x, y, before in zip((q, k), turned, kept, strict=True):
            assert torch.equal(x, before), f"case {seed}: the input is left alone"
            assert y.shape == x.shape and y.dtype == x.dtype and y.stride() == torch.empty_like(x).stride(), seed
            wanted = expected(x, cos, sin, case["layout"] == "interleaved", case["conjugate"])
            # relative: amplitude and data are of size 1, their tail reaches 6
            error = (y.double() - wanted).abs() / wanted.abs().clamp(min=1)
            assert error.max().item() < TOLERANCE[x.dtype] if x.numel() else True, f"case {seed}"
            rest = y[..., 2 * cos.shape[-1] :]
            assert torch.equal(rest, x[..., 2 * cos.shape[-1] :]), f"case {seed}: past the rotary dimension"


@pytest.mark.skipif(ops._compiled is None, reason="the extension is not built here")
def test_compiled_and_reference_give_the_same_bits(implementation: str) -> None:
    if implementation == "reference":
        pytest.skip("one comparison is enough")
    for seed in range(3000, 3600):
        case = draw_case(seed)
        limit = -1 if case["table"].num_positions is None else case["table"].num_positions
        t = case["table"]
        rest = (t.cos, t.sin, t.start, t.modulus, case["positions"], limit)
        rest = (*rest, case["layout"] == "interleaved", case["conjugate"], t.amplitude)
        compiled = torch.ops.resonance.rotate(case["q"], case["k"], *rest)
        reference = torch.ops.resonance_reference.rotate(case["q"], case["k"], *rest)
        for x, y in zip(compiled, reference, strict=True):
            assert torch.equal(x, y), f"case {seed}"


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_out_and_in_place_give_the_same_bits_as_fresh(dtype: torch.dtype) -> None:
    # The first is larger than the threshold for streaming stores, the third interleaves q and k in memory.
    for shape, heads in (((1, 20, 1024, 128), 4), ((2, 3, 5, 64), 1), ((2, 7, 6, 64), 2)):
        table = tables(shape[2], shape[3] // 2)
        for layout in ops.PAIR_LAYOUTS:
            fused = random(shape[0], shape[2], shape[1] + heads, shape[3], dtype=dtype).transpose(1, 2)
            q, k = fused[:, : shape[1]], fused[:, shape[1] :]
            if shape[1] != 7:
                q, k = q.contiguous(), k.contiguous()
            fresh = rotate(q, k, table, pair_layout=layout)
            out = torch.empty_like(fresh[0]), torch.empty_like(fresh[1])
            given = rotate(q, k, table, pair_layout=layout, out=out)
            assert given[0] is out[0] and all(torch.equal(x, y) for x, y in zip(out, fresh, strict=True))
            same = rotate(q, k, table, pair_layout=layout, in_place=True)
            assert same[0] is q and all(torch.equal(x, y) for x, y in zip((q, k), fresh, strict=True))


@pytest.mark.parametrize("num_threads", [1, 2])
def test_threads_do_not_change_a_bit(num_threads: int) -> None:
    before = torch.get_num_threads()
    q, k, table = (
        random(2, 8, 300, 64),
        random(2, 2, 300, 64, seed=1),
        Rotary(RESONANCE, head_dim=64, num_positions=300),
    )
    positions = torch.stack((torch.arange(300), torch.arange(300).flip(0)))
    try:
        torch.set_num_threads(1)
        alone = rotate(q, k, table.table, positions)
        torch.set_num_threads(num_threads)
        together = rotate(q, k, table.table, positions)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(x, y) for x, y in zip(alone, together, strict=True))


# The layouts of q and k


def test_both_axis_orders_and_missing_axes() -> None:
    q, k, table = random(2, 4, 6, 8), random(2, 1, 6, 8, seed=1), tables(6, 4)
    turned = rotate(q, k, table)
    swapped = rotate(q.transpose(1, 2).contiguous(), k.transpose(1, 2).contiguous(), table, axes="BTHD")
    for x, y in zip(turned, swapped, strict=True):
        assert torch.equal(x, y.transpose(1, 2)) and y.is_contiguous()
    for some in (slice(0, 1), 0):  # [1, T, D], [T, D]
        for x, y in zip(rotate(q[0, some], k[0, some], table), turned, strict=True):
            assert torch.equal(x, y[0, some])
    assert torch.equal(rotate_one(q, table), turned[0])
    assert torch.equal(rotate_one(q.transpose(1, 2), table, axes="BTHD").transpose(1, 2), turned[0])


def test_packed_sequences_of_several_lengths() -> None:
    """Three sequences in one row of [1, T, H, D] turn as they would alone."""
    lengths, rotary = (5, 1, 9), Rotary(RESONANCE, head_dim=16, num_positions=16)
    alone = [random(1, length, 3, 16, seed=length) for length in lengths]
    positions = torch.cat([torch.arange(length) for length in lengths])
    together = rotate_one(torch.cat(alone, dim=1), rotary.table, positions, axes="BTHD")
    for x, y in zip(alone, together.split(lengths, dim=1), strict=True):
        assert torch.equal(rotate_one(x, rotary.table, axes="BTHD"), y)


def test_cumulative_lengths_become_positions() -> None:
    """What `rotate` documents for cu_seqlens and for the offsets of a cache."""
    table, lengths = Rotary(RESONANCE, head_dim=16, num_positions=64).table, torch.tensor([5, 0, 1, 9])
    cu_seqlens = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    x = random(1, 2, 15, 16)
    positions = torch.arange(15) - torch.repeat_interleave(cu_seqlens[:-1], cu_seqlens.diff())
    turned = rotate_one(x, table, positions)
    for start, end in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True):
        assert torch.equal(turned[:, :, start:end], rotate_one(x[:, :, start:end], table))
    offsets, x = torch.tensor([0, 7, 40]), random(3, 2, 4, 16)
    turned = rotate_one(x, table, torch.arange(4) + offsets[:, None])
    for row, offset in enumerate(offsets.tolist()):
        assert torch.equal(turned[row : row + 1], rotate_one(x[row : row + 1], table, torch.arange(4) + offset))


@pytest.mark.parametrize("half", [1, 3, 4, 6, 32, 33, 64])
def test_runs_of_positions_are_what_single_positions_are(half: int) -> None:
    """Runs are looked up in tiles, across the ends of periods: the same entries as one by one."""
    modulus = torch.arange(1, half + 1) * 3 % 23 + 1
    angle = random(int(modulus.sum()), dtype=torch.float64)
    table = Table(angle.cos().float(), angle.sin().float(), modulus.cumsum(0) - modulus, modulus)
    for dtype in (torch.float32, torch.bfloat16):
        x = random(1, 1, 99, 2 * half, dtype=dtype)
        runs = ((0, 40), (2**33, 30), (5, 2), (9, 1), (2**53 - 9, 26))
        m = torch.cat([torch.arange(length) + start for start, length in runs])
        together = rotate_one(x, table, m)
        for t in range(99):
            assert torch.equal(together[:, :, t : t + 1], rotate_one(x[:, :, t : t + 1], table, m[t : t + 1])), t


@pytest.mark.parametrize("positions", [torch.int32, torch.uint8])
def test_other_integer_positions(positions: torch.dtype) -> None:
    q, table = random(1, 2, 6, 8), tables(6, 4)
    assert torch.equal(rotate_one(q, table, torch.arange(6, dtype=positions)), rotate_one(q, table))


# Tables and positions


@pytest.mark.parametrize("layout", ops.PAIR_LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_packed_equals_dense_bit_for_bit(dtype: torch.dtype, layout: str) -> None:
    rotary = Rotary(EncodingSpec(method="yarn", resonance=True, scale=4, train_length=1024), head_dim=128,
                    num_positions=4096)  # fmt: skip
    q, k = random(1, 2, 4096, 128, dtype=dtype), random(1, 1, 4096, 128, dtype=dtype, seed=1)
    scattered = torch.randint(4096, (4096,), generator=generator(0))
    for positions in (None, scattered):
        packed = rotate(q, k, rotary.table, positions, pair_layout=layout)
        dense = rotate(q, k, Table(*rotary.tables(4096)), positions, pair_layout=layout)
        looked_up = rotate(q, k, Table(*rotary.tables(4096 if positions is None else positions)), pair_layout=layout)
        for x, y, z in zip(packed, dense, looked_up, strict=True):
            assert torch.equal(x, y) and torch.equal(x, z)


def test_theorem_1s_gap_is_zero_bit_for_bit() -> None:
    """Every vector at L .. L'-1 is, feature by feature, one seen below L (pre-critical features)."""
    rotary, trained = Rotary(RESONANCE, head_dim=128, num_positions=32768), 4096
    x = random(1, 128)
    turned = rotate_one(x.expand(32768, 128), rotary.table)
    for j, period in enumerate(frequency_table(RESONANCE, 128).period.tolist()):
        if period < trained:
            later = torch.arange(trained, 32768)
            assert torch.equal(turned[later][:, [j, j + 64]], turned[later % period][:, [j, j + 64]])


@pytest.mark.parametrize("shift", [2**20, 2**40 - 300])
def test_shifting_all_positions_leaves_the_logits(shift: int) -> None:
    """By a common multiple of no period: every feature moves, q.k does not but for rounding."""
    rotary = Rotary(SHORT, head_dim=8, num_positions=199)
    unit = [torch.nn.functional.normalize(random(1, 1, 256, 8, seed=seed), dim=-1) for seed in (0, 1)]
    logits = []
    for offset in (0, shift):
        q, k = rotate(*unit, rotary.table, torch.arange(256) + offset)
        logits.append((q.double() @ k.double().transpose(-1, -2)).squeeze())
    assert (logits[0] - logits[1]).abs().max() <= 1e-6


def test_packed_positions_are_exact_up_to_2_to_the_40() -> None:
    rotary = Rotary(SHORT, head_dim=8, num_positions=199)
    x = random(1, 8)
    for m in (199, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40 - 1, 2**40, 2**62):
        far = rotate_one(x, rotary.table, torch.tensor([m]))
        for j, period in enumerate((6, 20, 63, 199)):
            near = rotate_one(x, rotary.table, torch.tensor([m % period]))
            assert torch.equal(far[:, [j, j + 4]], near[:, [j, j + 4]])


# Gradients


@pytest.mark.parametrize("layout", ops.PAIR_LAYOUTS)
@pytest.mark.parametrize("packed", [True, False])
def test_gradients_to_second_order(packed: bool, layout: str) -> None:
    rotary = Rotary(SHORT, head_dim=6, num_positions=199)
    table = rotary.table if packed else Table(*(t.double() for t in rotary.tables(5)))
    table = table._replace(amplitude=1.2)
    positions = (
        torch.tensor([[0, 3, 9, 2**33, 5], [1, 2, 3, 4, 2**40]]) if packed and rotary.periodic_everywhere else None
    )
    q = random(2, 2, 5, 7, dtype=torch.float64).requires_grad_()
    k = random(2, 1, 5, 7, dtype=torch.float64, seed=1).requires_grad_()

    def turned(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return rotate(q, k, table, positions, pair_layout=layout)

    assert torch.autograd.gradcheck(turned, (q, k))
    assert torch.autograd.gradgradcheck(turned, (q, k))


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # torch's linearize of any constant
@pytest.mark.parametrize("layout", ops.PAIR_LAYOUTS)
def test_forward_mode_rotates_the_tangent(layout: str) -> None:
    """By forward_ad, jvp, jacfwd and linearize, of q alone, k alone and both."""
    table = tables(5, 4, torch.float64)._replace(amplitude=1.2)
    q, k, q_t, k_t = (random(2, n, 5, 9, dtype=torch.float64, seed=n) for n in (3, 1, 3, 1))
    k_t = k_t.flip(0)

    def turned(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return rotate(q, k, table, pair_layout=layout)

    primal, wanted = turned(q, k), turned(q_t, k_t)
    for found in (
        torch.func.jvp(turned, (q, k), (q_t, k_t)),
        (primal, torch.func.linearize(turned, q, k)[1](q_t, k_t)),
    ):
        for x, y in zip((*found[0], *found[1]), (*primal, *wanted), strict=True):
            assert torch.equal(x, y)
    assert torch.equal(torch.func.jvp(lambda k: turned(q, k), (k,), (k_t,))[1][1], wanted[1])
    with forward_ad.dual_level():
        for call in (turned, lambda *x: ops._ops.rotate(*x, *table[:4], None, -1, layout == "interleaved", False, 1.2)):
            x, y = (forward_ad.unpack_dual(x) for x in call(forward_ad.make_dual(q, q_t), k))
            assert torch.equal(x.primal, primal[0]) and torch.equal(x.tangent, wanted[0])
            assert torch.equal(y.primal, primal[1]) and (y.tangent is None or not y.tangent.any())
    small, row = random(4, dtype=torch.float64), tables(1, 2, torch.float64)
    forward, backward = (
        transform(lambda x: rotate_one(x[None], row, pair_layout=layout)[0])(small)
        for transform in (torch.func.jacfwd, torch.func.jacrev)
    )
    assert torch.equal(forward, backward) and forward.any()


def test_forward_and_backward_over_each_other() -> None:
    rotary = Rotary(SHORT, head_dim=6, num_positions=199)
    q, k = (random(1, n, 3, 7, dtype=torch.float64, seed=n).requires_grad_() for n in (2, 1))

    def turned(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return rotate(q, k, rotary.table, torch.tensor([2**33, 0, 7]))

    assert torch.autograd.gradcheck(turned, (q, k), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(turned, (q, k), check_fwd_over_rev=True)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return rotate_one(x.view(1, 6), rotary.table).pow(3).sum()

    x = random(6, dtype=torch.float64)
    wanted = torch.autograd.functional.hessian(loss, x)
    for outer, inner in ((torch.func.jacfwd, torch.func.jacrev), (torch.func.jacrev, torch.func.jacfwd)):
        assert torch.allclose(outer(inner(loss))(x), wanted, rtol=1e-12)
    xs = random(3, 6, dtype=torch.float64, seed=1)
    found = torch.vmap(lambda x, t: torch.func.jvp(loss, (x,), (t,))[1])(xs, xs.flip(0))
    for i in range(3):
        assert torch.allclose(found[i], torch.func.jvp(loss, (xs[i],), (xs[2 - i],))[1], rtol=1e-12)


def test_writing_calls_refuse_tangents_and_transforms() -> None:
    q, k, table = random(2, 3, 5, 8), random(2, 1, 5, 8, seed=1), tables(5, 4)
    out = torch.empty_like(q), torch.empty_like(k)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(q.clone(), q)
        for call in (
            lambda: rotate(dual, k, table, in_place=True),
            lambda: rotate(dual, k, table, out=out),
            lambda: ops._ops.rotate_(dual, k, *table[:4], None),
            lambda: ops._ops.rotate_into(q, k, dual, out[1], *table[:4], None),
        ):
            with pytest.raises(ValueError, match=r"^in_place and out have no tangent, but q, k or out carries one"):
                call()
    for transform in (
        lambda f: torch.func.jvp(f, (q,), (q,)),
        lambda f: torch.func.grad(f)(q),
        lambda f: torch.vmap(f)(q[:, None]),
    ):
        with pytest.raises(ValueError, match=r"^in_place and out do not go under torch.func's transforms"):
            transform(lambda q: rotate_one(q, table, in_place=True).sum())
    with pytest.raises(RuntimeError, match=r"^torch.func's transforms do not go through torch.ops"):
        torch.func.jvp(lambda q: ops._ops.rotate(q, k, *table[:4], None), (q,), (q,))


def test_backward_is_the_conjugate_and_takes_expanded_gradients() -> None:
    q, k, table = random(2, 3, 5, 8).requires_grad_(), random(2, 1, 5, 8, seed=1), tables(5, 4)
    turned, _ = rotate(q, k, table)
    turned.sum().backward()
    assert torch.equal(q.grad, rotate_one(torch.ones_like(q), table, conjugate=True))


def test_a_call_without_gradient_records_none() -> None:
    q = random(2, 3, 5, 8).requires_grad_()
    with torch.no_grad():
        assert not rotate_one(q, tables(5, 4)).requires_grad
    assert rotate_one(q, tables(5, 4)).requires_grad
    with torch.inference_mode():
        assert rotate_one(q, tables(5, 4)).is_inference()


def test_a_write_is_seen_by_whoever_saved_the_old_values() -> None:
    """In place and into out: backward through the overwritten values is refused, not wrong."""
    for write in (
        lambda x, q: rotate(x, q, tables(5, 4), in_place=True),
        lambda x, q: rotate(q, q.clone(), tables(5, 4), out=(x, torch.empty_like(q))),
    ):
        weight, q = random(2, 1, 5, 8).requires_grad_(), random(2, 1, 5, 8, seed=1)
        x = random(2, 1, 5, 8, seed=2)
        product = weight * x
        write(x, q)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.sum().backward()


def test_vmap_is_a_loop(implementation: str) -> None:
    """Over q, k and positions, wherever their new dimension lies; and backward."""
    table, dense = Rotary(SHORT, head_dim=8, num_positions=199).table, tables(30, 4)
    q, k = random(3, 2, 4, 5, 8), random(3, 2, 1, 5, 8, seed=1)
    each = torch.randint(25, (3, 2, 5), generator=generator(0))
    for t in (table, dense):
        for positions, dim in ((None, None), (each[0, 0], None), (each[0], None), (each[:, 0], 0), (each, 0)):
            found = torch.vmap(lambda q, k, m, t=t: rotate(q, k, t, m), in_dims=(0, 0, dim))(q, k, positions)
            for i in range(3):
                m = positions if dim is None else positions[i]
                for x, y in zip(found, rotate(q[i], k[i], t, m), strict=True):
                    assert torch.equal(x[i], y)
    last = torch.vmap(lambda q: rotate(q, k[0], dense), in_dims=4, out_dims=4)(q.movedim(0, 4))
    assert torch.equal(last[0][..., 1], rotate(q[1], k[0], dense)[0])
    assert torch.equal(last[1][..., 1], rotate(q[1], k[0], dense)[1])
    looked_up = Table(*(random(2, 5, 4, seed=seed) for seed in (3, 4)))
    found = torch.vmap(lambda q: rotate_one(q, looked_up))(q)
    assert torch.equal(found[2], rotate_one(q[2], looked_up))
    with pytest.raises(ValueError, match=r"^vmap goes over q, k and positions, got a table with a dimension"):
        torch.vmap(lambda cos: rotate_one(q[0], Table(cos, cos)))(torch.ones(3, 5, 4))

    q = q.requires_grad_()
    together = torch.vmap(lambda q: rotate_one(q, dense))(q)
    looped = torch.stack([rotate_one(x, dense) for x in q])
    weight = random(*q.shape, seed=5)
    assert torch.equal(*(torch.autograd.grad((y * weight).sum(), q)[0] for y in (together, looped)))


def test_autocast_passes_dtypes_through() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        q, k = rotate(random(1, 1, 4, 8), random(1, 1, 4, 8), tables(4, 4))
    assert q.dtype == k.dtype == torch.float32


# Odd sizes


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
def test_special_numbers(dtype: torch.dtype) -> None:
    """The largest, the smallest, infinities and NaN: as float32 arithmetic and one rounding have it."""
    info = torch.finfo(dtype)
    values = [0.0, -0.0, info.max, -info.max, info.tiny, info.smallest_normal / 4, 1.0, float("inf"), float("nan")]
    x = torch.tensor(values * 4, dtype=dtype).view(1, 1, 1, -1)
    half = x.shape[-1] // 2
    one, zero = torch.ones(1, half), torch.zeros(1, half)
    finite = x.isfinite()
    turned = rotate_one(x, Table(one, zero))
    partner_finite = finite.roll(half, -1)
    assert torch.equal(turned[finite & partner_finite], x[finite & partner_finite])
    assert turned.isnan().any() and torch.equal(turned.isnan(), ~partner_finite | x.isnan())
    assert rotate_one(x, Table(one.view(torch.int32).mul(0).sub(1).view(torch.float32), zero)).isnan().all()
    doubled = rotate_one(x, Table(one * 2, zero))
    assert torch.equal(doubled[0, 0, 0, 2], torch.tensor(float("inf"), dtype=dtype))


@pytest.mark.parametrize("shape", [(0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 1, 2), (1, 1, 1, 1)])
def test_sizes_of_0_and_1(shape: tuple[int, ...]) -> None:
    q = random(*shape).requires_grad_()
    turned, _ = rotate(q, random(*shape), tables(4, shape[3] // 2))
    turned.sum().backward()
    assert turned.shape == shape and q.grad.shape == shape


# Bad input: one line that names the argument, the rule and the value

Q, K, T = random(2, 4, 5, 8), random(2, 2, 5, 8, seed=1), tables(5, 4)
PACKED = Table(torch.ones(10), torch.ones(10), torch.tensor([0, 4]), torch.tensor([4, 6]))
BAD = {
    "q's last dimension": ((random(2, 4, 5, 16)[..., ::2], K, T), r"^q must have a contiguous last dimension, got s"),
    "k's last dimension": ((Q, random(2, 2, 8, 5).transpose(2, 3), T), r"^k must have a contiguous last dimension, go"),
    "dtypes differ": ((Q, K.bfloat16(), T), r"^q and k must have one dtype of float32, bfloat16"),
    "integers": ((Q.int(), K.int(), T), r"^q and k must have one dtype of float32, bfloat16"),
    "batches differ": ((Q, K[:1], T), r"^q and k may differ in heads only, got \[2, 4, 5, 8\] and \[1, 2, 5, 8\]"),
    "k elsewhere": ((Q, K.to("meta"), T), r"^k must be on q's device cpu, got meta"),
    "table elsewhere": ((Q, K, Table(T.cos.to("meta"), T.sin)), r"^cos must be on q's device cpu, got meta"),
    "table of bfloat16": ((Q, K, Table(T.cos.bfloat16(), T.sin.bfloat16())), r"^cos and sin must have one shape and"),
    "float64 table": ((Q, K, tables(5, 4, torch.float64)), r"^cos and sin must be float32 for .* data, got float64"),
    "cos and sin differ": ((Q, K, Table(T.cos, T.sin[:4])), r"^cos and sin must have one shape and one dtype"),
    "table strides": ((Q, K, Table(T.cos, T.sin.T.contiguous().T)), r"^cos and sin must have the same strides"),
    "table too wide": ((Q, K, tables(5, 5)), r"^the table's rotary dimension must be at most D = 8 .* got 10"),
    "table of 1 dimension": ((Q, K, Table(T.cos[0], T.sin[0])), r"^a dense table is \[N, R/2\] or \[B, T, R/2\], got "),
    "table of another batch": ((Q, K, Table(T.cos[None], T.sin[None])), r"^a table \[B, T, R/2\] must fit q's B = 2"),
    "half packed": ((Q, K, PACKED._replace(modulus=None)), r"^start and modulus must be given together"),
    "packed in 2-D": ((Q, K, T._replace(start=PACKED.start, modulus=PACKED.modulus)), r"^a packed table has cos, sin"),
    "int32 start": ((Q, K, PACKED._replace(start=PACKED.start.int())), r"^start and modulus must be int64"),
    "start outside": ((Q, K, PACKED._replace(start=PACKED.start + 1)), r"^start and modulus must stay within the pack"),
    "modulus 0": ((Q, K, PACKED._replace(modulus=PACKED.modulus * 0)), r"^start and modulus must stay within the pack"),
    "table too short": ((Q, K, tables(4, 4)), r"^positions must be < num_positions = 4, got 4; make the table longer"),
    "position past it": ((Q, K, T, torch.tensor([0, 1, 5, 2, 3])), r"^positions must be < num_positions = 5, got 5"),
    "position negative": ((Q, K, T, torch.tensor([0, 1, -1, 2, 3])), r"^positions must be >= 0, got -1"),
    "negative, packed": ((Q, K, PACKED, torch.tensor([0, 1, -7, 2, 3])), r"^positions must be >= 0, got -7"),
    "packed, past": ((Q, K, PACKED._replace(num_positions=4)), r"^positions must be < num_positions = 4, got 4"),
    "positions' shape": ((Q, K, T, torch.arange(4)), r"^positions must be int64 \[T\] or \[B, T\] with B = 2, T = 5"),
    "float positions": ((Q, K, T, torch.arange(5.0)), r"^positions must be integers, got torch.float32"),
    "one dimension": ((Q[0, 0, 0], K[0, 0, 0], T), r"^q must have 2 to 4 dimensions"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_is_refused_in_one_line(case: str) -> None:
    arguments, message = BAD[case]
    with pytest.raises(ValueError, match=message) as raised:
        rotate(*arguments)
    assert "Exception raised from" not in str(raised.value) and len(str(raised.value).splitlines()) == 1


def test_bad_options_and_outputs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^pair_layout must be one of half_split, interleaved, got 'neox'"):
        rotate(Q, K, T, pair_layout="neox")
    with pytest.raises(ValueError, match=r"^axes must be one of BHTD, BTHD, got 'bhtd'"):
        rotate(Q, K, T, axes="bhtd")
    for bad in (Q[:, :3].clone(), Q.bfloat16(), random(2, 4, 8, 5).transpose(2, 3)):
        with pytest.raises(ValueError, match=r"^out must have its input's shape \[2, 4, 5, 8\], dtype"):
            rotate(Q, K, T, out=(bad, K.clone()))
    with pytest.raises(ValueError, match=r"^in_place and out exclude each other"):
        rotate(Q, K, T, in_place=True, out=(Q, K))
    with pytest.raises(ValueError, match=r"^in_place and out have no gradient"):
        rotate(Q.clone().requires_grad_(), K, T, in_place=True)
    with pytest.raises(ValueError, match=r"^in_place and out have no gradient"):
        rotate(Q, K, T, out=(Q.clone(), K.clone().requires_grad_()))
    with torch.no_grad():
        rotate(Q.clone().requires_grad_(), K.clone(), T, in_place=True)


def test_what_is_written_shares_no_memory() -> None:
    """With itself, each other, the data, the table or the positions: each refused before anything is written."""
    shared = random(2, 4, 6, 8).view(-1)
    first, second = shared[:320].view(Q.shape), shared[8:328].view(Q.shape)
    table, k = T.cos, K.clone()
    wide = torch.zeros(2, 4, 5, 8, dtype=torch.float64)
    positions, alone = wide.view(-1).view(torch.int64)[:5].copy_(torch.arange(5)), random(2, 4, 5, 8)
    over_table = torch.zeros(1000)
    cos, sin = over_table[:20].view(5, 4).copy_(T.cos), over_table[20:40].view(5, 4).copy_(T.sin)
    start, modulus = (wide.view(-1).view(torch.int64)[i : i + 4].fill_(1) for i in (8, 16))
    packed = Table(torch.ones(9), torch.ones(9), start, modulus)
    cases = {
        r"q must not overlap itself": lambda: rotate(alone[:, :1].expand(Q.shape), k, T, in_place=True),
        r"out\[0\] must not overlap itself": lambda: rotate(Q, K, T, out=(alone[:, :1].expand(Q.shape), k)),
        r"out\[0\] must not share memory with q": lambda: rotate(first, K, T, out=(second, k)),
        r"out\[0\] must not share memory with k": lambda: rotate(alone, first, T, out=(second, k.new_empty(Q.shape))),
        r"out\[1\] must not share memory with out\[0\]": lambda: rotate(Q, Q, T, out=(first, second)),
        r"k must not share memory with q": lambda: rotate(first, second, T, in_place=True),
        r"out\[0\] must not share memory with positions": lambda: rotate(
            Q.double(), Q.double(), T, positions, out=(wide, wide.clone())
        ),
        r"out\[1\] must not share memory with start": lambda: rotate(
            Q.double(), Q.double(), packed, out=(wide.clone(), wide)
        ),
        r"out\[0\] must not share memory with cos": lambda: rotate(
            Q, K, Table(cos, sin), out=(over_table[:320].view(Q.shape), k)
        ),
        r"q must not share memory with sin": lambda: rotate(
            over_table[36:356].view(Q.shape), k, Table(cos, sin), in_place=True
        ),
        r"q must not share memory with start": lambda: rotate(
            wide.view(-1)[4:164].view(2, 2, 5, 8), k.double(), packed, in_place=True
        ),
    }  # fmt: skip
    kept = [x.clone() for x in (shared, table, k, wide, alone, over_table)]
    for message, call in cases.items():
        with pytest.raises(ValueError, match="^" + message):
            call()
        for x, before in zip((shared, table, k, wide, alone, over_table), kept, strict=True):
            assert torch.equal(x, before), message


def test_slices_of_one_projection_are_written_in_place() -> None:
    """Their ranges of memory interleave, their elements do not; a slice one element further does."""
    for batch, num_positions in ((1, 1), (1, 5), (2, 5)):
        fused, table = random(batch, num_positions, 7 * 8 + 1), tables(num_positions, 4)
        q = fused[..., :32].unflatten(-1, (4, 8)).transpose(1, 2)
        k = fused[..., 32:48].unflatten(-1, (2, 8)).transpose(1, 2)
        wanted = rotate(q, k, table)
        rotate(q, k, table, in_place=True)
        assert torch.equal(q, wanted[0]) and torch.equal(k, wanted[1])
        with pytest.raises(ValueError, match=r"^k must not share memory with q"):
            rotate(q, fused[..., 31:47].unflatten(-1, (2, 8)).transpose(1, 2), table, in_place=True)
        with pytest.raises(ValueError, match=r"^k must not share memory with q"):
            rotate(fused[..., 1:33].unflatten(-1, (4, 8)).transpose(1, 2), k, table, in_place=True)


def test_inference_tensors_are_written_in_inference_mode_alone() -> None:
    with torch.inference_mode():
        q, k = Q.clone(), K.clone()
        wanted = rotate(q, k, T)
        rotate(q, k, T, in_place=True)
        assert torch.equal(q, wanted[0])
    for call in (
        lambda: rotate(Q, k, T, in_place=True),
        lambda: rotate(q, K, T, in_place=True),
        lambda: rotate(Q, K, T, out=(Q.clone(), k)),
        lambda: ops._ops.rotate_(q, k, *T[:4], None),
    ):
        kept = Q.clone(), q.clone(), k.clone()
        with pytest.raises(RuntimeError, match=r"must not be an inference tensor outside inference_mode"):
            call()
        assert all(torch.equal(x, y) for x, y in zip((Q, q, k), kept, strict=True))


# With and without the extension


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )


def test_a_missing_extension_is_said_once(implementation: str) -> None:
    if implementation == "compiled":
        pytest.skip("the process under test loads none")
    code = (
        "from resonance.encoding import EncodingSpec, ops; from resonance.encoding.rotary import Rotary\n"
        "for _ in range(3): Rotary(EncodingSpec(), head_dim=8, num_positions=4)\n"
        "print(ops.implementation())"
    )
    done = run_python(code, RESONANCE_EXTENSION="0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torch reference"
    assert done.stderr.count("the compiled rotary op is missing (RESONANCE_EXTENSION=0)") == 1


@pytest.mark.parametrize("variant", ["portable", "avx2", "avx512"])
def test_every_variant_gives_the_same_bits(variant: str, implementation: str) -> None:
    if implementation == "reference":
        pytest.skip("the reference has no variants")
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import test_ops, torch; from resonance.encoding import ops\n"
        "print(ops.implementation())\n"
        "test_ops.test_compiled_and_reference_give_the_same_bits('compiled')"
    )
    done = run_python(code, RESONANCE_VARIANT=variant)
    assert done.returncode == 0, done.stderr
    if f"({variant})" not in done.stdout:
        pytest.skip(f"this processor has no {variant}")
