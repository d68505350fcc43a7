"""The swap-in for transformers' models: our table and our op in place of their rotary module.

    model = load_pretrained("folder", spec)      # or swap_rotary(model, spec) on a model at hand
    model.save_pretrained("elsewhere")           # the spec travels in config.json
    model = load_pretrained("elsewhere")         # and is back, checked against the table in use

Importing this module registers a rope type for every method, `exact_<method>` and
`resonance_<method>`, so that transformers itself can also open what was saved: then with its own
rotary module, that is with `m*theta` in float32 and cos and sin in the model's dtype. The exact
lookup (m mod period) and the op come with `load_pretrained` or `swap_rotary` alone.

L is the training length in positions.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, RotaryEmbeddingConfigMixin

from resonance.encoding.frequencies import depends_on_length, frequency_table
from resonance.encoding.methods import method_names
from resonance.encoding.ops import implementation
from resonance.encoding.spec import EncodingSpec
from resonance.hf.attention import patch_attention
from resonance.hf.module import RotaryEmbedding

FIELD = "encoding"
"""The key of `config.rope_parameters` that holds a spec."""

_THEIRS = ("default", "linear", "dynamic", "yarn")
_TOLERANCE = 1e-6  # float32 rounding of the numbers in [-1.4, 1.4] that a table holds
_SAMPLE = 512  # positions at which a table in use is compared with the one asked for


def rope_type(spec: EncodingSpec) -> str:
    """The name of a spec's type in a config: `resonance_yarn`, `exact_linear`."""
    return f"{'resonance' if spec.resonance else 'exact'}_{spec.method}"


def swap_rotary(model: torch.nn.Module, spec: EncodingSpec) -> torch.nn.Module:
    """Put an encoding into a transformers model, in place, and say so in its config. Returns the model.

    The model must have one rotary module with the half-split layout (Llama, Mistral, Qwen2, Qwen3,
    GPT-NeoX, Phi and their kin). Where its attention turns q and k by `apply_rotary_pos_emb`, our op
    does that in its place; elsewhere the model's own multiplication takes cos and sin from our table.
    `describe` says which.

    Raises ValueError for a model of another structure, and where the table that the model then
    uses is not the one asked for.
    """
    config = model.config.get_text_config()
    path, old = _find_rotary(model)
    rotary_dim = _rotary_dim(config)
    device = next((b.device for b in old.buffers()), None)
    if not isinstance(old, RotaryEmbedding):
        _check_half_split(old, rotary_dim, device)
    swapped = patch_attention(model)
    original = original_length(config)
    length = round(spec.scale * (spec.train_length or original))
    new = RotaryEmbedding(
        spec,
        head_dim=rotary_dim,
        num_positions=spec.train_length if depends_on_length(spec, rotary_dim) else length,
        device=device,
        for_op=swapped,
    )
    model.get_submodule(path.rpartition(".")[0])._modules[path.rpartition(".")[2]] = new
    partial = (config.rope_parameters or {}).get("partial_rotary_factor")
    config.rope_parameters = {
        "rope_type": rope_type(spec),
        "rope_theta": spec.base,
        "original_max_position_embeddings": original,
        FIELD: asdict(spec),
    } | ({} if partial is None else {"partial_rotary_factor": partial})
    # transformers' module for "dynamic" types reads L from here; ours reads the spec.
    config.max_position_embeddings = original if new.follows_length else length
    check_table(model, spec)
    return model


