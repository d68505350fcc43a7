"""A preset's synthetic half, its key `posgen`: what is trained and compared, and the run that each stage of it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from resonance.encoding.spec import EncodingSpec
from resonance.posgen.protocol import Protocol, base_and_choice, with_choices
from resonance.posgen.settings import (
    DataRun,
    DataSettings,
    EvaluateRun,
    EvaluationSettings,
    LoopSettings,
    ModelSettings,
    Task,
    TrainRun,
)
from resonance.record.settings import Count, Settings, SettingsError, check_known

StudyName = Literal[
    "five_seeds", "extended", "keyed", "rounding", "ablation", "ends", "aliases", "leaks", "falls", "lengths", "fastest"
]  # fmt: skip
ABLATIONS = ("ablation", "ends")
"""Studies of protocols beside those that they are flips of."""
PROBED = ("aliases", "leaks", "falls", "lengths", "fastest")
"""Studies of why models fail past L (`posgen.probe`); the others are of what they reach."""
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class TrainingSettings(LoopSettings):
    """The same, for how long, and what the result does not depend on."""

    steps: dict[str, dict[Task, Count]]
    """Optimizer steps by protocol and task (paper: 150 epochs of 79 steps = 11,850)."""
    checkpoint_seconds: int = Field(ge=0)
    """Seconds between two checkpoints of a training; they come apart where they would take more than
    1 % of the time. No result depends on it."""


class Study(Settings):
    """What one table or figure compares: every encoding on every task under every protocol, all seeds."""

    protocols: list[str] = Field(min_length=1)
    """Names of config/protocols.yaml, or one with choices of the other: `paper+P5`."""
    tasks: list[Task] = Field(min_length=1)
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
    protocols one choice apart; `ends`: YaRN's ramp alone, from both; `aliases`: why models fail past L;
    `leaks`: the same of `rounding`'s models; `falls`: where, beside predictions; `lengths` and `fastest`: the same
    with L and k moved, and with the fastest wavelength alone."""
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


class Cell(NamedTuple):
    """One evaluation: an encoding under a protocol, on a model of one task and seed trained with
    train_encoding under train_protocol."""

    protocol: str
    encoding: str
    train_protocol: str
    train_encoding: str
    task: str
    seed: int


class Training(NamedTuple):
    """One trained model."""

    protocol: str
    task: str
    train_encoding: str
    seed: int


@dataclass(frozen=True)
class Posgen:
    """The settings of a preset's key `posgen` with the encodings and protocols that its names stand for."""

    settings: PosgenSettings
    encodings: dict[str, dict]
    protocols: dict[str, Protocol]

    def spec(self, protocol: str, encoding: str) -> EncodingSpec:
        """The encoding as the protocol uses it."""
        data = self._data(protocol)
        return self.protocols[protocol].encoding_spec(self.encodings[encoding], data.train_length, data.test_length)

    def train_encoding(self, protocol: str, encoding: str) -> str:
        return self.protocols[protocol].train_encoding_name(encoding, self.encodings)

    def data_protocol(self, protocol: str) -> str:
        """The first protocol whose sequences are the same: they are drawn once."""

        def drawn(name: str) -> tuple:
            return self.protocols[name].prefixes, self._data(name)

        return next(name for name in self.protocols if drawn(name) == drawn(protocol))

    def train_protocol(self, protocol: str, train_encoding: str) -> str:
        """The first protocol under which this training is the same: what protocols share is trained once."""

        def training(name: str) -> tuple:
            p, steps = self.protocols[name], self.settings.training.steps.get(name.split("+")[0])
            return p.prefixes, self._data(name), p.train_choices(), steps, self.spec(name, train_encoding)

        return next(name for name in self.protocols if training(name) == training(protocol))

    def cells(self, study: str) -> list[Cell]:
        """Every evaluation of a study with the training it measures."""
        lists = self.settings.all_studies[study]
        cells = []
        for protocol in lists.protocols:
            for encoding in lists.encodings:
                trained = self.train_encoding(protocol, encoding)
                names = protocol, encoding, self.train_protocol(protocol, trained), trained
                cells += [Cell(*names, task, seed) for task in lists.tasks for seed in lists.seeds]
        return cells

    def trainings(self, study: str) -> list[Training]:
        """Every training of a study: what encodings and protocols share is one."""
        cells = self.cells(study)
        return sorted({Training(cell.train_protocol, cell.task, cell.train_encoding, cell.seed) for cell in cells})

    def data_run(self, protocol: str, task: str) -> DataRun:
        return DataRun(task=task, prefixes=self.protocols[protocol].prefixes, data=self._data(protocol).of_task(task))

    def train_run(self, protocol: str, task: str) -> TrainRun:
        training = self.settings.training
        return TrainRun(
            protocol=protocol,
            task=task,
            choices=self.protocols[protocol].train_choices(),
            data=self._data(protocol).of_task(task),
            model=self.settings.model,
            training=LoopSettings(**training.model_dump(include=set(LoopSettings.model_fields))),
            steps=self.settings.steps(protocol, task),
        )

    def _data(self, protocol: str) -> DataSettings:
        return self.protocols[protocol].data(self.settings.data)

    def evaluate_run(self) -> EvaluateRun:
        return EvaluateRun(evaluation=self.settings.evaluation)


def complete(
    settings: PosgenSettings, encodings: dict[str, dict], protocols: dict[str, Protocol], source: str, folder: Path
) -> Posgen:
    """The preset with what its names stand for. Raises SettingsError: one line."""
    for name in settings.training.steps:
        check_known(f"{source}: posgen.training.steps", name, protocols, str(folder / "protocols.yaml"))
    protocols = dict(protocols)
    for study, lists in settings.all_studies.items():
        for name in lists.protocols:
            try:
                protocols[name] = with_choices(name, protocols)
                protocols[name].data(settings.data)
            except SettingsError as error:
                raise SettingsError(f"{source}: {_key(study)}.protocols: {error}") from None
        bases = {name: base_and_choice(name)[0] for name in lists.protocols if study in ABLATIONS}
        for name, base in bases.items():
            if base not in bases:
                raise SettingsError(f"{source}: {_key(study)}.protocols must hold {base}, from which {name} is a flip")
        for name in lists.encodings:
            check_known(f"{source}: {_key(study)}.encodings", name, encodings, str(folder / "encodings.yaml"))
    for name, fields in encodings.items():
        for protocol in protocols.values():
            try:
                data = protocol.data(settings.data)
                protocol.encoding_spec(fields, data.train_length, data.test_length)
            except ValueError as error:
                raise SettingsError(f"{folder / 'encodings.yaml'}: {name}: {error}") from None
    made = Posgen(settings, encodings, protocols)
    for study in settings.all_studies:
        made.cells(study)
    return made


def _key(study: str) -> str:
    """Where a study's lists stand in a preset."""
    return "posgen" if study == "table1" else f"posgen.studies.{study}"
