"""The swap-in for transformers' models: every encoding, exact, kept by save and load, never in silence."""

import copy
import io
import json
import time

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen3_5TextConfig,
)
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXForCausalLM
from transformers.models.llama.modeling_llama import LlamaForCausalLM, apply_rotary_pos_emb
from transformers.models.mistral.modeling_mistral import MistralForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2ForCausalLM
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5TextRotaryEmbedding

from resonance.encoding.frequencies import depends_on_length, frequency_table
from resonance.encoding.methods import method_names
from resonance.encoding.spec import EncodingSpec
from resonance.hf.attention import ROTATIONS, restore_attention
from resonance.hf.export import export_transformers
from resonance.hf.inspect import inspect
from resonance.hf.module import ONLY, RotaryEmbedding
from resonance.hf.parameters import read_specs
from resonance.hf.structure import structure_of
from resonance.hf.swap import (
    check_table,
    describe,
    load_pretrained,
    original_length,
    spec_of,
    swap_rotary,
)

L = 32
SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": L,
}
OWN = {
    "factors": {"factors": [1.0, 1.5, 2.0, 4.0]},
    "longrope": {"short_factor": [1.0, 1.0, 1.1, 1.2], "long_factor": [1.0, 1.5, 2.0, 4.0]},
}
ALL = [(method, resonance) for method in method_names() for resonance in (False, True)]


def llama(**changes: object) -> LlamaForCausalLM:
    torch.manual_seed(0)  # transformers initialises from the global generator
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes})).eval()


def spec(method: str = "yarn", resonance: bool = True, **fields: object) -> EncodingSpec:
    more = {} if method == "rope" else {"scale": 4.0, "parameters": OWN.get(method, {})}
    return EncodingSpec(**{"method": method, "resonance": resonance, "train_length": L, **more, **fields}).filled()


