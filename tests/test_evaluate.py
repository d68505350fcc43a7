"""Measuring: against a per-token loop, with an oracle, by hand, and the rows that come of it."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from resonance.encoding.rotary import Rotation
from resonance.encoding.spec import EncodingSpec
from resonance.posgen.draws import generator
from resonance.posgen.evaluate import ByPosition, baselines, evaluate, measure
from resonance.posgen.rows import SUMMARIES
from resonance.posgen.settings import EvaluationSettings, TrainRun
from resonance.posgen.tasks import PAPER_TASKS, Rule
from resonance.posgen.train import make_decoder, make_rotary, train

RESONANCE = EncodingSpec(resonance=True)


def settings(**fields: object) -> EvaluationSettings:
    return EvaluationSettings(
        **{"curve_sequences": 5, "test_sequences": 7, "batch_size": 4, "precision": "fp32"} | fields
    )


def rule_of(run: TrainRun) -> Rule:
    return Rule(task=run.task, modulus=run.data.modulus, j=run.data.j, k=run.data.k)


def oracle(run: TrainRun, sure: float = 50.0) -> Callable:
    """A stand-in for a decoder that says what the rule asks for next, from what it was fed and nothing else."""
    rule = rule_of(run)

    def decoder(tokens_BT: torch.Tensor, rotation: Rotation, seen_TT: None) -> torch.Tensor:
        assert rotation.cos.shape[0] == tokens_BT.shape[1]
        logits = torch.zeros(*tokens_BT.shape, run.vocab_size)
        for row, fed in enumerate(tokens_BT.tolist()):
            known = fed[1:] if run.choices.start_token else fed
            for column in range(len(fed)):
                position = column if run.choices.start_token else column + 1
                if position >= rule.prefix_length:
                    needed = np.array([known[i] for i in rule.dependencies(position)])
                    logits[row, column, int(rule.h(needed[:, None])[0])] = sure
        return logits

    return decoder


# Properties


@pytest.mark.parametrize("task", ["recursive", "semi_recursive_keyed"])
@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_an_oracle_scores_100_percent_at_every_position(protocol: str, task: str, make_run, make_sequences) -> None:
    """So the right column is read with and without a start token, and no position is harder than another."""
    run = make_run(protocol, task=task)
    found = measure(run, oracle(run), make_rotary(run, RESONANCE, 24), make_sequences(run)["test"], settings())
    assert found.positions.tolist() == list(range(4, 24))
    assert found.accuracy.tolist() == [1.0] * 20
    assert found.loss.max() < 1e-6  # float32


@pytest.mark.parametrize("protocol", ["paper", "released"])
@torch.no_grad()
def test_measure_equals_a_per_token_loop(protocol: str, make_run, make_sequences) -> None:
    run = make_run(protocol, task="semi_recursive")
    x = make_sequences(run)["test"]
    decoder, rotary = make_decoder(run, generator(3, 0)), make_rotary(run, RESONANCE, 24)
    found = measure(run, decoder, rotary, x, settings(batch_size=5))

    start = [run.vocab_size - 1] if run.choices.start_token else []
    for position in range(4, 24):
        right, losses = 0, []
        for sequence in x.tolist():
            fed = torch.tensor([start + sequence[:position]])
            chances = decoder(fed, rotary.at(fed.shape[1]))[0, -1].softmax(-1)
            right += int(chances.argmax()) == sequence[position]
            losses.append(-math.log(chances[sequence[position]]))
        assert found.accuracy[position - 4] == pytest.approx(right / 12)
        assert found.loss[position - 4] == pytest.approx(np.mean(losses), abs=1e-5)  # float32


# Means by hand


def test_summary_by_hand() -> None:
    """x[4] .. x[9] with L = 7: in distribution 4, 5, 6; out of it 7, 8, 9."""
    found = ByPosition(
        np.arange(4, 10), np.array([0.5, 0.75, 1.0, 0.0, 0.25, 0.5]), np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    ).summary(7)
    assert found == {
        "in_distribution_accuracy": 0.75,
        "ood_accuracy": 0.25,
        "ood_accuracy_even": 0.25,  # x[8]
        "ood_accuracy_odd": 0.25,  # x[7], x[9]: (0 + 0.5)/2
        "first_token_accuracy": 0.5,
        "loss": 3.5,
        "in_distribution_loss": 5.0,
        "ood_loss": 2.0,
    }
    assert all(isinstance(value, float) for value in found.values()) and set(found) <= set(SUMMARIES)


def test_ood_accuracy_is_over_192_positions_in_the_papers_setting() -> None:
    """P15: x[4] .. x[63] in distribution (60 positions), x[64] .. x[255] out of it (192)."""
    positions = np.arange(4, 256)
    assert ByPosition(positions, (positions == 63).astype(float)).summary(64)["in_distribution_accuracy"] == 1 / 60
    one = ByPosition(positions, (positions == 64).astype(float)).summary(64)
    assert one["ood_accuracy"] == 1 / 192 and one["in_distribution_accuracy"] == 0
    assert one["ood_accuracy_even"] == 1 / 96 and one["ood_accuracy_odd"] == 0


# Rows


def test_evaluate_gives_the_curve_on_validation_and_the_rest_on_test(make_run, make_sequences) -> None:
    run = make_run("released", selection="last", steps=8, num_looks=4, num_snapshots=2)
    splits = make_sequences(run)
    trained = train(run, RESONANCE, 0, splits["train"], splits["validation"])
    weights = {name: w.clone() for name, w in trained.decoder.state_dict().items()}
    rows = list(
        evaluate(
            run,
            RESONANCE,
            0,
            weights,
            trained.step,
            trained.snapshots,
            splits["validation"],
            splits["test"],
            settings(),
        )
    )
    summaries = {"in_distribution_accuracy", "ood_accuracy", "ood_accuracy_even", "ood_accuracy_odd",
                 "first_token_accuracy", "loss", "in_distribution_loss", "ood_loss"}  # fmt: skip
    by_position = [row for row in rows if row["position"] is not None]
    assert [row["position"] for row in by_position] == list(range(4, 24))
    assert {(row["split"], row["step"], row["metric"]) for row in by_position} == {("test", 8, "accuracy")}
    assert {(row["split"], row["step"], row["metric"]) for row in rows if row["position"] is None} == {
        (split, step, metric)
        for split, step in (("test", 8), ("validation", 4), ("validation", 8))
        for metric in summaries
    }
    assert all(row["epoch"] == row["step"] * 8 / 40 for row in rows)

    value = {(row["split"], row["step"], row["metric"]): row["value"] for row in rows if row["position"] is None}
    rotary = make_rotary(run, RESONANCE, 24)
    test = measure(run, trained.decoder, rotary, splits["test"][[0, 1, 3, 5, 6, 8, 10]], settings()).summary(12)
    curve = measure(run, trained.decoder, rotary, splits["validation"][[0, 2, 4, 7, 9]], settings()).summary(12)
    trained.decoder.load_state_dict(trained.snapshots[4], strict=False)
    early = measure(run, trained.decoder, rotary, splits["validation"][[0, 2, 4, 7, 9]], settings()).summary(12)
    assert early["loss"] != curve["loss"]
    for metric in summaries:
        assert value["validation", 4, metric] == pytest.approx(early[metric], abs=1e-12)
        assert value["test", 8, metric] == pytest.approx(test[metric], abs=1e-12)
        assert value["validation", 8, metric] == pytest.approx(curve[metric], abs=1e-12)


def test_evaluate_may_use_another_encoding_than_training(make_run, make_sequences) -> None:
    """P2: the table is made from the spec given, whatever the weights were trained with."""
    run = make_run("released")
    splits = make_sequences(run)
    weights = make_decoder(run, generator(0, 0)).state_dict()

    def loss(spec: EncodingSpec) -> float:
        rows = evaluate(run, spec, 0, weights, 4, {}, splits["validation"], splits["test"], settings())
        return next(row["value"] for row in rows if row["metric"] == "ood_loss")

    yarn = EncodingSpec(method="yarn", scale=25 / 13, train_length=25, beta_fast=2.0)
    assert loss(EncodingSpec()) == loss(EncodingSpec()) != loss(yarn)


@pytest.mark.parametrize("task", PAPER_TASKS)
def test_baselines_are_the_local_rule_and_chance(task: str, make_run, make_sequences) -> None:
    run = make_run(task=task, modulus=17, train_length=64, test_length=256, num_test=400)
    rows = list(baselines(rule_of(run), run.data, make_sequences(run)["test"]))
    value = {(row["encoding"], row["metric"], row["position"]): row["value"] for row in rows}
    assert len(value) == len(rows) == 2 * (5 + 252)
    assert {row["split"] for row in rows} == {"test"}
    assert all(value["chance", metric, at] == pytest.approx(1 / 17) for _, metric, at in value)
    assert value["local_rule", "first_token_accuracy", None] == value["local_rule", "accuracy", 4] == 0.0
    assert value["local_rule", "ood_accuracy_odd", None] == value["local_rule", "accuracy", 5] == 1.0
    if task == "semi_recursive":
        assert value["local_rule", "ood_accuracy_even", None] == pytest.approx(1 / 17, abs=0.01)
        assert value["local_rule", "ood_accuracy", None] == pytest.approx(0.53, abs=0.01)
    else:
        assert value["local_rule", "ood_accuracy", None] == 1.0
        assert value["local_rule", "in_distribution_accuracy", None] == pytest.approx(59 / 60)
