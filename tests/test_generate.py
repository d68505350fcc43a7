"""Shared prefill gives the unshared answers."""

import contextlib
import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, MistralConfig, MistralForCausalLM

from conftest import ROOT
from llm_cases import TINY, L, spec, tiny
from resonance.encoding.spec import EncodingSpec
from resonance.leval import answering
from resonance.leval.answering import UNIT, Asking, answer_task
from resonance.leval.files import Document, Question, read_predictions, score_rows
from resonance.leval.settings import Prompts
from resonance.llm import tails
from resonance.llm.generate import answers, common_beginning
from resonance.llm.text import Tokenizer
from resonance.record.journal import Journal
from resonance.record.settings import parse, read_yaml

FACTORS = {"short_factor": [1.0, 1.2, 1.5, 2.0], "long_factor": [1.0, 3.0, 5.0, 9.0]}
LONGROPE = EncodingSpec(method="longrope", train_length=L, scale=4.0, parameters=FACTORS)


def prompts_of(count: int, beginning: int, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    document = [draw.randrange(250) for _ in range(beginning)]
    return [document + [draw.randrange(250) for _ in range(draw.randrange(1, 9))] for _ in range(count)]


def greedy(model: torch.nn.Module, prompt: list[int], count: int, eos: int | None = None) -> list[int]:
    """The plainest way: the whole sequence anew for every token, no cache."""
    tokens, said = list(prompt), []
    for _ in range(count):
        with torch.inference_mode():
            chosen = int(model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax())
        if chosen == eos:
            break
        tokens.append(chosen)
        said.append(chosen)
    return said


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("beginning", [0, 1, 20, 3 * L])
def test_shared_prefill_gives_the_answers_of_the_unshared_path(beginning: int, batch_size: int) -> None:
    model, prompts = tiny(), prompts_of(7, beginning)
    asked = {"max_new_tokens": 12, "ends": ()}
    unshared = list(answers(model, prompts, **asked, share=False))
    assert unshared == [greedy(model, prompt, 12) for prompt in prompts]
    assert len({tuple(said) for said in unshared}) > 1
    assert list(answers(model, prompts, **asked, batch_size=batch_size)) == unshared


@pytest.mark.parametrize("method", ["rope", "linear", "ntk", "yarn"])
@pytest.mark.parametrize("resonance", [False, True])
def test_every_encoding_answers_alike_from_a_shared_beginning(method: str, resonance: bool) -> None:
    model, prompts = tiny(spec(method, resonance)), prompts_of(4, 2 * L, seed=3)
    shared = list(answers(model, prompts, max_new_tokens=6, ends=(), batch_size=4))
    assert shared == [greedy(model, prompt, 6) for prompt in prompts]


@pytest.mark.parametrize("asked", [spec("dynamic_ntk", False), LONGROPE], ids=lambda asked: asked.method)
@pytest.mark.parametrize("length", [L // 2, L - 2, 2 * L])
def test_a_beginning_of_another_table_is_not_shared(asked: EncodingSpec, length: int) -> None:
    model, prompts = tiny(asked), prompts_of(3, length, seed=5)
    said = list(answers(model, prompts, max_new_tokens=1, ends=(), batch_size=3))
    assert said == [greedy(model, prompt, 1) for prompt in prompts]


SMALL = {
    "vocab_size": 256, "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 4 * L,
}  # fmt: skip
FAMILIES = {
    "grouped heads": lambda: MistralForCausalLM(MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=None)),
    "an attention of its own name": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SMALL)),
    "a sliding window": lambda: MistralForCausalLM(MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=12)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_answers_alike_from_a_shared_beginning(family: str) -> None:
    torch.manual_seed(0)
    model, prompts = FAMILIES[family]().eval(), prompts_of(5, 2 * L, seed=4)
    own = model.config._attn_implementation
    assert list(answers(model, prompts, max_new_tokens=8, ends=(), batch_size=3)) == [
        greedy(model, prompt, 8) for prompt in prompts
    ]
    assert model.config._attn_implementation == own


def test_many_scores_are_made_a_few_sequences_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = tiny(), prompts_of(5, 2 * L)
    whole = list(answers(model, prompts, max_new_tokens=8, ends=(), batch_size=5))
    monkeypatch.setattr(tails, "SCORES", 1)
    assert list(answers(model, prompts, max_new_tokens=8, ends=(), batch_size=5)) == whole


def test_a_tail_has_its_memory_from_the_start_and_the_beginning_is_never_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, prompts, seen = tiny(), prompts_of(5, 3 * L), set()
    room, update = max(map(len, prompts)) - 3 * L + 9, tails._Tail.update

    def watched(tail: tails._Tail, *given: object) -> tuple[torch.Tensor, ...]:
        kept = update(tail, *given)
        assert all(x.shape[0] == 1 and x.shape[2] == 3 * L for x in tail.beginning)
        assert tail.keys.shape[:3] == (5, 2, room) and kept[0].data_ptr() == tail.keys.data_ptr()
        seen.add((tail.keys.data_ptr(), tail.beginning[0].data_ptr()))
        return kept

    monkeypatch.setattr(tails._Tail, "update", watched)
    list(answers(model, prompts, max_new_tokens=9, ends=(), batch_size=5))
    assert len(seen) == TINY.num_layers


def test_an_attention_that_tails_do_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="whose attention has softcap cannot share a beginning"):
        tails.attend(None, None, None, None, None, scaling=1.0, tails=None, softcap=30.0)


