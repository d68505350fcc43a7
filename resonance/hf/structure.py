"""What a transformers model turns q and k by: its one rotary module, asked how it is used and tried on a few tokens."""

import contextlib
import inspect
from collections.abc import Iterator
from typing import NamedTuple

import torch

from resonance.encoding.frequencies import FrequencyTable, frequency_table
from resonance.hf.module import FORMS, ONLY, RotaryEmbedding
from resonance.hf.parameters import read_specs, rope_type, rotary_dim

_THEIR_TOLERANCE = 1e-3  # m*theta in float32 at the few positions where their table is compared with its config


def find_rotary(model: torch.nn.Module, config) -> tuple[torch.nn.Module, str, torch.nn.Module]:
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


class Structure(NamedTuple):
    """How a model's rotary module is used: what it returns (one of FORMS), R, which position of a token each feature
    turns by (`RotaryEmbedding`), and where it is."""

    form: str
    head_dim: int
    axes: torch.Tensor | None
    device: torch.device | None


def structure_of(module: torch.nn.Module, config) -> Structure:
    """Found by asking the module, whose table is compared with its config's.

    Raises ValueError for a module that is called otherwise or returns something else.
    """
    device = next((b.device for b in module.buffers()), None)
    if device is not None and device.type == "meta":
        raise ValueError("the model must have its weights, they are on the device meta; load them first")
    if isinstance(module, RotaryEmbedding):  # the form "op" stays so: the attention is patched
        return Structure(module.form, module.head_dim, module.axes, device)
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
            found = real(ask(three))[0].float().cpu()[0, :, : dim // 2]
            gaps = (_cos_sin(table, three)[0][:, 0] - found).abs().amax(dim=1)
            axes = gaps.argmin(dim=0)
            if form != "halves" or gaps.min(dim=0).values.max() > 10 * _THEIR_TOLERANCE:
                raise ValueError(f"the model's rotary module mixes the positions of a token in its own way: {kind}")
    return Structure(form, dim, axes, device)


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
        for a, b in zip(real(ours), real(theirs), strict=True)
    )


def real(table) -> tuple[torch.Tensor, ...]:
    return table if isinstance(table, tuple) else (table.real, table.imag)


class _Reached(Exception):
    """A few tokens came through every kind of attention."""


@torch.no_grad()
def send_tokens(model: torch.nn.Module, rotary: RotaryEmbedding) -> str | None:
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
