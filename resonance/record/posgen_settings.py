"""The settings of a preset's synthetic half: sequences, decoder, training, evaluation, and what is compared."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from resonance.record.settings import Count, Settings

TaskName = Literal["recursive", "cot", "semi_recursive", "recursive_keyed", "cot_keyed", "semi_recursive_keyed"]
StudyName = Literal["extended", "keyed", "rounding", "ablation"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class DataSettings(Settings):
    """The sequences of a task."""

    modulus: int = Field(ge=2)
    """m of the modular addition (paper: 17)."""
    keyed_modulus: int | None = Field(default=None, ge=2)
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
        own = self.keyed_modulus if task.endswith("_keyed") else None
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


class TrainingSettings(LoopSettings):
    """The same, for how long, and what the result does not depend on."""

    steps: dict[str, dict[TaskName, Count]]
    """Optimizer steps by protocol and task (paper: 150 epochs of 79 steps = 11,850)."""
    checkpoint_seconds: int = Field(ge=0)
    """Seconds between two checkpoints of a training; they come apart where they would take more than
    1 % of the time. No result depends on it."""


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


class Study(Settings):
    """What one table or figure compares: every encoding on every task under every protocol, all seeds."""

    protocols: list[str] = Field(min_length=1)
    """Names of config/protocols.yaml, or one with choices of the other: `paper+P5`."""
    tasks: list[TaskName] = Field(min_length=1)
    """The tasks to run."""
    encodings: list[str] = Field(min_length=1)
    """Names of config/encodings.yaml to compare, in the order of a table's rows."""
    seeds: list[Seed] = Field(min_length=1)
    """Training seeds: initialisation, order of sequences, dropout. Released code: 5549, 4955, 42,
    3701, 49 (P14)."""

    @model_validator(mode="after")
    def _check_once(self) -> "Study":
        for name in ("protocols", "tasks", "encodings", "seeds"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name} must name each entry once, got {values}")
        return self


class PosgenSettings(Study):
    """The synthetic half: Table 1 and Figures 1 to 3, which its own lists are for, and studies around them."""

    studies: dict[StudyName, Study] = Field(default_factory=dict)
    """Further comparisons, each a target of its own. `extended`: Table 1 with more encodings; `keyed`:
    on tasks without shortcuts; `rounding`: every rule of Resonance's rounding, with controls; `ablation`:
    protocols one choice apart."""
    data: DataSettings
    model: ModelSettings
    training: TrainingSettings
    evaluation: EvaluationSettings

    @property
    def all_studies(self) -> dict[str, Study]:
        """Every study by name, Table 1's own lists first."""
        return {"table1": self, **self.studies}

    def steps(self, protocol: str, task: str) -> int | None:
        """Optimizer steps of a task; those of `paper+P5` are those of `paper`."""
        return self.training.steps.get(protocol.split("+")[0], {}).get(task)

    @model_validator(mode="after")
    def _check(self) -> "PosgenSettings":
        for least, most, limit in (
            ("training.look_sequences", self.training.look_sequences, self.data.num_validation),
            ("evaluation.curve_sequences", self.evaluation.curve_sequences, self.data.num_validation),
            ("evaluation.test_sequences", self.evaluation.test_sequences, self.data.num_test),
        ):
            if most > limit:
                raise ValueError(f"{least} must be <= the split's size {limit}, got {most}")
        if self.training.num_looks % self.training.num_snapshots:
            raise ValueError(
                f"training.num_snapshots must divide num_looks = {self.training.num_looks}, got "
                f"{self.training.num_snapshots}; every so many looks one is kept"
            )
        if self.training.batch_size > self.data.num_train:
            raise ValueError(
                f"training.batch_size must be <= data.num_train = {self.data.num_train}, got {self.training.batch_size}"
            )
        for part in ("training", "evaluation"):
            if getattr(self, part).precision == "tf32" and self.training.device != "cuda":
                raise ValueError(f"{part}.precision must be fp32 or bf16 where training.device is cpu, got 'tf32'")
        every = self.all_studies.values()
        for protocol, task in dict.fromkeys((p, t) for study in every for p in study.protocols for t in study.tasks):
            steps, key = self.steps(protocol, task), f"training.steps.{protocol.split('+')[0]}.{task}"
            if steps is None:
                raise ValueError(f"{key} must be given, since both are to be run")
            if steps < self.training.num_looks:
                raise ValueError(f"{key} must be >= num_looks = {self.training.num_looks}, got {steps}")
        return self
