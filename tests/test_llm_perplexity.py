"""Perplexity: against a plain loop, at every length, in every variant; and bounded memory."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

pytest.importorskip("accelerate")
from llm_cases import L, make_text, perplexity_run, spec, tiny
from resonance.llm import perplexity
from resonance.llm.perplexity import choose, token_losses, units, windows

METRICS = ("token_loss", "window_loss", "num_windows")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return make_text(tmp_path_factory.mktemp("text"), held_out=4)


@pytest.fixture
def tokens(packed) -> np.ndarray:
    return packed.read(0, 100)


@torch.no_grad()
def plain_losses(model, tokens: np.ndarray) -> np.ndarray:
    logits = model(torch.from_numpy(tokens)[None], use_cache=False).logits[0, :-1]
    return F.cross_entropy(logits.float(), torch.from_numpy(tokens)[1:], reduction="none").double().numpy()


def test_token_losses_are_those_of_the_whole_logits(tokens, monkeypatch):
    model = tiny()
    monkeypatch.setattr(perplexity, "LOGIT_ROWS", 7)
    assert np.allclose(token_losses(model, tokens, "fp32"), plain_losses(model, tokens), atol=1e-5)


@pytest.mark.parametrize(
    ("method", "passes"),
    [("rope", 1), ("linear", 1), ("ntk", 1), ("yarn", 1), ("dynamic_ntk", 3), ("longrope", 2)],
)
def test_truncated_is_one_window_of_that_length(tokens, method, passes, monkeypatch):
    """For every encoding, also where the table at a length is that length's own, as long as there are tables."""
    parameters = {"short_factor": [1.0, 1.2, 1.5, 2.0], "long_factor": [1.0, 3.0, 5.0, 9.0]}
    own = {"parameters": parameters} if method == "longrope" else {}
    model, lengths, read = tiny(spec(method, True, **own)), [8, L + 1, L + 2, 3 * L], []
    monkeypatch.setattr(perplexity, "token_losses", lambda *given: read.append(len(given[1])) or token_losses(*given))
    for length, means, counts in windows(model, tokens, perplexity_run(lengths=lengths)):
        assert counts.tolist() == [length - 1]
        assert means[0] == pytest.approx(plain_losses(model, tokens[:length]).mean(), abs=1e-5)
    assert read == [[3 * L], [L + 1, 3 * L], [L + 1, L + 2, 3 * L]][passes - 1]


@pytest.mark.parametrize("stride", [1, 5, 15])
def test_sliding_counts_every_token_once(tokens, stride):
    model, run = tiny(), perplexity_run(lengths=[16, 64], window="sliding", stride=stride)
    for length, means, counts in windows(model, tokens, run):
        assert counts.sum() == len(tokens) - 1
        losses = np.empty(0)
        for end in [*range(length, len(tokens), stride), len(tokens)]:
            new = end - 1 - len(losses)
            losses = np.append(losses, plain_losses(model, tokens[max(0, end - length) : end])[-new:] if new else [])
        assert (means * counts).sum() == pytest.approx(losses.sum(), abs=1e-3)


def test_a_stride_that_would_skip_tokens_is_an_error(tokens):
    with pytest.raises(ValueError, match="stride must be <= the shortest length 16, got 17"):
        list(windows(tiny(), tokens, perplexity_run(lengths=[16, 64], window="sliding", stride=17)))


def measured(packed, run):
    return [row for measure in units(tiny(), {"t": packed}, run).values() for row in measure()]


def test_the_two_means_differ_where_windows_do(packed):
    run = perplexity_run(lengths=[16, 100], window="sliding", stride=9)
    rows = [row for row in measured(packed, run) if row["length"] == 16]
    token, window, count = ([r["value"] for r in rows if r["metric"] == m] for m in METRICS)
    assert all(n > 9 for n in count)
    assert not np.allclose(token, window, atol=1e-6)


def test_rows_say_what_they_measured(packed):
    rows = measured(packed, perplexity_run(documents=3, lengths=[16, 32]))
    assert len(rows) == 3 * 2 * 3
    held_out = set(packed.of("held_out")["document"])
    assert {row["document"] for row in rows} <= held_out
    assert {row["num_tokens"] for row in rows if row["length"] == 32} == {31}


def test_first_and_random_documents(packed):
    order = packed.of("held_out")["document"].to_list()
    first = [piece.document for piece in choose(packed, perplexity_run(documents=2, protocol="released"), "t")]
    assert first == order[:2]
    drawn = {tuple(p.document for p in choose(packed, perplexity_run(documents=2), "t")) for _ in range(3)}
    assert len(drawn) == 1 and set(drawn.pop()) <= set(order)


def test_pieces_lie_apart_and_begin_with_bos(packed):
    pieces = choose(packed, perplexity_run(documents=2, pieces=3), "t")
    assert [piece.number for piece in pieces] == [0, 1, 2] * 2
    starts = [piece.start for piece in pieces[:3]]
    assert np.diff(starts).min() >= 64 and [piece.bos for piece in pieces[:3]] == [None, 256, 256]
    with pytest.raises(ValueError, match="must hold 7 pieces of 64 tokens, got"):
        choose(packed, perplexity_run(documents=2, pieces=7), "t")


def test_a_short_document_gives_what_it_has(packed):
    rows = measured(packed, perplexity_run(documents=1, lengths=[64, 1000]))
    whole = packed.of("held_out").filter(packed.of("held_out")["document"] == rows[0]["document"])["num_tokens"][0]
    assert {row["num_tokens"] for row in rows if row["length"] == 1000} == {whole - 1}


def test_too_few_documents_is_one_line(packed):
    with pytest.raises(ValueError, match="corpus t must have 5 held-out documents of 1 tokens or more, got 4"):
        choose(packed, perplexity_run(documents=5), "t")


def test_broken_weights_are_said(tokens):
    model = tiny()
    with torch.no_grad():
        model.model.norm.weight[:] = float("nan")
    with pytest.raises(FloatingPointError, match="not finite"):
        token_losses(model, tokens, "fp32")


def test_bfloat16_is_near(tokens):
    model = tiny()
    assert np.allclose(token_losses(model, tokens, "bf16"), token_losses(model, tokens, "fp32"), atol=0.05)


def test_logits_are_never_made_for_a_whole_window(monkeypatch):
    model, seen = tiny(), []
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda module, arguments, output: seen.append(output.shape[0]))
    monkeypatch.setattr(perplexity, "LOGIT_ROWS", 64)
    token_losses(model, np.arange(1000) % 200, "fp32")
    assert max(seen) == 64 and sum(seen) == 999
