"""What a protocol of any wing chooses of YaRN, where the paper's text and the released codes differ."""

from typing import Literal

from pydantic import Field, model_validator

from resonance.record.settings import Settings


class YarnChoices(Settings):
    """YaRN's ramp and constants."""

    yarn_ramp: Literal["wavelength", "index"]
    """What gamma is linear in: L/lambda_j (section 3.3) or the feature's index (YaRN's code)."""
    yarn_blend: Literal["wavelength", "frequency"]
    """What gamma mixes: lambda_j (section 3.3) or theta_j (YaRN's paper and code)."""
    yarn_beta_fast: float = Field(gt=0)
    """YaRN's beta, in turns over L (appendix C.2, for LLaMA: 32)."""
    yarn_beta_slow: float = Field(gt=0)
    """YaRN's alpha, in turns over L (appendix C.2, for LLaMA: 1)."""

    @model_validator(mode="after")
    def _check_betas(self) -> "YarnChoices":
        if self.yarn_beta_slow >= self.yarn_beta_fast:
            raise ValueError(
                f"yarn_beta_slow must be < yarn_beta_fast, got {self.yarn_beta_slow} and {self.yarn_beta_fast}"
            )
        return self

    def fill(self, spec: dict) -> None:
        """Complete the fields of a YaRN; what it says itself wins."""
        for name in ("ramp", "blend", "beta_fast", "beta_slow"):
            spec.setdefault(name, getattr(self, f"yarn_{name}"))