def tokens(batch: int = 2, length: int = 3 * L) -> torch.Tensor:
    return torch.randint(0, 61, (batch, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: torch.nn.Module, x: torch.Tensor, **options: object) -> torch.Tensor:
    return model(x, use_cache=False, **options).logits


@pytest.mark.parametrize(("method", "resonance"), ALL)
def test_every_encoding_survives_save_and_load(tmp_path, method, resonance):
    asked = spec(method, resonance)
    model = swap_rotary(llama(), asked)
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    module = loaded.model.rotary_emb
    assert isinstance(module, RotaryEmbedding) and module.specs[ONLY] == asked == spec_of(loaded.config)
    assert describe(loaded)["encoding"]["method"] == method
    x = tokens()
    assert torch.equal(logits(model, x), logits(loaded, x))


@pytest.mark.parametrize(("method", "resonance"), ALL)
def test_the_op_and_transformers_multiplication_agree(method, resonance):
    model, x = swap_rotary(llama(), spec(method, resonance)), tokens()
    by_op = logits(model, x)
    model.model.rotary_emb.form = "halves"
    restore_attention(model)
    assert torch.allclose(by_op, logits(model, x), atol=2e-6)


THEIRS = {
    "rope": {"rope_type": "default", "rope_theta": 10_000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0},
    "dynamic_ntk": {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0},
    "yarn": {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": L},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "original_max_position_embeddings": L,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
    "longrope": {
        "rope_type": "longrope",
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "original_max_position_embeddings": L,
        **OWN["longrope"],
    },
}


@pytest.mark.parametrize("method", THEIRS)
def test_equal_to_transformers_own(method):
    """float32 rounding apart: theirs is m*theta in float32, ours is exact to the last bit of float32."""
    changes = {"max_position_embeddings": 4 * L} if method in ("yarn", "llama3", "longrope") else {}
    theirs = llama(rope_parameters=dict(THEIRS[method]), **changes)
    ours = swap_rotary(copy.deepcopy(theirs), spec_of(theirs.config))
    assert spec_of(ours.config).method == method
    for length in (8, L, 3 * L):
        x = tokens(length=length)
        assert torch.allclose(logits(theirs, x), logits(ours, x), atol=5e-6), length


def test_dynamic_ntk_follows_the_length_at_hand_and_not_the_history():
    """transformers keeps the table of the longest sequence for every later one of at least L: named
    here as the one difference beyond rounding."""
    theirs = llama(rope_parameters=dict(THEIRS["dynamic_ntk"]))
    ours = swap_rotary(copy.deepcopy(theirs), spec_of(theirs.config))
    short, long = tokens(length=2 * L), tokens(length=3 * L)
    fresh = logits(theirs, short)
    before = logits(ours, short)
    logits(theirs, long), logits(ours, long)
    assert torch.equal(before, logits(ours, short))
    assert torch.allclose(before, fresh, atol=5e-6)
    assert not torch.allclose(fresh, logits(theirs, short), atol=1e-4)


def test_dynamic_ntk_says_that_cached_keys_are_stale():
    model = swap_rotary(llama(), spec("dynamic_ntk", False))
    with torch.no_grad():
        cache = model(tokens(1, L), use_cache=True).past_key_values
        with pytest.warns(UserWarning, match="use_cache=False"):
            model(tokens(1, 1), past_key_values=cache, use_cache=True)


@pytest.mark.filterwarnings("ignore:dynamic_ntk is continuing from a cache past L")
@pytest.mark.parametrize("resonance", [False, True])
def test_a_token_of_dynamic_ntk_costs_its_own_position_alone(resonance):
    """At most 1 CPU-ms at position 31,000, the same bits as in a call of all positions, and one number a period."""
    asked = EncodingSpec(method="dynamic_ntk", resonance=resonance, train_length=4096, scale=8.0, base=1e4).filled()
    rotary = RotaryEmbedding({ONLY: asked}, head_dim=128, num_positions=32_768, form="op")
    x, last, times = torch.zeros(1), torch.tensor([[31_000]]), []
    for _ in range(20):
        start = time.thread_time()
        one = rotary(x, last)
        times.append(time.thread_time() - start)
    assert min(times) < 1e-3
    whole = rotary(x, torch.arange(31_001)[None])
    assert all(torch.equal(a[0], b[-1]) for a, b in zip(one, whole, strict=True))
    for feature, period in enumerate(frequency_table(asked, 128, seq_len=31_001).period):
        if 0 < period < 15_000:
            assert all(torch.equal(values[:period, feature], values[period : 2 * period, feature]) for values in whole)


@pytest.mark.parametrize(("method", "resonance"), [("rope", True), ("yarn", True), ("yarn", False), ("linear", False)])
def test_a_cache_gives_the_same_logits(method, resonance):
    model, x = swap_rotary(llama(), spec(method, resonance)), tokens(1, 2 * L)
    whole = logits(model, x)
    with torch.no_grad():
        first = model(x[:, : L + 3], use_cache=True)
        rest = model(x[:, L + 3 :], past_key_values=first.past_key_values, use_cache=True)
    assert torch.allclose(torch.cat((first.logits, rest.logits), 1), whole, atol=5e-6)


def test_the_feature_gap_is_zero_bit_for_bit():
    """Theorem 1, in the model's own module, far past any table and in a bfloat16 model."""
    model = swap_rotary(llama(), spec("rope", True)).to(torch.bfloat16)
    module = model.model.rotary_emb
    period = torch.from_numpy(frequency_table(module.specs[ONLY], 8).period)
    m = 5
    for feature, turn in enumerate(period.tolist()):
        near, far = (module(torch.zeros(1), torch.tensor([[p]])) for p in (m, m + 1000 * turn))
        assert near[0].dtype == torch.float32
        assert all(torch.equal(a[0, feature], b[0, feature]) for a, b in zip(near, far, strict=True))


@pytest.mark.parametrize("cast", [lambda m: m.to(torch.bfloat16), lambda m: m.half(), lambda m: m.bfloat16().float()])
def test_a_cast_leaves_the_table_alone(cast):
    model = swap_rotary(llama(), spec())
    before = model.model.rotary_emb.angles[ONLY][0].packed_cos.clone()
    cast(model)
    assert torch.equal(model.model.rotary_emb.angles[ONLY][0].packed_cos, before)
    check_table(model, spec())


@pytest.mark.parametrize("cast", ["bfloat16", "half", "bfloat16 half", "bfloat16 float"])
def test_a_model_that_was_cast_can_be_swapped(cast):
    def made() -> torch.nn.Module:
        model = llama(rope_parameters={"rope_type": "default", "rope_theta": 5e5}, head_dim=64)
        for kind in cast.split():
            model = getattr(model, kind)()
        return model

    asked = spec(base=5e5)
    check_table(swap_rotary(made(), asked), asked)
    edited = made()
    edited.model.rotary_emb.inv_freq *= 1.1
    with pytest.raises(ValueError, match="must give the table of its own config"):
        swap_rotary(edited, asked)


def test_a_swap_asks_for_no_default_of_torch():
    with torch.device("meta"):
        empty = llama()
    model = llama()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            check_table(swap_rotary(model, spec()), spec())
    finally:
        torch.set_default_dtype(torch.float32)
    with pytest.raises(ValueError, match="must have its weights"):
        swap_rotary(empty, spec())


LATENT = {
    "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16, "kv_lora_rank": 16, "q_lora_rank": 16,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 1, "topk_group": 1,
}  # fmt: skip
TEMPERATURES = {"mscale": 1.0, "mscale_all_dim": 1.0}


def of_family(family: str, **changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**SIZES, **changes})).eval()


