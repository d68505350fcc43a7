"""The config of a workflow run: one complete preset, the named encodings and protocols.

`load` is what the Snakefile calls before the DAG is built; the JSON schema in workflow/schemas is
generated from these classes.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from resonance.encoding.spec import EncodingSpec
from resonance.record.leval_settings import LevalSettings, Prompts, check_leval
from resonance.record.llm import LlmSettings
from resonance.record.llm_protocol import LlmProtocol
from resonance.record.llm_runs import check_llm
from resonance.record.protocol import Protocol, with_choices
from resonance.record.settings import Settings, SettingsError, parse, read_yaml

Count = Annotated[int, Field(ge=1)]
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


class RuleResources(Settings):
    """What one job of a rule asks of a scheduler."""

    threads: Count
    """Cores."""
    mem_mb: Count
    """Memory in MB."""
    runtime: Count
    """Minutes."""
    gpu: int = Field(ge=0)
    """GPUs."""


class Resources(Settings):
    """Resources by kind of rule."""

    data: RuleResources
    train: RuleResources
    evaluate: RuleResources
    render: RuleResources
    llm_train: RuleResources | None = None
    """Of one pretraining or fine-tuning; left out: as `train`."""
    llm_evaluate: RuleResources | None = None
    """Of one evaluation of a language model, or its answers to L-Eval; left out: as `evaluate`."""

    def of(self, kind: str) -> RuleResources:
        """Those of a kind of rule."""
        return getattr(self, kind) or getattr(self, kind.removeprefix("llm_"))


class Preset(Settings):
    """One complete size of the whole workflow."""

    preset: str
    """Its name, that of its file."""
    posgen: PosgenSettings
    llm: LlmSettings | None = None
    """The language-model half; left out: not run."""
    leval: LevalSettings | None = None
    """L-Eval's questions to models of `llm`; left out: not run."""
    resources: Resources


class Cell(NamedTuple):
    """One evaluation: an encoding under a protocol, on a model of one task and seed trained with
    train_encoding under train_protocol."""

    protocol: str
    encoding: str
    train_protocol: str
    train_encoding: str
    task: str
    seed: int


@dataclass(frozen=True)
class Config:
    """A validated preset with the encodings and protocols that its names stand for."""

    preset: Preset
    encodings: dict[str, dict]
    protocols: dict[str, Protocol]
    llm_protocols: dict[str, LlmProtocol]
    prompts: Prompts

    @property
    def llm_protocol(self) -> LlmProtocol:
        return self.llm_protocols[self.preset.llm.protocol]

    def llm_spec(self, model: str, encoding: str) -> EncodingSpec:
        """The encoding as a language model gets it."""
        llm = self.preset.llm
        return self.llm_protocol.encoding_spec(encoding, self.encodings[encoding], llm.models[model])

    def posgen_spec(self, protocol: str, encoding: str) -> EncodingSpec:
        """The encoding as the protocol uses it on PosGen."""
        data = self.preset.posgen.data
        return self.protocols[protocol].encoding_spec(self.encodings[encoding], data.train_length, data.test_length)

    def train_encoding(self, protocol: str, encoding: str) -> str:
        return self.protocols[protocol].train_encoding_name(encoding, self.encodings)

    def data_protocol(self, protocol: str) -> str:
        """The first protocol whose sequences are the same: they are drawn once."""
        return next(name for name, p in self.protocols.items() if p.prefixes == self.protocols[protocol].prefixes)

    def train_protocol(self, protocol: str, train_encoding: str) -> str:
        """The first protocol under which this training is the same: what protocols share is trained once."""

        def training(name: str) -> tuple:
            p, steps = self.protocols[name], self.preset.posgen.training.steps.get(name.split("+")[0])
            return p.prefixes, p.train_choices(), steps, self.posgen_spec(name, train_encoding)

        return next(name for name in self.protocols if training(name) == training(protocol))

    def study_cells(self, study: str) -> list[Cell]:
        """Every evaluation of a study with the training it measures."""
        lists = self.preset.posgen.all_studies[study]
        cells = []
        for protocol in lists.protocols:
            for encoding in lists.encodings:
                trained = self.train_encoding(protocol, encoding)
                names = protocol, encoding, self.train_protocol(protocol, trained), trained
                cells += [Cell(*names, task, seed) for task in lists.tasks for seed in lists.seeds]
        return cells