def load_pretrained(
    folder: str | Path, spec: EncodingSpec | None = None, *, auto: type = AutoModelForCausalLM, **options: object
) -> torch.nn.Module:
    """A model by folder or hub id, with our rotary module and the table checked.

    spec     the encoding wanted; None: the one that the model's config names, ours or transformers'
    options  as for `from_pretrained` (dtype, attn_implementation, gguf_file, revision, ..)

    Raises ValueError for a rope type that is neither ours nor one that a spec can express: nothing
    falls back to plain RoPE.
    """
    known = {name: options[name] for name in ("gguf_file", "revision", "token", "local_files_only") if name in options}
    config = AutoConfig.from_pretrained(folder, **known)
    saved = spec_of(config) if spec is None else spec
    given = (config.get_text_config().rope_parameters or {}).get("rope_type", "default")
    if given not in ROPE_INIT_FUNCTIONS and given != "default":
        _unknown_type(given)
    model = auto.from_pretrained(folder, **options)
    return swap_rotary(model, saved)


def spec_of(config) -> EncodingSpec:
    """The encoding that a config asks for, ours or transformers' own, as a spec.

    Raises ValueError for a type that no spec expresses (llama3, longrope, a misspelt name).
    """
    config = config.get_text_config()
    given = dict(config.rope_parameters or {})
    kind = given.get("rope_type", "default")
    if FIELD in given:
        return _read_parameters(given)
    if kind not in _THEIRS:
        _unknown_type(kind)
    base, original = given["rope_theta"], original_length(config)
    if kind == "default":
        return EncodingSpec(method="rope", base=base, train_length=original)
    scale = float(given["factor"])
    if kind == "linear":
        return EncodingSpec(method="linear", base=base, scale=scale, train_length=original)
    if kind == "dynamic":
        return EncodingSpec(method="dynamic_ntk", base=base, scale=scale, train_length=original)
    if given.get("mscale") or given.get("mscale_all_dim"):
        raise ValueError("rope type yarn must come without mscale, which no spec expresses; set attention_factor")
    return EncodingSpec(
        method="yarn",
        base=base,
        scale=scale,
        train_length=original,
        beta_fast=given.get("beta_fast") or 32.0,
        beta_slow=given.get("beta_slow") or 1.0,
        truncate=given.get("truncate", True),
        attention_factor=given.get("attention_factor"),
    )


def original_length(config) -> int:
    """L of the pretrained model in positions, however often its encoding was exchanged since."""
    config = config.get_text_config()
    return int((config.rope_parameters or {}).get("original_max_position_embeddings") or config.max_position_embeddings)


def check_table(model: torch.nn.Module, spec: EncodingSpec) -> None:
    """Compare the table that a model turns by with the spec's own, made anew in float64.

    At positions from 0 to the end of the table and past it. Raises ValueError where they differ.
    """
    path, module = _find_rotary(model)
    if not isinstance(module, RotaryEmbedding):
        raise ValueError(
            f"{path} must be ours to hold encoding {rope_type(spec)}, got {type(module).__name__}; call swap_rotary"
        )
    if module.spec != spec:
        raise ValueError(f"{path} must hold {spec.to_json()}, got {module.spec.to_json()}; call swap_rotary")
    end = module.rotary.num_positions
    positions = np.unique(np.linspace(0, end - 1, _SAMPLE).astype(np.int64))
    length = int(positions[-1]) + 1
    table = frequency_table(spec, _rotary_dim(model.config.get_text_config()), seq_len=max(length, end))
    reduced = np.where(table.period > 0, positions[:, None] % np.maximum(table.period, 1), positions[:, None])
    angle = reduced * table.theta
    device = module.rotary.start.device
    dummy = torch.zeros(1, dtype=torch.float32, device=device)
    got = module(dummy, torch.from_numpy(positions)[None].to(device))
    half = angle.shape[-1]
    for name, ours, wanted in zip(("cos", "sin"), got, (np.cos(angle), np.sin(angle)), strict=True):
        values = ours.reshape(len(positions), -1)[:, :half].double().cpu().numpy()
        gap = np.abs(values - table.attention_factor * wanted)
        if values.shape != wanted.shape or gap.max(initial=0.0) > _TOLERANCE * max(1.0, table.attention_factor):
            row, feature = np.unravel_index(int(gap.argmax()), gap.shape)
            raise ValueError(
                f"the model's table must be that of {rope_type(spec)}, but {name} of feature {feature} at position "
                f"{positions[row]} is off by {gap.max():.2e}; load the model with load_pretrained"
            )


