"""The jobs of L-Eval: questions, answers, scores, tables. What an answer reads and says is `leval_plan`'s."""

from dataclasses import replace

from resonance.llm.leval_plan import answerings
from resonance.plan.job import Job, light_job
from resonance.plan.llm import on_device, size_of
from resonance.record.config import Config


def jobs(config: Config) -> list[Job]:
    """Every job of the key `leval`; without it Table 2 is drawn of the published half alone."""
    leval, llm = config.preset.leval, config.preset.llm
    if leval is None:
        return [light_job(config, "table2")]
    tasks = light_job(config, "leval_tasks")
    made = [replace(tasks, unknown=f"{leval.source} is a download") if leval.source.startswith("hf:") else tasks]
    for answering in answerings(config):
        names = (answering.model, answering.encoding, answering.strategy)
        job, size = (
            Job("leval_answer", names, config.preset.resources.of("llm_evaluate")),
            size_of(llm.models[names[0]]),
        )
        if answering.flop is None or size is None:
            made.append(replace(job, unknown=f"models.{names[0]}.size is not given"))
        else:
            tokens, longest = answering.read + answering.said, leval.models[names[0]].context
            made.append(on_device(llm, job, answering.flop, tokens, size, rows=longest, training=False, disk=1e5))
        made.append(light_job(config, "leval_score", *names))
    stand_ins = [name for name in leval.models if llm.models[name].stand_in]
    return [*made, light_job(config, "table2"), *(light_job(config, "table2_stand_in", name) for name in stand_ins)]
