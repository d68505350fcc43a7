"""A preset as a whole, with the named encodings and protocols: what the Snakefile reads before the DAG is built.

The JSON schema in workflow/schemas is generated from `Preset`. Imports no torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from resonance.leval.preset import Leval, LevalSettings
from resonance.leval.preset import complete as leval_of
from resonance.leval.settings import Prompts
from resonance.llm.preset import Llm, LlmSettings
from resonance.llm.preset import complete as llm_of
from resonance.llm.protocol import LlmProtocol
from resonance.posgen.preset import Posgen, PosgenSettings
from resonance.posgen.preset import complete as posgen_of
from resonance.posgen.protocol import Protocol
from resonance.record.job import Resources
from resonance.record.settings import Name, Settings, SettingsError, check_name, parse, read_yaml

SHARED = ("encodings", "protocols", "llm_protocols", "published", "leval")
"""Files of the config folder that are no presets."""


class Preset(Settings):
    """One complete size of the whole workflow."""

    preset: Name
    """Its name, that of its file."""
    posgen: PosgenSettings
    llm: LlmSettings | None = None
    """The language-model half; left out: not run."""
    leval: LevalSettings | None = None
    """L-Eval's questions to models of `llm`; left out: not run."""
    resources: Resources


@dataclass(frozen=True)
class Config:
    """A validated preset by wing."""

    name: str
    posgen: Posgen
    llm: Llm | None
    leval: Leval | None
    resources: Resources

    def written(self, rule: str, of: dict[str, str]) -> str | None:
        """The JSON that a job of a rule writes, of those that write what a stage depends on or an encoding; else None.

        of  its wildcards; `stage` may hold a name: `text_plays`, `finetune_long`
        """
        (stage, _, name), posgen, llm, leval = of.get("stage", "").partition("_"), self.posgen, self.llm, self.leval
        made = {
            "posgen_encoding": lambda: posgen.spec(of["protocol"], of["encoding"]),
            "posgen_settings data": lambda: posgen.data_run(of["protocol"], of["task"]),
            "posgen_settings train": lambda: posgen.train_run(of["protocol"], of["task"]),
            "posgen_settings evaluate": lambda: posgen.evaluate_run(),
            "llm_encoding": lambda: llm.spec(of["model"], of["encoding"]),
            "llm_settings base": lambda: llm.model_run(of["model"]),
            "llm_settings text": lambda: llm.text_run(of["model"], name),
            "llm_settings finetune": lambda: llm.finetune_run(of["model"], name),
            "llm_settings evaluate": lambda: llm.evaluation_run(of["model"], name),
            "leval_settings tasks": lambda: leval.tasks_run(),
            "leval_settings answer": lambda: leval.answer_run(name),
        }.get(f"{rule} {stage}".strip())
        return made and made().to_json()


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """The end of an error: "; did you mean X?" where a known name is near, else nothing.

    Here and not in `record.settings`, which every training depends on.
    """
    return "".join(f"; did you mean {near}?" for near in get_close_matches(name, list(names), n=1))


def load(folder: Path, preset: str) -> Config:
    """config/{preset}.yaml with encodings.yaml and protocols.yaml beside it, checked as a whole.

    Raises SettingsError: one line that names file, key, rule, value and cure.
    """
    folder = Path(folder)
    presets = sorted(p.stem for p in folder.glob("*.yaml") if p.stem not in SHARED)
    if preset not in presets:
        raise SettingsError(
            f"preset must be one of {', '.join(presets)}, got {preset!r}; each is a file of {folder}"
            f"{did_you_mean(preset, presets)}"
        )
    source = folder / f"{preset}.yaml"
    parsed = parse(Preset, read_yaml(source), str(source))
    if parsed.preset != preset:
        raise SettingsError(
            f"{source}: preset must be the file's name {preset}, got {parsed.preset!r}; "
            "two presets under one name would share a results folder"
        )
    encodings = _mapping(folder / "encodings.yaml")
    protocols, llm_protocols = (
        {name: parse(kind, fields, f"{path}: {name}") for name, fields in _mapping(path).items()}
        for kind, path in ((Protocol, folder / "protocols.yaml"), (LlmProtocol, folder / "llm_protocols.yaml"))
    )
    prompts = parse(Prompts, read_yaml(folder / "leval.yaml"), str(folder / "leval.yaml"))
    posgen = posgen_of(parsed.posgen, encodings, protocols, str(source), folder)
    llm = llm_of(parsed.llm, encodings, llm_protocols, str(source)) if parsed.llm else None
    leval = leval_of(parsed.leval, llm, prompts, str(source)) if parsed.leval else None
    return Config(preset, posgen, llm, leval, parsed.resources)


def _mapping(path: Path) -> dict[str, dict]:
    values = read_yaml(path)
    if not isinstance(values, dict) or not all(isinstance(fields, dict) for fields in values.values()):
        raise SettingsError(f"{path}: must map names to fields")
    try:
        return {check_name(name): fields for name, fields in values.items()}
    except ValueError as error:
        raise SettingsError(f"{path}: {error}") from None
