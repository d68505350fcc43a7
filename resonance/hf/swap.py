"""The swap-in for transformers' models: our table and our op in place of their rotary module.

    model = load_pretrained("folder", EncodingSpec(resonance=True))   # or swap_rotary(model, spec) on a model at hand
    model.save_pretrained("elsewhere")           # the spec travels in config.json
    model = load_pretrained("elsewhere")         # and is back, checked against the table in use

The model's own facts win: what a spec leaves out is filled in from the model's config, and what it says against the
config raises. `parameters` reads and writes configs; importing it registers our rope types with transformers, so that
transformers itself can also open what was saved: then with its own rotary module, that is with `m*theta` in float32 and
cos and sin in the model's dtype. The exact lookup (m mod period) and the op come with `load_pretrained` or
`swap_rotary` alone.

L is the training length in positions.
"""

import copy
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from resonance.encoding.frequencies import frequency_table
from resonance.encoding.ops import implementation
from resonance.encoding.spec import EncodingSpec
from resonance.hf.attention import patch_attention, restore_attention
from resonance.hf.module import ONLY, RotaryEmbedding
from resonance.hf.parameters import (
    check_type,
    fill,
    length_of,
    original_length,
    own_specs,
    read_specs,
    rope_type,
    spec_of,
    write_specs,
)
from resonance.hf.structure import find_rotary, real, send_tokens, structure_of

__all__ = ["check_table", "describe", "load_pretrained", "original_length", "rotation_on", "spec_of", "swap_rotary"]

_OF_A_CONFIG = ("cache_dir", "force_download", "gguf_file", "local_files_only", "proxies", "revision", "subfolder",
                "token", "trust_remote_code")  # fmt: skip
"""Options of `from_pretrained` that say where a config lies, and not what to make of it."""
_TOLERANCE = 1e-6  # float32 rounding of the numbers in [-1.4, 1.4] that a table holds
_SAMPLE = 512  # positions at which a table in use is compared with the one asked for


def swap_rotary(
    model: torch.nn.Module,
    spec: EncodingSpec | Mapping[str, EncodingSpec],
    *,
    override: Collection[str] = (),
) -> torch.nn.Module:
    """Put an encoding into a transformers model, in place, and say so in its config. Returns the model.

    spec      what is None in it is the model's own: base, train_length, method, and scale where the model has one.
              A model with an encoding a layer type (gemma3: sliding_attention, full_attention) takes a mapping by
              layer type, or one spec, which goes to full_attention while the others keep their own, with Resonance
              where the spec has it
    override  the fields in which the spec contradicts the model on purpose

    Where the model's attention turns q and k by `apply_rotary_pos_emb`, our op does that in its place; elsewhere the
    model's own multiplication takes cos and sin from our table. `describe` says which. Before this returns, the config
    has been written and read back, the table in use compared with the spec's, and a few tokens sent through the
    model's first attention; where one of these fails, the model is as it was.

    Raises ValueError for a spec that contradicts the model, and for a model of another structure.
    """
    if not hasattr(getattr(model, "config", None), "get_text_config"):
        raise ValueError(f"model must be a transformers model, got {type(model).__name__}; swap before it is wrapped")
    config = model.config.get_text_config()
    if getattr(config, "alibi", False):
        raise ValueError(f"{type(model).__name__} has ALiBi (alibi is true in its config) and turns nothing")
    owner, name, old = find_rotary(model, config)
    specs = _specs(spec, config, override)
    form, dim, axes, device = structure_of(old, config)
    before = copy.deepcopy(config.rope_parameters), config.max_position_embeddings
    length = length_of(config, specs)
    patched = False
    try:
        write_specs(config, specs, length)
        if read_specs(type(config).from_dict(config.to_dict())) != specs:
            raise ValueError(f"{type(config).__name__} does not keep an encoding: it comes back as another")
        patched = form != "op" and patch_attention(model, form)  # "op": a swap before this one patched it
        for tried in ("op", form) if patched else (form,):
            new = RotaryEmbedding(specs, head_dim=dim, num_positions=length, form=tried, axes=axes, device=device)
            owner._modules[name] = new
            check_table(model, specs)
            failed = send_tokens(model, new)
            if not failed:
                return model
            if patched:
                restore_attention(model)
        raise ValueError(f"{type(model).__name__} cannot take our table: {failed}")
    except Exception:
        owner._modules[name] = old
        config.rope_parameters, config.max_position_embeddings = before
        if patched:
            restore_attention(model)
        raise


def load_pretrained(
    folder: str | Path,
    spec: EncodingSpec | Mapping[str, EncodingSpec] | None = None,
    *,
    override: Collection[str] = (),
    auto: type = AutoModelForCausalLM,
    **options: object,
) -> torch.nn.Module:
    """A model by folder or hub id, with our rotary module and the table checked.

    spec, override  as for `swap_rotary`; None: the encoding that the model's config names, ours or transformers'
    options         as for `from_pretrained` (dtype, attn_implementation, gguf_file, revision, ..)

    Raises ValueError for a rope type that is neither ours nor one that a spec can express: nothing falls back to
    plain RoPE.
    """
    if options.get("output_loading_info"):
        raise ValueError("output_loading_info must be left out, got True: load_pretrained returns the model alone")
    known = {name: options[name] for name in _OF_A_CONFIG if name in options}
    config = AutoConfig.from_pretrained(folder, **known).get_text_config()
    check_type(config)
    saved = read_specs(config) if spec is None else spec
    model = auto.from_pretrained(folder, **options)
    return swap_rotary(model, saved, override=override)


