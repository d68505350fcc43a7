"""One prefill a document beside one a question: `python -m benchmarks.leval [--words 1200] [--rounds 3]`.

SmolLM2 answers the laptop preset's questions about one document: each reading it anew, sharing the document's keys and
values one question after the other, and all of them as one batch. The three alternate in one process, and begin each
round at another; ratios are of one round's turns, medians of the rounds.
Needs what these make: `snakemake results/laptop/llm/smollm2/base/base.json results/laptop/leval/tasks`.
Prints one Markdown table: questions a minute by the clock, CPU-seconds a question, how many times one prefill a
question, equal answers.
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
    ways = {
        "one prefill a question": {"share": False},
        "one prefill a document": {},
        "and all its questions as one batch": {"batch_size": len(ids)},
    }
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    said = {}
    for number in range(asked.rounds):
        for place in range(len(ways)):
            way = list(ways)[(number + place) % len(ways)]
            wall, cpu = time.perf_counter(), time.process_time()
            said[way] = list(answers(model, ids, max_new_tokens=longest, ends=ends, **ways[way]))
            seconds[way].append((time.perf_counter() - wall, time.process_time() - cpu))
    first, *_ = ways
    print(
        f"{base.source}, {asked.precision}, {asked.threads} threads, {device_name('cpu')}: {len(ids)} questions on "
        f"{len(ids[0]):,} tokens, {asked.rounds} rounds\n"
    )
    print("| | questions a minute | CPU-seconds a question | times, wall | times, CPU | equal answers |")
    print("| --- | --- | --- | --- | --- | --- |")
    for way, turns in seconds.items():
        wall, cpu = (statistics.median(turn[i] for turn in turns) / len(ids) for i in (0, 1))
        times = [statistics.median(a[i] / b[i] for a, b in zip(seconds[first], turns, strict=True)) for i in (0, 1)]
        equal = sum(a == b for a, b in zip(said[way], said[first], strict=True))
        print(f"| {way} | {60 / wall:.1f} | {cpu:.2f} | {times[0]:.2f} | {times[1]:.2f} | {equal} |")


if __name__ == "__main__":
    main()
