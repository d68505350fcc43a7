"""Checkpoints on disk: always a whole one, a damaged one found out, a foreign one refused, the disk full."""

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from resonance.record import checkpoint
from resonance.record.checkpoint import OTHERS, Checkpoints

IDENTITY = {"seed": "0", "threads": "1"}


def tensors(step: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(step)
    return {
        "weights/a": torch.randn(3, 5, generator=draw),
        "optimizer/0/step": torch.tensor(float(step)),  # [], as AdamW's
        "order": torch.arange(step),
        "random/order": draw.get_state(),
        "empty": torch.empty(0),
    }


@pytest.fixture
def checkpoints(tmp_path: Path) -> Callable[..., Checkpoints]:
    def make(identity: dict[str, str] = IDENTITY, seconds: float = 0.0, share: float = 0.01) -> Checkpoints:
        return Checkpoints(tmp_path / "checkpoints", identity, seconds, share)

    return make


def save(made: Checkpoints, step: int) -> Path:
    made.save(step, tensors(step), {"step": step, "loss": [0.1, step / 3]})
    return made.kept[-1]


def loaded_step(made: Checkpoints) -> int:
    """The step of what is loaded, which must be just what was saved then."""
    found, state = made.load()
    step = state["step"]
    assert state == {"step": step, "loss": [0.1, step / 3]}
    assert found.keys() == tensors(step).keys()
    for name, tensor in tensors(step).items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)
    return step


def test_the_newest_is_loaded_and_the_last_two_stay(checkpoints, capsys) -> None:
    made = checkpoints()
    paths = [save(made, step) for step in (1, 9, 10, 200)]
    assert sorted((made.folder).iterdir()) == paths[-2:]
    assert loaded_step(checkpoints()) == 200
    assert capsys.readouterr().err == ""


def test_no_folder_and_an_empty_one_mean_start_anew(checkpoints, capsys) -> None:
    assert checkpoints().load() is None
    checkpoints().folder.mkdir()
    assert checkpoints().load() is None
    assert capsys.readouterr().err == ""


def test_loading_leaves_what_it_loaded_among_the_two_that_stay(checkpoints) -> None:
    save(checkpoints(), 1)
    again = checkpoints()
    again.load()
    save(again, 2)
    assert [p.name for p in sorted(again.folder.iterdir())] == [
        "step000000001.safetensors",
        "step000000002.safetensors",
    ]


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_truncated_one_is_said_and_the_one_before_is_used(size: int, checkpoints, capsys) -> None:
    made = checkpoints()
    _, path = save(made, 1), save(made, 2)
    content = path.read_bytes()
    path.write_bytes(content[:size])
    assert loaded_step(checkpoints()) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("checkpoint not used: step000000002.safetensors is damaged (")


@pytest.mark.parametrize("other", [{"seed": "0", "threads": "2"}, {"seed": "0"}, {**IDENTITY, "processor": "another"}])
def test_one_of_another_run_is_refused_with_the_reason(other: dict, checkpoints, capsys) -> None:
    content = save(checkpoints(other), 5).read_bytes()
    made = checkpoints()
    assert made.load() is None
    (aside,) = made.folder.with_name(OTHERS).iterdir()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"checkpoint not used, kept as {aside}: step000000005.safetensors is of another run: ")
    assert ("threads is 1 here, " in said) or ("processor is absent here, another there" in said)
    assert list(made.folder.iterdir()) == []
    save(made, 1)
    assert [p.name for p in made.folder.iterdir()] == ["step000000001.safetensors"]
    assert loaded_step(checkpoints()) == 1
    made.remove()
    assert aside.read_bytes() == content, "for good, until somebody removes it"


def test_ours_is_used_below_one_of_another_run_and_none_takes_anothers_place_aside(checkpoints, tmp_path) -> None:
    for threads in ("2", "3"):
        foreign = save(Checkpoints(tmp_path / "elsewhere", {"seed": "0", "threads": threads}, 0), 5)
        save(checkpoints(), 1)
        foreign.rename(checkpoints().folder / foreign.name)
        assert loaded_step(checkpoints()) == 1
    assert len(list((tmp_path / OTHERS).iterdir())) == 2


def test_one_is_due_after_its_seconds_and_never_for_more_than_its_share(checkpoints, monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    made = checkpoints(seconds=10, share=0.01)
    assert not made.due()
    now[0] += 10
    assert made.due()
    save(made, 1)
    assert not made.due()
    made.cost = 0.5  # so 50 seconds
    now[0] += 49.9
    assert not made.due()
    now[0] += 0.2
    assert made.due()


# Killed, and no space


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_inside(tensors: dict, path: Path, metadata: dict) -> None:
    save_file(tensors, path, metadata)
    os.truncate(path, 300)
    die()


@pytest.mark.parametrize(
    ("where", "what", "instead", "step"),
    [
        (checkpoint, "save_file", die, 2),
        (checkpoint, "save_file", die_inside, 2),
        (os, "fsync", die, 2),
        (Path, "unlink", die, 3),  # after the renaming
    ],
    ids=["before the file", "inside the file", "before the renaming", "after the renaming"],
)
def test_killed_inside_a_save_there_is_a_whole_one(
    where: object, what: str, instead: Callable, step: int, checkpoints, capsys
) -> None:
    made = checkpoints()
    save(made, 1), save(made, 2)
    child = os.fork()
    if child == 0:
        setattr(where, what, instead)
        save(made, 3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    made = checkpoints()
    assert loaded_step(made) == step
    assert capsys.readouterr().err == ""
    save(made, 4)
    assert [p.name for p in sorted(made.folder.iterdir())] == [
        f"step00000000{step}.safetensors", "step000000004.safetensors",
    ]  # fmt: skip


def test_a_limit_on_the_size_of_files_is_an_error_and_the_others_stay(checkpoints) -> None:
    made = checkpoints()
    save(made, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            save(made, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert error.value.filename.endswith("step000000002.safetensors")
    assert [p.name for p in made.folder.iterdir()] == ["step000000001.safetensors"]
    assert loaded_step(made) == 1
