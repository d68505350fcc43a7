"""Every choice of the language-model half where the paper and its released code differ (L1 to L10). No torch."""

from typing import Literal

from pydantic import field_validator

from resonance.encoding.methods import method_names
from resonance.encoding.spec import EncodingSpec
from resonance.llm.settings import FinetuneChoices, ModelSource, PerplexityChoices
from resonance.record.choices import YarnChoices
from resonance.record.settings import Settings, check_known


class LlmProtocol(FinetuneChoices, PerplexityChoices, YarnChoices):
    """One entry of llm_protocols.yaml."""

    ntk_rule: Literal["paper", "bloc97"]
    """L6, L7. The base of NTK grows by s, dynamic NTK's by L_c/L (`paper`); or by s^(d/(d-2)) and
    (s*L_c/L - (s-1))^(d/(d-2)) (`bloc97`)."""
    resonance_methods: list[str]
    """L8. Methods that Resonance may follow. The released code drops it in silence after the others;
    here such an encoding is an error."""

    @field_validator("resonance_methods")
    @classmethod
    def _check_methods(cls, names: list[str]) -> list[str]:
        for name in names:
            check_known("resonance_methods", name, method_names(), "the registry of methods")
        return names

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
            self.fill(spec)
        if spec.get("resonance") and spec.get("method", "rope") not in self.resonance_methods:
            raise ValueError(
                f"{name}: resonance may follow {', '.join(self.resonance_methods)} under this protocol (L8: the "
                f"released code drops it elsewhere in silence), got {spec.get('method')}; leave it out"
            )
        return EncodingSpec.from_dict(spec).filled()
