"""Passkey retrieval: a number hidden in filler, asked for at the end (L14: YaRN's extra, not in the paper)."""

import polars as pl
from pydantic import Field, model_validator

from resonance.llm.evaluations import Evaluation, Units
from resonance.llm.protocol import LlmProtocol
from resonance.llm.rows import NAMES
from resonance.llm.settings import HalfSettings, Running
from resonance.record.rows import Kind
from resonance.record.settings import Count, Settings, check_known

FRAME_WORDS = 44
"""Words of a prompt without its filler: a tokenizer makes as many tokens of them, or more."""


class PasskeySettings(Settings):
    """How passkey retrieval is asked (L14: YaRN's extra, not in the paper)."""

    lengths: dict[str, list[Count]] = Field(min_length=1)
    """Longest prompts in tokens, by names of `models`; a model that is not named is not asked."""
    repetitions: Count
    """Keys hidden at each length (YaRN: 20)."""
    seed: int = Field(ge=0)
    """Of the keys and of the places where they are hidden: the same ones for every encoding."""

    @model_validator(mode="after")
    def _check(self) -> "PasskeySettings":
        for model, lengths in self.lengths.items():
            if not lengths or lengths != sorted(set(lengths)):
                raise ValueError(f"lengths.{model} must rise, each given once, got {lengths}")
            if lengths[0] < FRAME_WORDS:
                raise ValueError(f"lengths.{model} must hold the frame of {FRAME_WORDS} words, got {lengths[0]}")
        return self


class PasskeyRun(Running):
    """What a retrieval depends on beside its model and its encoding."""

    model: str
    lengths: list[int]
    repetitions: int
    seed: int


# One row a length and repetition. `depth`: where the key was hidden, 0 to 1.
PASSKEY = Kind(
    "passkey",
    {
        **NAMES,
        "length": pl.Int64,
        "repetition": pl.Int64,
        "num_tokens": pl.Int64,
        "depth": pl.Float64,
        "key": pl.Int64,
        "answer": pl.String,
        "metric": pl.String,
        "value": pl.Float64,
    },
    {"found": "1 if the first number of the answer is the hidden key, else 0"},
)


def _run_of(llm: HalfSettings, protocol: LlmProtocol, model: str) -> PasskeyRun:
    return PasskeyRun(
        model=model,
        lengths=llm.passkey.lengths[model],
        repetitions=llm.passkey.repetitions,
        seed=llm.passkey.seed,
        **llm.running(),
    )


def _check(llm: HalfSettings) -> None:
    for name in llm.passkey.lengths:
        check_known("passkey.lengths", name, llm.models, "models")


def _windows(llm: HalfSettings, model: str, follows_length: bool) -> list[int]:
    return llm.passkey.lengths[model] * llm.passkey.repetitions


def _units(model, tokenizer, texts: dict, run: PasskeyRun) -> Units:
    from resonance.llm.passkey import units

    return units(model, tokenizer, run)


EVALUATION = Evaluation(
    name="passkey",
    settings=PasskeySettings,
    kind=PASSKEY,
    run=PasskeyRun,
    run_of=_run_of,
    models=lambda llm: list(llm.passkey.lengths),
    check=_check,
    windows=_windows,
    units=_units,
    disk=1e4,
)
