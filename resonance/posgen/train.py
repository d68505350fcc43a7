"""Training a decoder on one task with one encoding and one seed (section 6.1.1, appendix C.1).

Legend: N sequences, B batch, T positions fed, V vocabulary.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from resonance.encoding.rotary import Rotary, Rotation
from resonance.encoding.spec import EncodingSpec
from resonance.posgen.decoder import Decoder, DecoderConfig
from resonance.posgen.draws import Batches, generator
from resonance.posgen.settings import TrainRun
from resonance.posgen.step import DropoutMasks, Losses, Step, autocast
from resonance.posgen.tasks import digest
from resonance.record.checkpoint import Checkpoints
from resonance.record.identity import code_of, identity
from resonance.record.precision import precision_here
from resonance.record.provenance import device_name, instruction_sets

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
    resumed_at: list[int] = field(default_factory=list)


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
    checkpoints: Checkpoints | None = None,
) -> Trained:
    """Train and select. `report` is told of looks (keys: step, loss, accuracy) and, on a CPU, of every
    step (step, loss).

    Deterministic for one thread count: equal arguments give bit-equal weights, also where the run was
    killed and goes on from `checkpoints` (made with the same arguments' `identity_of`).

    Raises FloatingPointError at the first loss that is not finite, before the weights take it; on
    CUDA at the next look or checkpoint, the weights having stayed as they were (`Losses`).
    """
    training = _Training(run, spec, seed, train_NT, validation_NT, report)
    if checkpoints and (found := checkpoints.load()):
        training.restore(*found)
        print(f"going on from the checkpoint of step {training.step} of {run.steps}", file=sys.stderr, flush=True)
    while training.step < run.steps:
        training.advance()
        if checkpoints and training.step < run.steps and checkpoints.due():
            checkpoints.save(training.step, *training.state())
    return training.finish()


def identity_of(
    run: TrainRun, spec: EncodingSpec, seed: int, train_NT: np.ndarray, validation_NT: np.ndarray
) -> dict[str, str]:
    """Everything that the bits of a training depend on, by name: its checkpoints are of no other."""
    device = run.training.device
    settings = run.model_dump(mode="json") | {
        "encoding": spec.to_dict(),
        "seed": seed,
        "train sequences": digest(train_NT),
        "validation sequences": digest(validation_NT),
        "torch": torch.__version__,
        "precision used": precision_here(device, run.training.precision),
        "threads": torch.get_num_threads(),
        "processor": device_name(device) if device == "cuda" else instruction_sets(),
    }
    return identity(settings, code_of(__name__, methods=[spec.method]))


class _Training:
    """A training between two steps: all that it is then, to and from a checkpoint."""

    def __init__(
        self,
        run: TrainRun,
        spec: EncodingSpec,
        seed: int,
        train_NT: np.ndarray,
        validation_NT: np.ndarray,
        report: Callable[[dict], None],
    ) -> None:
        device, settings = run.training.device, run.training
        self.run, self.report = run, report
        decoder = make_decoder(run, generator(seed, _INITIALISATION)).to(device)
        self.rotation = make_rotary(run, spec, run.data.train_length).at(
            run.data.train_length - 1 + run.choices.start_token
        )
        inputs, targets, first = to_inputs(run, train_NT[:, : run.data.train_length])
        self.num_sequences = len(inputs)
        self.looked_at = validation_NT[spread(len(validation_NT), settings.look_sequences), : run.data.train_length]
        self.batches = Batches(len(inputs), settings.batch_size, generator(seed, _ORDER), device)
        self.masks = DropoutMasks(decoder, settings.batch_size, inputs.shape[1], generator(seed, _DROPOUT, device))
        self.optimizer, self.schedule = _optimizer(run, decoder)

        def batch_loss(inputs_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
            logits_BTV = decoder(inputs_BT, self.rotation)
            return F.cross_entropy(logits_BTV[:, first:].flatten(0, 1).float(), targets_BT[:, first:].flatten())

        weights = self.optimizer.param_groups[0]["params"]
        self.forward_backward = Step(
            batch_loss, weights, inputs.to(device), targets.to(device), settings.batch_size, settings.precision,
            settings.compile,
        )  # fmt: skip
        self.losses = Losses(device, at_once=reads_every_loss(run))
        self.optimizer.found_inf = self.losses.found_inf
        self.look_steps = [round(run.steps * look / settings.num_looks) for look in range(1, settings.num_looks + 1)]
        every = settings.num_looks // settings.num_snapshots
        self.snapshot_steps = self.look_steps[every - 1 :: every]
        self.step, self.best, self.best_weights, self.was_compiled = 0, -1.0, {}, None
        self.trained = Trained(decoder=decoder)

    def advance(self) -> None:
        """One step, and the look that is due after it."""
        step, index = self.step + 1, next(self.batches)
        self.masks.draw()
        self.losses.take(step, self.forward_backward(index))
        rate = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.schedule.step()
        self.step = step
        if self.losses.at_once:
            self.report({"step": step, "loss": self.losses.values[-1]})
        if step in self.look_steps:
            self._look(rate)

    def _look(self, rate: float) -> None:
        self.masks.clear()
        step, trained = self.step, self.trained
        seen = {
            "train_loss": float(np.mean(self.losses.read())),
            "learning_rate": rate,
            **_look(self.run, trained.decoder, self.rotation, self.looked_at),
        }
        epoch, accuracy = step * self.run.training.batch_size / self.num_sequences, seen["in_distribution_accuracy"]
        trained.rows += [{"step": step, "epoch": epoch, "metric": name, "value": seen[name]} for name in seen]
        self.report({"step": step, "loss": seen["train_loss"], "accuracy": accuracy})
        kept = {name: w.clone() for name, w in self._trained_weights().items()}
        if step in self.snapshot_steps:
            trained.snapshots[step] = kept
        if self.run.choices.selection == "last" or accuracy >= self.best:
            self.best, self.best_weights, trained.step = accuracy, kept, step
        self.losses.values = []

    def _trained_weights(self) -> dict[str, torch.Tensor]:
        """By name, on the CPU; those that stay as initialised follow from the seed."""
        named = self.trained.decoder.named_parameters()
        return {name: weight.detach().cpu() for name, weight in named if weight.requires_grad}

    def state(self) -> tuple[dict[str, torch.Tensor], dict]:
        """Tensors and plain values, from which `restore` makes this training again.

        Raises FloatingPointError as `advance` does, so that no state is saved past a bad loss.
        """
        losses, trained, optimizer = self.losses.read(), self.trained, self.optimizer.state_dict()
        tensors = {
            "random/order": self.batches.order.get_state(),
            "random/dropout": self.masks.generator.get_state(),
            "order": self.batches.rest,
        }
        parts = {"weights": self._trained_weights()}
        parts |= {f"optimizer/{i}": values for i, values in optimizer["state"].items()}
        parts |= {f"snapshots/{step}": kept for step, kept in trained.snapshots.items()}
        if trained.step not in trained.snapshots:
            parts["best"] = self.best_weights
        tensors |= {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
        return tensors, {
            "step": self.step,
            "losses": losses,
            "rows": trained.rows,
            "best": self.best,
            "selected_step": trained.step,
            "resumed_at": trained.resumed_at,
            "compiled": self.forward_backward.compiled,
            "param_groups": optimizer["param_groups"],
            "schedule": self.schedule.state_dict(),
        }

    def restore(self, tensors: dict[str, torch.Tensor], state: dict) -> None:
        """The inverse of `state`; its JSON has made the tuples lists."""
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for key, tensor in tensors.items():
            part, _, name = key.rpartition("/")
            parts.setdefault(part, {})[name] = tensor
        trained = self.trained
        trained.decoder.load_state_dict(parts["weights"], strict=False)
        groups = [group | {"betas": tuple(group["betas"])} for group in state["param_groups"]]
        moments = {int(part.split("/")[1]): named for part, named in parts.items() if part.startswith("optimizer/")}
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.schedule.load_state_dict(state["schedule"])
        self.batches.order.set_state(tensors["random/order"])
        self.masks.generator.set_state(tensors["random/dropout"])
        self.batches.rest = tensors["order"].to(self.batches.device)
        self.step, self.losses.last_step, self.losses.values = state["step"], state["step"], state["losses"]
        self.was_compiled = state["compiled"]
        trained.rows, trained.step = state["rows"], state["selected_step"]
        trained.resumed_at = [*state["resumed_at"], self.step]
        kept = {int(part.split("/")[1]): named for part, named in parts.items() if part.startswith("snapshots/")}
        trained.snapshots = dict(sorted(kept.items()))
        self.best, self.best_weights = state["best"], trained.snapshots.get(trained.step, parts.get("best", {}))

    def finish(self) -> Trained:
        self.trained.decoder.load_state_dict(self.best_weights, strict=False)
        self.trained.compiled = self.forward_backward.compiled
        if self.was_compiled not in (None, self.trained.compiled):
            print(
                "WARNING: torch.compile worked in one part of this training and not in the other; it equals no "
                "uninterrupted one bit for bit",
                file=sys.stderr,
            )
        return self.trained


def reads_every_loss(run: TrainRun) -> bool:
    """On a CPU a loss is at hand when it is made; on a GPU reading it stops the device."""
    return run.training.device == "cpu"


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


def spread(total: int, count: int) -> np.ndarray:
    """count indices spread evenly over 0 .. total-1: neighbouring rows may share their prefix."""
    return np.arange(count) * total // count
