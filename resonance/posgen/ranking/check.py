"""Whether an encoding of a stranger's can be trained, tried before anything is.

Legend: B batch, H heads, T positions, D head dimension.
"""

import torch

from resonance.posgen.decoder import DecoderConfig
from resonance.posgen.ranking.decoder import PlacedDecoder
from resonance.posgen.ranking.encoding import PositionEncoding, Sizes


@torch.no_grad()
def checked(make: type[PositionEncoding], config: DecoderConfig, sizes: Sizes) -> None:
    """Try an encoding on random tokens of the longest length. Raises ValueError, one line, where it cannot be used."""
    name = make.__name__
    try:
        decoder = PlacedDecoder(config, sizes, make, torch.Generator().manual_seed(0))
        tokens_BT = torch.randint(config.vocab_size, (2, sizes.test_length), generator=torch.Generator().manual_seed(1))
        positions = decoder.encoding.positions(sizes.test_length, torch.Generator().manual_seed(2))
        logits = decoder(tokens_BT, positions)
        changed = tokens_BT.clone()
        changed[:, -1] = (changed[:, -1] + 1) % config.vocab_size
        other = decoder(changed, positions)
        q_BHTD = torch.zeros(2, sizes.num_heads, sizes.test_length, sizes.head_dim)
        turned = decoder.encoding.turn(q_BHTD, q_BHTD, positions)
        score_BHTT = q_BHTD @ q_BHTD.mT
        kept = [x.shape for x in turned] == 2 * [q_BHTD.shape]
        kept &= decoder.encoding.score(score_BHTT, q_BHTD, positions).shape == score_BHTT.shape
    except Exception as error:  # whatever a stranger's code raises
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"{name} does not run on {sizes.test_length} tokens, {type(error).__name__}: {reason[:200]}; "
            "RESONANCE_TRACEBACK=1 shows where"
        ) from error
    if positions.shape != (sizes.test_length,) or positions.dtype != torch.int64:
        raise ValueError(
            f"{name}.positions must give int64 [{sizes.test_length}], one a token, got {positions.dtype} "
            f"{list(positions.shape)}"
        )
    if not kept or logits.shape != (*tokens_BT.shape, config.vocab_size) or not logits.isfinite().all():
        raise ValueError(f"{name} must leave shapes as they are and numbers finite, and does not at length 4L")
    if not torch.allclose(logits[:, :-1], other[:, :-1], atol=1e-4):
        raise ValueError(f"{name} looks ahead: the last token changes what is said before it; use keys up to the query")
