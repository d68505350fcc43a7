"""Training: what is learned, the protocol's schedule, stops and resumptions."""

from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate")
from accelerate import Accelerator
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from llm_cases import make_plan, make_text, protocols, spec, tiny
from resonance.hf.swap import load_pretrained, spec_of
from resonance.llm import finetune
from resonance.llm.finetune import train, warm_up
from resonance.llm.settings import TinyModel
from resonance.llm.text import Sequences
from resonance.record import identity as identities
from resonance.record.files import read_json
from resonance.record.identity import digest

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return make_text(tmp_path_factory.mktemp("text"))


def losses(trained) -> list[float]:
    return [row["value"] for row in trained.rows if row["metric"] == "train_loss"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_pretrained(folder / "model").state_dict()


def test_it_learns_and_leaves_a_model_that_loads(packed, tmp_path):
    trained = train(lambda: tiny(), packed, make_plan(steps=60), tmp_path)
    curve = losses(trained)
    assert len(curve) == 60 and curve[-1] < 0.6 * curve[0]
    model = load_pretrained(tmp_path / "model")
    assert spec_of(model.config) == spec()
    assert not (tmp_path / "checkpoints").exists()


def test_steps_that_train_nothing_are_said(packed, tmp_path, capsys):
    """L2: the released schedule is over at step 20 of a training of any length."""
    choices = protocols()["released"]
    plan = make_plan(steps=24, schedule=lambda step: warm_up(step, choices.warmup_steps, choices.decay_steps))
    train(lambda: tiny(), packed, plan, tmp_path / "released")
    train(lambda: tiny(), packed, make_plan(), tmp_path / "flat")
    said = [line for line in capsys.readouterr().out.splitlines() if " tokens = " in line]
    assert ["4 steps train nothing" in line for line in said] == [True, False]


def test_equal_arguments_give_equal_weights(packed, tmp_path):
    made = [train(lambda: tiny(), packed, make_plan(), tmp_path / name) for name in "ab"]
    assert losses(made[0]) == losses(made[1])
    a, b = (weights(tmp_path / name) for name in "ab")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_tracker_is_passed_on(packed, tmp_path, monkeypatch):
    """transformers' own callbacks report; here one stands in for a service, by its entry in their registry."""
    seen = []

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            seen.extend(key for key in logs if key == "loss")

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "mlflow", Tracker)
    monkeypatch.setenv("RESONANCE_REPORT_TO", "mlflow")
    with_it = losses(train(lambda: tiny(), packed, make_plan(), tmp_path / "a"))
    assert len(seen) == len(with_it)
    monkeypatch.setenv("RESONANCE_REPORT_TO", "none")
    assert losses(train(lambda: tiny(), packed, make_plan(), tmp_path / "b")) == with_it and len(seen) == len(with_it)
    monkeypatch.setenv("RESONANCE_REPORT_TO", "mlfow")
    with pytest.raises(ValueError, match="mlfow is not supported"):
        train(lambda: tiny(), packed, make_plan(), tmp_path / "c")


def test_accumulation_is_the_same_step(packed, tmp_path):
    made = [losses(train(lambda: tiny(), packed, make_plan(micro_batch_size=m), tmp_path / str(m))) for m in (1, 4)]
    assert np.allclose(*made, atol=1e-5)


def test_checkpointed_activations_change_nothing(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "LOGIT_ROWS", 24)  # of 31: logits come in two parts, the second shorter
    made = [
        losses(train(lambda: tiny(), packed, make_plan(gradient_checkpointing=on), tmp_path / str(on)))
        for on in (False, True)
    ]
    assert np.allclose(*made, atol=1e-6)


