"""What stands on disk: result files, weights, whole or not at all; and the statistics over seeds."""

import json
import os
import pickle
import re
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.stats
import torch

from resonance.encoding.spec import EncodingSpec
from resonance.leval.rows import ANSWERS
from resonance.posgen.rows import EVALUATION, TRAINING
from resonance.record import rows as record
from resonance.record.checkpoint import load_weights, save_weights
from resonance.record.encoding import read_encoding
from resonance.record.files import read_json, replacing, write_json, write_text
from resonance.record.provenance import provenance
from resonance.record.rows import Kind, kind_of, read_rows, read_run, read_sequences, write_rows, write_sequences
from resonance.record.stats import correlation, estimate, p_value, paired_difference

KINDS = {"posgen training": TRAINING, "evaluation": EVALUATION, "leval": ANSWERS}

ROWS = {
    "posgen training": [{"step": s, "epoch": s / 4, "metric": "train_loss", "value": 2.5 / s} for s in (1, 2, 3)],
    "evaluation": [
        {"protocol": "paper", "task": "cot", "train_encoding": "rope", "encoding": "yarn", "seed": 42, "split": "test",
         "step": 8, "epoch": 2.0, "position": position, "metric": "accuracy", "value": 0.1}
        for position in (None, 4, 5)
    ],
    "leval": [
        {"model": "tiny", "encoding": None, "strategy": None, "task": "tpo", "question": 0, "parser": "released",
         "gold": "C", "answer": answer, "misread": misread, "metric": "credit", "value": value}
        for answer, misread, value in (("C", None, 1.0), ("B", "the first of several letters", 0.0))
    ],
}  # fmt: skip


def refusal(call: Callable[[], object]) -> str:
    """The one line of the ValueError that a call raises."""
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value).isprintable(), f"more than one plain line: {error.value!s}"
    return str(error.value)


# Result files


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_their_run_survive_a_round_trip(kind: str, tmp_path: Path) -> None:
    path, run = tmp_path / "deep/er/x.parquet", {"seed": 42, "settings": {"lr": 2e-3}, "commit": None}
    write_rows(path, KINDS[kind], iter(ROWS[kind]), run)
    frame = read_rows(path, KINDS[kind])
    assert frame.rows(named=True) == ROWS[kind]
    assert dict(frame.schema) == KINDS[kind].columns
    assert read_run(path) == run and kind_of(path) == KINDS[kind].name
    assert list(path.parent.iterdir()) == [path]


def test_several_files_are_read_as_one(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.parquet" for i in range(3)]
    for i, path in enumerate(paths):
        write_rows(path, TRAINING, [ROWS["posgen training"][i]], {})
    assert read_rows(paths, TRAINING).rows(named=True) == ROWS["posgen training"]


@pytest.mark.parametrize(
    "x",
    [
        np.array([[0, 255], [1, 2]]),
        np.array([[0, 256, 3]]),
        np.array([[70_000], [0]]),
        np.array([[2**40, 1]]),
        np.zeros((0, 4), dtype=np.int64),
        np.arange(12).reshape(3, 4).T,
    ],
    ids=["uint8", "uint16", "uint32", "uint64", "empty", "transposed"],
)
def test_sequences_survive_a_round_trip(x: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_sequences(path, x, {"split": "test"})
    found = read_sequences(path)
    assert found.dtype == np.int64 and found.shape == x.shape and (found == x).all()
    assert read_run(path) == {"split": "test"}


def test_negative_tokens_are_refused_not_wrapped(tmp_path: Path) -> None:
    refusal(lambda: write_sequences(tmp_path / "x.parquet", np.array([[1, -1]]), {}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), None])
def test_a_value_that_is_not_finite_is_refused_and_nothing_is_written(value: float | None, tmp_path: Path) -> None:
    rows = [*ROWS["posgen training"], ROWS["posgen training"][0] | {"value": value}]
    message = refusal(lambda: write_rows(tmp_path / "x.parquet", TRAINING, rows, {}))
    assert "not a finite number" in message and "x.parquet" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (ROWS["posgen training"][0] | {"colour": "red"}, "colour"),
        ({name: value for name, value in ROWS["posgen training"][0].items() if name != "step"}, "step"),
    ],
    ids=["column too many", "column missing"],
)
def test_rows_that_do_not_fit_the_schema_are_refused(row: dict, named: str, tmp_path: Path) -> None:
    """Neither lost nor filled in silently."""
    message = refusal(lambda: write_rows(tmp_path / "x.parquet", TRAINING, [row], {}))
    assert re.search(named, message)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_rows(path, TRAINING, ROWS["posgen training"], {})
    message = refusal(lambda: read_rows(path, EVALUATION))
    assert message.startswith(f"{path} must hold evaluation of schema version 1, got 'training' of '1'; delete it")
    assert "must hold sequences" in refusal(lambda: read_sequences(path))


