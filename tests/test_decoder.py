"""The decoder against the released one's numbers, its two attention paths, its dropout and its initialisation."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from resonance.encoding.rotary import Rotary, Rotation
from resonance.encoding.spec import EncodingSpec
from resonance.posgen.decoder import Attention, Decoder, DecoderConfig, Dropout, FeedForward
from resonance.posgen.protocol import Protocol
from resonance.posgen.train import make_decoder, make_rotary

ENCODINGS = {
    "rope": {"method": "rope"},
    "yarn": {"method": "yarn"},
    "resonance_rope": {"method": "rope", "resonance": True},
    "resonance_yarn": {"method": "yarn", "resonance": True},
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config(**fields: object) -> DecoderConfig:
    sizes = {"vocab_size": 9, "d_model": 16, "d_ff": 24, "num_heads": 2, "head_dim": 8, "num_layers": 2}
    return DecoderConfig(**sizes | {"divide_by_sqrt_head_dim": False, "dropout": 0.0} | fields)


def rotation(num_positions: int, head_dim: int = 8) -> Rotation:
    return Rotary(EncodingSpec(), head_dim=head_dim, num_positions=num_positions).at(num_positions)


# The released decoder


@pytest.fixture(scope="module")
def released(released_golden: dict[str, np.ndarray], protocols: dict[str, Protocol]) -> Decoder:
    """The released weights in our decoder, through the choices of the `released` protocol."""
    choices = protocols["released"].train_choices()
    assert (choices.num_extra_tokens, choices.attention_scale) == (5, "initialisation")
    decoder = Decoder(
        config(vocab_size=22, d_model=32, d_ff=64, head_dim=64, divide_by_sqrt_head_dim=False, dropout=0.0), seeded()
    )
    names = {"embedding": "embedding.weight", "final_norm": "final_norm.weight"}
    for i in range(2):
        names |= {f"layer{i}.{name}": f"layers.{i}.attention.{name}.weight" for name in "qkvo"}
        names |= {
            f"layer{i}.attention_norm": f"layers.{i}.attention_norm.weight",
            f"layer{i}.ffn_norm": f"layers.{i}.feed_forward_norm.weight",
            f"layer{i}.ffn_in": f"layers.{i}.feed_forward.wi.weight",
            f"layer{i}.ffn_out": f"layers.{i}.feed_forward.wo.weight",
        }
    decoder.load_state_dict({ours: torch.from_numpy(released_golden[theirs]) for theirs, ours in names.items()})
    return decoder


@pytest.mark.parametrize("name", ENCODINGS)
@pytest.mark.parametrize("mode", ["eval", "train"])
@torch.no_grad()
def test_released_logits_and_losses(
    mode: str, name: str, released: Decoder, released_golden: dict[str, np.ndarray], protocols: dict[str, Protocol]
) -> None:
    """P2, P3, P4, P8, P9 and P15 at once: their run's logits, [3, 257, 22] scaled and [3, 65, 22] unscaled.

    Labels are masked on the first five of end token + tokens, so column t = 4 on is asked for x[t].
    """
    protocol = protocols["released"]
    if mode == "eval":
        spec, num_positions = protocol.encoding_spec(ENCODINGS[name], 64, 256), 257
    else:
        trained_with = protocol.train_encoding_name(name, ENCODINGS)
        assert trained_with == name.replace("yarn", "rope")
        spec, num_positions = EncodingSpec(**ENCODINGS[trained_with]), 65
    ids = torch.from_numpy(released_golden["input_ids"][:, :num_positions])
    rotary = Rotary(spec, head_dim=64, num_positions=num_positions, pair_layout=protocol.pair_layout)
    logits = released(ids, rotary.at(num_positions))

    expected = torch.from_numpy(released_golden[f"{name}.{mode}_logits"])
    assert logits.shape == expected.shape
    assert (logits - expected).abs().max() < 1e-4  # float32; logits are of order 1
    loss = F.cross_entropy(logits[:, 4:-1].flatten(0, 1), ids[:, 5:].flatten())
    assert loss.item() == pytest.approx(released_golden[f"{name}.{mode}_loss"].item(), abs=1e-5)


def test_released_logits_tell_the_encodings_apart(released_golden: dict[str, np.ndarray]) -> None:
    """Otherwise the golden test could not fail."""
    logits = [released_golden[f"{name}.eval_logits"] for name in ENCODINGS]
    for i, one in enumerate(logits):
        assert all(np.abs(one - other).max() > 1e-2 for other in logits[:i])


@pytest.mark.parametrize("divide", [False, True])
def test_logits_equal_a_straightforward_float64_decoder(divide: bool) -> None:
    """T5's formulas written out: x / sqrt(mean x^2 + 1e-6), causal softmax, ReLU, tied and scaled output."""
    decoder = Decoder(config(divide_by_sqrt_head_dim=divide), seeded()).double()
    for weight in decoder.parameters():
        if weight.dim() == 1:
            torch.nn.init.uniform_(weight, 0.5, 1.5, generator=seeded(2))
    torch.nn.init.normal_(decoder.embedding.weight, 0, 1e-3, generator=seeded(3))  # so that 1e-6 weighs
    tokens, turn = torch.randint(9, (7,), generator=seeded(1)), rotation(7)

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    x = decoder.embedding.weight[tokens]
    for layer in decoder.layers:
        a, f = layer.attention, layer.feed_forward
        y, mixed = norm(x, layer.attention_norm.weight), []
        for head in (slice(0, 8), slice(8, 16)):
            q, k = turn(y @ a.q.weight[head].T, y @ a.k.weight[head].T)
            scores = q @ k.T * (8**-0.5 if divide else 1.0)
            rows = [scores[t, : t + 1].softmax(0) @ (y @ a.v.weight[head].T)[: t + 1] for t in range(7)]
            mixed.append(torch.stack(rows))
        x = x + torch.cat(mixed, -1) @ a.o.weight.T
        x = x + (norm(x, layer.feed_forward_norm.weight) @ f.wi.weight.T).clamp(min=0) @ f.wo.weight.T
    expected = norm(x, decoder.final_norm.weight) * 16**-0.5 @ decoder.embedding.weight.T
    assert torch.allclose(decoder(tokens[None], turn)[0], expected, rtol=1e-10, atol=1e-12)  # float64


