"""Measuring a trained decoder on longer sequences, teacher-forced, position by position (section 5).

Legend: N sequences, T positions asked for: x[j+k] .. x[L'-1].
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from resonance.encoding.rotary import Rotary
from resonance.encoding.spec import EncodingSpec
from resonance.posgen.decoder import Decoder
from resonance.posgen.draws import generator
from resonance.posgen.settings import DataSettings, EvaluationSettings, TrainRun
from resonance.posgen.tasks import Rule, local_rule
from resonance.posgen.train import autocast, make_decoder, make_rotary, spread, to_inputs


@dataclass(frozen=True)
class ByPosition:
    """Means over sequences at every position asked for. positions, accuracy, loss: [T]."""

    positions: np.ndarray
    accuracy: np.ndarray
    loss: np.ndarray | None = None

    def summary(self, train_length: int) -> dict[str, float]:
        """The metrics that are means over positions (`rows.SUMMARIES`)."""
        inside, even = self.positions < train_length, self.positions % 2 == 0
        found = {
            "in_distribution_accuracy": self.accuracy[inside].mean(),
            "ood_accuracy": self.accuracy[~inside].mean(),
            "ood_accuracy_even": self.accuracy[~inside & even].mean(),
            "ood_accuracy_odd": self.accuracy[~inside & ~even].mean(),
            "first_token_accuracy": self.accuracy[0],
        }
        if self.loss is not None:
            found |= {
                "loss": self.loss.mean(),
                "in_distribution_loss": self.loss[inside].mean(),
                "ood_loss": self.loss[~inside].mean(),
            }
        return {name: float(value) for name, value in found.items()}


@torch.no_grad()
def measure(
    run: TrainRun,
    decoder: Decoder,
    rotary: Rotary,
    x_NT: np.ndarray,
    settings: EvaluationSettings,
    seen_TT: torch.Tensor | None = None,
) -> ByPosition:
    """Teacher-forced argmax accuracy and cross-entropy at every position that the rule determines.

    seen_TT  which keys each query may see (`Decoder`)
    """
    inputs, targets, first = to_inputs(run, x_NT)
    device = run.training.device
    rotation = rotary.at(inputs.shape[1])
    asked = targets[:, first:]
    right, loss = torch.zeros(asked.shape[1], dtype=torch.float64), torch.zeros(asked.shape[1], dtype=torch.float64)
    for index in torch.arange(len(inputs)).split(settings.batch_size):
        with autocast(device, settings.precision):
            logits_BTV = decoder(inputs[index].to(device), rotation, seen_TT)[:, first:].float().cpu()
        right += (logits_BTV.argmax(-1) == asked[index]).sum(0)
        loss += F.cross_entropy(logits_BTV.transpose(1, 2), asked[index], reduction="none").double().sum(0)
    positions = np.arange(run.data.j + run.data.k, x_NT.shape[1])
    return ByPosition(positions, (right / len(inputs)).numpy(), (loss / len(inputs)).numpy())


def evaluate(
    run: TrainRun,
    spec: EncodingSpec,
    seed: int,
    weights: dict[str, torch.Tensor],
    selected_step: int,
    snapshots: dict[int, dict[str, torch.Tensor]],
    validation_NT: np.ndarray,
    test_NT: np.ndarray,
    settings: EvaluationSettings,
) -> Iterator[dict]:
    """Rows (step, epoch, split, position, metric, value): the curve on validation, the rest on test.

    The encoding may be another than the one trained with (P2): its table is made here.
    """
    decoder = make_decoder(run, generator(seed, 0)).to(run.training.device)
    rotary = make_rotary(run, spec, run.data.test_length)

    def row(split: str, step: int, metric: str, value: float, position: int | None = None) -> dict:
        epoch = step * run.training.batch_size / run.data.num_train
        named = {"split": split, "step": step, "epoch": epoch}
        return named | {"position": position, "metric": metric, "value": value}

    decoder.load_state_dict(weights)
    test = test_NT[spread(len(test_NT), settings.test_sequences)]
    found = measure(run, decoder, rotary, test, settings)
    for metric, value in found.summary(run.data.train_length).items():
        yield row("test", selected_step, metric, value)
    for position, accuracy in zip(found.positions, found.accuracy, strict=True):
        yield row("test", selected_step, "accuracy", float(accuracy), int(position))
    curve = validation_NT[spread(len(validation_NT), settings.curve_sequences)]
    for step, kept in sorted(snapshots.items()):
        decoder.load_state_dict(kept, strict=False)
        found = measure(run, decoder, rotary, curve, settings)
        for metric, value in found.summary(run.data.train_length).items():
            yield row("validation", step, metric, value)


def baselines(rule: Rule, data: DataSettings, test_NT: np.ndarray) -> Iterator[dict]:
    """What costs no training: the best local rule of the task, and chance, on the test split."""
    positions = np.arange(rule.prefix_length, test_NT.shape[1])
    right = (local_rule(rule, test_NT) == test_NT).mean(axis=0)[rule.prefix_length :]
    for name, accuracy in (("local_rule", right), ("chance", np.full(len(positions), 1 / rule.modulus))):
        named = {"encoding": name, "split": "test"}
        for metric, value in ByPosition(positions, accuracy).summary(data.train_length).items():
            yield named | {"position": None, "metric": metric, "value": value}
        for position, value in zip(positions, accuracy, strict=True):
            yield named | {"position": int(position), "metric": "accuracy", "value": float(value)}
