"""One training of the ranking: a decoder with an encoding, on a task, with a seed, measured to 4L.

The size is ours and no protocol's: two layers, width 128, two heads of 64, no dropout, AdamW at a constant rate. For
one seed all encodings start from the same weights and meet the same sequences in the same order, so they are compared
in pairs. One thread, float32, eager: equal arguments give equal numbers on one kind of processor.

Legend: N sequences, T positions, B batch.
"""

import time

import numpy as np
import torch
from torch.nn import functional as F

from resonance.posgen.decoder import DecoderConfig
from resonance.posgen.draws import Batches, generator
from resonance.posgen.ranking.decoder import PlacedDecoder
from resonance.posgen.ranking.encoding import PositionEncoding, Sizes
from resonance.posgen.ranking.tasks import TEST_LENGTH, TRAIN_LENGTH, Drawn, Task

BATCH = 32
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 1e-2
MODEL = {"d_model": 128, "d_ff": 256, "num_heads": 2, "head_dim": 64, "num_layers": 2}
SIZES = Sizes(train_length=TRAIN_LENGTH, test_length=TEST_LENGTH, num_heads=2, head_dim=64, d_model=MODEL["d_model"])
_INITIALISATION, _ORDER, _POSITIONS, _ENCODING = range(4)


def config_of(task: Task) -> DecoderConfig:
    return DecoderConfig(vocab_size=task.vocabulary, **MODEL, divide_by_sqrt_head_dim=True, dropout=0.0)


def train(make: type[PositionEncoding], task: Task, seed: int, train_set: Drawn, test_set: Drawn) -> dict[str, float]:
    """Train and measure: values by metric (`rows.RANKING`).

    Raises FloatingPointError at the first loss that is not finite.
    """
    torch.manual_seed(int(generator(seed, _ENCODING).initial_seed()))
    decoder = PlacedDecoder(config_of(task), SIZES, make, generator(seed, _INITIALISATION))
    positions = generator(seed, _POSITIONS)
    inputs_NT = torch.from_numpy(np.ascontiguousarray(train_set.tokens[:, :-1]))
    targets_NT = torch.from_numpy(np.where(train_set.asked, train_set.tokens, -100)[:, 1:])
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    batches, seconds = Batches(len(inputs_NT), BATCH, generator(seed, _ORDER)), []
    for step in range(1, task.steps + 1):
        began, index = time.perf_counter(), next(batches)
        placed = decoder.encoding.positions(inputs_NT.shape[1], positions)
        logits_BTV = decoder(inputs_NT[index], placed)
        loss = F.cross_entropy(logits_BTV.flatten(0, 1), targets_NT[index].flatten(), ignore_index=-100)
        if not loss.isfinite():
            raise FloatingPointError(f"the loss at step {step} is {loss.item()}; the encoding makes scores too large")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    own = sum(weight.numel() for name, weight in decoder.named_parameters() if "encoding" in name)
    cost = {"step_ms": 1000 * float(np.median(seconds)), "parameters": float(own)}
    return measured(decoder, test_set, positions) | cost


@torch.no_grad()
def measured(decoder: PlacedDecoder, test_set: Drawn, positions: torch.Generator) -> dict[str, float]:
    """Teacher-forced accuracy over what is asked, by the three stretches of `rows.ACCURACIES`."""
    inputs_NT = torch.from_numpy(np.ascontiguousarray(test_set.tokens[:, :-1]))
    placed = decoder.encoding.positions(inputs_NT.shape[1], positions)
    said = torch.cat([decoder(inputs, placed).argmax(-1) for inputs in inputs_NT.split(10)]).numpy()
    right, asked, at = said == test_set.tokens[:, 1:], test_set.asked[:, 1:], np.arange(1, TEST_LENGTH)
    stretches = (0, TRAIN_LENGTH), (TRAIN_LENGTH, 2 * TRAIN_LENGTH), (2 * TRAIN_LENGTH, TEST_LENGTH)
    names = "in_distribution", "to_2L", "to_4L"
    return {
        name: float(right[asked & (at >= first) & (at < end)].mean())
        for name, (first, end) in zip(names, stretches, strict=True)
    }