@pytest.mark.parametrize(
    ("family", "changes", "kept"),
    [
        ("deepseek_v3", LATENT, TEMPERATURES),
        ("ministral3", {"head_dim": 8}, {**TEMPERATURES, "llama_4_scaling_beta": 0.1}),
    ],
)
def test_what_attention_itself_reads_of_the_parameters_stays(tmp_path, family, changes, kept):
    """Latent attention scales its logits by a factor of its own, whatever turns q and k."""
    rope = THEIRS["yarn"] | kept
    of_family(family, rope_parameters=rope, max_position_embeddings=4 * L, **changes).save_pretrained(tmp_path / "in")
    model = load_pretrained(tmp_path / "in", EncodingSpec(resonance=True))
    model.save_pretrained(tmp_path / "ours")
    export_transformers(tmp_path / "in", tmp_path / "out", EncodingSpec(resonance=True))
    for folder in ("ours", "out"):
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / folder)
        assert loaded.config.rope_parameters.items() >= kept.items()
        assert torch.allclose(logits(model, tokens()), logits(loaded, tokens()), atol=2e-6)
    assert torch.equal(logits(model, tokens()), logits(load_pretrained(tmp_path / "ours"), tokens()))


def test_longrope_changes_its_table_past_L_in_transformers_too(tmp_path):
    model = swap_rotary(llama(rope_parameters=dict(THEIRS["longrope"]), max_position_embeddings=4 * L), EncodingSpec())
    model.save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    for length in (L, 3 * L):
        x = tokens(length=length)
        assert torch.allclose(logits(model, x), logits(plain, x), atol=2e-6)


def test_a_swap_that_extends_nothing_keeps_the_pretrained_length(tmp_path):
    """Llama 3.1's factor is 8, and its length 16 times L."""
    swap_rotary(
        llama(rope_parameters=dict(THEIRS["llama3"]), max_position_embeddings=16 * L), EncodingSpec()
    ).save_pretrained(tmp_path)
    model = load_pretrained(tmp_path)
    assert model.config.max_position_embeddings == 16 * L and inspect(tmp_path)["findings"] == []
    swap_rotary(model, spec(scale=8.0), override=["method", "scale"])
    assert model.config.max_position_embeddings == 8 * L
    assert swap_rotary(model, EncodingSpec()).config.max_position_embeddings == 16 * L


def test_a_model_is_as_long_as_its_shortest_encoding(tmp_path):
    """OLMo 3: its windows have no length of their own, so that of its full attention is the model's."""
    layers = ["sliding_attention", "full_attention"]
    rope = {"sliding_attention": dict(THEIRS["rope"]), "full_attention": dict(THEIRS["yarn"])}
    model = of_family("olmo3", layer_types=layers, max_position_embeddings=4 * L, rope_parameters=rope)
    swap_rotary(model, EncodingSpec()).save_pretrained(tmp_path)
    assert original_length(model.config) == L and inspect(tmp_path)["findings"] == []


