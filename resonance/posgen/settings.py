"""What each stage of PosGen depends on, as its settings file holds it: sequences, a training, an evaluation.

The preset that they come from is `preset`, which no computation imports: what is added there reruns nothing.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from resonance.posgen.tasks import LARGEST, TASKS, check_task
from resonance.record.settings import Count, Settings

Task = Annotated[str, AfterValidator(check_task), Field(json_schema_extra={"enum": list(TASKS)})]


class TrainChoices(Settings):
    """The choices that a training depends on; the others show in its data or in its encoding."""

    num_layers: int = Field(ge=1)
    """P5. Depth of the decoder."""
    trained: Literal["all", "all_but_feed_forward"]
    """P6. `all_but_feed_forward`: feed-forward blocks and their norms stay as initialised."""
    attention_scale: Literal["sqrt_head_dim", "initialisation"]
    """P7. softmax(q.k/sqrt(d)), or softmax(q.k) with q initialised sqrt(d) narrower (T5)."""
    pair_layout: Literal["half_split", "interleaved"]
    """P8. Which two dimensions a rotation turns: (j, j + d/2) or (2j, 2j+1)."""
    start_token: bool
    """P9. Whether an end token is prepended, so that every token stands one position later."""
    schedule: Literal["constant", "one_cycle"]
    """P10. The learning rate over the steps: flat, or OneCycleLR (10 % warm-up, cosine, from
    peak/25 to peak/25e4, beta1 cycling 0.95 to 0.85)."""
    dropout: float = Field(ge=0, lt=1)
    """P10. Rate, everywhere T5 has dropout; rounded to 1/256 (`Dropout` says why)."""
    selection: Literal["last", "best_in_distribution"]
    """P10. Which of the looked-at steps is evaluated: the last, or the one with the best
    in-distribution validation accuracy (the later of equals)."""
    num_extra_tokens: int = Field(ge=0, le=2**20)
    """P15. Entries of the vocabulary beside the m digits; the last one is the end token."""

    @model_validator(mode="after")
    def _check_start_token(self) -> "TrainChoices":
        if self.start_token and self.num_extra_tokens == 0:
            raise ValueError("num_extra_tokens must be >= 1 with start_token, got 0; the end token needs an entry")
        return self


class DataSettings(Settings):
    """The sequences of a task."""

    modulus: int = Field(ge=2, le=LARGEST)
    """m of the modular addition (paper: 17)."""
    keyed_modulus: int | None = Field(default=None, ge=2, le=LARGEST)
    """m of the keyed tasks, whose h takes longer to learn; left out: modulus."""
    j: Count
    """How many far tokens a token depends on (paper: 1)."""
    k: Count
    """How many near tokens a token depends on (paper: 3)."""
    train_length: Count
    """L, tokens of a training sequence (paper: 64)."""
    test_length: Count
    """L', tokens of a validation or test sequence (paper: 256)."""
    num_train: Count
    """Training sequences (paper: 10,000)."""
    num_validation: Count
    """Validation sequences (paper: 1,000)."""
    num_test: Count
    """Test sequences (paper: 1,000)."""
    seed: int = Field(ge=0)
    """Seed of the prefixes; shared by all training seeds, as in the paper."""

    @model_validator(mode="after")
    def _check(self) -> "DataSettings":
        if not self.j + self.k + 1 < self.train_length < self.test_length - 1:
            raise ValueError(
                "train_length and test_length must satisfy j + k + 1 < train_length < test_length - 1, got "
                f"{self.train_length} and {self.test_length}: train short, test long, by an even and an odd position"
            )
        return self

    def of_task(self, task: str) -> "DataSettings":
        """The same with the task's own modulus."""
        own = self.keyed_modulus if TASKS[task].keyed else None
        return self.model_copy(update={"modulus": own or self.modulus, "keyed_modulus": None})


class ModelSettings(Settings):
    """Sizes of the decoder; its depth is the protocol's (P5) unless said here."""

    d_model: Count
    """Width of the residual stream (T5-Small: 512)."""
    d_ff: Count
    """Width of the feed-forward blocks (T5-Small: 2048)."""
    num_heads: Count
    """Attention heads (T5-Small: 8)."""
    head_dim: int = Field(ge=2)
    """Dimensions of a head, even; 64 keeps the paper's 32 features."""
    num_layers: Count | None = None
    """Depth in place of the protocol's P5; left out: the protocol's."""

    @model_validator(mode="after")
    def _check(self) -> "ModelSettings":
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, got {self.head_dim}; a rotation turns pairs of dimensions")
        return self


class LoopSettings(Settings):
    """How a decoder is trained."""

    batch_size: Count
    """Sequences per step (paper: 128)."""
    learning_rate: float = Field(gt=0)
    """AdamW's learning rate, the peak of a schedule (paper: 2e-4)."""
    weight_decay: float = Field(ge=0)
    """AdamW's weight decay (paper: 1e-2)."""
    num_looks: Count
    """How often training stops to validate in distribution (P10's selection looks at these)."""
    num_snapshots: Count
    """How many of the looks keep their weights, for Figure 3's curve; divides num_looks."""
    look_sequences: Count
    """Validation sequences read at each look."""
    precision: Literal["fp32", "tf32", "bf16"]
    """Of matrix products; weights and optimizer are float32 in all. tf32: ten bits of mantissa, on
    CUDA only, the presets' choice there. fp32 is float32 on every device."""
    device: Literal["cpu", "cuda"]
    """Where training and evaluation run."""
    compile: bool
    """Whether the training step goes through torch.compile."""


class EvaluationSettings(Settings):
    """How a trained decoder is measured."""

    curve_sequences: Count
    """Validation sequences behind each point of Figure 3's curve."""
    test_sequences: Count
    """Test sequences behind Table 1, spread evenly over the test split."""
    batch_size: Count
    """Sequences in memory at a time."""
    precision: Literal["fp32", "tf32", "bf16"]
    """As in training."""


class DataRun(Settings):
    """What the sequences of a task depend on, and nothing else."""

    task: Task
    prefixes: str
    data: DataSettings


class TrainRun(Settings):
    """What a training depends on beside its encoding, its seed and its sequences."""

    protocol: str
    task: Task
    choices: TrainChoices
    data: DataSettings
    model: ModelSettings
    training: LoopSettings
    steps: int

    @property
    def num_layers(self) -> int:
        return self.model.num_layers or self.choices.num_layers

    @property
    def vocab_size(self) -> int:
        return self.data.modulus + self.choices.num_extra_tokens


class EvaluateRun(Settings):
    """What an evaluation depends on beside the trained run and its encoding."""

    evaluation: EvaluationSettings
