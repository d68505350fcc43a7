"""Questions gathered, answered, killed and answered on; every mistake of a preset's key `leval` one line."""

import json
import multiprocessing
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from conftest import DATA, ROOT
from llm_cases import spec, tiny
from resonance.leval import answering, questions
from resonance.leval.cost import answering as cost_of
from resonance.leval.files import Question, read_predictions
from resonance.leval.settings import AnswerRun, MadeQuestions, Prompts, TasksRun
from resonance.llm.settings import Text
from resonance.llm.text import Tokenizer
from resonance.record.settings import SettingsError, parse, read_yaml
from resonance.workflow.preset import load

NUM_QUESTIONS = 40


def write_task(folder: Path, name: str = "tpo", documents: int = 2, each: int = NUM_QUESTIONS // 2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"instructions": [f"{place}.{i}, or what?" for i in range(each)], "outputs": ["A"] * each,
         "input": f"{place} words " * 20}
        for place in range(documents)
    ]  # fmt: skip
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tasks_run(source: Path | str, *tasks: str, **changes: object) -> TasksRun:
    return TasksRun(**{"source": f"path:{source}", "tasks": list(tasks), "made": None, "text": None, **changes})


def answer_run(**changes: object) -> AnswerRun:
    texts = parse(Prompts, read_yaml(ROOT / "config/leval.yaml"), "leval.yaml")
    settings = {
        "model": "tiny", "family": "plain", "context": 1024, "documents": None, "max_new_tokens": 6, "batch_size": 4,
        "prefill": "exact", "prompts": texts.of("plain"), "device": "cpu", "precision": "fp32", "attention": "auto",
    }  # fmt: skip
    return AnswerRun(**{**settings, **changes})


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leval")
    write_task(folder / "source")
    questions.gather(tasks_run(folder / "source", "tpo", "codeu"), folder / "tasks")
    return folder / "tasks"


def loud(asked: object) -> torch.nn.Module:
    """A tiny model whose attention is strong enough that its answers differ from question to question."""
    model = tiny(asked)
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            if weight.ndim == 2:
                weight.mul_(30)
    return model


CODE = ["resonance.leval.answering 1f"]


def answer(tasks: Path, folder: Path, asked: object = None, code: list[str] = CODE, **changes: object) -> dict:
    asked = asked or spec()
    return answering.answer(
        answer_run(**changes), {"encoding": asked.to_dict()}, code, lambda: loud(asked), Tokenizer.of_bytes(), tasks,
        folder / "predictions", folder / "journal",
    )  # fmt: skip