def test_a_file_of_another_schema_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(record, "SCHEMA_VERSION", "0")
        write_rows(path, TRAINING, ROWS["posgen training"], {})
    assert "got 'training' of '0'" in refusal(lambda: read_rows(path, TRAINING))


def test_parquet_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pl.DataFrame({"step": [1]}).write_parquet(path)
    for call in (lambda: read_rows(path, TRAINING), lambda: read_run(path), lambda: kind_of(path)):
        assert refusal(call).startswith(f"{path} must hold a checksum, got none")


@pytest.mark.parametrize(("kind", "metric"), [("posgen training", "ood_accuracy"), ("evaluation", "credit")])
def test_a_metric_of_another_kind_is_refused(kind: str, metric: str, tmp_path: Path) -> None:
    """A kind knows its own metrics alone."""
    row = ROWS[kind][0] | {"metric": metric}
    message = refusal(lambda: write_rows(tmp_path / "x", KINDS[kind], [row], {}))
    assert message == f"metric must be one of {', '.join(KINDS[kind].metrics)}, got {metric}"
    assert list(tmp_path.iterdir()) == []


def test_a_kind_without_metrics_takes_what_values_it_has(tmp_path: Path) -> None:
    mine = Kind("mine", {"n": pl.Int64, "value": pl.Float64})
    write_rows(tmp_path / "x", mine, [{"n": 1, "value": None}], {})
    assert read_rows(tmp_path / "x", mine).rows() == [(1, None)]


# Files, whole or not at all


