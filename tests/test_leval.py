"""L-Eval's files, prompts and budgets; statistics from counts and by question; the command line."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import polars as pl
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from conftest import DATA, ROOT
from resonance.cli import main
from resonance.leval import counts as record
from resonance.leval import files as leval
from resonance.leval.rows import ANSWERS
from resonance.record import stats
from resonance.record.rows import read_rows, read_run
from resonance.record.settings import parse, read_yaml

CLOSED = DATA / "leval" / "closed"
# Documents and questions of the files that L-Eval published.
SIZES = {"coursera": (15, 172), "gsm100": (100, 100), "quality": (15, 202), "tpo": (15, 269), "sci_fi": (7, 64)}


@pytest.fixture(scope="module")
def texts() -> leval.Prompts:
    return parse(leval.Prompts, read_yaml(ROOT / "config/leval.yaml"), "leval.yaml")


def write_task(folder: Path, name: str = "tpo", **changes: object) -> Path:
    row = {"instructions": ["one?", "two?"], "outputs": ["A", "B"], "input": "a document", "evaluation": "exam"}
    path = folder / f"{name}.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(row | changes) + "\n", encoding="utf-8")
    return path


def write_predictions(path: Path, texts: list[str], golds: list[str], end: str = "\n") -> Path:
    lines = [
        json.dumps({"query": "?", "gt": gold, "m_pred": text}) for text, gold in zip(texts, golds, strict=True)
    ]  # fmt: skip
    path.write_text("\n".join(lines) + end, encoding="utf-8")
    return path


def cli(*arguments: object) -> SimpleNamespace:
    """`resonance leval ...` in this process, as the console script runs it."""
    out, errors = io.StringIO(), io.StringIO()
    line = ["resonance", "leval", *map(str, arguments)]
    with (
        patch.object(sys, "argv", line),
        redirect_stdout(out),
        redirect_stderr(errors),
        pytest.raises(SystemExit) as end,
    ):
        main()
    return SimpleNamespace(returncode=end.value.code, stdout=out.getvalue(), stderr=errors.getvalue())


# Tasks


@pytest.mark.parametrize("task", SIZES)
def test_published_tasks_have_their_documents_and_questions(task: str) -> None:
    path = CLOSED / f"{task}.jsonl"
    if not path.exists():
        pytest.skip(f"leval/closed/{path.name} is not in {DATA}; set RESONANCE_TEST_DATA to its folder")
    documents = leval.read_task(path)
    questions = [question for document in documents for question in document.questions]
    assert (len(documents), len(questions)) == SIZES[task]
    assert len(questions) == record.TASKS[task].num_questions
    assert [question.number for question in questions] == list(range(len(questions)))
    for question in questions:
        for parser in record.PARSERS:
            assert leval.scoring.score(parser, task, question.gold, question.gold, question.text).credit == 1


def test_a_missing_task_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    write_task(tmp_path, "tpo")
    write_task(tmp_path, "codeU")
    tasks = leval.read_tasks(tmp_path, ["codeu", "quality", "tpo"])
    assert list(tasks.found) == ["codeu", "tpo"]
    assert tasks.missing == ("quality",)
    assert [q.number for document in tasks.found["tpo"] for q in document.questions] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"outputs": ["A"]}, "tpo.jsonl:2: must have an output for every instruction, got 1 for 2"),
        ({"instructions": "one?"}, "tpo.jsonl:2: must have input"),
        ({"input": None}, "tpo.jsonl:2: must have input"),
        ({"outputs": [1, 2]}, "tpo.jsonl:2: must have input"),
    ],
)
def test_a_broken_task_is_refused(changes: dict, rule: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rule):
        leval.read_task(write_task(tmp_path, **changes))


def test_a_torn_task_an_empty_folder_and_a_wrong_name_are_refused(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="its last line is torn"):
        leval.read_task(path)
    with pytest.raises(ValueError, match=r"must hold at least one of quality\.jsonl"):
        leval.read_tasks(tmp_path, ["quality"])
    with pytest.raises(ValueError, match="task must be one of"):
        leval.read_tasks(tmp_path, ["toefl"])
    with pytest.raises(ValueError, match="got no such folder"):
        leval.read_tasks(tmp_path / "nowhere")
    (tmp_path / "sci_fi.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match="must hold at least one question"):
        leval.read_task(tmp_path / "sci_fi.jsonl")


# Prompts, budgets


@pytest.mark.parametrize(("context", "budget"), [(32768, 31488), (16384, 15488), (4096, 3488)])
def test_document_budget(context: int, budget: int) -> None:
    assert leval.document_budget(context) == budget


def test_no_room_for_a_document_is_refused() -> None:
    with pytest.raises(ValueError, match="context must leave room"):
        leval.document_budget(512)


def words(text: str) -> int:
    return len(text.split())


def test_truncation_keeps_the_head_and_codes_tail() -> None:
    document = " ".join(map(str, range(1000)))
    assert leval.truncated(document, 1000, words, "tpo") == document
    assert leval.truncated(document, 900, words, "tpo").split() == [str(i) for i in range(900)]
    assert leval.truncated(document, 900, words, "codeu").split() == [str(i) for i in range(100, 1000)]
    # Two tokens a word: 900 words are too many, 650 and 400 follow.
    assert words(leval.truncated(document, 900, lambda text: 2 * words(text), "tpo")) == 400
    with pytest.raises(ValueError, match="however short it is cut"):
        leval.truncated(document, 100, lambda text: 10 * words(text), "tpo")


@given(count=st.integers(0, 3000), budget=st.integers(300, 2000), rate=st.floats(1, 2))
def test_what_is_cut_fits_its_budget(count: int, budget: int, rate: float) -> None:
    document = " ".join(["w"] * count)
    kept = leval.truncated(document, budget, lambda text: int(rate * words(text)), "quality")
    assert int(rate * words(kept)) <= budget
    assert document.startswith(kept)


def test_prompts_of_llama2(texts: leval.Prompts) -> None:
    system = texts.system_texts
    (prompt,) = leval.prompts(texts, "llama2", "quality", "DOC", "Why?")
    assert prompt == (
        f"[INST]<<SYS>>\n{system['exam']}\n<</SYS>>\n\nDocument is as follows. DOC \nQuestion: Why?.  Please directly "
        "give the answer without any additional output or explanation [/INST]\nAnswer:"
    )
    (prompt,) = leval.prompts(texts, "llama2", "gsm100", "DOC", "Why?")
    assert prompt == f"[INST]<<SYS>>\n{system['gsm100']}\n<</SYS>>\n\nDOC\n\nWhy?"
    assert leval.prompts(texts, "llama2", "tpo", "D", "Q") == leval.prompts(texts, "llama2", "quality", "D", "Q")


def test_science_fiction_is_asked_twice(texts: leval.Prompts) -> None:
    question = "Man flies, True or False? Answer this question based on the world described in the document."
    story, facts = leval.prompts(texts, "llama2", "sci_fi", "DOC", question)
    assert "DOC" in story and "DOC" not in facts
    assert facts == (
        "Man flies, True or False? Answer this question based on the real-world knowledge and facts up until your last "
        "training Please directly answer without any additional output or explanation. \nAnswer:"
    )
    assert leval.answer_of("sci_fi", ["True</s>", " False "]) == "True [fact: False]"
    assert leval.answer_of("tpo", [" C</s>"]) == "C"


@pytest.mark.parametrize("family", ["llama2", "chatml", "plain"])
@pytest.mark.parametrize("task", record.TASKS)
def test_questions_of_a_document_share_the_prompt_through_it(family: str, task: str, texts: leval.Prompts) -> None:
    one, two = (leval.prompts(texts, family, task, "DOC", question)[0] for question in ("one?", "two?"))
    shared = one[: one.index("DOC") + 3]
    assert two.startswith(shared) and len(shared) > 50 * (family != "plain")
    assert one.replace("one?", "two?") == two


# Predictions


@pytest.mark.parametrize(
    ("name", "task"),
    [("gpt4-32k.codeU.pred.jsonl", "codeu"), ("x.sci_fi.jsonl", "sci_fi"), ("my_tpo_run.jsonl", "tpo")],
)
def test_the_task_stands_in_the_name(name: str, task: str, tmp_path: Path) -> None:
    gold = {"codeu": "1", "sci_fi": "True [fact: True]", "tpo": "A"}[task]
    found = leval.read_predictions(write_predictions(tmp_path / name, ["x"], [gold]))
    assert (found.task, found.model, found.torn) == (task, "m", False)


def test_a_torn_last_line_is_left_out_and_said(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "m.tpo.jsonl", ["A", "B", "C"], ["A", "B", "A"])
    whole = path.read_bytes()
    for cut in (1, 5, 20):
        path.write_bytes(whole[: len(whole) - 1 - cut])
        found = leval.read_predictions(path)
        assert found.torn and [row.text for row in found.rows] == ["A", "B"]
    path.write_bytes(whole[:-1])  # whole but for its newline
    found = leval.read_predictions(path)
    assert not found.torn and len(found.rows) == 3


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ('{"gt": "A", "m_pred": "A"}\nnonsense\n{"gt": "A", "m_pred": "A"}\n', "m.tpo.jsonl:2: not a line of JSON"),
        ('{"gt": "A", "m_pred": "A"}\nnonsense\n', "m.tpo.jsonl:2: not a line of JSON"),
        ('{"gt": "A", "m_pred": "A"}\n[1]\n', "m.tpo.jsonl:2: must be a JSON object, got list"),
        ('{"gt": "A", "m_pred": null}\n', "m.tpo.jsonl:1: must have gt and m_pred, both text"),
        ('{"gt": "A"}\n', "must have one key that ends in pred, got none"),
        ('{"gt": "A", "a_pred": "", "b_pred": ""}\n', "must have one key that ends in pred, got a_pred, b_pred"),
        ("", "must hold at least one whole line, got none"),
        ('{"gt": "A", "m_p', "must hold at least one whole line, got a torn one"),
        (
            '{"gt": "A", "m_pred": "A", "question": 1}\n' * 2,
            "m.tpo.jsonl:2: question must be a number that the task has",
        ),
        ('{"gt": "A", "m_pred": "A", "question": 269}\n', "once each, got 269"),
        ('{"gt": "A", "m_pred": "A", "question": "1"}\n', "once each, got '1'"),
        ('{"gt": "A", "m_pred": "A"}\n{"gt": "A", "m_pred": "A", "hash": "b"}\n', "got another hash"),
        ("[" * 100_000 + "\n", "m.tpo.jsonl:1: not a line of JSON"),
        ('{"gt": "A", "m_pred": "A"}\n' * 270, "tpo has 269 questions, got 270 lines"),
    ],
)
def test_bad_predictions_are_refused_in_one_line(content: str, rule: str, tmp_path: Path) -> None:
    path = tmp_path / "m.tpo.jsonl"
    path.write_text(content)
    done = cli("score", path)
    assert done.returncode == 2 and done.stdout == ""
    assert rule in done.stderr and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_numbered_predictions_come_in_the_questions_order(tmp_path: Path) -> None:
    path = tmp_path / "m.tpo.jsonl"
    rows = [{"question": number, "gt": "A", "prediction": text} for number, text in ((5, "B"), (0, "A"))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert [(row.number, row.text) for row in leval.read_predictions(path).rows] == [(0, "A"), (5, "B")]


def test_a_name_without_a_task_needs_the_option(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "mine.jsonl", ["A"], ["A"])
    with pytest.raises(ValueError, match="say which it is with --task"):
        leval.read_predictions(path)
    assert leval.read_predictions(path, "tpo").task == "tpo"
    with pytest.raises(ValueError, match="--task must be one of"):
        leval.read_predictions(path, "toefl")


# Counts


@given(st.data())
def test_every_count_survives_printing_and_decoding(data: st.DataObject) -> None:
    task = data.draw(st.sampled_from(list(record.TASKS)))
    units = record.TASKS[task].units
    count = data.draw(st.integers(0, units))
    assert record.decode(task, round(100 * count / units, 2)) == count


def test_what_no_count_gives_is_refused() -> None:
    for task, percent in (("gsm100", 32.5), ("codeu", 1.12), ("tpo", 101.0), ("tpo", -1.0)):
        with pytest.raises(ValueError, match=f"{task}: must be a whole count"):
            record.decode(task, percent)


@given(credit=st.integers(0, 40), rest=st.integers(1, 40))
def test_intervals_are_scipys_exact_ones(credit: int, rest: int) -> None:
    exact = scipy.stats.binomtest(credit, credit + rest).proportion_ci(method="exact")
    assert stats.share_interval(credit, credit + rest) == pytest.approx((exact.low, exact.high))


shares = st.fixed_dictionaries({task: st.integers(0, spec.units).map(lambda count, u=spec.units: count / u)
                                for task, spec in record.TASKS.items()})  # fmt: skip


@given(ours=shares, theirs=shares)
def test_comparisons_of_counts(ours: dict, theirs: dict) -> None:
    found, back = record.compare_counts(ours, theirs), record.compare_counts(theirs, ours)
    assert found.points == pytest.approx(-back.points, abs=1e-9)
    assert found.p == pytest.approx(back.p) and found.least_p == pytest.approx(back.least_p)
    assert found.least_p <= found.p + 1e-12
    assert found.low <= found.points <= found.high


def test_a_single_whole_task_is_the_textbooks_test() -> None:
    found = record.compare_counts({"gsm100": 0.27}, {"gsm100": 0.24})
    error = 100 * (0.27 * 0.73 / 100 + 0.24 * 0.76 / 100) ** 0.5
    assert found.p == pytest.approx(2 * scipy.stats.norm.sf(3 / error))
    # The best pairing: 3 questions gained, none lost.
    assert found.least_p == pytest.approx(2 * scipy.stats.norm.sf(3 / (100 * (0.03 * 0.97 / 100) ** 0.5)))


def test_no_pairing_beats_the_bound() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        counts = {"gsm100": draw.integers(0, 101, 2), "sci_fi": draw.integers(0, 129, 2)}
        sides = [{task: counts[task][side] / record.TASKS[task].units for task in counts} for side in (0, 1)]
        variance = 0.0
        for task, pair in counts.items():
            spec = record.TASKS[task]
            credits = []
            for count in pair:
                credit = np.zeros(spec.num_questions)
                for _ in range(count):
                    credit[draw.choice(np.flatnonzero(credit < 1))] += spec.step
                credits.append(np.sort(credit) if draw.random() < 0.5 else credit)
            variance += np.var(credits[0] - credits[1]) / spec.num_questions
        points = record.compare_counts(*sides)
        error = 100 * variance**0.5 / 2
        p = 2 * scipy.stats.norm.sf(abs(points.points) / error) if error else float(points.points == 0)
        assert points.least_p <= p + 1e-9


def test_different_tasks_are_never_compared() -> None:
    with pytest.raises(ValueError, match="both sides must have the same tasks"):
        record.compare_counts({"tpo": 0.5}, {"gsm100": 0.5})
    with pytest.raises(ValueError, match="the same tasks on both sides"):
        stats.paired_tasks({"tpo": np.ones(2)}, {})
    with pytest.raises(ValueError, match="the same questions on both sides, got 2 and 3 of tpo"):
        stats.paired_tasks({"tpo": np.ones(2)}, {"tpo": np.ones(3)})


# Paired


def test_paired_tasks_find_a_difference_that_is_there() -> None:
    draw = np.random.default_rng(3)
    theirs = {task: (draw.random(200) < 0.4).astype(float) for task in ("tpo", "quality")}
    ours = {task: np.maximum(credit, draw.random(200) < 0.1) for task, credit in theirs.items()}
    found = stats.paired_tasks(ours, theirs)
    assert found.difference == pytest.approx(np.mean([ours[t].mean() - theirs[t].mean() for t in ours]))
    assert 0 < found.low < found.difference < found.high and found.p < 0.001
    assert found.worse == 0 and found.mcnemar == pytest.approx(2 * 0.5**found.better)
    back = stats.paired_tasks(theirs, ours)
    assert (back.better, back.worse) == (found.worse, found.better) and back.p == pytest.approx(found.p, abs=1e-3)


def test_the_sign_flip_test_is_exact_for_few_questions() -> None:
    found = stats.paired_tasks({"tpo": np.array([1, 1, 1, 0, 1.0])}, {"tpo": np.array([0, 0, 0, 0, 1.0])})
    assert found.p == pytest.approx(2 / 2**3) and found.mcnemar == pytest.approx(2 / 2**3)


def test_equal_sides_differ_by_nothing() -> None:
    found = stats.paired_tasks({"tpo": np.ones(4)}, {"tpo": np.ones(4)})
    assert (found.difference, found.p, found.mcnemar, found.better) == (0, 1, 1, 0)
    assert np.isnan(found.low)
    alone = stats.paired_tasks({"tpo": np.ones(1)}, {"tpo": np.zeros(1)})
    assert (alone.difference, alone.p) == (1, 1) and np.isnan(alone.high)


def test_the_test_is_valid_where_nothing_differs() -> None:
    """Under the null the p-values are uniform, or larger: at most about 5 % of them lie below 0.05."""
    draw = np.random.default_rng(5)
    found = []
    for _ in range(60):
        sides = [{t: (draw.random(40) < 0.5).astype(float) for t in ("tpo", "quality")} for _ in range(2)]
        found.append(stats.paired_tasks(*sides).p)
    assert sum(p < 0.05 for p in found) <= 8  # 3 expected; 8 or fewer with probability 0.997


# The command line


def test_score_prints_and_writes_a_row_a_question_and_parser(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "m.tpo.jsonl", ["Answer: C", "B", "D"], ["C", "B", "A"])
    output = tmp_path / "rows.parquet"
    done = cli("score", path, "--output", output, "--encoding", "yarn", "--strategy", "long")
    assert done.returncode == 0, done.stderr
    assert "3/269" in done.stdout and "33.33" in done.stdout and "66.67" in done.stdout
    assert "1  tpo, a capital of a word in place of the answer" in done.stdout
    assert "not given: coursera, gsm100, quality, codeu, sci_fi" in done.stdout
    rows = read_rows(output, ANSWERS)
    assert rows.filter(parser="strict")["value"].to_list() == [1, 1, 0]
    assert rows.filter(parser="released")["answer"].to_list() == ["A", "B", "D"]
    assert set(rows.select("model", "encoding", "strategy").rows()) == {("m", "yarn", "long")}
    assert read_run(output)["files"] == [str(path)]


def test_score_does_not_write_over_what_it_scores(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "m.tpo.jsonl", ["A"], ["A"])
    before, done = path.read_bytes(), cli("score", path, "--output", tmp_path / "." / path.name)
    assert done.returncode == 2 and "--output must be another file than what is scored" in done.stderr
    assert path.read_bytes() == before


def test_score_says_how_many_lines_of_a_torn_file_are_used(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "m.tpo.jsonl", ["A", "B", "C"], ["A", "B", "C"], end="")
    path.write_bytes(path.read_bytes()[:-3])
    done = cli("score", path)
    assert done.returncode == 0 and "2/269" in done.stdout
    assert done.stderr == f"note: {path}: the last line is torn; the 2 whole lines before it are used\n"
    refused = cli("compare", path, path)
    assert refused.returncode == 2 and "mend the file first" in refused.stderr


def test_one_task_given_twice_is_refused(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "m.tpo.jsonl", ["A"], ["A"])
    done = cli("score", path, path)
    assert done.returncode == 2 and f"error: {path}: tpo of m stands in {path} too" in done.stderr


def test_compare_reads_either_kind_and_only_the_same_questions(tmp_path: Path) -> None:
    ours = write_predictions(tmp_path / "ours.tpo.jsonl", ["A"] * 10, ["A"] * 10)
    theirs = write_predictions(tmp_path / "theirs.tpo.jsonl", ["A"] * 3 + ["B"] * 7, ["A"] * 10)
    rows = tmp_path / "ours.parquet"
    assert cli("score", ours, "--output", rows).returncode == 0
    done = cli("compare", rows, theirs)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("+70.00 points") == 2
    assert "10 questions, 7 better, 0 worse, McNemar p 0.0156" in done.stdout
    other = write_predictions(tmp_path / "other.tpo.jsonl", ["A"] * 10, ["A"] * 9 + ["C"])
    assert "other golds for question 10 of tpo: 'A' and 'C'" in cli("compare", ours, other).stderr
    assert cli("compare", rows, rows, "--task", "TPO").stdout.count("10 questions") == 2
    assert f"{rows} must hold task tpoo, got tpo" in cli("compare", rows, rows, "--task", "tpoo").stderr
    fewer = write_predictions(tmp_path / "fewer.tpo.jsonl", ["A"] * 9, ["A"] * 9)
    assert "got 10 of tpo in" in cli("compare", ours, fewer).stderr


def test_two_published_files_compare(tmp_path: Path) -> None:
    files = [DATA / f"leval/predictions/{model}.gsm100.pred.jsonl" for model in ("gpt4-32k", "turbo-16k-0613")]
    if not all(path.exists() for path in files):
        pytest.skip(f"leval/predictions is not in {DATA}; set RESONANCE_TEST_DATA to its folder")
    done = cli("compare", *files)
    released, strict = done.stdout.splitlines()
    assert "+12.00 points" in released and "14 better, 2 worse, McNemar p 0.0042" in released
    assert "+13.00 points" in strict and "15 better, 2 worse, McNemar p 0.0023" in strict


def test_credits_stand_once_each() -> None:
    row = {"task": "tpo", "parser": "strict", "value": 1.0}
    whole = pl.DataFrame([{**row, "question": number} for number in (1, 0)])
    assert record.credits_of(whole, "strict")["tpo"].tolist() == [1, 1]
    part = pl.DataFrame([{**row, "question": number} for number in (7, 2)])
    assert record.credits_of(part, "strict")["tpo"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="questions of tpo must be there once each"):
        record.credits_of(pl.concat([whole, whole]), "strict")
    assert all(first <= second for first, second in pairwise(stats.share_interval(k, 9)[0] for k in range(10)))