def check_table(model: torch.nn.Module, spec: EncodingSpec | Mapping[str, EncodingSpec]) -> None:
    """Compare the table that a model turns by with the spec's own, made anew in float64.

    At positions from 0 to L' and past it. Raises ValueError where they differ.
    """
    config = model.config.get_text_config()
    _, name, module = find_rotary(model, config)
    specs = dict(spec) if isinstance(spec, Mapping) else {ONLY: spec}
    said = ", ".join(rope_type(s) for s in specs.values())
    if not isinstance(module, RotaryEmbedding):
        raise ValueError(f"{name} must be ours to hold encoding {said}, got {type(module).__name__}; call swap_rotary")
    if module.specs != specs:
        raise ValueError(f"{name} must hold {specs}, got {module.specs}; call swap_rotary")
    end = module.num_positions
    positions = np.unique(np.linspace(0, end - 1, _SAMPLE).astype(np.int64))
    for key, one in specs.items():
        table = frequency_table(one, module.head_dim, seq_len=int(positions[-1]) + 1)
        reduced = np.where(table.period > 0, positions[:, None] % np.maximum(table.period, 1), positions[:, None])
        angle = reduced * table.theta
        on_device = torch.from_numpy(positions)[None].to(module.angles[key][0].order.device)
        got = module(
            torch.zeros(1, dtype=torch.float32, device=on_device.device), on_device, None if key == ONLY else key
        )
        got = real(got)
        half = angle.shape[-1]
        for what, ours, wanted in zip(("cos", "sin"), got, (np.cos(angle), np.sin(angle)), strict=True):
            columns = slice(None, None, 2) if module.form == "pairs" else slice(half)
            values = ours.reshape(len(positions), -1)[:, columns].double().cpu().numpy()
            gap = np.abs(values - table.attention_factor * wanted)
            if gap.max(initial=0.0) > _TOLERANCE * max(1.0, table.attention_factor):
                row, feature = np.unravel_index(int(gap.argmax()), gap.shape)
                raise ValueError(
                    f"the model's table must be that of {rope_type(one)}, but {what} of feature {feature} at position "
                    f"{positions[row]} is off by {gap.max():.2e}; load the model with load_pretrained"
                )


def describe(model: torch.nn.Module) -> dict:
    """What turns q and k in a model, for run.json; by layer type where it has several encodings."""
    _, _, module = find_rotary(model, model.config.get_text_config())
    ours = isinstance(module, RotaryEmbedding)
    encodings = {key: spec.to_dict() for key, spec in module.specs.items()} if ours else {ONLY: None}
    types = {key: rope_type(spec) for key, spec in module.specs.items()} if ours else {}
    return {
        "encoding": encodings.get(ONLY, encodings),
        "rope_type": types.get(ONLY, types) if ours else getattr(module, "rope_type", None),
        "rotation": rotation_on(next(module.angles.buffers()).device.type)
        if ours and module.form == "op"
        else "transformers' multiplication" + (", our table" if ours else ""),
        "attention": model.config._attn_implementation,
    }


def rotation_on(device: str) -> str:
    """What turns tensors on a kind of device: the op may have been built without kernels for it."""
    if device == "cpu":
        return implementation()
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key("resonance::rotate", device.upper())
    return f"C++ ({device})" if has_kernel else f"torch reference ({device})"


def _specs(
    spec: EncodingSpec | Mapping[str, EncodingSpec], config, override: Collection[str]
) -> dict[str, EncodingSpec]:
    """A spec for every layer type of the model, filled from the model's own."""
    given = spec.values() if isinstance(spec, Mapping) else [spec]
    if wrong := [type(one).__name__ for one in given if not isinstance(one, EncodingSpec)]:
        raise ValueError(
            f"spec must be an EncodingSpec, or one for each layer type, got {wrong[0]}; from_dict reads one"
        )
    own = own_specs(config)
    if spec == read_specs(config):
        return dict(spec)  # what the config says is no contradiction
    if isinstance(spec, Mapping):
        if set(spec) != set(own):
            raise ValueError(f"spec must have one encoding for each of {', '.join(own)}, got {', '.join(spec)}")
        given = dict(spec)
    elif len(own) == 1:
        given = dict.fromkeys(own, spec)
    elif "full_attention" in own:
        rounded = EncodingSpec(resonance=spec.resonance, rounding=spec.rounding)
        given = {name: spec if name == "full_attention" else rounded for name in own}
    else:
        raise ValueError(f"spec must be a mapping with one encoding for each of {', '.join(own)}, got one spec")
    return {name: fill(one, own[name], override) for name, one in given.items()}
