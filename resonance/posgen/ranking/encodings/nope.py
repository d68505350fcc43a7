"""NoPE: the causal mask alone tells tokens apart (Kazemnejad et al., 2023, arXiv 2305.19466)."""

from resonance.posgen.ranking.encoding import PositionEncoding
from resonance.posgen.ranking.encodings import register

register("nope")(PositionEncoding)