def said(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions/tpo.jsonl").read_text("utf-8").splitlines()]


# Gathering


def test_missing_tasks_are_named_and_files_are_found_by_name_in_any_case(tmp_path: Path) -> None:
    write_task(tmp_path / "source/Exam", "codeU")
    found = questions.gather(tasks_run(tmp_path / "source", "tpo", "codeu"), tmp_path / "tasks")
    assert found["missing"] == ["tpo"]
    assert found["tasks"]["codeu"]["questions"] == NUM_QUESTIONS
    listed, tasks = questions.read(tmp_path / "tasks")
    assert listed == found and list(tasks.found) == ["codeu"] and tasks.missing == ("tpo",)
    assert tasks.found["codeu"][1].questions[0] == Question(NUM_QUESTIONS // 2, "1.0, or what?", "A")


def test_gathering_anew_leaves_nothing_of_before(tmp_path: Path) -> None:
    write_task(tmp_path / "source", "codeU")
    write_task(tmp_path / "source", "tpo")
    questions.gather(tasks_run(tmp_path / "source", "tpo", "codeu"), tmp_path / "tasks")
    questions.gather(tasks_run(tmp_path / "source", "tpo"), tmp_path / "tasks")
    assert sorted(path.name for path in (tmp_path / "tasks").iterdir()) == ["tasks.json", "tpo.jsonl"]


def test_sources_without_use_are_one_line(tmp_path: Path) -> None:
    write_task(tmp_path / "source/a")
    write_task(tmp_path / "source/b")
    with pytest.raises(ValueError, match=r"must hold one file of tpo, got a/tpo.jsonl and b/tpo.jsonl"):
        questions.gather(tasks_run(tmp_path / "source", "tpo"), tmp_path / "tasks")
    with pytest.raises(ValueError, match=r"must hold at least one of quality\.jsonl"):
        questions.gather(tasks_run(tmp_path / "source", "quality"), tmp_path / "tasks")
    with pytest.raises(ValueError, match="no such folder; name one with L-Eval's files"):
        questions.gather(tasks_run(tmp_path / "nowhere", "tpo"), tmp_path / "tasks")
    write_task(tmp_path / "many", each=200)
    with pytest.raises(ValueError, match="tpo must have 269 questions at most, got 400"):
        questions.gather(tasks_run(tmp_path / "many", "tpo"), tmp_path / "tasks")


def test_a_hub_out_of_reach_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def refuse(*_: object, **asked: object) -> str:
        assert asked["revision"] == "abc" and asked["repo_type"] == "dataset"
        raise OSError("We couldn't connect\nto the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    run = TasksRun(source="hf:L4NLP/LEval@abc", tasks=["tpo"], made=None, text=None)
    with pytest.raises(ValueError, match=r"could not be fetched from the hub \(We couldn't connect to the hub\)"):
        questions.gather(run, tmp_path / "tasks")


def test_a_changed_file_of_questions_is_refused(tmp_path: Path) -> None:
    write_task(tmp_path / "source")
    questions.gather(tasks_run(tmp_path / "source", "tpo"), tmp_path / "tasks")
    write_task(tmp_path / "tasks", each=1)
    with pytest.raises(ValueError, match=r"must be the file that tasks\.json names"):
        questions.read(tmp_path / "tasks")


def test_questions_are_made_from_a_text_of_the_preset(tmp_path: Path) -> None:
    text = Text(source=f"path:{ROOT / 'workflow/resources'}", include=["timon_of_athens.txt"], held_out=-1)
    made = MadeQuestions(text="scene", documents=1, words=300, questions=4, seed=0)
    run = TasksRun(source="made", tasks=["line_end", "line_end_blind"], made=made, text=text)
    found = questions.gather(run, tmp_path)
    assert {name: own["questions"] for name, own in found["tasks"].items()} == {"line_end": 4, "line_end_blind": 4}


# Answering


def test_every_question_is_answered_once_and_the_record_says_how(tasks: Path, tmp_path: Path) -> None:
    record = answer(tasks, tmp_path)
    rows = said(tmp_path)
    assert [row["question"] for row in rows] == list(range(NUM_QUESTIONS))
    assert len({row["prediction"] for row in rows}) > 2
    assert record["missing"] == ["codeu"] and record["answers_found"] == 0
    assert record["tasks"]["tpo"] == {
        "questions": NUM_QUESTIONS, "documents": 2, "cut": 0, "tokens": {"least": 160, "mean": 160, "most": 160}
    }  # fmt: skip
    assert len(read_predictions(tmp_path / "predictions/tpo.jsonl").rows) == NUM_QUESTIONS


def test_a_finished_journal_is_not_answered_again_and_another_run_begins_its_own(tasks: Path, tmp_path: Path) -> None:
    first = answer(tasks, tmp_path)
    shutil.rmtree(tmp_path / "predictions")
    again = answer(tasks, tmp_path)
    assert again["answers_found"] == NUM_QUESTIONS and again["digest"] == first["digest"]
    other = [
        answer(tasks, tmp_path, spec("rope")),
        answer(tasks, tmp_path, max_new_tokens=5),
        answer(tasks, tmp_path, code=["resonance.leval.answering 2e"]),
    ]
    assert len({first["digest"], *(record["digest"] for record in other)}) == 4
    assert all(record["answers_found"] == 0 for record in other)
    again = answer(tasks, tmp_path)
    assert again["answers_found"] == NUM_QUESTIONS, "the others' journals lie beside its own"


def test_only_the_first_documents_are_asked_about(tasks: Path, tmp_path: Path) -> None:
    record = answer(tasks, tmp_path, documents=1)
    assert record["tasks"]["tpo"]["questions"] == len(said(tmp_path)) == NUM_QUESTIONS // 2


def run_child(tasks: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    answer(tasks, folder)


def test_twenty_kills_of_a_model_that_answers_lose_and_double_nothing(tasks: Path, tmp_path: Path) -> None:
    answer(tasks, tmp_path / "whole")
    forked, draw, kills, stopped_at = multiprocessing.get_context("fork"), random.Random(0), 0, set()
    folder = tmp_path / "killed"

    def lines() -> int:
        return sum(path.read_bytes().count(b"\n") for path in (folder / "journal").glob("*/tpo.jsonl"))

    while kills < 20:
        child, aim = forked.Process(target=run_child, args=(tasks, folder)), lines() + draw.randrange(0, 4)
        child.start()
        while child.is_alive() and lines() < aim:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.02))  # anywhere within an answer, or a batch of them
        child.kill()
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        stopped_at.add(lines())
        if lines() == NUM_QUESTIONS:
            shutil.rmtree(folder)  # all answered before every kill has fallen: begin again
    answer(tasks, folder)
    assert said(folder) == said(tmp_path / "whole")
    assert len(stopped_at - {0, NUM_QUESTIONS}) > 2


def test_a_family_that_is_not_the_models_is_named(tasks: Path, tmp_path: Path) -> None:
    texts = parse(Prompts, read_yaml(ROOT / "config/leval.yaml"), "leval.yaml")
    with pytest.raises(ValueError, match=r"got chatml, whose <\|im_end\|> its tokenizer lacks"):
        answer(tasks, tmp_path, family="chatml", prompts=texts.of("chatml"))


# The preset's key


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("source: made", "source: mode", "source must be path:FOLDER, hf:OWNER/NAME@COMMIT or made"),
        ("source: made", "source: hf:L4NLP/LEval", "source must be path:FOLDER, hf:OWNER/NAME@COMMIT or made"),
        ("source: made", "source: path:x", "made must be given for source made and for no other"),
        (
            "tasks: [line_end, ",
            "tasks: [tpo, ",
            "tasks: 'tpo' is not in source made, which names line_end, line_end_blind",
        ),
        ("tasks: [line_end, ", "tasks: [line_end, line_end, ", "tasks must name each entry once"),
        ("questions: 4", "questions: 5", "questions must be a multiple of 4, got 5"),
        ("made: {text: scene", "made: {text: opera", "leval.made.text: 'opera' is not in llm.texts"),
        (
            "    tiny:\n      family",
            "    tony:\n      family",
            "leval.models: 'tony' is not in llm.models, which names tiny; did you mean tiny?",
        ),
        (
            "family: plain",
            "family: plane",
            "leval.models.tiny.family: 'plane' is not in leval.yaml, which names llama2",
        ),
        (
            "{untuned: [rope, dynamic_ntk], long",
            "{tuned: [rope], long",
            "'tuned' is not in the strategies of tiny, which names untuned, long; did you mean untuned?",
        ),
        (
            "long: [yarn, resonance_yarn]}",
            "long: [rope]}",
            "'rope' is not in llm.finetuning.encodings, which names yarn",
        ),
        ("{untuned: [rope, dyn", "{untuned: [roep, dyn", "'roep' is not in encodings.yaml, which names"),
        ("{untuned: [rope, dynamic_ntk]", "{untuned: []", "must name at least one encoding, each once"),
        ("prefill: exact", "prefill: share", "leval.prefill"),
    ],
)
def test_a_bad_preset_is_one_line(config_folder: Path, old: str, new: str, said: str) -> None:
    path = config_folder / "smoke.yaml"
    before, _, leval = path.read_text().partition("\nleval:")
    assert old in leval, f"smoke.yaml no longer holds {old!r}: mend the test"
    path.write_text(f"{before}\nleval:{leval.replace(old, new, 1)}")
    with pytest.raises(SettingsError) as raised:
        load(config_folder, "smoke")
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_questions_of_ours_are_never_asked_of_the_papers_models(config_folder: Path) -> None:
    path = config_folder / "paper.yaml"
    text = path.read_text().replace("source: hf:L4NLP/LEval@43b9dbf06c239360b183c76cb5d90ebe4f5e3070", "source: made")
    text = text.replace("tasks: [coursera, gsm100, quality, tpo, codeu, sci_fi]", "tasks: [line_end]")
    made = "  made: {text: pg19, documents: 1, words: 100, questions: 4, seed: 0}\n  tasks: [line_end]"
    path.write_text(text.replace("  tasks: [line_end]", made))
    with pytest.raises(SettingsError, match="are a stand-in for L-Eval's"):
        load(config_folder, "paper")


