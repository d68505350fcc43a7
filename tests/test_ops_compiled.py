"""resonance::rotate as a citizen of torch: opcheck, torch.compile, the C++ module, the CUDA kernel."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from resonance.encoding import EncodingSpec, ops
from resonance.encoding.ops import Table, rotate, rotate_one
from resonance.encoding.rotary import Rotary

_REFERENCE = ops._register("resonance_reference_compiled")
needs_extension = pytest.mark.skipif(ops._compiled is None, reason="the extension is not built here")


@pytest.fixture(params=["compiled", "reference"])
def namespace(request, monkeypatch) -> Iterator[object]:
    if request.param == "compiled":
        if ops._compiled is None:
            pytest.skip("the extension is not built here")
        return torch.ops.resonance
    monkeypatch.setattr(ops, "_ops", torch.ops.resonance_reference_compiled)
    monkeypatch.setattr(ops, "_compiled", None)
    return torch.ops.resonance_reference_compiled


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def rotary(**options) -> Rotary:
    return Rotary(EncodingSpec(resonance=True), head_dim=8, num_positions=20, **options)


def arguments(kind: str) -> tuple:
    table, positions = rotary().table, torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    dense = Table(*rotary().tables(20))
    return {
        "packed": (*table[:4], None, 20),
        "packed, positions": (*table[:4], positions, 20, True),
        "dense": (*dense[:4], None, -1, False, True, 1.2),
        "dense, positions": (*dense[:4], positions[0], -1, True, False, 1.0),
        "a table each": (*(t[positions] for t in dense[:2]), None, None, None),
    }[kind]


KINDS = ["packed", "packed, positions", "dense", "dense, positions", "a table each"]


@pytest.mark.parametrize("kind", KINDS)
def test_opcheck(kind: str, namespace: object) -> None:
    q, k = random(2, 3, 5, 8), random(2, 1, 5, 8, seed=1)
    rest = arguments(kind)
    torch.library.opcheck(namespace.rotate.default, (q, k, *rest))
    strided = random(2, 5, 3, 8).transpose(1, 2).requires_grad_(), k.clone().requires_grad_()
    torch.library.opcheck(namespace.rotate.default, (*strided, *rest))
    torch.library.opcheck(namespace.rotate_.default, (q.clone(), k.clone(), *rest))
    out = torch.empty_like(q), torch.empty_like(k)
    torch.library.opcheck(namespace.rotate_into.default, (q, k, *out, *rest))


def compiled(function: Callable) -> Callable:
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True)


def test_compiles_whole_forward_and_backward(namespace: object) -> None:
    turner = rotary()
    positions = torch.arange(5) + 7

    def logits(q: torch.Tensor, k: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        q, k = rotate(q * 2, k, turner.table, positions)
        return (q @ k.transpose(-1, -2)).sin()

    q, k = random(2, 3, 5, 8).requires_grad_(), random(2, 3, 5, 8, seed=1).requires_grad_()
    eager = logits(q, k, positions)
    wanted = torch.autograd.grad(eager.sum(), (q, k))
    found = compiled(logits)(q, k, positions)
    assert torch.allclose(found, eager, atol=1e-6)  # float32
    for x, y in zip(torch.autograd.grad(found.sum(), (q, k)), wanted, strict=True):
        assert torch.allclose(x, y, atol=1e-5)


def test_compiles_in_place_and_out(namespace: object) -> None:
    table = rotary().table
    q, k = random(2, 3, 5, 8), random(2, 1, 5, 8, seed=1)
    wanted = rotate(q, k, table)

    def in_place(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        rotate(q, k, table, in_place=True)
        return q + 1

    given = q.clone(), k.clone()
    found = compiled(in_place)(*given)
    assert torch.equal(given[0], wanted[0]) and torch.equal(given[1], wanted[1])
    assert torch.equal(found, wanted[0] + 1)

    def into(q: torch.Tensor, k: torch.Tensor, *out: torch.Tensor) -> None:
        rotate(q, k, table, out=out)

    out = torch.empty_like(q), torch.empty_like(k)
    compiled(into)(q, k, *out)
    assert torch.equal(out[0], wanted[0]) and torch.equal(out[1], wanted[1])


def test_a_rotation_compiles_whole_and_agrees_with_the_op(namespace: object) -> None:
    """In a compiled region Rotation writes the arithmetic out, so that it fuses."""
    for layout in ops.PAIR_LAYOUTS:
        turner = rotary(pair_layout=layout)
        for positions in (5, torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])):
            rotation, q, k = turner.at(positions), random(2, 3, 5, 8), random(2, 1, 5, 8, seed=1)
            eager = rotation(q, k)
            found = compiled(lambda q, k, rotation=rotation: rotation(q, k))(q, k)
            for x, y in zip(found, eager, strict=True):
                assert torch.allclose(x, y, atol=1e-6)  # float32: the compiler contracts


def test_dynamic_lengths_compile_once(namespace: object) -> None:
    table, count = rotary().table, 0

    def counted(graph, inputs):
        nonlocal count
        count += 1
        return graph

    torch._dynamo.reset()
    turn = torch.compile(lambda q, k: rotate(q, k, table), fullgraph=True, dynamic=True, backend=counted)
    for num_positions in (5, 9, 13):
        q, k = random(2, 3, num_positions, 8), random(2, 1, num_positions, 8)
        for x, y in zip(turn(q, k), rotate(q, k, table), strict=True):
            assert torch.equal(x, y)
    assert count == 1


def test_bad_positions_are_refused_inside_a_compiled_graph(namespace: object) -> None:
    turn = compiled(lambda q, k, positions: rotate(q, k, rotary_table, positions))
    rotary_table = rotary().table
    with pytest.raises(ValueError, match=r"^positions must be < num_positions = 20, got 20"):
        turn(random(1, 1, 2, 8), random(1, 1, 2, 8), torch.tensor([0, 20]))


def test_a_rotary_can_be_copied_and_moved(namespace: object) -> None:
    turner = copy.deepcopy(rotary())
    assert turner.to("meta").table.cos.device.type == "meta"


@needs_extension
def test_the_module_says_what_it_is() -> None:
    build = ops._compiled.build()
    assert build["variant"] in ("portable", "avx2", "avx512")
    assert ops.implementation() == f"C++ ({build['variant']})"


@needs_extension
def test_who_listens_at_the_dispatcher_finds_the_op() -> None:
    """Modes, tracing and subclasses see a call that else goes past the dispatcher, with the same bits."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Listen(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            heard.append(str(op))
            return op(*args, **(kwargs or {}))

    class Mine(torch.Tensor):
        pass

    heard, table = [], rotary().table
    q, k = random(1, 4, 5, 8), random(1, 2, 5, 8, seed=1)
    wanted = rotate(q, k, table)
    with Listen():
        rotate(q, k, table)
        rotate(q.clone(), k.clone(), table, in_place=True)
    assert [name for name in heard if "resonance" in name] == ["resonance.rotate.default", "resonance.rotate_.default"]
    graph = make_fx(lambda q, k: rotate(q, k, table))(q, k)
    assert any(node.target is torch.ops.resonance.rotate.default for node in graph.graph.nodes)
    found = rotate(q.as_subclass(Mine), k, table)
    assert type(found[0]) is Mine and torch.equal(found[0].as_subclass(torch.Tensor), wanted[0])


@needs_extension
def test_memory_that_is_not_there_goes_by_the_dispatcher() -> None:
    table, x = rotary().table, random(1, 1, 5, 8)
    with forward_ad.dual_level():  # a tangent of zeros that are promised, not stored
        dual = forward_ad.make_dual(x, torch._efficientzerotensor(x.shape))
        assert not forward_ad.unpack_dual(rotate_one(dual, table)).tangent.any()
    meta = Table(*(x.to("meta") if isinstance(x, torch.Tensor) else x for x in table))
    assert rotate(x.to("meta"), x.to("meta"), meta)[0].device.type == "meta"
    with pytest.raises((TypeError, RuntimeError)):
        rotate(x, x, Table(table.cos.numpy(), table.sin.numpy()))