def describe(model: torch.nn.Module) -> dict:
    """What turns q and k in a model, for run.json."""
    _, module = _find_rotary(model)
    ours = isinstance(module, RotaryEmbedding)
    by_op = ours and module.for_op
    return {
        "encoding": asdict(module.spec) if ours else None,
        "rope_type": rope_type(module.spec) if ours else getattr(module, "rope_type", None),
        "rotation": implementation() if by_op else "transformers' multiplication" + (", our table" if ours else ""),
        "attention": model.config._attn_implementation,
    }


def _find_rotary(model: torch.nn.Module) -> tuple[str, torch.nn.Module]:
    found = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, RotaryEmbedding) or ("RotaryEmbedding" in type(module).__name__)
    ]
    if len(found) != 1:
        raise ValueError(
            f"the model must have one rotary module for all layers, got {len(found)} in {type(model).__name__}; "
            "Llama, Mistral, Qwen2, GPT-NeoX and their kin have"
        )
    return found[0]


def _rotary_dim(config) -> int:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(head_dim * ((config.rope_parameters or {}).get("partial_rotary_factor") or 1.0))


def _check_half_split(module: torch.nn.Module, rotary_dim: int, device) -> None:
    cos, _ = module(torch.zeros(1, device=device), torch.arange(8, device=device)[None])
    if cos.shape[-1] != rotary_dim or not torch.equal(cos[..., : rotary_dim // 2], cos[..., rotary_dim // 2 :]):
        raise ValueError(
            f"the model's rotary module must use the half-split layout over {rotary_dim} dimensions, got another "
            f"({type(module).__name__}); only half-split models can take our table"
        )


# The rope types that transformers meets in a config of ours.


def _read_parameters(given: dict) -> EncodingSpec:
    """The spec in a config's rope_parameters. Raises ValueError where the parts contradict each other."""
    spec, kind = EncodingSpec.from_dict(given[FIELD]), given.get("rope_type")
    if kind != rope_type(spec):
        raise ValueError(f"rope_type must be {rope_type(spec)} for this encoding, got {kind!r}; save the model again")
    if float(given.get("rope_theta", spec.base)) != spec.base:
        raise ValueError(f"rope_theta must be the encoding's base {spec.base}, got {given['rope_theta']}")
    return spec


def _unknown_type(kind: object) -> None:
    known = [*_THEIRS, *(name for name in ROPE_INIT_FUNCTIONS if name.startswith(("exact_", "resonance_")))]
    raise ValueError(
        f"rope_type must be one of {', '.join(known)}, got {kind!r}; mend rope_parameters in the model's config.json, "
        "or ask for an encoding by name"
    )


def _init_parameters(config, device=None, seq_len=None, layer_type=None) -> tuple[torch.Tensor, float]:
    """A spec's (inv_freq, attention_scaling), for transformers' own rotary module."""
    spec = _read_parameters(config.rope_parameters)
    table = frequency_table(spec, _rotary_dim(config), None if seq_len is None else int(seq_len))
    return torch.from_numpy(table.theta).to(device=device, dtype=torch.float32), table.attention_factor


def _validate_parameters(self, rope_parameters: dict, ignore_keys: set | None = None) -> None:
    if FIELD not in rope_parameters:
        raise ValueError(
            f"rope_parameters.{FIELD} must hold the fields of an encoding for rope_type "
            f"{rope_parameters.get('rope_type')!r}, got none; swap_rotary writes them"
        )
    _read_parameters(rope_parameters)


for _method in method_names():
    for _kind in (f"exact_{_method}", f"resonance_{_method}"):
        ROPE_INIT_FUNCTIONS.setdefault(_kind, _init_parameters)
        setattr(RotaryEmbeddingConfigMixin, f"_validate_{_kind}_rope_parameters", _validate_parameters)
