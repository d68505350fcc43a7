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

import contextlib
import copy
import inspect
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from resonance.encoding.frequencies import FrequencyTable, frequency_table
from resonance.encoding.ops import implementation
from resonance.encoding.spec import EncodingSpec
from resonance.hf.attention import patch_attention, restore_attention
from resonance.hf.module import FORMS, ONLY, RotaryEmbedding
from resonance.hf.parameters import (
    check_type,
    fill,
    length_of,
    original_length,
    own_specs,
    read_specs,
    rope_type,
    rotary_dim,
    spec_of,
    write_specs,
)

__all__ = ["check_table", "describe", "load_pretrained", "original_length", "rotation_on", "spec_of", "swap_rotary"]

_OF_A_CONFIG = ("cache_dir", "force_download", "gguf_file", "local_files_only", "proxies", "revision", "subfolder",
                "token", "trust_remote_code")  # fmt: skip
"""Options of `from_pretrained` that say where a config lies, and not what to make of it."""
_TOLERANCE = 1e-6  # float32 rounding of the numbers in [-1.4, 1.4] that a table holds
_SAMPLE = 512  # positions at which a table in use is compared with the one asked for
_THEIR_TOLERANCE = 1e-3  # m*theta in float32 at the few positions where their table is compared with its config


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
    owner, name, old = _find_rotary(model, config)
    specs = _specs(spec, config, override)
    form, dim, axes, device = _structure(old, config)
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
            failed = _send_tokens(model, new)
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
    _, name, module = _find_rotary(model, config)
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
        got = _real(got)
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
    _, _, module = _find_rotary(model, model.config.get_text_config())
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


def _find_rotary(model: torch.nn.Module, config) -> tuple[torch.nn.Module, str, torch.nn.Module]:
    """The one rotary module of a model's text part: the module that owns it, its name there, and itself."""
    found = [
        (owner, name, module)
        for owner in model.modules()
        for name, module in owner._modules.items()
        if isinstance(module, RotaryEmbedding)
        or ("Rotary" in type(module).__name__ and isinstance(getattr(module, "config", config), type(config)))
    ]
    if len(found) != 1:
        raise ValueError(
            f"the model must have one rotary module for all layers, got {len(found) or 'none'} in "
            f"{type(model).__name__}; Llama, Mistral, Qwen, Gemma, Phi, GPT-NeoX and their kin have"
        )
    return found[0]


class _Structure(NamedTuple):
    """How a model's rotary module is used: what it returns (one of FORMS), R, which position of a token each feature
    turns by (`RotaryEmbedding`), and where it is."""

    form: str
    head_dim: int
    axes: torch.Tensor | None
    device: torch.device | None


