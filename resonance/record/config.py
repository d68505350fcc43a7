"""The config of a workflow run: one complete preset, the named encodings and protocols.

`load` is what the Snakefile calls before the DAG is built; the JSON schema in workflow/schemas is
generated from these classes.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from resonance.encoding.spec import EncodingSpec
from resonance.record.leval_settings import LevalSettings, Prompts, check_leval
from resonance.record.llm import LlmSettings
from resonance.record.llm_protocol import LlmProtocol
from resonance.record.llm_runs import check_llm
from resonance.record.posgen_settings import PosgenSettings
from resonance.record.protocol import Protocol, with_choices
from resonance.record.settings import Count, Settings, SettingsError, parse, read_yaml


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
