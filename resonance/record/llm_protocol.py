"""Every choice of the language-model half where the paper and its released code differ (L1 to L10). No torch."""

from typing import Literal

from pydantic import Field, model_validator

from resonance.encoding.spec import EncodingSpec
from resonance.record.llm import ModelSource
from resonance.record.settings import Count, Settings


class FinetuneChoices(Settings):
    """The choices that a fine-tuning depends on, its encoding aside (L1 to L5, L9)."""

    sequences_per_step: Count
    """L1. Sequences of an optimizer step, over all devices, accumulation included."""
    warmup_fraction: float = Field(ge=0, lt=1)
    """L2. Warm-up as a part of the steps; 0 where warmup_steps is given."""
    warmup_steps: int = Field(ge=0)
    """L2. Warm-up in steps, where it does not depend on their number."""
    decay_steps: int = Field(ge=0)
    """L2. The step at which a linear decay reaches 0, whatever the number of steps; 0: no decay."""
    learning_rate: float = Field(gt=0)
    """L3. AdamW's peak."""
    beta1: float = Field(ge=0, lt=1)
    """L3. AdamW's."""
    beta2: float = Field(ge=0, lt=1)
    """L3. AdamW's."""
    weight_decay: float = Field(ge=0)
    """L3. AdamW's, on matrices (not on norms)."""
    clip_norm: float = Field(ge=0)
    """L4. Largest gradient norm; 0: no clipping."""
    resume: Literal["exact", "micro_batches"]
    """L5. `exact`: a resumed run sees the sequences that the uninterrupted one would have seen.
    `micro_batches`: it skips one micro-batch for every step done, so accumulation is not counted."""
    chunks: Literal["all", "first_of_65536"]
    """L9. Training sequences: every stretch of the packed text, or the first of every 65,536 tokens."""

    @model_validator(mode="after")
    def _check_warmup(self) -> "FinetuneChoices":
        if self.warmup_fraction and self.warmup_steps:
            raise ValueError("warmup_fraction and warmup_steps exclude each other, got both; set one of them to 0")
        return self


class PerplexityChoices(Settings):
    """The choices that an evaluation depends on, its encoding aside (L10)."""

    documents: Literal["random", "first"]
    """L10. Which of the documents that are long enough are measured."""
    window: Literal["truncated", "sliding"]
    """L10. At a length: the document's first tokens in one window; or a window of that length that
    slides over the document, each step counting the tokens that are new."""
    stride: Count
    """L10. Tokens that a sliding window moves by."""


class LlmProtocol(FinetuneChoices, PerplexityChoices):
    """One entry of llm_protocols.yaml."""

    ntk_rule: Literal["paper", "bloc97"]
    """L6, L7. The base of NTK grows by s, dynamic NTK's by L_c/L (`paper`); or by s^(d/(d-2)) and
    (s*L_c/L - (s-1))^(d/(d-2)) (`bloc97`)."""
    resonance_methods: list[str]
    """L8. Methods that Resonance may follow. The released code drops it in silence after the others;
    here such an encoding is an error."""
    yarn_ramp: Literal["wavelength", "index"]
    """What YaRN's gamma is linear in: L/lambda_j (section 3.3) or the feature's index (YaRN's code)."""
    yarn_blend: Literal["wavelength", "frequency"]
    """What gamma mixes: lambda_j (section 3.3) or theta_j (YaRN's paper and code)."""
    yarn_beta_fast: float = Field(gt=0)
    """YaRN's beta, in turns over L (appendix C.2: 32)."""
    yarn_beta_slow: float = Field(gt=0)
    """YaRN's alpha, in turns over L (appendix C.2: 1)."""

    @model_validator(mode="after")
    def _check_betas(self) -> "LlmProtocol":
        if self.yarn_beta_slow >= self.yarn_beta_fast:
            raise ValueError(
                f"yarn_beta_slow must be < yarn_beta_fast, got {self.yarn_beta_slow} and {self.yarn_beta_fast}"
            )
        return self

    def choices(self, kind: type[Settings]) -> Settings:
        """The part of the protocol that one kind of run depends on."""
        return kind(**{name: getattr(self, name) for name in kind.model_fields})

    def encoding_spec(self, name: str, fields: dict, model: ModelSource) -> EncodingSpec:
        """An encoding's fields of encodings.yaml, completed for one language model. What they say wins."""
        spec = {"base": model.rope_base, "train_length": model.train_length, **fields}
        if spec.get("method", "rope") != "rope":
            spec.setdefault("scale", model.scale)
        if spec.get("method") in ("ntk", "dynamic_ntk"):
            spec.setdefault("ntk_rule", self.ntk_rule)
        if spec.get("method") == "yarn":
            for field in ("ramp", "blend", "beta_fast", "beta_slow"):
                spec.setdefault(field, getattr(self, f"yarn_{field}"))
        if spec.get("resonance") and spec.get("method", "rope") not in self.resonance_methods:
            raise ValueError(
                f"{name}: resonance may follow {', '.join(self.resonance_methods)} under this protocol (L8: the "
                f"released code drops it elsewhere in silence), got {spec.get('method')}; leave it out"
            )
        return EncodingSpec.from_dict(spec)
