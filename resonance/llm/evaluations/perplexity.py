"""Perplexity on held-out documents at growing lengths: Figure 4."""

import polars as pl
from pydantic import Field

from resonance.llm.evaluations import Evaluation, Units
from resonance.llm.protocol import LlmProtocol
from resonance.llm.rows import NAMES
from resonance.llm.settings import HalfSettings, PerplexityChoices, Running
from resonance.record.rows import Kind
from resonance.record.settings import Count, Settings, SettingsError, check_known


class CorpusSettings(Settings):
    """How much of a corpus is measured."""

    documents: Count
    """Documents (paper: 50)."""
    pieces: Count
    """Stretches measured of each document, evenly spread (paper: 1, its beginning)."""


class PerplexitySettings(Settings):
    """How perplexity is measured, beside the protocol."""

    corpora: dict[str, CorpusSettings] = Field(min_length=1)
    """By names of `texts`; the documents kept from training are measured."""
    seed: int = Field(ge=0)
    """Of the random choice of documents."""


class PerplexityRun(Running):
    """What an evaluation depends on beside its model, its encoding and its corpora."""

    choices: PerplexityChoices
    model: str
    lengths: list[int]
    min_tokens: dict[str, int]
    settings: PerplexitySettings


# One row a document, piece, length and metric.
PERPLEXITY = Kind(
    "perplexity",
    {
        **NAMES,
        "corpus": pl.String,
        "document": pl.String,
        "piece": pl.Int64,
        "length": pl.Int64,
        "num_tokens": pl.Int64,
        "metric": pl.String,
        "value": pl.Float64,
    },
    {
        "token_loss": "mean nats per predicted token of a stretch at a length",
        "window_loss": "unweighted mean of its windows' mean losses (L10: what the released code averages)",
        "num_windows": "how many windows that stretch was read in",
    },
)


def _run_of(llm: HalfSettings, protocol: LlmProtocol, model: str) -> PerplexityRun:
    return PerplexityRun(
        choices=protocol.choices(PerplexityChoices),
        model=model,
        lengths=llm.models[model].lengths,
        min_tokens={name: llm.texts[name].min_tokens for name in llm.perplexity.corpora},
        settings=llm.perplexity,
        **llm.running(),
    )


def _check(llm: HalfSettings) -> None:
    for name in llm.perplexity.corpora:
        check_known("perplexity.corpora", name, llm.texts, "texts")
        if llm.texts[name].held_out == 0:
            raise ValueError(f"texts.{name}.held_out must not be 0 for a corpus that is measured")


def _windows(llm: HalfSettings, model: str, follows_length: bool) -> list[int]:
    """One pass serves all lengths that have the same table: where it follows the length, those up to L."""
    asked = llm.models[model]
    alone = [length for length in asked.lengths if length > asked.train_length + 1] if follows_length else []
    shared = [length for length in asked.lengths if length not in alone]
    units = sum(corpus.documents * corpus.pieces for corpus in llm.perplexity.corpora.values())
    return units * [*shared[-1:], *alone]


def _units(model, tokenizer, texts: dict, run: PerplexityRun) -> Units:
    from resonance.llm.perplexity import units

    if missing := [name for name in run.settings.corpora if name not in texts]:
        raise SettingsError(f"--text must be given for every corpus, got none for {', '.join(missing)}")
    for name, least in run.min_tokens.items():
        if (found := texts[name].run["text"]["min_tokens"]) != least:
            raise SettingsError(f"--text {name} must be packed with min_tokens {least}, got {found}; pack it again")
    return units(model, texts, run)


EVALUATION = Evaluation(
    name="perplexity",
    settings=PerplexitySettings,
    kind=PERPLEXITY,
    run=PerplexityRun,
    run_of=_run_of,
    models=lambda llm: [name for name, model in llm.models.items() if model.lengths],
    check=_check,
    texts=lambda llm: list(llm.perplexity.corpora),
    windows=_windows,
    units=_units,
    disk=1e5,
)
