"""A task's sequences as files for other tools, with a card that says what they are. Imports no torch."""

import json
from pathlib import Path

import polars as pl

from resonance.posgen.ranking.tasks import SPLITS, TASKS, TRAIN_LENGTH, WINDOWS, Drawn, drawn_for, oracle
from resonance.record.files import replacing, sha256, write_text

FORMATS = ("parquet", "jsonl")


def write_data(task: str, folder: Path, form: str) -> None:
    """train, test and README.md into a folder. Raises ValueError for an unknown task or format."""
    for name, known, asked in (("task", TASKS, task), ("format", FORMATS, form)):
        if asked not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {asked!r}")
    card = folder / "README.md"
    if card.exists() and not card.read_text(encoding="utf-8", errors="replace").startswith("# PosGen: "):
        raise ValueError(f"{card} must be absent or this command's own, got another; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {split: drawn_for(task, split) for split in SPLITS}
    for split, each in drawn.items():
        _write(folder / f"{split}.{form}", each)
    write_text(card, _card(task, folder, form, drawn))
    print(f"{folder}: {', '.join(f'{split}.{form}' for split in SPLITS)} and README.md")


def _write(path: Path, drawn: Drawn) -> None:
    columns = {"tokens": drawn.tokens.tolist(), "asked": drawn.asked.tolist()}
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            pl.DataFrame(columns).write_parquet(temporary)
        else:
            rows = zip(*columns.values(), strict=True)
            temporary.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))


def _card(task: str, folder: Path, form: str, drawn: dict[str, Drawn]) -> str:
    about = TASKS[task]
    files = "\n".join(
        f"| {file} | {num:,} | {length} | {drawn[split].asked.mean():.3f} | {sha256(folder / file)} |"
        for split, (num, length) in SPLITS.items()
        for file in [f"{split}.{form}"]
    )
    rule = "resonance/posgen/ranking/tasks.py" if about.far else "resonance/posgen/tasks.py"
    reached = " | ".join(f"{100 * oracle(task, window, drawn['test'], TRAIN_LENGTH):.1f}" for window in WINDOWS)
    return f"""# PosGen: {task}

Sequences to train a decoder on at 64 tokens and to test it on at 256. Made by `resonance posgen data {task}`, the same
on every machine; the rule stands in `{rule}`.

| file | sequences | tokens each | share asked for | SHA-256 |
| --- | --- | --- | --- | --- |
{files}

* `tokens`: integers 0 to {about.vocabulary - 1}.
* `asked`: which tokens count. Token t is to be said from tokens 0 to t - 1, the true ones; train on these alone.
* Score: the share of asked tokens that are said right, below 64, from 64 to 127, and from 128 on.
* Chance: {100 * about.chance:.1f} %.
* The best that a solver can reach past 64 who sees the last w tokens alone, in percent:

| w | {" | ".join(map(str, WINDOWS))} |
| --- |{" --- |" * len(WINDOWS)}
| | {reached} |

Training and test sequences are drawn independently. No personal or collected data; licence Apache-2.0. To cite: Wang et
al., Resonance RoPE: Improving Context Length Generalization of Large Language Models, Findings of ACL 2024.
"""
