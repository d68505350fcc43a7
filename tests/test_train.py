"""Training: bit-equal repeats, what moves and what stays, which look is selected, learning rates, dropout's bytes."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from resonance.encoding.spec import EncodingSpec
from resonance.posgen import train as training
from resonance.posgen.decoder import Dropout
from resonance.posgen.draws import Batches, generator
from resonance.posgen.settings import TrainRun
from resonance.posgen.step import CompiledOrNot, DropoutMasks, Step
from resonance.posgen.train import Trained, make_decoder, make_rotary, spread, to_inputs, train
from resonance.record.precision import precision_here

RESONANCE = EncodingSpec(resonance=True)


@pytest.fixture
def fit(make_sequences) -> Callable[..., Trained]:
    def call(run: TrainRun, seed: int = 0, spec: EncodingSpec = RESONANCE, report=lambda _: None) -> Trained:
        splits = make_sequences(run)
        return train(run, spec, seed, splits["train"], splits["validation"], report)

    return call


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, bool]:
    assert one.keys() == other.keys()
    return {name: torch.equal(one[name], other[name]) for name in one}


def initial(run: TrainRun, seed: int = 0) -> dict[str, torch.Tensor]:
    return make_decoder(run, generator(seed, 0)).state_dict()


def values(trained: Trained, metric: str) -> list[float]:
    return [row["value"] for row in trained.rows if row["metric"] == metric]


# Properties


def test_streams_of_one_seed_and_seeds_of_one_stream_are_different() -> None:
    draws = {tuple(torch.rand(4, generator=generator(s, stream)).tolist()) for s in range(5) for stream in range(3)}
    assert len(draws) == 15


@pytest.mark.parametrize("stream", ["initialisation", "order", "dropout"])
def test_the_seed_decides_each_of_initialisation_order_and_dropout(stream: str, make_run, fit, monkeypatch) -> None:
    """Two seeds differ also where the other two streams are held."""
    make, batches = training.make_decoder, training.Batches
    if stream != "initialisation":
        monkeypatch.setattr(training, "make_decoder", lambda run, _: make(run, generator(0, 0)))
    if stream != "order":
        monkeypatch.setattr(training, "Batches", lambda count, size, _, *where: batches(count, size, generator(0, 1)))
    run = make_run(dropout=0.1 if stream == "dropout" else 0.0)
    assert not any(same(fit(run, seed=0).decoder.state_dict(), fit(run, seed=1).decoder.state_dict()).values())


def test_weight_decay_is_decoupled_adamws(make_run, fit) -> None:
    """After one step, w(decay) - w(none) = -rate * decay * w_0, whatever the gradient."""
    runs = [make_run(steps=1, num_looks=1, num_snapshots=1, weight_decay=decay) for decay in (0.0, 0.5)]
    without, decayed = (fit(run).decoder.state_dict() for run in runs)
    for name, start in initial(runs[0]).items():
        assert torch.allclose(decayed[name] - without[name], -1e-2 * 0.5 * start, atol=1e-6)  # float32


def test_training_learns_its_sequences(make_run, make_sequences) -> None:
    run = make_run(steps=80, dropout=0.0)
    sequences = make_sequences(run)["train"]
    trained = train(run, RESONANCE, 0, sequences, sequences)
    losses = values(trained, "in_distribution_loss")
    assert losses[-1] < 0.9 * np.log(7) < losses[0], "better than chance, which is where it begins"
    assert values(trained, "in_distribution_accuracy")[-1] > 2 / 7


def test_everything_moves_where_everything_is_trained(make_run, fit) -> None:
    run = make_run("paper", trained="all")
    assert not any(same(fit(run).decoder.state_dict(), initial(run)).values())


def test_the_frozen_feed_forward_stays_and_all_else_moves(make_run, fit) -> None:
    """P6: its norm is part of the released `.layer.1.` and stays too."""
    run = make_run("released", trained="all_but_feed_forward")
    stayed = same(fit(run).decoder.state_dict(), initial(run))
    frozen = {
        f"layers.{i}.{w}.weight" for i in range(2) for w in ("feed_forward_norm", "feed_forward.wi", "feed_forward.wo")
    }
    assert {name for name, is_same in stayed.items() if is_same} == frozen


def test_snapshots_hold_the_trained_weights_of_evenly_spaced_looks(make_run, fit) -> None:
    run = make_run("released", steps=12, num_looks=6, num_snapshots=3)
    trained = fit(run)
    assert list(trained.snapshots) == [4, 8, 12]
    expected = {name for name, w in make_decoder(run, generator(0, 0)).named_parameters() if w.requires_grad}
    assert all(set(kept) == expected for kept in trained.snapshots.values())
    assert not torch.equal(*(trained.snapshots[step]["embedding.weight"] for step in (4, 8))), "copies, not views"


def test_the_curve_has_one_row_a_look_and_metric(make_run, fit) -> None:
    run = make_run(steps=10, num_looks=4)
    trained = fit(run)
    assert [row["step"] for row in trained.rows if row["metric"] == "train_loss"] == [2, 5, 8, 10]
    assert {row["metric"] for row in trained.rows} == {
        "train_loss", "learning_rate", "in_distribution_accuracy", "in_distribution_loss",
    }  # fmt: skip
    assert all(row["epoch"] == row["step"] * 8 / 40 for row in trained.rows)


def test_train_loss_is_the_mean_since_the_last_look_and_report_hears_every_step(make_run, fit) -> None:
    heard = []
    trained = fit(make_run(steps=6, num_looks=2, num_snapshots=2), report=heard.append)
    steps = [seen["loss"] for seen in heard if "accuracy" not in seen]
    assert len(steps) == 6 and [seen["step"] for seen in heard if "accuracy" in seen] == [3, 6]
    assert values(trained, "train_loss") == [np.mean(steps[:3]), np.mean(steps[3:])]


def test_the_last_look_equals_a_slow_measurement_of_the_trained_decoder(make_run, make_sequences, fit) -> None:
    """Teacher-forced over x[j+k] .. x[L-1] of the looked-at sequences, without dropout."""
    run = make_run("released", selection="last", steps=8)
    trained, look = fit(run), make_sequences(run)["validation"][[0, 2, 4, 6, 8, 10], :12]
    rotation = make_rotary(run, RESONANCE, 12).at(12)
    right, losses = [], []
    for x in look:
        logits = trained.decoder(torch.tensor([[11, *x[:-1]]]), rotation)[0].detach()
        for position in range(4, 12):
            right.append(int(logits[position].argmax()) == x[position])
            losses.append(-logits[position].log_softmax(-1)[x[position]].item())
    assert values(trained, "in_distribution_accuracy")[-1] == pytest.approx(np.mean(right), abs=1e-12)
    assert values(trained, "in_distribution_loss")[-1] == pytest.approx(np.mean(losses), abs=1e-5)  # float32


# Selection (P10)


@pytest.mark.parametrize(
    ("selection", "accuracies", "selected"),
    [
        ("best_in_distribution", [0.2, 0.9, 0.9, 0.1], 3),  # the later of equals
        ("best_in_distribution", [0.0, 0.0, 0.0, 0.0], 4),
        ("last", [0.9, 0.8, 0.7, 0.6], 4),
    ],
)
def test_the_right_look_is_selected(selection, accuracies, selected, make_run, fit, monkeypatch) -> None:
    said = iter(accuracies)
    monkeypatch.setattr(
        training, "_look", lambda *_: {"in_distribution_accuracy": next(said), "in_distribution_loss": 1.0}
    )
    trained = fit(make_run(selection=selection, steps=4))
    assert trained.step == selected
    assert all(same(dict(trained.decoder.named_parameters()), trained.snapshots[selected]).values())


def test_a_selected_look_needs_no_snapshot(make_run, fit, monkeypatch) -> None:
    said = iter([0.9, 0.8, 0.7, 0.6])
    monkeypatch.setattr(
        training, "_look", lambda *_: {"in_distribution_accuracy": next(said), "in_distribution_loss": 1.0}
    )
    all_looks = fit(make_run(selection="last", steps=4)).snapshots
    said = iter([0.9, 0.8, 0.7, 0.6])
    trained = fit(make_run(selection="best_in_distribution", steps=4, num_snapshots=2))
    assert trained.step == 1 and list(trained.snapshots) == [2, 4]
    assert all(same(dict(trained.decoder.named_parameters()), all_looks[1]).values())


# Learning rate


@pytest.mark.parametrize("steps", [9, 30])
def test_one_cycle_learning_rates_equal_torchs(steps: int, make_run, fit) -> None:
    """P10: 10 % warm-up to the peak, from peak/25 to peak/25e4."""
    run = make_run(schedule="one_cycle", steps=steps, num_looks=steps, num_snapshots=steps, learning_rate=1e-2)
    rates = values(fit(run), "learning_rate")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps, pct_start=0.1)
    expected = []
    for _ in range(steps):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx(expected, rel=1e-6)
    assert rates[-1] == pytest.approx(1e-2 / 25e4)
    if steps == 30:
        assert rates[0] == pytest.approx(1e-2 / 25) and max(rates) == rates[2] == pytest.approx(1e-2)


def test_a_constant_schedule_is_constant(make_run, fit) -> None:
    assert values(fit(make_run(schedule="constant", learning_rate=3e-3)), "learning_rate") == [3e-3] * 4


@pytest.mark.parametrize("steps", [1, 10])
def test_any_number_of_steps_trains(steps: int, make_run, fit) -> None:
    trained = fit(make_run("released", steps=steps, num_looks=1, num_snapshots=1))
    assert trained.step == steps


# A loss that is not finite


def test_a_loss_that_is_not_finite_raises_before_the_weights_take_it(make_run, fit, monkeypatch) -> None:
    made, after_each_step, calls = [], [], 0
    make, loss = training.make_decoder, training.F.cross_entropy

    def spoiled(*arguments, **options) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return loss(*arguments, **options) * (float("inf") if calls == 3 else 1.0)

    def remember(seen: dict) -> None:
        after_each_step.append({name: w.clone() for name, w in made[0].state_dict().items()})

    monkeypatch.setattr(training, "make_decoder", lambda *a: made.append(make(*a)) or made[-1])
    monkeypatch.setattr(training.F, "cross_entropy", spoiled)
    with pytest.raises(FloatingPointError, match=r"^the loss at step 3 is (nan|inf); .*step 2 .*learning_rate"):
        fit(make_run(steps=8, num_looks=1, num_snapshots=1), report=remember)
    assert len(after_each_step) == 2
    assert all(same(made[0].state_dict(), after_each_step[-1]).values())
    assert all(w.isfinite().all() for w in made[0].state_dict().values())


# The step: static buffers, a graph, losses that nobody waits for


def plain_loop(run: TrainRun, sequences: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The weights after the last step, by a loop as one would write it: fresh batches, no buffers."""
    decoder = make_decoder(run, generator(0, 0))
    inputs, targets, first = to_inputs(run, sequences["train"][:, : run.data.train_length])
    rotation = make_rotary(run, RESONANCE, run.data.train_length).at(inputs.shape[1])
    optimizer, schedule = training._optimizer(run, decoder)
    masks = DropoutMasks(decoder, run.training.batch_size, inputs.shape[1], generator(0, 2))
    order, draw = [], generator(0, 1)
    while len(order) < run.steps * run.training.batch_size:
        order += torch.randperm(len(inputs), generator=draw).tolist()
    for step in range(run.steps):
        index = order[step * run.training.batch_size :][: run.training.batch_size]
        masks.draw()
        with torch.autocast("cpu", torch.bfloat16, enabled=run.training.precision == "bf16"):
            logits = decoder(inputs[index], rotation)[:, first:]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets[index][:, first:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return decoder.state_dict()


class RecordedOnTheCpu:
    """What a CUDA graph does to its caller: every replay writes loss and gradients to the same places."""

    def __init__(self, step: Step) -> None:
        self.step, self.num_replays = step, 0
        step.loss = step._forward_backward()
        self.places = [step.loss, *(weight.grad for weight in step.weights)]

    def replay(self) -> None:
        self.num_replays += 1
        made = [self.step._forward_backward(), *(weight.grad for weight in self.step.weights)]
        for place, values in zip(self.places, made, strict=True):
            place.copy_(values)
        for weight, place in zip(self.step.weights, self.places[1:], strict=True):
            weight.grad = place


@pytest.fixture
def as_on_a_gpu(monkeypatch) -> list[RecordedOnTheCpu]:
    """The trainer's ways on CUDA, on the CPU; the graphs that were made."""
    graphs = []

    def record(step: Step) -> None:
        step.graph = RecordedOnTheCpu(step)
        graphs.append(step.graph)

    made = Step.__init__

    def make(step: Step, *arguments: object) -> None:
        made(step, *arguments)
        step.as_graph = True

    monkeypatch.setattr(Step, "__init__", make)
    monkeypatch.setattr(Step, "_record", record)
    monkeypatch.setattr(training, "reads_every_loss", lambda run: False)
    return graphs


@pytest.mark.parametrize("protocol", ["paper", "released"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.usefixtures("bf16_products")
def test_training_equals_a_plain_loop_bit_for_bit(protocol, precision, make_run, make_sequences, fit) -> None:
    run = make_run(protocol, steps=13, selection="last", precision=precision)
    torch.manual_seed(1)  # global state must not matter
    assert all(same(fit(run).decoder.state_dict(), plain_loop(run, make_sequences(run))).values())


def test_without_bfloat16_products_bf16_computes_in_fp32_and_is_said_once(
    make_run, make_sequences, fit, bf16_products, capsys
) -> None:
    bf16, fp32 = (make_run(steps=5, precision=precision) for precision in ("bf16", "fp32"))
    with_products = fit(bf16).decoder.state_dict()
    assert capsys.readouterr().err == ""
    bf16_products(False)
    without = [fit(bf16).decoder.state_dict() for _ in range(2)]
    said = "this CPU has no bfloat16 products: bf16 computes in fp32, faster here and more exact\n"
    assert capsys.readouterr().err == said
    for weights in without:
        assert all(same(weights, plain_loop(fp32, make_sequences(fp32))).values())
        assert not all(same(weights, with_products).values())
    assert precision_here("cuda", "bf16") == "bf16" and precision_here("cpu", "fp32") == "fp32"


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_the_ways_of_a_gpu_change_no_bit(protocol, make_run, fit, request) -> None:
    run, heard = make_run(protocol, steps=13), []
    expected = fit(run)
    graphs = request.getfixturevalue("as_on_a_gpu")
    trained = fit(run, report=heard.append)
    assert [graph.num_replays for graph in graphs] == [13]
    assert all(same(trained.decoder.state_dict(), expected.decoder.state_dict()).values())
    assert trained.rows == expected.rows
    assert all("accuracy" in seen for seen in heard) and len(heard) == 4, "nobody waits for a loss between looks"


def test_no_update_takes_a_loss_that_nobody_has_read_yet(make_run, make_sequences, fit, monkeypatch) -> None:
    """Read at the look of step 8, made at step 3: the weights are still those of step 2, the moments too."""
    monkeypatch.setattr(training, "reads_every_loss", lambda run: False)
    run, calls, loss, made = make_run(steps=8, num_looks=1, num_snapshots=1), 0, training.F.cross_entropy, []
    make = training._optimizer

    def spoiled(*arguments, **options) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return loss(*arguments, **options) * (float("nan") if calls == 3 else 1.0)

    monkeypatch.setattr(training, "_optimizer", lambda *a: made.append((a[1], *make(*a))) or made[-1][1:])
    with monkeypatch.context() as patch:
        patch.setattr(training.F, "cross_entropy", spoiled)
        with pytest.raises(FloatingPointError, match=r"^the loss at step 3 is (nan|inf); .*step 2 .*learning_rate"):
            fit(run)
    assert calls == 8
    decoder, optimizer, _ = made[0]
    assert {float(state["step"]) for state in optimizer.state.values()} == {2.0}
    two = make_run(steps=2, num_looks=1, num_snapshots=1)
    assert all(same(decoder.state_dict(), plain_loop(two, make_sequences(two))).values())


@pytest.fixture
def cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize("protocol", ["paper", "released"])
@pytest.mark.parametrize("compile_it", [False, True])
def test_a_cuda_graph_changes_no_bit(protocol, compile_it, make_run, fit, monkeypatch) -> None:
    """Never run so far."""
    run = make_run(protocol, steps=30, device="cuda", compile=compile_it)
    replayed, again = fit(run), fit(run)
    assert all(same(replayed.decoder.state_dict(), again.decoder.state_dict()).values())
    made = Step.__init__

    def unrecorded(step: Step, *arguments: object) -> None:
        made(step, *arguments)
        step.as_graph = False

    monkeypatch.setattr(Step, "__init__", unrecorded)
    launched = fit(run)
    assert all(same(replayed.decoder.state_dict(), launched.decoder.state_dict()).values())
    assert replayed.rows == launched.rows


@pytest.mark.gpu
@pytest.mark.usefixtures("cuda")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("bf16", 5e-2)])
def test_a_gpu_starts_and_goes_as_a_cpu(precision, tolerance, make_run, fit) -> None:
    """Without dropout, whose bytes are drawn on the device: same weights, same order, so near losses.
    Never run so far."""
    runs = [make_run(steps=20, dropout=0.0, device=device, precision=precision) for device in ("cpu", "cuda")]
    ours, theirs = (values(fit(run), "train_loss") for run in runs)
    assert ours == pytest.approx(theirs, rel=tolerance)


# Dropout's bytes


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_masks_cover_each_dropout_exactly_once_without_overlap(protocol: str, make_run) -> None:
    run = make_run(protocol)
    decoder = make_decoder(run, generator(0, 0))
    masks = DropoutMasks(decoder, 3, 11, generator(0, 2))
    dropouts = [module for module in decoder.modules() if isinstance(module, Dropout)]
    assert len(dropouts) == 2 + 2 * 4
    assert sorted(map(id, dropouts)) == sorted(id(module) for module, _, _ in masks.spans)
    spans = sorted((start, start + size) for _, start, size in masks.spans)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert spans[-1][1] <= 8 * len(masks.words)

    sizes = {}
    kept = Dropout.kept

    def noted(self, x: torch.Tensor) -> torch.Tensor:
        assert id(self) not in sizes, "each is used once a step"
        sizes[id(self)] = x.numel()
        return kept(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dropout, "kept", noted)
        masks.draw()
        decoder(torch.zeros(3, 11, dtype=torch.int64), make_rotary(run, RESONANCE, 12).at(11))
    assert sizes == {id(module): size for module, _, size in masks.spans}


def test_masks_are_new_at_every_draw_and_gone_after_clear(make_run) -> None:
    decoder = make_decoder(make_run(), generator(0, 0))
    masks = DropoutMasks(decoder, 3, 11, generator(0, 2))
    masks.draw()
    first = decoder.final_dropout.bytes.clone()
    assert not torch.equal(first, decoder.embedding_dropout.bytes)
    masks.draw()
    assert not torch.equal(first, decoder.final_dropout.bytes)
    masks.clear()
    assert all(module.bytes is None for module in decoder.modules() if isinstance(module, Dropout))


def test_bytes_are_uniform_in_each_of_the_eight_lanes_of_a_word(make_run) -> None:
    """torch's default range for int64 leaves every eighth byte below 128."""
    masks = DropoutMasks(make_decoder(make_run(), generator(0, 0)), 64, 20, generator(0, 2))
    masks.draw()
    lanes = masks.words.view(torch.uint8).view(-1, 8).double()
    assert len(lanes) > 30_000
    assert (lanes.mean(0) - 127.5).abs().max() < 5 * 73.9 / len(lanes) ** 0.5
    assert (lanes.amin(0) == 0).all() and (lanes.amax(0) == 255).all()


def test_no_dropout_draws_nothing(make_run) -> None:
    masks = DropoutMasks(make_decoder(make_run(dropout=0.0), generator(0, 0)), 3, 11, generator(0, 2))
    masks.draw()
    assert masks.spans == [] and len(masks.words) == 0


# Batches


@pytest.mark.parametrize(("num_sequences", "batch_size"), [(10, 4), (12, 4), (3, 8)])
def test_every_sequence_is_met_once_an_epoch(num_sequences: int, batch_size: int) -> None:
    batches = Batches(num_sequences, batch_size, generator(0, 1))
    met = torch.cat([next(batches) for _ in range(3 * num_sequences)]).view(-1)
    epochs = met[: len(met) // num_sequences * num_sequences].view(-1, num_sequences)
    assert len(epochs) >= 3
    assert (epochs.sort(1).values == torch.arange(num_sequences)).all()
    assert len({tuple(epoch.tolist()) for epoch in epochs}) > 1, "in a new order"


@pytest.mark.parametrize(("total", "count"), [(10, 10), (7, 1), (5, 4)])
def test_spread_indices_are_distinct_even_and_inside(total: int, count: int) -> None:
    found = spread(total, count)
    assert len(set(found.tolist())) == count and found[0] == 0 and found[-1] < total
    steps = np.diff(np.append(found, total))
    assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize(("protocol", "first", "num_columns"), [("paper", 3, 11), ("released", 4, 12)])
def test_inputs_and_targets_line_up(protocol: str, first: int, num_columns: int, make_run) -> None:
    """Column t is fed the token before the one it is asked for; the first column asked for is x[j+k]'s."""
    run = make_run(protocol)
    x = np.arange(24).reshape(2, 12)
    inputs, targets, column = to_inputs(run, x)
    assert column == first and inputs.shape == targets.shape == (2, num_columns)
    assert targets[0, column] == x[0, 4] and targets[0, -1] == x[0, -1]
    assert (inputs[:, 1:] == targets[:, :-1]).all()
    assert inputs[0, 0] == (11 if protocol == "released" else x[0, 0]), "the end token is the vocabulary's last"


# Compiling


def test_a_compiler_that_does_not_work_is_said_aloud_and_trained_without(make_run, fit, monkeypatch, capsys) -> None:
    def broken(*_: object, **__: object):
        def call(*_: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C++ compiler\nand a long story")

        return call

    expected = fit(make_run()).decoder.state_dict()
    monkeypatch.setattr(torch, "compile", broken)
    trained = fit(make_run(compile=True))
    assert not trained.compiled
    assert all(same(trained.decoder.state_dict(), expected).values())
    warning = capsys.readouterr().err
    assert warning.count("\n") == 1
    assert "torch.compile does not work here (no C++ compiler)" in warning and "compile: false" in warning


def test_a_compiled_bf16_transpose_keeps_every_row() -> None:
    """The keys' gradient under `released`, as small as g++ 12 spoiled it where it tuned for no processor it knows."""
    draw = torch.Generator().manual_seed(0)
    q, cos, sin = (torch.randn(shape, generator=draw) for shape in ((8, 4, 64, 64), (64, 32), (64, 32)))
    k = torch.randn((8, 64, 256), generator=draw).bfloat16().requires_grad_()

    def loss_of(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        a, b = k.unflatten(-1, (4, 64)).transpose(1, 2).float().unflatten(-1, (32, 2)).unbind(-1)
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(torch.bfloat16)
        return (q @ turned.transpose(-1, -2)).float().square().mean()

    expected, found = (
        torch.autograd.grad(CompiledOrNot(loss_of, compile_it)(q.bfloat16(), k), k)[0] for compile_it in (False, True)
    )
    torch.testing.assert_close(found, expected, rtol=0.05, atol=1e-3)
