"""L-Eval's own script beside ours, answer by answer: `python -m benchmarks.torture_leval LEVAL [--answers 20000]`.

LEVAL is a checkout of github.com/OpenLMLab/LEval, whose functions are run as they stand and are no part of this
repository. Compares all prediction files that it published for closed-ended tasks, then answers that are put together
at random. Prints one line a task; status 1 where a credit differs.
"""

import argparse
import ast
import json
import random
import re
import string
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

from resonance.leval.catalogue import TASKS
from resonance.leval.files import read_predictions
from resonance.leval.scoring import score

GOLDS = {
    "coursera": ["A", "AC", "ABD", "BCD", "ABCD", "A. one", "AC and more"],
    "quality": ["(B) word for word", "(A) a word", "D", "(C)"],
    "tpo": ["A", "B", "C", "D", "AB"],
    "gsm100": ["18", "The answer is 366", "5 eggs.\nThe answer is 70000", "The answer is 3.5"],
    "codeu": ["[6, 15]", "3", "[[1, 2], [3, 4]]", "{'i': 1, 'love': 1}", "level,deed", " 2.0", "True", "A", "an apple"],
    "sci_fi": ["True [fact: False]", "False [fact: True]", "True [fact: True.]", "False.[fact:False]"],
}
_ANY = [
    *" \n\t.,:;()[]{}'\"`*-\\",
    "\n\n",
    "  ",
    "\u00a0",
    "A",
    "B",
    "C",
    "D",
    "E",
    "a",
    "the",
    "is",
    "3",
    "18",
    "3.0",
    "²",
]
PIECES = {
    "coursera": ["AB", "CD", "BA", "A.", " B)", "C ", "Answer", "Question", "and", "A,C.", "ABCD", "None"],
    "quality": ["CD", "ABC", "DC", "(B)", "The answer is", "word", "Because"],
    "gsm100": ["The answer is ", "the answer is ", "$1,234.50", "366.", "-117", "1/0", "5e3", "eggs"],
    "codeu": ["the final output", "will be", "of the code", "would be", "printed", "the value of", "[6, 15]", "] [",
              "[ [", "array(", "6", "15", "love", ".0", "nan", "1_0", "True", "apple"],
    "sci_fi": ["true", "False", "untrue", "truefalse", "falsetrue", "not", "[fact:", "[fact: ", "]"],
}  # fmt: skip
PIECES["tpo"] = PIECES["quality"]


def oracle(checkout: Path) -> Callable[[str, str, str], float]:
    """(task, prediction, gold) -> the credit that L-Eval's script gives; what it cannot read is an IndexError."""
    asked = SimpleNamespace(pred_file="")
    theirs = {"re": re, "string": string, "args": asked, "print": lambda *_: None}
    for name in ("auto_eval.py", "em.py"):
        tree = ast.parse((Path(checkout) / "Evaluation" / name).read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        exec(compile(tree, name, "exec"), theirs)
    equal = theirs["exact_match_score"]

    def credit(task: str, prediction: str, gold: str) -> float:
        asked.pred_file = task
        if task == "sci_fi":
            pairs = zip(theirs["process_output_judge"](prediction), theirs["process_gt_judge"](gold), strict=True)
            return sum(equal(*pair) for pair in pairs) / 2
        if task == "gsm100":
            return equal(theirs["process_math"](prediction), theirs["process_math"](gold))
        if task == "codeu":
            return equal(theirs["process_output_code"](prediction, gold), theirs["process_gt_code"](gold))
        return equal(theirs["process_output_mc"](prediction), theirs["process_gt_mc"](gold))

    return credit


def answers(task: str, count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """(prediction, gold) of made answers: short pieces that a parser minds, and the gold itself among them."""
    draw = random.Random(f"{seed} {task}")
    for _ in range(count):
        gold = draw.choice(GOLDS[task])
        known = [*PIECES[task], gold, *gold.split()]
        parts = [draw.choice(known if draw.random() < 0.6 else _ANY) for _ in range(draw.randrange(12))]
        text = draw.choice(["", " "]).join(parts)
        yield (text if task != "sci_fi" or "[fact:" in text.lower() else f"{text}[fact: {draw.choice(known)}]"), gold


def published(checkout: Path) -> Iterator[tuple[str, str, str, str]]:
    """(file, task, prediction, gold) of every answer to a closed-ended task that L-Eval published."""
    for path in sorted((Path(checkout) / "Predictions" / "exam_eval").glob("*/*.jsonl")):
        if path.name.split(".")[0].lower() in TASKS:
            found = read_predictions(path)
            yield from ((f"{path.parent.name}/{path.name}", found.task, row.text, row.gold) for row in found.rows)


def differences(checkout: Path, count: int) -> Iterator[tuple[str, int, list[tuple]]]:
    """(what, answers compared, those of another credit) of the published files, then of every task's made answers."""
    credit, cases = oracle(checkout), {}
    for file, task, text, gold in published(checkout):
        cases.setdefault(file, []).append((task, text, gold))
    cases |= {f"{task}, made": [(task, *pair) for pair in answers(task, count)] for task in TASKS}
    for what, own in cases.items():
        pairs = [(case, credit(*case), score("released", *case).credit) for case in own]
        yield what, len(own), [found for found in pairs if found[1] != found[2]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("leval", type=Path)
    parser.add_argument("--answers", type=int, default=20_000, help="made answers a task")
    asked = parser.parse_args()
    worst = 0
    for what, count, other in differences(asked.leval, asked.answers):
        worst = max(worst, len(other))
        print(
            f"{what}: {count} answers, {len(other)} of another credit{''.join(f'; {json.dumps(o)}' for o in other[:3])}"
        )
    sys.exit(bool(worst))


if __name__ == "__main__":
    main()
