"""Damaged, foreign and half-written files, of every wing: each is one line, and none is taken for whole."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from benchmarks.torture import another_user, command_lines, damage, full_disk
from benchmarks.torture_kills import KILLED, kills, twice
from benchmarks.torture_runs import CHAIN, OUTPUTS, READERS, ROOT, call, make_runs
from resonance.posgen.rows import STUDY
from resonance.record.files import SUMS, UNSEALED, check_seal, replacing, sha256, write_record
from resonance.record.rows import read_rows

RUN = "results/smoke/posgen/runs/paper/cot/rope/seed42"
DATA = "results/smoke/posgen/data"


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Small runs of every wing, which nobody changes."""
    return make_runs(tmp_path_factory.mktemp("runs") / "runs")


@pytest.fixture
def runs(kept: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(kept, tmp_path / "runs"))


def refusal(line: list[str], folder: Path) -> str:
    """The one line with which a command ends."""
    status, said = call(line, folder)
    assert status == 2 and said.startswith("error: ") and said.count("\n") == 1, said
    return said.removeprefix("error: ").strip()


def instead(name: str, old: str, new: str) -> list[str]:
    """A line of the chain with another argument."""
    assert old in CHAIN[name]
    return [new if word == old else word for word in CHAIN[name]]


# Damage


@pytest.mark.parametrize("kind", READERS)
def test_no_damaged_file_is_taken_for_whole(kind: str, runs: Path) -> None:
    assert damage(runs, kind, 12) == {"one line": 12}  # `benchmarks.torture --full` makes 400


@pytest.mark.parametrize("name", KILLED)
def test_what_is_killed_and_gone_on_with_ends_with_the_same_bits(name: str, runs: Path) -> None:
    assert kills(runs, name, 3) == {"valid": 3}  # `benchmarks.torture --full` makes 20


@pytest.mark.parametrize("name", OUTPUTS)
def test_another_users_folders_are_one_line_and_stay_as_they_are(name: str, runs: Path) -> None:
    assert another_user(runs, name) == {"one line": 3}


def test_what_runs_twice_at_once_is_told_so_or_makes_the_same_bits(runs: Path) -> None:
    assert twice(runs, "leval answer", 1).keys() <= {"one line", "valid"}  # `benchmarks.torture` has the others
    assert twice(runs, "llm finetune", 1).keys() <= {"one line", "valid"}


def test_a_compiled_training_on_two_threads_has_the_same_bits_twice(runs: Path) -> None:
    """60 steps; in processes of their own, for torch's switches are global."""
    asked = json.loads((runs / "settings/train.json").read_text())
    asked["training"]["compile"], asked["steps"] = True, 60
    (runs / "settings/train.json").write_text(json.dumps(asked))
    weights = []
    for _ in range(2):
        shutil.rmtree(runs / RUN)
        line = [sys.executable, "-m", "resonance", *CHAIN["posgen train"], "--threads=2"]
        subprocess.run(line, cwd=runs, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
        weights.append((runs / RUN / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.parametrize("output", [f"{RUN}/model.safetensors", f"{DATA}/test.parquet"])
def test_a_command_names_the_damaged_file_and_the_cure(output: str, runs: Path) -> None:
    path = runs / output
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    said = refusal(CHAIN["posgen evaluate"], runs)
    assert said == f"{output} is damaged: its bytes are not those of its checksum; delete it and run the rule again"


def test_a_seal_covers_every_byte_but_its_own_and_stands_once(tmp_path: Path) -> None:
    path = tmp_path / "x"
    with replacing(path, sealed=True) as temporary:
        temporary.write_text(f"before {UNSEALED} after")
    whole = path.read_bytes()
    check_seal(path)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"is damaged|must hold a checksum"):
            check_seal(path)
    with (
        pytest.raises(ValueError, match="must hold file-sha256= once, got 2"),
        replacing(path, sealed=True) as temporary,
    ):
        temporary.write_text(2 * UNSEALED)


def test_rows_from_before_the_seals_are_taken_where_they_are_listed(kept: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.parquet"
    metadata = pl.read_parquet_metadata(kept / "study.parquet")
    del metadata["checksum"]
    pl.read_parquet(kept / "study.parquet").write_parquet(old, metadata=metadata)
    with pytest.raises(ValueError, match="must hold a checksum, got none"):
        read_rows(old, STUDY)
    (tmp_path / SUMS).write_text(f"{sha256(old)}  old.parquet\n")
    assert read_rows(old, STUDY).equals(read_rows(kept / "study.parquet", STUDY))
    old.write_bytes(old.read_bytes()[:-1] + b"2")
    with pytest.raises(ValueError, match=r"old\.parquet is damaged"):
        read_rows(old, STUDY)


# Foreign files


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("posgen evaluate", f"{DATA}/validation.parquet", "other/validation.parquet", "is cot here, recursive there"),
        ("posgen evaluate", f"{DATA}/test.parquet", "other/test.parquet", "task is cot here, recursive there"),
        ("posgen evaluate", f"{DATA}/test.parquet", f"{DATA}/validation.parquet", "is test here, validation there"),
        ("posgen evaluate", f"{DATA}/validation.parquet", f"{DATA}/test.parquet", "is validation here, test there"),
        ("posgen evaluate", f"{RUN}/model.safetensors", f"{RUN}/snapshots.safetensors", "must hold a training's model"),
        ("posgen evaluate", f"{DATA}/test.parquet", f"{RUN}/train.parquet", "must hold sequences of schema version 1"),
        ("posgen train", f"{DATA}/train.parquet", "other/train.parquet", "task is cot here, recursive there"),
        ("posgen train", f"{DATA}/validation.parquet", f"{DATA}/test.parquet", "is validation here, test there"),
        ("posgen baseline", f"{DATA}/test.parquet", "other/test.parquet", "task is cot here, recursive there"),
        ("posgen baseline", f"{DATA}/test.parquet", f"{DATA}/train.parquet", "split is test here, train there"),
        ("llm finetune", "llm/base/base.json", "llm/runs/yarn/long/run.json", "must be a record of base, got another"),
        ("llm evaluate passkey", "encodings/yarn.json", "encodings/rope.json", "must be of the fine-tuning asked for"),
        ("llm evaluate passkey", "long", "short", "strategy is short here, long there"),
        ("leval answer", "encodings/yarn.json", "encodings/rope.json", "must be of the fine-tuning asked for"),
        ("leval score", "--encoding=yarn", "--encoding=rope", "got encoding yarn where --encoding is rope"),
        ("leval score", "--record=leval/run.json", f"--record={RUN}/run.json", "must be a record of answers"),
    ],
)  # fmt: skip
def test_a_file_of_another_run_is_refused(name: str, old: str, new: str, said: str, kept: Path, tmp_path: Path) -> None:
    line = instead(name, old, new)
    line[-1:] = line[-1:] if line[-1].startswith("--") else [str(tmp_path / "out")]
    assert said in refusal(line, kept)


@pytest.mark.parametrize("name", ["run.json", "snapshots.safetensors"])
def test_another_runs_file_beside_a_model_is_refused(name: str, runs: Path) -> None:
    shutil.copy(runs / "other/seed7" / name, runs / RUN / name)
    said = refusal(CHAIN["posgen evaluate"], runs)
    assert said.startswith(f"{RUN}/{name} must be of the run of {RUN}/model.safetensors, but seed is 42 here, 7 there")


def test_an_encoding_that_changed_since_its_training_is_refused(runs: Path) -> None:
    path = runs / "encodings/rope.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base": 500.0}))
    said = refusal(CHAIN["posgen evaluate"], runs)
    assert "must be what" in said and "spec.base is 10000.0 here, 500.0 there" in said