def test_replacing_puts_the_new_file_in_place_with_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a" / "x.json"
    write_json(path, {"b": 1, "a": [1.5, None]})
    write_json(path, {"b": 2})
    assert read_json(path) == {"b": 2}
    assert [p.name for p in path.parent.iterdir()] == ["x.json"]
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_json_is_canonical_and_ends_in_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "x", {"b": 1, "a": 2})
    write_json(tmp_path / "y", {"a": 2, "b": 1})
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()
    assert (tmp_path / "x").read_text().endswith("}\n")


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt(), ValueError("bad")], ids=repr)
def test_a_failure_leaves_the_old_file_untouched_and_nothing_behind(failure: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    write_text(path, "old")
    with pytest.raises(type(failure)), replacing(path) as temporary:
        temporary.write_text("half of the new")
        assert temporary.parent == path.parent and temporary.suffix == path.suffix
        assert path.read_text() == "old"
        raise failure
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_way_is_refused_and_left(tmp_path: Path) -> None:
    in_the_way = tmp_path / "x.txt" / "inside"
    in_the_way.mkdir(parents=True)
    with pytest.raises(ValueError, match="must be a file to write, got a folder or a device"):
        write_text(tmp_path / "x.txt", "new")
    assert list(tmp_path.iterdir()) == [tmp_path / "x.txt"] and in_the_way.exists()


# Weights


def test_weights_survive_a_round_trip_bit_for_bit(tmp_path: Path) -> None:
    draws = torch.Generator().manual_seed(0)
    tensors = {
        "a": torch.randn(3, 4, generator=draws).requires_grad_(),
        "b": torch.randn(6, 4, generator=draws).T,
        "c": torch.tensor(float("nan")),
        "d": torch.randn(5, generator=draws).bfloat16(),
    }
    save_weights(tmp_path / "x.safetensors", tensors, {"seed": "42"})
    found, header = load_weights(tmp_path / "x.safetensors")
    assert header == {"seed": "42"} and found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and not found[name].requires_grad
        assert torch.equal(found[name].isnan(), tensor.isnan())
        assert torch.equal(found[name].nan_to_num(), tensor.detach().nan_to_num())


class Mischief:
    """Runs on unpickling."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "save", [lambda x, path: path.write_bytes(pickle.dumps(x)), torch.save], ids=["pickle", "torch"]
)
def test_a_pickle_is_refused_and_never_run(save: Callable, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save({"a": Mischief(tmp_path / "ran")}, path)
    assert "must hold a checksum" in refusal(lambda: load_weights(path))
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(Mischief(tmp_path / "ran")))
    assert (tmp_path / "ran").exists(), "the mischief works where a pickle is loaded"


def test_equal_weights_are_equal_bytes(tmp_path: Path) -> None:
    """safetensors itself writes several keys of metadata in any order."""
    names = [f"{i}.safetensors" for i in range(20)]
    for name in names:
        save_weights(tmp_path / name, {"a": torch.ones(3)}, dict.fromkeys("abcdefgh", "x"))
    assert len({(tmp_path / name).read_bytes() for name in names}) == 1


# Encodings and provenance


@pytest.mark.parametrize("text", ["", "[]", "3", '{"method": "nope"}', '{"base": 1}', "\x00"])
def test_a_bad_encoding_file_is_one_line_with_its_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "yarn.json"
    path.write_text(text)
    assert refusal(lambda: read_encoding(path)).startswith(f"{path}: ")


def test_an_encoding_file_holds_the_spec(tmp_path: Path) -> None:
    spec = EncodingSpec(method="yarn", scale=4.0, train_length=64, resonance=True)
    write_text(tmp_path / "x.json", spec.to_json())
    assert read_encoding(tmp_path / "x.json") == spec


def test_provenance_is_json_and_names_no_person_or_machine() -> None:
    made = provenance()
    text = json.dumps(made)
    assert {"commit", "python", "platform", "versions", "started", "cpus"} <= set(made)
    assert {"torch", "numpy"} <= set(made["versions"])
    assert os.uname().nodename not in text and str(Path.home()) not in text


# Statistics


@pytest.mark.parametrize("n", [3, 30])
def test_interval_equals_scipys(n: int) -> None:
    values = np.random.default_rng(n).normal(0.6, 0.05, n)
    found = estimate(values)
    expected = scipy.stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.variance == pytest.approx(np.var(values, ddof=1))


def test_one_run_has_no_spread_and_two_have_no_interval() -> None:
    one, two = estimate([0.25]), estimate([0.25, 0.75])
    assert (one.mean, one.n) == (0.25, 1) and np.isnan([one.sd, one.low, one.high, one.variance]).all()
    assert (two.mean, two.variance, two.n) == (0.5, pytest.approx(0.125), 2) and np.isnan([two.low, two.high]).all()


def test_a_correlations_interval_is_scipys_and_wider_for_means_taken_off() -> None:
    ours, theirs = np.random.default_rng(0).normal(size=(2, 30)) + np.arange(30) / 10
    found = scipy.stats.pearsonr(ours, theirs)
    assert correlation(ours, theirs) == pytest.approx((found.statistic, *found.confidence_interval(0.95)))
    assert correlation(ours, theirs, lost=9)[1:] == pytest.approx(
        np.tanh(np.arctanh(found.statistic) + np.array([-1, 1]) * 1.959964 / 18**0.5)
    )
    assert correlation([1, 2, 3, 4], [1, 2, 3, 4]) == pytest.approx((1, 1, 1))
    assert "at least 4 pairs, got 3" in refusal(lambda: correlation(ours[:5], theirs[:5], lost=2))


def test_a_difference_without_spread_is_certain_unless_it_is_zero() -> None:
    assert p_value(estimate([0.5, 0.5, 0.5])) == 0.0 and np.isnan(p_value(estimate([0.0, 0.0, 0.0])))
    assert np.isnan(p_value(estimate([0.5])))


def test_paired_difference_equals_scipys_paired_test_over_common_seeds() -> None:
    ours, theirs = {1: 0.9, 2: 0.7, 3: 0.8, 9: 0.0}, {3: 0.5, 2: 0.6, 1: 0.7, 8: 1.0}
    found = paired_difference(ours, theirs)
    expected = scipy.stats.ttest_rel([0.9, 0.7, 0.8], [0.7, 0.6, 0.5]).confidence_interval(0.95)
    assert found.n == 3 and found.mean == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert paired_difference(theirs, ours).mean == pytest.approx(-0.2)


def test_no_common_seed_is_refused() -> None:
    assert "seed in common" in refusal(lambda: paired_difference({1: 0.5}, {2: 0.5}))
