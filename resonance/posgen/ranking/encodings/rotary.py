"""Rotations by m * theta_j: RoPE and every method of `resonance.encoding`, each with and without Resonance.

    q_j <- q_j exp(i m theta_j),   k_j <- k_j exp(i n theta_j)        (Su et al., 2021, arXiv 2104.09864)

Scaled methods are trained with the table that they are tested with, s = L'/L, and YaRN's constants are those of the
protocol `paper` (alpha 1, beta 2, linear in L/lambda). Features are the pairs (2j, 2j+1) of equation 1.
"""

import torch

from resonance.encoding.methods import method_of
from resonance.encoding.rotary import Rotary, Rotation
from resonance.encoding.spec import EncodingSpec
from resonance.posgen.ranking.encoding import PositionEncoding, Sizes
from resonance.posgen.ranking.encodings import register

YARN = {"beta_slow": 1.0, "beta_fast": 2.0, "ramp": "wavelength", "blend": "wavelength"}


class Rotating(PositionEncoding):
    """A rotation by a spec; a subclass names its method."""

    fields: dict

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        method = method_of(self.fields["method"])
        if method.needs_scale or method.needs_train_length:
            lengths = {"train_length": sizes.train_length, "scale": sizes.test_length / sizes.train_length}
        else:
            lengths = {}
        self.spec = EncodingSpec.from_dict({**lengths, **self.fields}).filled()
        self.tables: dict[int, Rotation] = {}

    def turn(
        self, q_BHTD: torch.Tensor, k_BHTD: torch.Tensor, positions_T: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        num_tokens = len(positions_T)  # dynamic NTK's table is that of the sequence
        if num_tokens not in self.tables:
            rotary = Rotary(
                self.spec, head_dim=self.sizes.head_dim, num_positions=num_tokens, pair_layout="interleaved"
            )
            self.tables[num_tokens] = rotary.at(num_tokens)
        return self.tables[num_tokens](q_BHTD, k_BHTD)


for _method in ("rope", "linear", "ntk", "dynamic_ntk", "yarn"):
    for _resonance in (False, True):
        _fields = {"method": _method, "resonance": _resonance, **(YARN if _method == "yarn" else {})}
        _name = f"resonance_{_method}" if _resonance else _method
        register(_name)(type(_name, (Rotating,), {"fields": _fields, "__module__": __name__}))