def _structure(module: torch.nn.Module, config) -> _Structure:
    """Found by asking the module, whose table is compared with its config's.

    Raises ValueError for a module that is called otherwise or returns something else.
    """
    device = next((b.device for b in module.buffers()), None)
    if device is not None and device.type == "meta":
        raise ValueError("the model must have its weights, they are on the device meta; load them first")
    if isinstance(module, RotaryEmbedding):  # the form "op" stays so: the attention is patched
        return _Structure(module.form, module.head_dim, module.axes, device)
    kind, dim = type(module).__name__, rotary_dim(config)
    takes = list(inspect.signature(module.forward).parameters)
    if takes[:2] != ["x", "position_ids"]:
        raise ValueError(
            f"the model's rotary module must be called with (x, position_ids), {kind} takes ({', '.join(takes)})"
        )
    if dim % 2:
        raise ValueError(f"the model's rotary dimension must be even, got {dim}")
    module, asked_on = _in_float32(module, config)
    form = axes = None
    for name, spec in read_specs(config).items():

        def ask(positions: torch.Tensor, layer: tuple = () if name == ONLY else (name,)):
            return module(torch.zeros(1, dtype=torch.float32, device=asked_on), positions.to(asked_on), *layer)

        table, positions = frequency_table(spec, dim, 1), torch.arange(32, device="cpu")[None]
        cos, sin = _cos_sin(table, positions)
        got = ask(positions)
        form = next((f for f in FORMS if f != "op" and _equal(FORMS[f](cos, sin, cos.dtype), got)), None)
        if form is None:
            raise ValueError(
                f"the model's rotary module must give the table of its own config ({rope_type(spec)}, b = "
                f"{spec.base:g}, R = {dim}), {kind} gives another; only such models can take ours"
            )
        if getattr(module, "mrope_section", None) is not None:
            three = torch.stack([positions + far for far in (0, 10_000, 20_000)])
            found = _real(ask(three))[0].float().cpu()[0, :, : dim // 2]
            gaps = (_cos_sin(table, three)[0][:, 0] - found).abs().amax(dim=1)
            axes = gaps.argmin(dim=0)
            if form != "halves" or gaps.min(dim=0).values.max() > 10 * _THEIR_TOLERANCE:
                raise ValueError(f"the model's rotary module mixes the positions of a token in its own way: {kind}")
    return _Structure(form, dim, axes, device)


def _in_float32(module: torch.nn.Module, config) -> tuple[torch.nn.Module, torch.device | None]:
    """The module and where it is; or one made anew on the CPU, where a cast of the model rounded its frequencies."""
    buffers = {name: buffer.float().cpu() for name, buffer in module.named_buffers()}
    here = module, next((buffer.device for buffer in module.buffers()), None)
    try:
        with torch.device("cpu"):
            anew = type(module)(config)
    except TypeError:  # it is made of something else
        return here

    def is_cast(name: str, exact: torch.Tensor) -> bool:
        kinds = torch.bfloat16, torch.float16
        rounded = [exact.to(first).to(second) for first in kinds for second in kinds]
        return any(torch.equal(buffers.get(name, exact), each.float()) for each in rounded)

    return (anew, torch.device("cpu")) if all(is_cast(*each) for each in anew.named_buffers()) else here


def _cos_sin(table: FrequencyTable, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A plain table at some positions, float32 [..., R/2]."""
    angle = positions[..., None].double() * torch.from_numpy(table.theta)
    return tuple((table.attention_factor * values).float() for values in (angle.cos(), angle.sin()))


def _equal(ours, theirs) -> bool:
    if isinstance(ours, tuple) != isinstance(theirs, tuple):
        return False
    return all(
        a.shape == b.shape and torch.allclose(a, b.float().cpu(), atol=_THEIR_TOLERANCE)
        for a, b in zip(_real(ours), _real(theirs), strict=True)
    )


def _real(table) -> tuple[torch.Tensor, ...]:
    return table if isinstance(table, tuple) else (table.real, table.imag)


class _Reached(Exception):
    """A few tokens came through every kind of attention."""


@torch.no_grad()
def _send_tokens(model: torch.nn.Module, rotary: RotaryEmbedding) -> str | None:
    """Send four tokens through the model as far as every kind of attention has seen them. What went wrong, or None."""
    kinds = {type(m) for m in model.modules() if type(m).__name__.endswith("Attention")}
    calls = []

    def count(module: torch.nn.Module, *_: object) -> None:
        calls.append(type(module))
        if kinds <= set(calls):
            raise _Reached

    hooks = [m.register_forward_hook(count) for m in model.modules() if m is rotary or type(m) in kinds]
    tokens = torch.zeros((1, 4), dtype=torch.long, device=model.get_input_embeddings().weight.device)
    more = {"decoder_input_ids": tokens} if model.config.is_encoder_decoder else {}
    try:
        with torch.random.fork_rng(devices=[]), _gathered(model):  # a model in training draws its dropout
            model(input_ids=tokens, **more)
    except _Reached:
        pass
    except Exception as error:  # whatever a model's own code may raise where our table does not fit
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    finally:
        for hook in hooks:
            hook.remove()
    return None if RotaryEmbedding in calls else "it never calls its rotary module"


@contextlib.contextmanager
def _gathered(model: torch.nn.Module) -> Iterator[None]:
    """DeepSpeed's ZeRO-3 leaves each process a part of every weight: those of a module are gathered when it runs, and
    partitioned again at the end."""
    if not any(hasattr(weight, "ds_id") for weight in model.parameters()):
        yield
        return
    import deepspeed

    with contextlib.ExitStack() as gathered:

        def gather(module: torch.nn.Module, *_: object) -> None:
            if own := list(module.parameters(recurse=False)):
                gathered.enter_context(deepspeed.zero.GatheredParameters(own))

        for module in model.modules():
            gathered.callback(module.register_forward_pre_hook(gather).remove)
        yield
