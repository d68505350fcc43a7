"""What a preset costs, before anything runs: jobs, hours, GPU-hours, memory, disk, by partition and rule.

`job` holds the devices, `posgen`, `llm` and `leval` the arithmetic of their jobs, `show` adds up and prints. Local
rules, which write settings, are not counted. Imports no torch.
"""

from collections.abc import Iterable

from resonance.plan import leval, llm, posgen
from resonance.plan.job import Job
from resonance.record.config import Config


def jobs(config: Config, studies: Iterable[str] = ("table1",)) -> list[Job]:
    """Every job of the studies; with Table 1 also those that `snakemake` makes beside it.

    A further part of the workflow comes in here, as a function from the config to its jobs.
    """
    studies = list(dict.fromkeys(studies))
    made = posgen.jobs(config, studies)
    if "table1" in studies:
        made += [*llm.jobs(config), *leval.jobs(config)]
    return made
