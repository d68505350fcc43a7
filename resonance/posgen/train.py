"""Training a decoder on one task with one encoding and one seed (section 6.1.1, appendix C.1).

Legend: N sequences, B batch, T positions fed, V vocabulary.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from resonance.encoding.rotary import Rotary, Rotation
from resonance.encoding.spec import EncodingSpec
from resonance.posgen.decoder import Decoder, DecoderConfig, Dropout
from resonance.record.runs import TrainRun

# One stream of random numbers each, so that a longer dropout draw does not reorder the sequences.
_INITIALISATION, _ORDER, _DROPOUT = range(3)


@dataclass
class Trained:
    """What a training leaves: the selected weights, those of every look, and the curve."""

    decoder: Decoder
    step: int = 0
    snapshots: dict[int, dict[str, torch.Tensor]] = field(default_factory=dict)
    rows: list[dict] = field(default_factory=list)
    compiled: bool = False


def generator(seed: int, stream: int) -> torch.Generator:
    """The generator of one stream of a seed; streams of one seed are independent."""
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def make_decoder(run: TrainRun, init: torch.Generator) -> Decoder:
    """A freshly initialised decoder; what the protocol does not train is frozen (P6)."""
    decoder = Decoder(
        DecoderConfig(
            vocab_size=run.vocab_size,
            d_model=run.model.d_model,
            d_ff=run.model.d_ff,
            num_heads=run.model.num_heads,
            head_dim=run.model.head_dim,
            num_layers=run.num_layers,
            divide_by_sqrt_head_dim=run.choices.attention_scale == "sqrt_head_dim",
            dropout=run.choices.dropout,
        ),
        init,
    )
    if run.choices.trained == "all_but_feed_forward":
        for layer in decoder.layers:
            layer.feed_forward.requires_grad_(False)
            layer.feed_forward_norm.requires_grad_(False)
    return decoder


def make_rotary(run: TrainRun, spec: EncodingSpec, num_tokens: int) -> Rotary:
    """The table for sequences of num_tokens; one position more with a start token (P9)."""
    num_positions = num_tokens + run.choices.start_token
    return Rotary(
        spec, head_dim=run.model.head_dim, num_positions=num_positions, pair_layout=run.choices.pair_layout
    ).to(run.training.device)


def to_inputs(run: TrainRun, x_NT: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Sequences as what is fed, what is asked for, and the first column asked for.

    The last token is not fed: nothing is asked of it. Returns (inputs [N, T], targets [N, T], c):
    the logits of column t speak of targets[:, t], and columns from c on are determined by the rule.
    """
    x = torch.from_numpy(np.ascontiguousarray(x_NT, dtype=np.int64))
    width = run.data.j + run.data.k
    if run.choices.start_token:
        start = torch.full((len(x), 1), run.vocab_size - 1)
        return torch.cat((start, x[:, :-1]), dim=1), x, width
    return x[:, :-1].contiguous(), x[:, 1:].contiguous(), width - 1