def test_the_paper_preset_asks_for_the_rows_of_table_2() -> None:
    from figures.leval import read_published

    leval = load(ROOT / "config", "paper").leval
    rows = read_published(ROOT / "config/published.yaml").rows
    assert {row.name for row in rows} == set(leval.sets())
    assert {(row.model, row.context) for row in rows} == {
        (name, asked.context) for name, asked in leval.settings.models.items()
    }


@pytest.mark.parametrize("name", ["tpo", "quality"])
def test_l_evals_own_files_are_gathered(name: str, tmp_path: Path) -> None:
    if not (DATA / "leval/closed" / f"{name}.jsonl").exists():
        pytest.skip(f"leval/closed/{name}.jsonl is not in {DATA}; set RESONANCE_TEST_DATA to its folder")
    found = questions.gather(tasks_run(DATA / "leval/closed", name, "codeu"), tmp_path)
    assert found["missing"] == ["codeu"] and found["tasks"][name]["documents"] == 15


def test_the_plan_counts_a_document_once_and_dynamic_ntk_a_document_a_question() -> None:
    paper, laptop = (load(ROOT / "config", name).leval for name in ("paper", "laptop"))
    costs = {(model, encoding, strategy): cost_of(paper, model, encoding) for model, encoding, strategy in paper.sets()}
    shared, alone = costs["llama2_7b", "ntk", "untuned"], costs["llama2_7b", "dynamic_ntk", "untuned"]
    assert len(costs) == 12 and shared.questions == 807 and shared.uncounted == ("codeu",)
    assert shared.read == 15 * 8975 + 5451 + 15 * 7054 + 15 * 3802 + 7 * 16317 + 807 * 120
    assert alone.read == 172 * 8975 + 100 * 5451 + 202 * 7054 + 269 * 3802 + 64 * 16317 + 807 * 120
    assert shared.said == 807 * 512 and shared.flop > 2 * 6_738_415_616 * (shared.read + shared.said)
    costs = [cost_of(laptop, model, encoding) for model, encoding, _ in laptop.sets()]
    assert all(cost.flop > 0 and cost.questions == 96 for cost in costs) and len(costs) == 5
