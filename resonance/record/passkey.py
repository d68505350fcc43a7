"""Passkey retrieval's settings: a preset's key `llm.passkey`, and the run that it stands for. Imports no torch."""

from pydantic import Field, model_validator

from resonance.record.settings import Count, Settings


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
        return self


class PasskeyRun(Settings):
    """What a retrieval depends on beside its model and its encoding."""

    model: str
    lengths: list[int]
    repetitions: int
    seed: int
    device: str
    precision: str
    attention: str