def test_hunyuans_alpha_is_a_base(tmp_path):
    """`dynamic` with `alpha` does not follow the length."""
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "alpha": 1000.0, "factor": 1.0}
    plain, ours = (of_family("hunyuan_v1_dense", head_dim=8, rope_parameters=dict(rope)) for _ in range(2))
    swap_rotary(ours, EncodingSpec())
    assert spec_of(ours.config).method == "ntk" and ours.config.max_position_embeddings == L
    assert torch.allclose(logits(plain, tokens()), logits(ours, tokens()), atol=2e-6)


@pytest.mark.parametrize(
    ("make", "given", "said"),
    [
        (lambda: of_family("falcon", alibi=True), spec(), "has ALiBi"),
        (llama, {"resonance": True}, "spec must be an EncodingSpec, or one for each layer type, got bool"),
        (llama, None, "spec must be an EncodingSpec, or one for each layer type, got NoneType"),
        (lambda: torch.nn.DataParallel(llama()), spec(), "must be a transformers model, got DataParallel"),
    ],
)
def test_what_no_encoding_can_be_put_into_says_so(make, given, said):
    with pytest.raises(ValueError, match=said):
        swap_rotary(make(), given)


def test_a_constant_at_its_default_can_be_meant():
    model = llama(rope_parameters=THEIRS["yarn"] | {"beta_fast": 16.0}, max_position_embeddings=4 * L)
    assert spec_of(swap_rotary(model, EncodingSpec(beta_fast=32.0)).config).beta_fast == 16.0
    assert spec_of(swap_rotary(model, EncodingSpec(beta_fast=32.0), override=["beta_fast"]).config).beta_fast == 32.0


def test_a_model_in_a_subfolder_loads_as_from_pretrained_loads_it(tmp_path):
    llama().save_pretrained(tmp_path / "inner")
    assert load_pretrained(tmp_path, spec(), subfolder="inner").model.rotary_emb.specs[ONLY] == spec().filled()


def test_bfloat16_loads_with_a_float32_table(tmp_path):
    swap_rotary(llama(), spec()).save_pretrained(tmp_path)
    model = load_pretrained(tmp_path, dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    assert model.model.rotary_emb.angles[ONLY][0].packed_cos.dtype == torch.float32
    assert logits(model, tokens()).dtype == torch.bfloat16


OTHERS = {
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "gpt_neox": lambda: GPTNeoXForCausalLM(
        GPTNeoXConfig(**{**SIZES, "rotary_pct": 0.5}, use_parallel_residual=True, bos_token_id=0, eos_token_id=0)
    ),
}


@pytest.mark.parametrize("family", OTHERS)
def test_other_families(tmp_path, family):
    torch.manual_seed(0)
    theirs = OTHERS[family]().eval()
    ours = swap_rotary(copy.deepcopy(theirs), spec_of(theirs.config))
    x = tokens()
    assert torch.allclose(logits(theirs, x), logits(ours, x), atol=5e-6)
    extended = swap_rotary(copy.deepcopy(theirs), spec())
    extended.save_pretrained(tmp_path)
    assert torch.equal(logits(extended, x), logits(load_pretrained(tmp_path), x))


def test_a_model_of_which_not_every_layer_can_take_the_op_still_takes_the_table():
    model = llama()
    module = type(model.model.layers[0].self_attn)

    class Wrapped(module):
        def forward(self, *arguments, **options):
            return module.forward(self, *arguments, **options)

    for layer in model.model.layers:
        layer.self_attn.__class__ = Wrapped
    x = tokens()
    swap_rotary(model, spec())
    assert model.model.rotary_emb.form == "halves" and "transformers' multiplication" in describe(model)["rotation"]
    assert torch.allclose(logits(model, x), logits(swap_rotary(llama(), spec()), x), atol=2e-6)


def test_other_models_of_the_process_are_not_touched():
    untouched, x = llama(), tokens()
    before = logits(untouched, x)
    swap_rotary(llama(), spec())
    assert torch.equal(before, logits(untouched, x))
    assert torch.equal(before, logits(llama(), x))


def test_swapping_twice_keeps_the_original_length():
    model = swap_rotary(swap_rotary(llama(), spec("linear", False, scale=2.0)), EncodingSpec(method="linear", scale=8))
    assert model.config.rope_parameters["original_max_position_embeddings"] == L
    assert model.config.max_position_embeddings == 8 * L


def test_transformers_alone_opens_what_was_saved(tmp_path):
    """With its own module: float32 m*theta, so near and not exact; but never plain RoPE in disguise."""
    model, x = swap_rotary(llama(), spec()), tokens()
    model.save_pretrained(tmp_path)
    alone = LlamaForCausalLM.from_pretrained(tmp_path).eval()
    assert not isinstance(alone.model.rotary_emb, RotaryEmbedding)
    assert torch.allclose(logits(alone, x), logits(model, x), atol=2e-5)
    assert not torch.allclose(logits(llama(), x), logits(model, x), atol=1e-3)
    with pytest.raises(ValueError, match="must be ours"):
        check_table(alone, spec())


def broken(tmp_path, **changes: object):
    swap_rotary(llama(), spec()).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"].update(changes)
    path.write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rope_type": "resonance_yran"}, "rope_type must be"),
        ({"rope_type": "exact_yarn"}, "rope_type must be resonance_yarn for this encoding, got 'exact_yarn'"),
        ({"rope_theta": 500.0}, "rope_theta must be the encoding's base 10000.0, got 500.0"),
        ({"encoding": {"method": "yarn", "resonanse": True}}, "resonanse is not a field of an encoding"),
    ],
)
def test_a_broken_config_is_one_clear_error(tmp_path, changes, said):
    with pytest.raises(Exception, match=said):
        load_pretrained(broken(tmp_path, **changes))


