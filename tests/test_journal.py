"""A journal: what was written whole survives any kill, and is no other run's."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ROOT
from resonance.leval.answering import UNIT
from resonance.leval.files import read_predictions
from resonance.record.identity import digest, identity
from resonance.record.journal import Journal


def row(number: int, prediction: str) -> dict:
    return {"task": "tpo", "question": number, "query": "Why?", "gt": "A", "prediction": prediction}


def test_a_journal_goes_on_where_it_stopped_and_repairs_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "deep/m.tpo.jsonl"
    with Journal(path, "abc", UNIT) as journal:
        for number in range(3):
            journal.append(row(number, f"é\n{number}"))
        with pytest.raises(ValueError, match="task tpo question 2 stands there already"):
            journal.append(row(2, "B"))
    whole = path.read_bytes()
    for cut in (1, 2, 30):
        path.write_bytes(whole[:-cut])
        with Journal(path, "abc", UNIT) as journal:
            assert journal.repaired and set(journal.rows) == {("tpo", 0), ("tpo", 1)}
            journal.append(row(2, "é\n2"))
        assert path.read_bytes() == whole
    found = read_predictions(path)
    assert [row.text for row in found.rows] == ["é\n0", "é\n1", "é\n2"] and not found.torn


def test_a_damaged_answer_is_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "m.tpo.jsonl"
    with Journal(path, "abc", UNIT) as journal:
        journal.append(row(0, "Because of the war"))
    path.write_bytes(path.read_bytes().replace(b"the war", b"the wax"))
    with pytest.raises(ValueError, match=r"m\.tpo\.jsonl:1: is damaged: its sum is another"):
        Journal(path, "abc", UNIT)


def test_a_journal_of_another_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.tpo.jsonl"
    with Journal(path, digest(identity({"encoding": "yarn"})), UNIT) as journal:
        journal.append(row(0, "A"))
    with pytest.raises(ValueError, match="another model, encoding or protocol wrote it"):
        Journal(path, digest(identity({"encoding": "rope"})), UNIT)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(ValueError, match="task tpo question 0 stands there twice"):
        Journal(path, digest(identity({"encoding": "yarn"})), UNIT)


WRITER = """
import sys
from pathlib import Path
from resonance.record.journal import Journal
with Journal(Path(sys.argv[1]), "abc", ("task", "question")) as journal:
    print("ready", flush=True)
    for number in range(150):
        if ("tpo", number) not in journal.rows:
            line = {"task": "tpo", "question": number, "query": "Why? " * 200, "gt": "A"}
            journal.append(line | {"prediction": f"answer {number}"})
"""


def test_twenty_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    path, draw, kills = tmp_path / "m.tpo.jsonl", random.Random(0), 0
    counts = []
    while kills < 20:
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], cwd=ROOT, stdout=subprocess.PIPE)
        writer.stdout.readline()
        time.sleep(draw.uniform(0, 0.004))
        writer.send_signal(signal.SIGKILL)
        kills += writer.wait() == -signal.SIGKILL
        writer.stdout.close()
        counts.append(path.read_bytes().count(b"\n"))
        if counts[-1] == 150:
            path.unlink()  # too fast for this machine: begin again until all kills have fallen
    assert subprocess.run([sys.executable, "-c", WRITER, path], cwd=ROOT, check=False).returncode == 0
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["question"] for row in rows] == list(range(150))
    assert all(row["prediction"] == f"answer {row['question']}" for row in rows)
    assert any(0 < count < 150 for count in counts)
