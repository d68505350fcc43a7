"""What a training step costs with an encoding, beside RoPE's in turns: machines are shared, and a time says little."""

import statistics
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from resonance.posgen.ranking.decoder import PlacedDecoder
from resonance.posgen.ranking.encoding import PositionEncoding
from resonance.posgen.ranking.encodings import encodings
from resonance.posgen.ranking.tasks import TASKS, TRAIN_LENGTH
from resonance.posgen.ranking.train import BATCH, SIZES, config_of

ROUNDS, STEPS = 9, 4


def step_ratio(make: type[PositionEncoding]) -> float:
    """Time of a step over that of RoPE, one thread, median of rounds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    ours, ropes = _stepping(make), _stepping(encodings()["rope"])
    ratios = []
    for _ in range(ROUNDS):
        seconds = []
        for step in (ours, ropes):
            began = time.perf_counter()
            for _ in range(STEPS):
                step()
            seconds.append(time.perf_counter() - began)
        ratios.append(seconds[0] / seconds[1])
    torch.set_num_threads(threads)
    return statistics.median(ratios[1:])  # the first warms up


def _stepping(make: type[PositionEncoding]) -> Callable[[], None]:
    config = config_of(TASKS["recursive"])
    decoder = PlacedDecoder(config, SIZES, make, torch.Generator().manual_seed(0))
    draws = torch.Generator().manual_seed(0)
    tokens_BT = torch.randint(config.vocab_size, (BATCH, TRAIN_LENGTH), generator=draws)
    optimizer = torch.optim.AdamW(decoder.parameters(), fused=True)

    def step() -> None:
        logits_BTV = decoder(tokens_BT[:, :-1], decoder.encoding.positions(TRAIN_LENGTH - 1, draws))
        F.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