@pytest.mark.filterwarnings("ignore:dynamic_ntk is continuing from a cache past L")
def test_a_table_that_follows_the_length_is_shared_when_asked() -> None:
    """Past L the keys of the beginning then have the table of its length: the answers may differ, their prefill not."""
    model, prompts, read = tiny(spec("dynamic_ntk", False)), prompts_of(4, 3 * L, seed=5), []
    forward = model.forward
    model.forward = lambda **given: read.append(given["input_ids"].shape) or forward(**given)
    said = list(answers(model, prompts, max_new_tokens=2, ends=(), batch_size=4, exact=False))
    assert [len(tokens) for tokens in said] == [2] * 4
    assert read[0] == (1, 3 * L) and read[1][0] == 4 and len(read) == 3


def test_an_answer_ends_at_its_end_token_and_the_others_go_on() -> None:
    model, prompts = tiny(), prompts_of(6, 20)
    whole = [greedy(model, prompt, 12) for prompt in prompts]
    eos = whole[0][3]
    cut = [greedy(model, prompt, 12, eos) for prompt in prompts]
    assert len(cut[0]) <= 3 and any(len(said) == 12 for said in cut)
    assert list(answers(model, prompts, max_new_tokens=12, ends={eos}, batch_size=6)) == cut


def test_the_shared_beginning_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts, read = tiny(), prompts_of(5, 40), []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **given: read.append(given["input_ids"].numel()) or forward(**given))
    list(answers(model, prompts, max_new_tokens=1, ends=()))
    assert read == [40, *(len(prompt) - 40 for prompt in prompts)]


def test_nothing_and_empty_prompts() -> None:
    assert list(answers(tiny(), [], max_new_tokens=1, ends=())) == []
    with pytest.raises(ValueError, match="got an empty one"):
        list(answers(tiny(), [[1], []], max_new_tokens=1, ends=()))


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5))
def test_common_beginning(prompts: list[list[int]]) -> None:
    count = common_beginning(prompts)
    assert all(prompt[:count] == prompts[0][:count] and len(prompt) > count for prompt in prompts)
    further = {tuple(prompt[: count + 1]) for prompt in prompts}
    assert len(further) > 1 or min(map(len, prompts)) == count + 1


# A task


def ask(folder: Path, task: str, documents: tuple[Document, ...], stop: int = 10**9, name: str = "run") -> list[dict]:
    """The task answered by a tiny byte model into a journal; given up after `stop` answers, if that many come."""
    tokenizer = Tokenizer.of_bytes()
    texts = parse(Prompts, read_yaml(ROOT / "config/leval.yaml"), "leval.yaml")
    asking = Asking(texts, "plain", budget=300, max_new_tokens=4, batch_size=2)
    path, came = folder / f"{name}.{task}.jsonl", []

    def report(done: int) -> None:
        came.append(done)
        if len(came) == stop:
            raise KeyboardInterrupt

    with Journal(path, "abc", UNIT) as journal, contextlib.suppress(KeyboardInterrupt):
        answer_task(tiny(), tokenizer, task, documents, asking, journal, report)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def made_documents(gold: str, same: bool = False) -> tuple[Document, ...]:
    questions = [Question(number, f"Question {number}, or what?", gold) for number in range(7)]
    texts = ["the same words " * 5] * 3 if same else [f"{word} words " * 40 for word in ("old", "new", "odd")]
    return tuple(
        Document(text, tuple(questions[start:end]))
        for text, (start, end) in zip(texts, ((0, 3), (3, 6), (6, 7)), strict=True)
    )


@pytest.mark.parametrize(("task", "gold"), [("tpo", "A"), ("sci_fi", "True [fact: False]"), ("codeu", "[1 2]")])
def test_a_run_that_was_cut_off_ends_as_if_it_had_not_been(task: str, gold: str, tmp_path: Path) -> None:
    documents = made_documents(gold)
    whole = ask(tmp_path, task, documents, name="whole")
    assert [row["question"] for row in whole] == list(range(7))
    assert all((" [fact: " in row["prediction"]) == (task == "sci_fi") for row in whole)
    for stop in (1, 2, 3):
        ask(tmp_path, task, documents, stop=stop)
    assert ask(tmp_path, task, documents) == whole
    rows = score_rows(read_predictions(tmp_path / f"run.{task}.jsonl"))
    assert len(rows) == 14 and rows[0]["gold"] == gold


def test_documents_of_one_text_share_its_prefill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(
        answering, "answers", lambda model, ids, **options: calls.append(len(ids)) or iter([[65]] * len(ids))
    )
    ask(tmp_path, "gsm100", made_documents("18", same=True), name="same")
    ask(tmp_path, "gsm100", made_documents("18"), name="other")
    assert calls == [7, 3, 3, 1]