# Properties


def test_a_token_never_sees_a_later_one() -> None:
    decoder, tokens = Decoder(config(), seeded()), torch.arange(12)[None] % 9
    changed = tokens.clone()
    changed[0, 7:] = 0
    before, after = decoder(tokens, rotation(12)), decoder(changed, rotation(12))
    assert torch.equal(before[:, :7], after[:, :7])
    assert not torch.equal(before[:, 7:], after[:, 7:])


def test_embeddings_are_tied_and_there_are_no_biases() -> None:
    names = [name for name, _ in Decoder(config(num_layers=1), seeded()).named_parameters()]
    assert sorted(names) == sorted(
        ["embedding.weight", "final_norm.weight", "layers.0.attention_norm.weight", "layers.0.feed_forward_norm.weight"]
        + [f"layers.0.attention.{name}.weight" for name in "qkvo"]
        + ["layers.0.feed_forward.wi.weight", "layers.0.feed_forward.wo.weight"]
    )


# Initialisation (P7, P10)


def test_both_attention_scales_are_one_function_at_step_0() -> None:
    tokens = torch.randint(9, (2, 20), generator=seeded(1))
    logits = [
        Decoder(config(divide_by_sqrt_head_dim=divide), seeded())(tokens, rotation(20)) for divide in (False, True)
    ]
    assert torch.allclose(*logits, atol=1e-5)  # float32
    narrow, wide = (
        Decoder(config(divide_by_sqrt_head_dim=divide), seeded()).layers[0].attention.q.weight
        for divide in (False, True)
    )
    assert torch.allclose(narrow * 8**0.5, wide)


def test_initial_standard_deviations_are_t5s() -> None:
    """P10: embedding 1, q (d 64)^-1/2, k and v d^-1/2, o (H 64)^-1/2, wi d^-1/2, wo d_ff^-1/2."""
    decoder = Decoder(config(vocab_size=500, d_model=128, d_ff=512, num_heads=4, head_dim=64, num_layers=1), seeded())
    found = {name.split(".")[-2]: w.std().item() for name, w in decoder.named_parameters() if w.dim() == 2}
    expected = {
        "embedding": 1.0, "q": (128 * 64) ** -0.5, "k": 128**-0.5, "v": 128**-0.5, "o": (4 * 64) ** -0.5,
        "wi": 128**-0.5, "wo": 512**-0.5,
    }  # fmt: skip
    assert found == pytest.approx(expected, rel=0.02)  # 30,000 draws and more: 0.4 % each
    assert all((w == 1).all() for _, w in decoder.named_parameters() if w.dim() == 1)


def test_the_protocol_decides_depth_vocabulary_scale_and_table(make_run) -> None:
    run = make_run("released", num_layers=3)
    decoder = make_decoder(run, seeded())
    assert len(decoder.layers) == 3 and decoder.config.vocab_size == 7 + 5
    assert decoder.layers[0].attention.scale == 1.0 and decoder.config.dropout == 0.1
    assert make_rotary(run, EncodingSpec(), 24).num_positions == 25
    assert make_rotary(run, EncodingSpec(), 24).pair_layout == "interleaved"
    paper = make_decoder(make_run("paper"), seeded())
    assert paper.config.vocab_size == 7 and paper.layers[0].attention.scale == 8**-0.5
    assert make_rotary(make_run("paper"), EncodingSpec(), 24).num_positions == 24


