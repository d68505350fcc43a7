"""A position encoding to start from; `resonance posgen template` prints this file. Rename the class, keep what you use.

    resonance posgen rank my_encoding.py           three seeds, every task: some minutes on two cores
    resonance posgen rank my_encoding.py --quick   one seed: a look that decides nothing

Legend: B batch, H heads, T positions, D head dimension, M width of the residual stream.
"""

import torch
from torch import nn

from resonance.posgen.ranking.encoding import PositionEncoding, Sizes, distances


class LogBias(PositionEncoding):
    """A penalty that grows with the logarithm of the distance, one learned slope a head (Kerple's logarithmic form).

    score += -r_h * log(1 + m - n)
    """

    shared = False  # one a layer; True: all layers have the same

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)  # sizes: train_length, test_length, num_heads, head_dim, d_model
        self.r = nn.Parameter(torch.ones(sizes.num_heads))

    # def positions(self, num_tokens, draws): which positions tokens have, int64 [T]; as it is 0 .. T-1
    # def embed(self, x_BTM, positions_T): what is added to the embedded tokens
    # def turn(self, q_BHTD, k_BHTD, positions_T): what is done to queries and keys

    def score(self, score_BHTT: torch.Tensor, q_BHTD: torch.Tensor, positions_T: torch.Tensor) -> torch.Tensor:
        """What is added to the scores q.k / sqrt(D), [B, H, query, key]; the causal mask follows."""
        return score_BHTT - self.r.abs()[:, None, None] * (1 + distances(positions_T)).log()