def killed_at(step: int, packed, folder: Path, made_of=MappingProxyType({}), code=(), **changes: object) -> None:
    """A training that dies when it reads the first sequence of a step, as a killed process would."""

    class Killed(Exception):
        pass

    whole = Sequences.__getitem__

    def until(self, index):
        if index >= step * 4:
            raise Killed
        return whole(self, index)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Sequences, "__getitem__", until)
        train(lambda: tiny(), packed, make_plan(**changes), folder, made_of=made_of, code=code)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_resumed_training_is_bit_equal(packed, tmp_path, step):
    whole = train(lambda: tiny(), packed, make_plan(), tmp_path / "whole")
    killed_at(step, packed, tmp_path / "killed")
    rest = train(lambda: tiny(), packed, make_plan(), tmp_path / "killed")
    assert rest.resumed_at == step // 2 * 2
    assert losses(rest) == losses(whole)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_released_resumption_sees_other_data(packed, tmp_path):
    """L5: accumulation is not counted, so that after two steps of two micro-batches it reads on too early."""
    whole = train(lambda: tiny(), packed, make_plan(), tmp_path / "whole")
    killed_at(3, packed, tmp_path / "killed", resume="micro_batches")
    rest = train(lambda: tiny(), packed, make_plan(resume="micro_batches"), tmp_path / "killed")
    assert rest.resumed_at == 2 and len(losses(rest)) == 6
    assert losses(rest)[:2] == losses(whole)[:2] and losses(rest)[2:] != losses(whole)[2:]


def test_a_half_written_checkpoint_is_left_aside(packed, tmp_path):
    whole = train(lambda: tiny(), packed, make_plan(), tmp_path / "whole")
    killed_at(5, packed, tmp_path / "killed")
    newest = tmp_path / "killed/checkpoints/checkpoint-4"
    (newest / "model.safetensors").write_bytes(b"half")
    (newest / "complete.json").unlink()
    rest = train(lambda: tiny(), packed, make_plan(), tmp_path / "killed")
    assert rest.resumed_at == 2 and losses(rest) == losses(whole)


def set_aside(folder: Path) -> list[tuple[str, list[str]]]:
    """(name, its whole checkpoints) of every training whose checkpoints were kept aside."""
    return [
        (path.name, sorted(mark.parent.name for mark in path.glob("checkpoint-*/complete.json")))
        for path in sorted((folder / "other-runs").glob("*"))
    ]


@pytest.mark.parametrize("changes", [{"learning_rate": 2e-2}, {"schedule": lambda step: 0.5}, {"seed": 1}])
def test_checkpoints_of_other_settings_are_not_gone_on_from(packed, tmp_path, changes, capsys):
    killed_at(5, packed, tmp_path / "killed")
    theirs = digest(read_json(tmp_path / "killed/checkpoints/identity.json"))
    other = train(lambda: tiny(), packed, make_plan(**changes), tmp_path / "killed")
    aside, name = tmp_path / "killed/other-runs" / theirs, next(iter(changes))
    said = capsys.readouterr().out
    assert other.resumed_at == 0 and f"the checkpoints of another training are kept as {aside}: {name} is " in said
    assert set_aside(tmp_path / "killed") == [(theirs, ["checkpoint-2", "checkpoint-4"])]
    assert losses(other) == losses(train(lambda: tiny(), packed, make_plan(**changes), tmp_path / "fresh"))


def made_with(folder: Path, text: str) -> list[str]:
    """The lines of code of a module that holds this text now."""
    (folder / "code_that_trains.py").write_text(text)
    for kept in vars(identities).values():
        getattr(kept, "cache_clear", lambda: None)()
    return identities.code_of("code_that_trains")


def test_checkpoints_survive_a_comment_and_not_a_change_of_the_code(packed, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(tmp_path))
    before = made_with(tmp_path, "STEP = 1\n")
    commented = made_with(tmp_path, '"""What it is."""\n\nSTEP = 1  # a comment\n')
    changed = made_with(tmp_path, "STEP = 2\n")
    assert before == commented != changed
    killed_at(3, packed, tmp_path / "killed", code=before)
    killed_at(5, packed, tmp_path / "killed", code=commented)
    assert "resumed at step 2" in capsys.readouterr().out and not set_aside(tmp_path / "killed")
    rest = train(lambda: tiny(), packed, make_plan(), tmp_path / "killed", code=changed)
    assert rest.resumed_at == 0 and "code code_that_trains is" in capsys.readouterr().out
    assert [whole for _, whole in set_aside(tmp_path / "killed")] == [["checkpoint-2", "checkpoint-4"]]


