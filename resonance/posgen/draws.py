"""What a seed draws: its generators, and the order of the sequences."""

import numpy as np
import torch


def generator(seed: int, stream: int, device: str = "cpu") -> torch.Generator:
    """The generator of one stream of a seed; streams of one seed are independent."""
    state = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


class Batches:
    """Indices of whole batches from one permutation after another; an epoch's rest joins the next.

    Released code: the rest is a smaller batch of its own. Here every step has the same shape. The
    permutations are drawn on the CPU, so that a seed meets its sequences in the same order on every
    device, and lie on the device: one upload an epoch.
    """

    def __init__(self, num_sequences: int, batch_size: int, order: torch.Generator, device: str = "cpu") -> None:
        self.num_sequences, self.batch_size, self.order, self.device = num_sequences, batch_size, order, device
        self.rest = torch.empty(0, dtype=torch.int64, device=device)

    def __next__(self) -> torch.Tensor:
        while len(self.rest) < self.batch_size:
            epoch = torch.randperm(self.num_sequences, generator=self.order)
            self.rest = torch.cat((self.rest, epoch.to(self.device)))
        batch, self.rest = self.rest[: self.batch_size], self.rest[self.batch_size :]
        return batch
