"""Perplexity of a language model on held-out documents at growing lengths (section 6.2.2, Figure 4).

Memory is bounded by one window: documents are read from the memory-mapped file where they are
needed, and logits are made for a slice of positions at a time.

Legend: T tokens of a window, V vocabulary.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from resonance.hf.module import same_tables
from resonance.llm.evaluations import Units
from resonance.llm.evaluations.perplexity import PerplexityRun
from resonance.llm.models import autocast
from resonance.llm.settings import LOGIT_ROWS
from resonance.llm.text import Packed


@dataclass(frozen=True)
class Piece:
    """A stretch of a document: its tokens are start .. start+length-1 of a packed text, after a BOS
    where it does not begin with the document's own."""

    document: str
    number: int
    start: int
    length: int
    bos: int | None


def choose(packed: Packed, run: PerplexityRun, corpus: str) -> list[Piece]:
    """The pieces of a corpus that are measured (L10: `documents`).

    Raises ValueError where the corpus has too few held-out documents, or too short ones for pieces
    that do not overlap.
    """
    asked, longest = run.settings.corpora[corpus], run.lengths[-1]
    rows = [row for row in packed.of("held_out").iter_rows(named=True) if row["num_tokens"] >= run.min_tokens[corpus]]
    if len(rows) < asked.documents:
        raise ValueError(
            f"corpus {corpus} must have {asked.documents} held-out documents of {run.min_tokens[corpus]} tokens or "
            f"more, got {len(rows)}; lower its documents or raise held_out"
        )
    if run.choices.documents == "random":
        drawn = np.random.default_rng([run.settings.seed, 10]).permutation(len(rows))[: asked.documents]
        rows = [rows[i] for i in sorted(drawn)]
    pieces = []
    for row in rows[: asked.documents]:
        if asked.pieces > 1 and row["num_tokens"] < asked.pieces * longest:
            raise ValueError(
                f"corpus {corpus}: {row['title']} must hold {asked.pieces} pieces of {longest} tokens, got "
                f"{row['num_tokens']}; lower its pieces or raise min_tokens"
            )
        for number in range(asked.pieces):
            offset = 0 if asked.pieces == 1 else (row["num_tokens"] - longest) * number // (asked.pieces - 1)
            length = min(longest, row["num_tokens"] - offset)
            bos = packed.run["bos"] if offset else None
            pieces.append(Piece(row["document"], number, row["start"] + offset, length, bos))
    return pieces


def units(model: torch.nn.Module, texts: dict[str, Packed], run: PerplexityRun) -> Units:
    """The pieces of every corpus."""
    return {
        f"{corpus} {piece.document[:12]} {piece.number}": partial(measure, model, texts[corpus], run, corpus, piece)
        for corpus in run.settings.corpora
        for piece in choose(texts[corpus], run, corpus)
    }


def measure(model: torch.nn.Module, packed: Packed, run: PerplexityRun, corpus: str, piece: Piece) -> list[dict]:
    """Rows of one piece: its losses at every length."""
    tokens, rows = packed.read(piece.start, piece.length), []
    if piece.bos is not None:
        tokens[0] = piece.bos
    for length, means, counts in windows(model, tokens, run):
        total = int(counts.sum())
        values = {
            "token_loss": float((means * counts).sum() / total),
            "window_loss": float(means.mean()),
            "num_windows": float(len(means)),
        }
        named = {"corpus": corpus, "document": piece.document, "piece": piece.number, "length": length}
        rows += [{**named, "num_tokens": total, "metric": m, "value": v} for m, v in values.items()]
    return rows


def windows(model: torch.nn.Module, tokens: np.ndarray, run: PerplexityRun):
    """(length, mean loss of each window, tokens counted in each) at every length of a run.

    `truncated`: one window, the first tokens. A causal model's losses on a prefix are those of the
    whole, so one pass serves all lengths that have the same tables: every length of most encodings,
    those up to L of dynamic_ntk. `sliding`: windows of the length at a stride, each counting what no
    window before it did.
    """
    precision, stride = run.precision, run.choices.stride
    if run.choices.window == "truncated":
        cuts = [min(length, len(tokens)) - 1 for length in run.lengths]
        kept = np.empty(0)
        for place, (length, cut) in enumerate(zip(run.lengths, cuts, strict=True)):
            if cut > len(kept) or not same_tables(model, cut, len(kept)):
                alike = [longer for longer in cuts[place:] if same_tables(model, cut, longer)]
                kept = token_losses(model, tokens[: alike[-1] + 1], precision)
            yield length, np.array([kept[:cut].mean()]), np.array([cut])
        return
    if stride > run.lengths[0]:
        raise ValueError(
            f"stride must be <= the shortest length {run.lengths[0]}, got {stride}; tokens would be skipped"
        )
    for length in run.lengths:
        means, counts, counted = [], [], 0
        for end in [*range(min(length, len(tokens)), len(tokens), stride), len(tokens)]:
            losses = token_losses(model, tokens[max(0, end - length) : end], precision)
            new = min(end - 1 - counted, len(losses))  # at stride T a window's first token is never asked for
            if new:
                means.append(losses[-new:].mean())
                counts.append(new)
            counted = end - 1
        yield length, np.array(means), np.array(counts)


@torch.no_grad()
def token_losses(model: torch.nn.Module, tokens: np.ndarray, precision: str) -> np.ndarray:
    """Cross-entropy in nats of every token but the first, given those before it: float64 [T-1]."""
    device = next(model.parameters()).device
    ids = torch.from_numpy(np.ascontiguousarray(tokens)).to(device)
    if len(ids) < 2:
        raise ValueError(f"a window must hold at least 2 tokens, got {len(ids)}; raise min_tokens or the lengths")
    with autocast(device, precision):
        try:
            hidden = model.get_decoder()(input_ids=ids[None, :-1], use_cache=False).last_hidden_state[0]
        except torch.OutOfMemoryError:
            raise ValueError(
                f"out of memory at a window of {len(ids)} tokens; leave the longest out of lengths, or use precision "
                "bf16 with FlashAttention"
            ) from None
        losses = [
            F.cross_entropy(model.get_output_embeddings()(rows).float(), targets, reduction="none").cpu()
            for rows, targets in zip(hidden.split(LOGIT_ROWS), ids[1:].split(LOGIT_ROWS), strict=True)
        ]
    found = torch.cat(losses).double().numpy()
    if not np.isfinite(found).all():
        raise FloatingPointError(
            f"the loss of token {int(np.argmin(np.isfinite(found))) + 1} of a window of {len(ids)} is not finite; the "
            "weights are broken, or precision bf16 overflows: measure in fp32"
        )
    return found