@pytest.mark.parametrize(
    ("kind", "said"), [("yarnn", "rope_type must be one of .*did you mean yarn"), ("proportional", "has no spec")]
)
def test_a_type_that_no_spec_expresses_is_an_error(tmp_path, kind, said):
    llama().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"] = {
        "rope_type": kind, "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }  # fmt: skip
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=said):
        load_pretrained(path.parent)


def test_a_table_that_is_not_the_one_asked_for_is_found():
    model = swap_rotary(llama(), spec())
    with pytest.raises(ValueError, match="must hold"):
        check_table(model, spec("yarn", False))
    model.model.rotary_emb.angles[ONLY][0].packed_sin[-1] += 1e-3
    with pytest.raises(ValueError, match=r"is off by 1\.00e-03"):
        check_table(model, spec())


def test_only_these_depend_on_the_length():
    assert [m for m in method_names() if depends_on_length(spec(m, False), 8)] == ["dynamic_ntk", "longrope"]


@pytest.mark.parametrize(("method", "resonance"), [("yarn", False), ("yarn", True), ("rope", True)])
def test_angles_are_right_far_past_any_table(method, resonance):
    module = swap_rotary(llama(), spec(method, resonance)).model.rotary_emb
    positions = torch.tensor([[0, 5, 100_000, 2**31, 2**40]])
    table = frequency_table(spec(method, resonance), 8)
    m = positions[0, :, None].numpy()
    angle = np.where(table.period > 0, m % np.maximum(table.period, 1), m) * table.theta
    cos, _ = module(torch.zeros(1), positions)
    assert np.abs(cos.numpy() - table.attention_factor * np.cos(angle)).max() < 1e-6


def test_gradients_flow_and_checkpointing_changes_none():
    model, x = swap_rotary(llama(), spec()).train(), tokens()
    grads = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        model.zero_grad()
        model(x, labels=x, use_cache=False).loss.backward()
        grads.append(model.model.layers[0].self_attn.q_proj.weight.grad.clone())
    assert grads[0].abs().sum() > 0
    assert torch.allclose(*grads, atol=1e-7)


