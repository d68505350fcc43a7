"""Every family of transformers with rotary encodings: the swap works, or is refused in one line.

docs/families.md is this file's answer as a page: `python tests/test_families.py` writes it, and a test compares. The
models are tiny and random. What a family's config needs to be tiny is found by trying `VARIANTS` in turn.
"""

import copy
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
)

from resonance.encoding.spec import EncodingSpec
from resonance.hf.parameters import read_specs
from resonance.hf.swap import describe, load_pretrained, swap_rotary

PAGE = Path(__file__).resolve().parents[1] / "docs/families.md"
MAPPINGS = {
    transformers.AutoModelForCausalLM: MODEL_FOR_CAUSAL_LM_MAPPING,
    transformers.AutoModelForMaskedLM: MODEL_FOR_MASKED_LM_MAPPING,
    transformers.AutoModelForSeq2SeqLM: MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
}
TOLERANCE = 2e-5  # theirs is m*theta in float32, and some multiply their logits
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "n_embd": 32,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "n_layer": 2,
    "num_attention_heads": 4,
    "n_head": 4,
    "num_key_value_heads": 2,
    "num_kv_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "shared_expert_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_zero_experts": 0,
    "expert_ffn_hidden_size": 16,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "qk_head_dim": 16,
    "ffn_hidden_size": 48,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "lru_width": 32,
    "mamba_d_state": 8,
    "global_head_dim": 8,
    "num_global_key_value_heads": 2,
    "vocab_size_per_layer_input": 64,
    "hidden_size_per_layer_input": 8,
    "laurel_rank": 4,
    "altup_num_inputs": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VARIANTS = (
    {},
    {"num_key_value_heads": 4},
    {"num_hidden_layers": 4},
    {"num_hidden_layers": 4, "num_key_value_heads": 4},
    {"head_dim": None, "num_key_value_heads": 4},
)
OF_THEIR_OWN = {
    "bamba": {"attn_layer_indices": [1], "mamba_expand": 2, "mamba_d_head": 16, "mamba_n_heads": 4},
    "falcon_h1": {"mamba_d_ssm": 64},
    "flint": {"layer_types": ["sliding_attention", "full_attention"]},  # only a window turns there
    "gemma3_text": {"layer_types": ["sliding_attention", "full_attention"]},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "mamba_expand": 2},
    "lfm2_moe": {"layer_types": ["full_attention", "full_attention"]},
    "olmo3": {"layer_types": ["sliding_attention", "full_attention"]},
    "zamba2": {"layers_block_type": ["hybrid", "hybrid"], "layer_types": None},
    "zaya": {"num_experts_per_tok": 1},
}
TOKENS = torch.randint(3, 60, (2, 24), generator=torch.Generator().manual_seed(1))


def has(config, name: str) -> bool:
    try:
        return hasattr(config, name)
    except Exception:  # a property that raises
        return False


def families() -> dict[str, type]:
    """Every text config with rotary parameters that a language model of transformers is made from."""
    found = {}
    for name, kind in CONFIG_MAPPING.items():
        auto = next((auto for auto, mapping in MAPPINGS.items() if kind in mapping), None)
        try:
            if auto and kind().get_text_config() and getattr(kind(), "rope_parameters", None):
                found[name] = auto
        except Exception:  # a config that cannot be made without arguments, or of several texts
            continue
    return found


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


def tiny(name: str, auto: type) -> torch.nn.Module | None:
    """A tiny random model of a family; None where no variant makes one."""
    kind = CONFIG_MAPPING[name]
    standard = kind()
    known = {key: value for key, value in SIZES.items() if has(standard, key)}
    for variant in VARIANTS:
        fields = {key: value for key, value in {**known, **variant}.items() if value is not None and key in known}
        fields |= OF_THEIR_OWN.get(name, {})
        try:
            config = kind(**fields)
            with torch.device("meta"):
                size = sum(p.numel() for p in auto.from_config(config).parameters())
            torch.manual_seed(0)
            if size < 5e6:
                model = auto.from_config(config).eval()
                with torch.no_grad():
                    for parameter in model.parameters():
                        if (parameter == parameter.flatten()[0]).all():  # a gate may begin shut
                            parameter.add_(torch.randn(parameter.shape) * 0.05)
                logits(model)
                return model
        except Exception:  # whatever a family's own code says of such sizes
            continue
    return None


def answer(name: str, auto: type) -> tuple[str, str]:
    """What happens to a family, and the row of the page: (verdict, detail)."""
    model = tiny(name, auto)
    if model is None:
        return "not built", "no tiny model of it runs with this test's sizes"
    expected = logits(model)
    try:
        specs = read_specs(model.config)
        same = swap_rotary(copy.deepcopy(model), specs)
        ours = swap_rotary(copy.deepcopy(model), EncodingSpec(resonance=True))
    except ValueError as error:
        message = str(error)
        assert "\n" not in message, message
        return "refused", re.sub(r" \(exact.*?\)", "", message.split("; ")[0])  # of whichever layer type came first
    gap = (logits(same) - expected).abs().max().item()
    assert gap < TOLERANCE, f"{name}: logits off by {gap}"
    changed = logits(ours)
    assert not torch.equal(changed, expected), f"{name}: nothing changed"
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        again = load_pretrained(folder, auto=auto).eval()
    assert torch.equal(logits(again), changed), f"{name}: another model after save and load"
    if ours.can_generate():
        expected = ours.generate(TOKENS, max_new_tokens=4, do_sample=False)
        assert torch.equal(again.generate(TOKENS, max_new_tokens=4, do_sample=False), expected)
    kinds = "" if len(specs) == 1 else f"; by layer type: {', '.join(specs)}"
    return "works", ("our op" if describe(ours)["rotation"].startswith(("C++", "torch")) else "its own product") + kinds


def page() -> str:
    transformers.logging.set_verbosity_error()
    answers = {name: answer(name, auto) for name, auto in sorted(families().items())}
    counts = Counter(verdict for verdict, _ in answers.values())
    lines = [
        "# Families of transformers",
        "",
        f"`swap_rotary` on a tiny random model of every family with rotary encodings in transformers "
        f"{transformers.__version__}: {counts['works']} work, {counts['refused']} are refused at the swap, "
        f"{counts['not built']} could not be built small enough to try. Written by `tests/test_families.py`.",
        "",
        "*Works* means: with the model's own encoding its logits are transformers' own to float32 rounding; with "
        "Resonance they change; the model saves, loads and generates the same. *Our op*: queries and keys are turned "
        "by the compiled op in float32. *Its own product*: the model multiplies by cos and sin from our table.",
        "",
        "| family | | how |",
        "| --- | --- | --- |",
        *(f"| {name} | {verdict} | {detail.replace('|', '/')} |" for name, (verdict, detail) in answers.items()),
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.filterwarnings("ignore")
def test_every_family_works_or_is_refused_in_one_line(capsys):
    written, made = PAGE.read_text(), page()
    if f"transformers {transformers.__version__}:" not in written:
        pytest.skip("docs/families.md speaks of another transformers")
    assert made == written, "python tests/test_families.py writes it anew"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(*PAGE.read_text().splitlines()[2:3], file=sys.stderr)