# Dropout


def everything_kept(size: int) -> torch.Tensor:
    return torch.full((size,), 255, dtype=torch.uint8)


@pytest.mark.parametrize("divide", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_the_two_attention_paths_agree_where_no_byte_drops_anything(rate: float, divide: bool) -> None:
    """SDPA without bytes; softmax, mask and values written out with them (a kept value is `scale` times itself)."""
    attention = Attention(config(dropout=rate, divide_by_sqrt_head_dim=divide))
    x = torch.randn(3, 11, 16, generator=seeded())
    fused = attention(x, rotation(11))
    attention.dropout.bytes = everything_kept(3 * 2 * 11 * 11)
    assert torch.allclose(attention(x, rotation(11)), fused * attention.dropout.scale, atol=1e-6)  # float32


def test_the_two_feed_forward_paths_agree_where_no_byte_drops_anything() -> None:
    block = FeedForward(config(dropout=0.1))
    x = torch.randn(3, 11, 16, generator=seeded())
    plain = block(x)
    block.dropout.bytes = everything_kept(3 * 11 * 24)
    assert torch.allclose(block(x), plain * block.dropout.scale, atol=1e-6)  # float32


@pytest.mark.parametrize(("rate", "dropped"), [(0.0, 0), (0.1, 26), (0.25, 64), (0.5, 128), (0.9, 230)])
def test_dropout_drops_its_rate_in_256ths_and_keeps_the_mean(rate: float, dropped: int) -> None:
    """Every byte value once: exactly `dropped` zeros, and a mean of exactly 1."""
    dropout = Dropout(rate)
    dropout.bytes = torch.arange(256, dtype=torch.uint8)
    y = dropout(torch.ones(16, 16, dtype=torch.float64))
    assert (y == 0).sum() == dropped and torch.equal(y.flatten() == 0, torch.arange(256) < dropped)
    assert y.mean().item() == pytest.approx(1.0, rel=1e-15)
    assert y[y > 0].unique().numel() == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_rounds_each_product_once_and_not_the_scale(dtype: torch.dtype) -> None:
    """A scale rounded to bfloat16 (1.1094 for 1.1130) would lower every mean by 0.3 %."""
    dropout = Dropout(0.1)
    dropout.bytes = torch.arange(256, dtype=torch.uint8)
    x = torch.randn(256, generator=seeded(), dtype=torch.float64).to(dtype)
    kept = dropout.kept(x)
    assert kept.dtype == dtype and kept.unique().tolist() == [0.0, 1.0] and (kept == 0).sum() == 26
    assert torch.equal(dropout(x), (x.float() * kept.float() * (256 / 230)).to(dtype))


def test_dropout_without_bytes_is_the_identity() -> None:
    x = torch.randn(5, generator=seeded())
    assert Dropout(0.5)(x) is x


def test_dropout_rate_near_1_still_keeps_something() -> None:
    """A protocol may say any rate below 1."""
    dropout = Dropout(0.999)
    dropout.bytes = torch.arange(256, dtype=torch.uint8)
    assert dropout(torch.ones(256, dtype=torch.float64)).mean() == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_feed_forward_under_dropout_is_relu_times_the_mask_forward_and_backward(dtype: torch.dtype) -> None:
    """Whatever form the product takes: the same numbers, and autograd's gradients of F.relu."""
    block = FeedForward(config(dropout=0.3)).to(dtype)
    x = torch.randn(4, 6, 16, generator=seeded(), dtype=torch.float64).to(dtype).requires_grad_()
    block.dropout.bytes = torch.randint(256, (4 * 6 * 24,), generator=seeded(1), dtype=torch.uint8)
    weights = list(block.parameters())
    kept = block.dropout.kept(torch.empty(4, 6, 24, dtype=dtype))
    assert 0 < (kept == 0).sum() < kept.numel()

    found, expected = block(x), block.wo(F.relu(block.wi(x)) * kept * block.dropout.scale)
    assert torch.equal(found, expected)
    dy = torch.randn(4, 6, 16, generator=seeded(2), dtype=torch.float64).to(dtype)
    ours, theirs = (torch.autograd.grad(y, [x, *weights], dy) for y in (found, expected))
    tolerance = {torch.float64: 1e-13, torch.bfloat16: 2e-2}[dtype]
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=tolerance, atol=tolerance)
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(block, (x,))