def test_the_op_rotates_as_transformers_does_with_float32_tables_on_bfloat16():
    """bfloat16 q and k: theirs rounds cos and sin first. Ours is nearer to float64."""
    draw = torch.Generator().manual_seed(2)
    q = torch.randn(1, 2, 64, 8, generator=draw).bfloat16()
    m = np.arange(64)[:, None] + 3000
    angle = m * frequency_table(spec("rope", True), 8).theta
    half = [torch.from_numpy(f(angle)) for f in (np.cos, np.sin)]
    ours, _ = ROTATIONS["half_split"](q, q, *(h.float()[None] for h in half))
    exact, _ = ROTATIONS["half_split"](q.double(), q.double(), *(h[None] for h in half))
    theirs, _ = apply_rotary_pos_emb(q, q, *(torch.cat((h, h), -1)[None].bfloat16() for h in half))
    gaps = [(turned.double() - exact).abs().mean().item() for turned in (ours, theirs)]
    assert gaps[0] < 0.7 * gaps[1], gaps


# The model's own facts win.

LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": L,
}  # fmt: skip


@pytest.mark.parametrize(
    ("rope_parameters", "given", "filled"),
    [
        ({"rope_theta": 1e5}, {"resonance": True}, {"method": "rope", "base": 1e5, "train_length": L, "scale": 1.0}),
        ({"rope_theta": 1e5}, {"method": "yarn", "scale": 4}, {"base": 1e5, "train_length": L, "scale": 4.0}),
        (LLAMA3, {"resonance": True}, {"method": "llama3", "base": 5e5, "scale": 8.0}),
        (LLAMA3, {"method": "llama3", "resonance": True}, {"scale": 8.0, "train_length": L}),
        (
            {**THEIRS["yarn"], "beta_fast": 16.0, "attention_factor": 1.5},
            {"resonance": True},
            {"method": "yarn", "beta_fast": 16.0, "attention_factor": 1.5, "scale": 4.0},
        ),
    ],
)
def test_what_a_spec_leaves_out_is_the_models_own(rope_parameters, given, filled):
    model = llama(
        rope_parameters=dict(rope_parameters), max_position_embeddings=L if len(rope_parameters) < 3 else 8 * L
    )
    found = spec_of(swap_rotary(model, EncodingSpec(**given)).config)
    assert {name: getattr(found, name) for name in filled} == filled


CONTRADICTIONS = [
    ({"rope_theta": 1e5}, {"base": 1e4}, "base", r"base must be the model's own, 100000\.0, got 10000\.0"),
    ({"rope_theta": 1e5}, {"train_length": 16}, "train_length", f"train_length must be the model's own, {L}, got 16"),
    (LLAMA3, {"method": "rope"}, "method", "method must be the model's own, llama3, got rope"),
    (LLAMA3, {"method": "yarn", "scale": 16}, "method", "method must be the model's own, llama3, got yarn"),
    (LLAMA3, {"parameters": {"low_freq_factor": 2}, "method": "llama3"}, "parameters.low_freq_factor", "1.0, got 2"),
    (THEIRS["yarn"], {"method": "yarn", "scale": 8}, "scale", r"scale must be the model's own, 4\.0, got 8\.0"),
    (THEIRS["yarn"], {"method": "yarn", "beta_fast": 16}, "beta_fast", "beta_fast must be the model's own, 32.0"),
]  # fmt: skip


@pytest.mark.parametrize(("rope_parameters", "given", "field", "said"), CONTRADICTIONS)
def test_a_spec_that_contradicts_the_model_is_refused_unless_it_is_meant(tmp_path, rope_parameters, given, field, said):
    model = llama(rope_parameters=dict(rope_parameters))
    before, x = copy.deepcopy(model.config.rope_parameters), tokens()
    expected = logits(model, x)
    with pytest.raises(ValueError, match=said):
        swap_rotary(model, EncodingSpec(**given))
    assert model.config.rope_parameters == before and torch.equal(logits(model, x), expected), "left as it was"
    swap_rotary(model, EncodingSpec(**given), override=[field]).save_pretrained(tmp_path)
    again = load_pretrained(tmp_path)
    assert torch.equal(logits(again, x), logits(model, x)), "what was meant stays so"
    with pytest.raises(ValueError, match=said):
        swap_rotary(again, EncodingSpec(**given, rounding="floor", resonance=True))