def test_checkpoints_of_another_encoding_are_kept_aside_each_training_by_itself(packed, tmp_path, capsys):
    for number, asked in enumerate((spec(), spec("linear"), spec("rope"))):
        killed_at(3, packed, tmp_path / "killed", made_of={"encoding": asked.to_dict()})
        assert len(set_aside(tmp_path / "killed")) == number
    assert "encoding.method is rope here, linear there" in capsys.readouterr().out
    rest = train(lambda: tiny(), packed, make_plan(), tmp_path / "killed", made_of={"encoding": spec("rope").to_dict()})
    assert rest.resumed_at == 2 and not (tmp_path / "killed/checkpoints").exists()
    assert [whole for _, whole in set_aside(tmp_path / "killed")] == [["checkpoint-2"]] * 2


def test_how_often_it_is_saved_and_what_it_is_called_make_no_other_training(packed, tmp_path):
    killed_at(5, packed, tmp_path / "killed")
    rest = train(lambda: tiny(), packed, make_plan(checkpoint_every=3, title="other"), tmp_path / "killed")
    assert rest.resumed_at == 4 and not set_aside(tmp_path / "killed")


def test_a_loss_that_is_not_finite_never_goes_backward(packed, tmp_path, monkeypatch):
    """DeepSpeed's backward ends in the update of the weights, so a check behind it would come too late."""
    model = tiny()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    before = model.model.embed_tokens.weight.clone()
    monkeypatch.setattr(Accelerator, "backward", lambda *_, **__: pytest.fail("it went backward"))
    with pytest.raises(FloatingPointError, match="the loss at step 1 is nan; the weights of step 0 were kept"):
        train(lambda: model, packed, make_plan(), tmp_path)
    assert torch.equal(model.model.embed_tokens.weight, before)


def test_out_of_memory_is_one_line_with_the_cure(packed, tmp_path, monkeypatch):
    def full(*_: object, **__: object):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(finetune._Trainer, "training_step", full)
    with pytest.raises(ValueError, match=r"out of memory at 2 sequences of 32 tokens .*micro_batch_size"):
        train(lambda: tiny(), packed, make_plan(), tmp_path)


def test_the_micro_batch_must_divide_the_step(packed, tmp_path):
    with pytest.raises(ValueError, match="must divide the 4 sequences of a step, got 3"):
        train(lambda: tiny(), packed, make_plan(micro_batch_size=3), tmp_path)


def test_schedules():
    flat = [warm_up(step, 2, 0) for step in range(6)]
    assert flat == [1 / 3, 2 / 3, 1, 1, 1, 1]
    decayed = [warm_up(step, 2, 20) for step in range(50)]
    assert decayed[2] == 1.0 and decayed[11] == 0.5
    assert not any(decayed[20:])  # L2: thirty of the released code's fifty steps train nothing


def test_what_each_protocol_trains_with():
    paper, released = protocols()["paper"], protocols()["released"]
    assert (paper.beta2, released.beta2) == (0.999, 0.95)
    assert 50 * paper.sequences_per_step * 32_768 == 104_857_600
    assert released.warmup_steps == 2 and released.decay_steps == 20
    assert paper.learning_rate == released.learning_rate == 2e-5


def test_the_learning_rate_follows_the_plan(packed, tmp_path):
    plan = make_plan(schedule=lambda step: warm_up(step, 2, 5), learning_rate=1e-3)
    trained = train(lambda: tiny(), packed, plan, tmp_path)
    rates = [row["value"] for row in trained.rows if row["metric"] == "learning_rate"]
    assert np.allclose(rates, [1e-3 * warm_up(step, 2, 5) for step in range(6)])


def test_tiny_sizes_are_checked():
    with pytest.raises(ValueError, match="d_model must be a multiple of 2"):
        TinyModel(d_model=15, d_ff=8, num_layers=1, num_heads=2, text="t", steps=1, sequences_per_step=1,
                  learning_rate=1.0)  # fmt: skip


def test_what_was_set_aside_is_never_replaced(packed, tmp_path):
    killed_at(5, packed, tmp_path / "killed", code=["m a"])
    for name in "bab":
        killed_at(1, packed, tmp_path / "killed", code=[f"m {name}"])
    assert ["checkpoint-2", "checkpoint-4"] in [whole for _, whole in set_aside(tmp_path / "killed")]
