"""Passkey retrieval: prompts that fit, keys that hide everywhere, answers read by L14's rule; its figure's numbers."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("accelerate")
from figures.passkey import cells_of, pairs_of, read
from llm_cases import spec, tiny
from resonance.llm import passkey
from resonance.llm.evaluations.passkey import FRAME_WORDS, PASSKEY, PasskeyRun
from resonance.llm.passkey import STEP, found_in, hide, prompt
from resonance.llm.text import Tokenizer
from resonance.record.rows import write_rows

ROOT = Path(__file__).resolve().parents[1]
BYTES = Tokenizer.of_bytes()
FRAME = len(prompt(50_000, 0.5, 0).encode()) + 1


def run(**changes: object) -> PasskeyRun:
    given = {"model": "m", "lengths": [400, 700], "repetitions": 3, "seed": 0, "device": "cpu", "precision": "fp32"}
    return PasskeyRun(**{**given, "attention": "auto", **changes})


@pytest.mark.parametrize("length", [FRAME, FRAME + STEP - 1, FRAME + STEP, 1000, 4096])
def test_a_prompt_is_the_longest_that_fits(length):
    for repetition in range(20):
        hidden = hide(BYTES, length, repetition, seed=0)
        assert len(hidden.ids) <= length < len(hidden.ids) + STEP
        assert hidden.ids[0] == BYTES.bos and BYTES.decode(hidden.ids) == hidden.text
        assert hidden.text.count(str(hidden.key)) >= 2


def test_a_tokenizer_of_uneven_tokens_fits_too():
    """Words and not bytes are tokens: growth by 128 characters is no fixed number of them."""
    words = Tokenizer(str.split, " ".join, None, None, 0)
    for length in range(60, 400, 7):
        hidden = hide(words, length, 0, seed=1)
        longer = prompt(hidden.key, hidden.depth, _filler(hidden) + STEP)
        assert len(hidden.ids) <= length < len(longer.split())


def _filler(hidden: passkey.Hidden) -> int:
    return len(hidden.text) - len(prompt(hidden.key, hidden.depth, 0))


def test_keys_and_places_are_spread_and_repeat_with_the_seed():
    drawn = [hide(BYTES, 1000, repetition, seed=0) for repetition in range(200)]
    again = [hide(BYTES, 1000, repetition, seed=0) for repetition in range(200)]
    assert drawn == again
    assert all(1 <= hidden.key <= 50_000 for hidden in drawn)
    assert len({hidden.key for hidden in drawn}) > 190
    depths = sorted(hidden.depth for hidden in drawn)
    assert all(abs(depth - place / 199) < 0.15 for place, depth in enumerate(depths))
    assert hide(BYTES, 1000, 0, seed=1).key != drawn[0].key


def test_the_key_stands_where_it_is_said_to():
    for depth in (0.0, 0.5, 1.0):
        text = prompt(12345, depth, 10_000)
        assert text.index("12345") / len(text) == pytest.approx(depth, abs=0.03)


def test_a_length_that_cannot_hold_the_frame_is_one_line():
    with pytest.raises(ValueError, match=rf"must hold the frame of \d+ tokens, got {FRAME - 10}"):
        hide(BYTES, FRAME - 10, 0, seed=0)
    assert len(prompt(1, 0.5, 0).split()) == FRAME_WORDS  # what a preset is held to


@pytest.mark.parametrize(
    ("answer", "found"),
    [(" 417.", True), ("417 and 9", True), ("It is 417", True), ("0417", True), ("9, 417", False), ("4170", False),
     ("", False), ("four", False), ("²", False)],
)  # fmt: skip
def test_the_first_number_counts(answer, found):
    assert found_in(answer, 417) is found


def measured(model, tokenizer, asked):
    return [row for ask in passkey.units(model, tokenizer, asked).values() for row in ask()]


def test_rows_say_what_was_asked_and_answered(monkeypatch):
    """The answers are put in its mouth: right ones at 400 tokens, others at 700."""

    def said(model, prompts, **options):
        (ids,) = prompts
        assert options["max_new_tokens"] == 10
        key = int(BYTES.decode(ids).split("The pass key is ")[1].split(".")[0])
        yield BYTES.encode(f" {key}." if len(ids) <= 400 else f" {key + 1}")

    monkeypatch.setattr(passkey, "answers", said)
    rows = measured(tiny(), BYTES, run())
    assert [(row["length"], row["repetition"]) for row in rows] == [(n, r) for n in (400, 700) for r in range(3)]
    assert [row["value"] for row in rows] == [1.0] * 3 + [0.0] * 3
    assert {row["metric"] for row in rows} == {"found"}


@pytest.mark.filterwarnings("ignore:dynamic_ntk is continuing from a cache past L")
@pytest.mark.parametrize("method", ["rope", "dynamic_ntk", "yarn"])
def test_a_real_model_answers_the_same_prompts_under_every_encoding(method):
    rows = measured(tiny(spec(method, True)), BYTES, run(lengths=[300], precision="bf16"))
    assert [row["key"] for row in rows] == [hide(BYTES, 300, n, seed=0).key for n in range(3)]


def write(folder: Path, encoding: str, found: list[int], strategy: str = "untuned", first_key: int = 1) -> Path:
    rows = [
        {
            "model": "m", "encoding": encoding, "strategy": strategy, "length": 100 * (1 + n // 4), "repetition": n % 4,
            "num_tokens": 90, "depth": 0.5, "key": first_key + n, "answer": "1", "metric": "found",
            "value": float(value),
        }
        for n, value in enumerate(found)
    ]  # fmt: skip
    made = {
        "model": "m", "encoding": encoding, "strategy": strategy, "num_parameters": 10,
        "settings": {"precision": "fp32"}, "spec": {"train_length": 100, "scale": 2.0},
    }  # fmt: skip
    path = folder / f"{encoding}_{strategy}.parquet"
    write_rows(path, PASSKEY, rows, made)
    return path


def test_shares_and_pairs_are_counted(tmp_path):
    files = [write(tmp_path, "yarn", [1, 1, 0, 0, 0, 0, 0, 0]), write(tmp_path, "resonance_yarn", [1] * 7 + [0])]
    rows, about = read(files)
    cells = cells_of(rows)
    assert cells.filter(encoding="yarn")["percent"].to_list() == [50.0, 0.0]
    assert cells.filter(encoding="resonance_yarn")["found"].to_list() == [4, 3]
    (pair,) = pairs_of(rows)
    assert (pair["prompts"], pair["only_resonance"], pair["only_plain"]) == (8, 5, 0)
    assert pair["p"] == pytest.approx(2 * 0.5**5)
    assert about["train_length"] == 100


def test_lines_of_other_prompts_are_refused(tmp_path):
    files = [write(tmp_path, "yarn", [1] * 4), write(tmp_path, "rope", [1] * 4, first_key=9)]
    with pytest.raises(ValueError, match="every line must have read the same text, but rope untuned did not"):
        read(files)
    with pytest.raises(ValueError, match="must be given once, got encoding yarn, strategy untuned"):
        read([files[0], files[0]])


def test_the_script_draws_and_says_that_it_is_a_stand_in(tmp_path):
    files = [write(tmp_path, name, [1, 0] * 4) for name in ("yarn", "resonance_yarn")]
    command = [sys.executable, "-m", "figures.passkey", f"--output={tmp_path / 'f'}", f"--table={tmp_path / 't'}"]
    command += ["--preset=smoke", "--title=M", "--stand-in", *(f"--passkey={path}" for path in files)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    assert all((tmp_path / f"f.{kind}").stat().st_size > 2000 for kind in ("pdf", "svg", "png"))
    text = (tmp_path / "t.md").read_text()
    assert "A STAND-IN for LLaMA2" in text and "50.00 [6.76, 93.24]" in text and "McNemar" in text