def test_an_evaluation_in_another_ones_place_is_not_collected(runs: Path) -> None:
    other = runs / RUN.replace("seed42", "seed7") / "eval/rope.parquet"
    other.parent.mkdir(parents=True)
    shutil.copy(runs / RUN / "eval/rope.parquet", other)
    config = Path(shutil.copytree(Path(CHAIN["collect"][-1].partition("=")[2]), runs / "config"))
    smoke = config / "smoke.yaml"
    smoke.write_text(smoke.read_text().replace("seeds: [42]", "seeds: [42, 7]", 1))
    line = [*CHAIN["collect"][:-2], "--seed=7", "--folder=config"]
    assert "must be of rope on cot under paper, seed 7, got" in refusal(line, runs)


def test_a_text_that_was_packed_for_another_tokenizer_is_refused(runs: Path) -> None:
    path = runs / "llm/base/base.json"
    values = json.loads(path.read_text())
    write_record(path, values.pop("kind"), {k: v for k, v in values.items() if k != "checksum"} | {"eos": 5})
    assert "must be packed for this model, whose eos is 5, got 257" in refusal(CHAIN["llm finetune"], runs)


# What a command may replace


@pytest.mark.parametrize(("name", "old"), [("leval answer", "leval/predictions"), ("leval score", "--output=")])
def test_nothing_that_is_not_a_commands_own_is_replaced(name: str, old: str, runs: Path) -> None:
    """A mistyped output: root's rename would take /dev/null's place as well."""
    mine = runs / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years")
    line = [f"{old}mine" if word.startswith(old) and old[0] == "-" else word for word in CHAIN[name]]
    line = ["mine" if word == old else word for word in line]
    assert refusal(line, runs).startswith("mine must be a ")
    assert (mine / "thesis.txt").read_text() == "years"
    with (
        pytest.raises(ValueError, match="must be a file to write, got a folder or a device"),
        replacing(Path(os.devnull)),
    ):
        raise AssertionError("nothing is written")


# A disk that takes no more, a kill


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_full_disk_is_one_line_that_names_the_file(name: str, kept: Path) -> None:
    assert full_disk(kept, name, [0]) == {"one line": 1}


def test_a_small_and_a_read_only_disk_are_one_line(kept: Path, tmp_path: Path) -> None:
    """The limit on files' sizes above is an error of its own; these are the system's."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root and the right to mount")
    try:
        line = [*CHAIN["posgen evaluate"][:-1], str(disk / "x.parquet")]
        (disk / "fill").write_bytes(bytes(14_000))
        assert refusal(line, kept) == f"No space left on device: {disk / 'x.parquet'}; nothing half-written is kept"
        assert [path.name for path in disk.iterdir()] == ["fill"]
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert refusal(line, kept) == f"Read-only file system: {disk / 'x.parquet'}; nothing half-written is kept"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_weights_without_their_record_are_not_measured(runs: Path) -> None:
    """What a fine-tuning leaves that was killed after its weights and before its record."""
    (runs / "llm/runs/yarn/long/run.json").unlink()
    assert refusal(CHAIN["llm evaluate passkey"], runs).endswith("run.json is missing; run the workflow to make it")


# Command lines


def test_no_line_ends_in_a_traceback(runs: Path) -> None:
    assert command_lines(runs, 25)["traceback"] == 0  # `benchmarks.torture --full` makes 1,000


def test_a_path_that_is_no_utf8_is_one_line(runs: Path) -> None:
    line = [*CHAIN["posgen evaluate"][:-1], "x\udcff.parquet"]
    assert refusal(line, runs).startswith("an argument must be UTF-8")