def train(
    run: TrainRun,
    spec: EncodingSpec,
    seed: int,
    train_NT: np.ndarray,
    validation_NT: np.ndarray,
    report: Callable[[dict], None] = lambda _: None,
) -> Trained:
    """Train and select. `report` is told of every step (keys: step, loss) and look (accuracy too).

    Deterministic for one thread count: equal arguments give bit-equal weights.

    Raises FloatingPointError at the first loss that is not finite, before the weights take it.
    """
    device, settings = run.training.device, run.training
    decoder = make_decoder(run, generator(seed, _INITIALISATION)).to(device)
    rotation = make_rotary(run, spec, run.data.train_length).at(run.data.train_length - 1 + run.choices.start_token)
    inputs, targets, first = to_inputs(run, train_NT[:, : run.data.train_length])
    looks = validation_NT[spread(len(validation_NT), settings.look_sequences), : run.data.train_length]
    batches = _batches(len(inputs), settings.batch_size, generator(seed, _ORDER))
    masks = DropoutMasks(decoder, settings.batch_size, inputs.shape[1], generator(seed, _DROPOUT))
    optimizer, schedule = _optimizer(run, decoder)

    def batch_loss(inputs_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        logits_BTV = decoder(inputs_BT, rotation)
        return F.cross_entropy(logits_BTV[:, first:].flatten(0, 1).float(), targets_BT[:, first:].flatten())

    step_loss = _StepLoss(batch_loss, settings.compile)
    trained = Trained(decoder=decoder)
    look_steps = [round(run.steps * look / settings.num_looks) for look in range(1, settings.num_looks + 1)]
    every = settings.num_looks // settings.num_snapshots
    snapshot_steps = look_steps[every - 1 :: every]
    best, best_weights, losses = -1.0, None, []
    for step in range(1, run.steps + 1):
        index = next(batches)
        masks.draw()
        # Outside the compiled function: with it inside, its cache on disk refuses the graph and every
        # run pays for the compilation again.
        with autocast(device, settings.precision):
            loss = step_loss(inputs[index].to(device), targets[index].to(device))
        losses.append(loss.item())
        if not np.isfinite(losses[-1]):
            raise FloatingPointError(
                f"the loss at step {step} is {losses[-1]}; the weights of step {step - 1} were kept from it. "
                "Lower posgen.training.learning_rate, or train in fp32"
            )
        loss.backward()
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        report({"step": step, "loss": losses[-1]})
        if step not in look_steps:
            continue
        masks.clear()
        seen = {"train_loss": float(np.mean(losses)), "learning_rate": rate, **_look(run, decoder, rotation, looks)}
        epoch, accuracy = step * settings.batch_size / len(inputs), seen["in_distribution_accuracy"]
        trained.rows += [{"step": step, "epoch": epoch, "metric": name, "value": seen[name]} for name in seen]
        report({"step": step, "loss": seen["train_loss"], "accuracy": accuracy})
        kept = {name: w.detach().cpu().clone() for name, w in decoder.named_parameters() if w.requires_grad}
        if step in snapshot_steps:
            trained.snapshots[step] = kept
        if run.choices.selection == "last" or accuracy >= best:
            best, best_weights, trained.step = accuracy, kept, step
        losses = []
    decoder.load_state_dict(best_weights, strict=False)
    trained.compiled = step_loss.compiled
    return trained


class DropoutMasks:
    """Draws the bytes of every Dropout of a model at once, for one shape of batch."""

    def __init__(self, decoder: Decoder, batch_size: int, num_positions: int, draws: torch.Generator) -> None:
        c = decoder.config
        rows = batch_size * num_positions
        sizes = {"attention.dropout": rows * num_positions * c.num_heads, "feed_forward.dropout": rows * c.d_ff}
        self.generator, self.spans, total = draws, [], 0
        for name, module in decoder.named_modules():
            if isinstance(module, Dropout) and module.threshold:
                size = sizes.get(name.split(".", 2)[-1], rows * c.d_model)
                self.spans.append((module, total, size))
                total += -(-size // 64) * 64  # keep every span aligned
        self.words = torch.empty(total // 8, dtype=torch.int64)
        self.device = next(decoder.parameters()).device

    def draw(self) -> None:
        # From the least int64 on: the default range leaves every eighth byte without its top bit.
        self.words.random_(-(2**63), None, generator=self.generator)
        everything = self.words.view(torch.uint8).to(self.device)
        for module, start, size in self.spans:
            module.bytes = everything[start : start + size]

    def clear(self) -> None:
        for module, _, _ in self.spans:
            module.bytes = None


def autocast(device: str, precision: str) -> torch.autocast:
    """bf16: matrix products in bfloat16 over float32 weights. fp32: nothing."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


def tune_allocator() -> None:
    """Tell glibc to keep what it is given back: 2.5 to 5 times on one-thread elementwise work.

    Every step frees and asks for the same megabytes; by default each comes from a fresh mapping
    whose pages the kernel clears again. Elsewhere than on glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    trim_threshold, top_pad, mmap_max = -1, -2, -4
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(top_pad, 2**30)


def _optimizer(run: TrainRun, decoder: Decoder) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW over what is trained, and its learning rate over the steps (P10)."""
    settings = run.training
    weights = [weight for weight in decoder.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    if run.choices.schedule == "constant":
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    # torch divides by a warm-up of steps/10 - 1, which is 0 at 10 steps.
    warm_up = 0.1 if run.steps != 10 else 0.11
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=settings.learning_rate, total_steps=run.steps, pct_start=warm_up
    )


@torch.no_grad()
def _look(run: TrainRun, decoder: Decoder, rotation: Rotation, x_NT: np.ndarray) -> dict[str, float]:
    """In-distribution accuracy and loss of sequences of the training length."""
    inputs, targets, first = to_inputs(run, x_NT)
    right, loss = 0.0, 0.0
    for index in torch.arange(len(inputs)).split(run.training.batch_size):
        with autocast(run.training.device, run.training.precision):
            logits = decoder(inputs[index].to(run.training.device), rotation)[:, first:].float().cpu()
        asked = targets[index, first:]
        right += (logits.argmax(-1) == asked).double().mean(1).sum().item()
        loss += F.cross_entropy(logits.flatten(0, 1), asked.flatten(), reduction="sum").item()
    return {
        "in_distribution_accuracy": right / len(inputs),
        "in_distribution_loss": loss / targets[:, first:].numel(),
    }


def _batches(num_sequences: int, batch_size: int, order: torch.Generator) -> Iterator[torch.Tensor]:
    """Indices of whole batches from one permutation after another; an epoch's rest joins the next.

    Released code: the rest is a smaller batch of its own. Here every step has the same shape.
    """
    rest = torch.empty(0, dtype=torch.int64)
    while True:
        while len(rest) < batch_size:
            rest = torch.cat((rest, torch.randperm(num_sequences, generator=order)))
        yield rest[:batch_size]
        rest = rest[batch_size:]


def spread(total: int, count: int) -> np.ndarray:
    """count indices spread evenly over 0 .. total-1: neighbouring rows may share their prefix."""
    return np.arange(count) * total // count


class _StepLoss:
    """A loss function through torch.compile, or as it is where no compiler works: then said aloud."""

    def __init__(self, function: Callable, compile_it: bool) -> None:
        self.eager, self.call, self.compiled = function, function, False
        if compile_it:
            torch._inductor.config.compile_threads = 1  # jobs run side by side, each on its own thread
            self.call = self._first_call

    def _first_call(self, *arguments: torch.Tensor) -> torch.Tensor:
        compiled = torch.compile(self.eager, dynamic=False)
        try:
            loss = compiled(*arguments)
        except Exception as error:  # whatever a missing compiler or header raises, per platform
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            print(
                f"WARNING: torch.compile does not work here ({reason[:200]}); training eagerly, about twice as slow. "
                "Install a C++ compiler and the Python headers (Debian: g++ python3-dev), or set "
                "posgen.training.compile: false",
                file=sys.stderr,
            )
            self.call = self.eager
            return self.eager(*arguments)
        self.call, self.compiled = compiled, True
        return loss

    def __call__(self, *arguments: torch.Tensor) -> torch.Tensor:
        return self.call(*arguments)