def load(folder: Path, preset: str) -> Config:
    """config/{preset}.yaml with encodings.yaml and protocols.yaml beside it, checked as a whole.

    Raises SettingsError: one line that names file, key, rule, value and cure.
    """
    folder = Path(folder)
    shared = ("encodings", "protocols", "llm_protocols", "published", "leval")
    presets = sorted(p.stem for p in folder.glob("*.yaml") if p.stem not in shared)
    if preset not in presets:
        raise SettingsError(f"preset must be one of {', '.join(presets)}, got {preset!r}; each is a file of {folder}")
    source = folder / f"{preset}.yaml"
    parsed = parse(Preset, read_yaml(source), str(source))
    if parsed.preset != preset:
        raise SettingsError(
            f"{source}: preset must be the file's name {preset}, got {parsed.preset!r}; "
            "two presets under one name would share a results folder"
        )
    encodings = _mapping(folder / "encodings.yaml")
    protocols = {
        name: parse(Protocol, fields, f"{folder / 'protocols.yaml'}: {name}")
        for name, fields in _mapping(folder / "protocols.yaml").items()
    }
    for study, lists in parsed.posgen.all_studies.items():
        for name in lists.protocols:
            try:
                protocols[name] = with_choices(name, protocols)
            except SettingsError as error:
                raise SettingsError(f"{source}: {_key(study)}.protocols: {error}") from None
    llm_protocols = {
        name: parse(LlmProtocol, fields, f"{folder / 'llm_protocols.yaml'}: {name}")
        for name, fields in _mapping(folder / "llm_protocols.yaml").items()
    }
    prompts = parse(Prompts, read_yaml(folder / "leval.yaml"), str(folder / "leval.yaml"))
    config = Config(
        preset=parsed, encodings=encodings, protocols=protocols, llm_protocols=llm_protocols, prompts=prompts
    )
    _check_names(config, source, folder)
    if parsed.llm:
        check_llm(parsed.llm, llm_protocols, encodings, source)
    if parsed.leval:
        check_leval(parsed.leval, parsed.llm, llm_protocols, encodings, prompts, source)
    return config


def _mapping(path: Path) -> dict[str, dict]:
    values = read_yaml(path)
    if not isinstance(values, dict) or not all(isinstance(fields, dict) for fields in values.values()):
        raise SettingsError(f"{path}: must map names to fields")
    for name in values:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
            raise SettingsError(f"{path}: a name must be letters, digits and _, since it enters paths, got {name!r}")
    return values


def _check_names(config: Config, source: Path, folder: Path) -> None:
    posgen = config.preset.posgen
    for study, lists in posgen.all_studies.items():
        for name in lists.encodings:
            if name not in config.encodings:
                raise SettingsError(
                    f"{source}: {_key(study)}.encodings: {name!r} is not defined; "
                    f"{folder / 'encodings.yaml'} names {', '.join(config.encodings)}"
                )
    for name, fields in config.encodings.items():
        for protocol in config.protocols.values():
            try:
                protocol.encoding_spec(fields, posgen.data.train_length, posgen.data.test_length)
            except ValueError as error:
                raise SettingsError(f"{folder / 'encodings.yaml'}: {name}: {error}") from None
    for study in posgen.all_studies:
        config.study_cells(study)


def _key(study: str) -> str:
    """Where a study's lists stand in a preset."""
    return "posgen" if study == "table1" else f"posgen.studies.{study}"