def test_a_method_that_needs_a_scale_says_so():
    with pytest.raises(ValueError, match="scale must be given for method yarn, got None"):
        swap_rotary(llama(), EncodingSpec(method="yarn"))


def test_encodings_by_layer_type(tmp_path):
    """One spec goes to the layers that see everything; a window never sees past L and keeps its own method."""
    torch.manual_seed(0)
    names = ["sliding_attention", "full_attention"]
    model = Gemma3ForCausalLM(Gemma3TextConfig(**SIZES, head_dim=8, layer_types=names, pad_token_id=0)).eval()
    model, x = swap_rotary(model, EncodingSpec(method="yarn", scale=4, resonance=True)), tokens()
    found = read_specs(model.config)
    assert [(found[n].method, found[n].base, found[n].resonance) for n in names] == [
        ("rope", 1e4, True), ("yarn", 1e6, True),
    ]  # fmt: skip
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(load_pretrained(tmp_path), x), logits(model, x))
    with pytest.raises(ValueError, match="one encoding for each of sliding_attention, full_attention, got full"):
        swap_rotary(model, {"full_attention": EncodingSpec()})


# Compiled, exported, copied, pickled.


@pytest.mark.parametrize("method", ["rope", "yarn", "longrope"])
def test_a_swapped_model_compiles_whole_and_exports(method):
    model, x = swap_rotary(llama(), spec(method, True)), tokens()
    expected = logits(model, x)
    torch._dynamo.reset()
    assert torch.allclose(logits(torch.compile(model, fullgraph=True, backend="aot_eager"), x), expected, atol=1e-6)
    exported = torch.export.export(model, (x,), {"use_cache": False}).module()
    assert torch.allclose(exported(x, use_cache=False).logits, expected, atol=1e-6)


def test_a_swapped_model_can_be_copied_and_pickled():
    model, x = swap_rotary(llama(), spec()), tokens()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), torch.load(file, weights_only=False)):
        assert describe(other) == describe(model) and torch.equal(logits(other, x), logits(model, x))


def test_a_module_that_the_model_never_calls_is_refused():
    model = llama()
    model.model.rotary_emb, model.model.spare = None, model.model.rotary_emb
    with pytest.raises(ValueError, match="LlamaForCausalLM cannot take our table"):
        swap_rotary(model, spec())


def test_three_positions_a_token_turn_the_features_that_the_model_gives_them():
    config = Qwen3_5TextConfig(head_dim=256, max_position_embeddings=4096)
    theirs = Qwen3_5TextRotaryEmbedding(config)
    found = structure_of(theirs, config)
    assert sorted(torch.bincount(found.axes).tolist()) == [10, 11, 11], "what mrope_section says"
    ours = RotaryEmbedding(
        read_specs(config), head_dim=found.head_dim, num_positions=64, form=found.form, axes=found.axes
    )
    positions = torch.randint(0, 300, (3, 2, 17), generator=torch.Generator().manual_seed(3))
    for a, b in zip(theirs(torch.zeros(1), positions), ours(torch.zeros(1), positions), strict=True):
        assert a.shape == b.shape and torch.allclose(a, b, atol=5e-5)  # m*theta in float32, at m up to 300


@pytest.mark.parametrize("swapped", [False, True], ids=["theirs", "ours"])
def test_a_refused_swap_leaves_model_and_config_as_they_were(swapped):
    """Refused while the config is written: Phi-3's takes longrope alone, not dynamic NTK."""
    sizes = {**SIZES, "pad_token_id": 0}
    model = Phi3ForCausalLM(Phi3Config(**sizes, original_max_position_embeddings=L)).eval()
    if swapped:
        swap_rotary(model, EncodingSpec(resonance=True))
    x, config = tokens(), model.config.to_dict()
    before, classes = logits(model, x), [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match="method must have one table to be written as longrope"):
        swap_rotary(model, spec("dynamic_ntk"))
    assert model.config.to_dict() == config and [type(module) for module in model.modules()] == classes
    assert torch.equal(before, logits(model, x))
