"""One prefill a document beside one a question: `python -m benchmarks.leval [--words 1200] [--rounds 3]`.

SmolLM2 answers the laptop preset's questions about one document, its questions sharing the document's keys
and values and then each reading it anew, one question at a time in both; turns alternate in one process, medians.
Needs what these make: `snakemake results/laptop/llm/smollm2/base/base.json results/laptop/leval/tasks`.
Prints one Markdown table: questions a minute by the clock, CPU-seconds a question, equal answers.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from resonance.encoding.spec import EncodingSpec
from resonance.leval import questions
from resonance.leval.answering import ends_of
from resonance.leval.files import prompts
from resonance.llm.generate import answers
from resonance.llm.models import Base, load, tokenizer_of
from resonance.record.provenance import device_name
from resonance.workflow.preset import load as load_preset

ROOT = Path(__file__).resolve().parents[1]
MODEL, TASK = "smollm2", "line_end"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "results/laptop")
    parser.add_argument("--words", type=int, default=1200, help="the document is cut to so many")
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    leval = load_preset(ROOT / "config", "laptop").leval
    family, longest = leval.settings.models[MODEL].family, leval.settings.max_new_tokens
    base = Base.read(asked.results / f"llm/{MODEL}/base/base.json")
    tokenizer = tokenizer_of(base)
    document = questions.read(asked.results / "leval/tasks")[1].found[TASK][0]
    text = " ".join(document.text.split(" ")[: asked.words])
    ids = [
        tokenizer.encode(prompts(leval.prompts, family, TASK, text, question.text)[0])
        for question in document.questions[: asked.questions]
    ]
    spec = EncodingSpec(base=base.rope_base, train_length=base.train_length)
    wanted = {"device": "cpu", "precision": asked.precision, "attention": "auto"}
    model = load(base, spec, **wanted, generating=True)
    ends = ends_of(tokenizer, leval.prompts, family)
    seconds: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    said = {}
    for number in range(asked.rounds):
        for share in (True, False) if number % 2 else (False, True):
            wall, cpu = time.perf_counter(), time.process_time()
            said[share] = list(answers(model, ids, max_new_tokens=longest, ends=ends, share=share))
            seconds[share].append((time.perf_counter() - wall, time.process_time() - cpu))
    equal = sum(a == b for a, b in zip(said[True], said[False], strict=True))
    print(
        f"{base.source}, {asked.precision}, {asked.threads} threads, {device_name('cpu')}: {len(ids)} questions on "
        f"{len(ids[0]):,} tokens, {asked.rounds} rounds; {equal} of {len(ids)} answers equal\n"
    )
    print("| | questions a minute | CPU-seconds a question |\n| --- | --- | --- |")
    for share, title in ((True, "one prefill a document"), (False, "one prefill a question")):
        wall, cpu = (statistics.median(turn[i] for turn in seconds[share]) / len(ids) for i in (0, 1))
        print(f"| {title} | {60 / wall:.1f} | {cpu:.2f} |")


if __name__ == "__main__":
    main()
