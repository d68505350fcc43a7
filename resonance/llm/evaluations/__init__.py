"""The registry of what is measured of a language model. One file an evaluation, and all that the workflow, the plan and
the command line know of it stands there; every module of this folder that names an EVALUATION is one. No torch.

An evaluation's name is its key in a preset's `llm`, the wildcard and the stem of its files.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from resonance.llm.protocol import LlmProtocol
from resonance.llm.settings import HalfSettings
from resonance.record.rows import Kind
from resonance.record.settings import Settings

Units = dict[str, Callable[[], list[dict]]]
"""What each part of a measurement gives, rows without the names, by a name of its own."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """settings  the class of its key in a preset
    kind      its rows: the columns `llm.rows.NAMES` and its own
    run       the class of what a measurement depends on beside weights, encoding and texts
    run_of    that of one model
    models    the models that it is asked of
    check     raises ValueError where its settings do not go with the others of `llm`
    texts     names of the packed texts that it reads
    windows   (llm, model, whether the table follows the length) -> tokens of every window that it reads, for the plan
    units     (model, tokenizer, texts by name, run) -> the parts that it is measured in; torch is loaded when it is
              called. What is measured is kept as it comes, so that a killed evaluation goes on
    disk      bytes of its file, about
    resources the kind of job that it is, a key of a preset's `resources`
    """

    name: str
    settings: type[Settings]
    kind: Kind
    run: type[Settings]
    run_of: Callable[[HalfSettings, LlmProtocol, str], Settings]
    models: Callable[[HalfSettings], list[str]]
    check: Callable[[HalfSettings], None]
    windows: Callable[[HalfSettings, str, bool], list[int]]
    units: Callable[..., Units]
    disk: float
    texts: Callable[[HalfSettings], list[str]] = lambda llm: []
    resources: str = "llm_evaluate"

    def settings_of(self, llm: HalfSettings) -> Settings | None:
        """What a preset says of it; None where it is not asked for."""
        return getattr(llm, self.name)


@cache
def evaluations() -> Mapping[str, Evaluation]:
    """Every evaluation by name."""
    found = (import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__))
    return {module.EVALUATION.name: module.EVALUATION for module in found}
