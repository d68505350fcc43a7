"""What PosGen's jobs cost: FLOP, memory and disk of each, from its settings alone."""

from dataclasses import replace

from resonance.posgen.preset import Posgen
from resonance.posgen.settings import TrainRun
from resonance.record.job import Job, Work, light

TRAIN_START, EVALUATE_START = 11.0, 2.2  # seconds of a CPU job before its first step: imports, compiled code
TRAINER, EVALUATOR = 567.0, 383.0  # MB that imports and compiled code take
EAGER = 3.0  # what an element costs in uncompiled training, in those of compiled training
FORWARD = 0.36  # an element in an uncompiled forward pass, in those of compiled forward and backward


def weights(run: TrainRun) -> tuple[int, int]:
    """How many numbers the decoder holds, and how many of them are trained."""
    m, inner = run.model, run.model.num_heads * run.model.head_dim
    feed_forward = 2 * m.d_model * m.d_ff + m.d_model
    attention = 4 * m.d_model * inner + m.d_model
    rest = run.vocab_size * m.d_model + m.d_model
    held = run.num_layers * (attention + feed_forward) + rest
    frozen = run.num_layers * feed_forward if run.choices.trained == "all_but_feed_forward" else 0
    return held, held - frozen


def products(run: TrainRun, num_sequences: float, num_positions: int, training: bool) -> float:
    """FLOP of the matrix products: 2 for a multiplication and addition; backward costs as much twice,
    once where a weight is frozen. Scores are made whole, without leaving out the masked half."""
    m, inner = run.model, run.model.num_heads * run.model.head_dim
    frozen = run.choices.trained == "all_but_feed_forward"
    every, fixed = (3, 2 if frozen else 3) if training else (1, 1)
    a_layer = every * (8 * m.d_model * inner + 4 * num_positions * inner) + fixed * 4 * m.d_model * m.d_ff
    return num_sequences * num_positions * (run.num_layers * a_layer + every * 2 * m.d_model * run.vocab_size)


def activations(run: TrainRun, num_sequences: float, num_positions: int, scores: bool = True) -> float:
    """Elements of activations of all layers: scores (left out where attention is fused), hidden
    layer, q k v and what they mix to, and some six of the model's width."""
    m = run.model
    width = num_positions * m.num_heads * scores + m.d_ff + 4 * m.num_heads * m.head_dim + 6 * m.d_model
    return num_sequences * num_positions * run.num_layers * width


def train_work(run: TrainRun) -> Work:
    """The steps, and the looks between them, which run uncompiled."""
    settings, length = run.training, run.data.train_length - 1 + run.choices.start_token
    looks = settings.num_looks * settings.look_sequences
    elements = run.steps * activations(run, settings.batch_size, length) * (1.0 if settings.compile else EAGER)
    return Work(
        flop=run.steps * products(run, settings.batch_size, length, True) + products(run, looks, length, False),
        elements=elements + FORWARD * activations(run, looks, length, scores=False),
    )


def _data(posgen: Posgen, job: Job) -> Job:
    data = posgen.data_run(job.wildcards["protocol"], job.wildcards["task"]).data
    splits = [(data.num_train, data.train_length), (data.num_validation + data.num_test, data.test_length)]
    return light(job, disk=sum(count * length for count, length in splits) * 0.6e-6)  # a token takes 0.4 to 0.8 bytes


def _train(posgen: Posgen, job: Job) -> Job:
    run = posgen.train_run(job.wildcards["protocol"], job.wildcards["task"])
    (held, trained), settings = weights(run), run.training
    snapshots = 4e-6 * settings.num_snapshots * trained
    alive = activations(run, settings.batch_size, run.data.train_length)
    checkpoint = 16e-6 * trained + snapshots  # weights, two moments, the best look so far
    return replace(
        job,
        work=train_work(run),
        precision=settings.precision,
        start=TRAIN_START,
        memory=TRAINER + 3.3e-6 * alive + 16e-6 * held + snapshots,
        disk=4e-6 * held + snapshots,
        scratch=3 * checkpoint,  # two are kept while one is written
        device_memory=4e-6 * alive + 16e-6 * held if settings.device == "cuda" else 0.0,
        computes=True,
    )


def _evaluate(posgen: Posgen, job: Job) -> Job:
    names = job.wildcards
    run = posgen.train_run(posgen.train_protocol(names["protocol"], names["train_encoding"]), names["task"])
    asked, length = posgen.settings.evaluation, run.data.test_length - 1 + run.choices.start_token
    sequences = asked.test_sequences + asked.curve_sequences * run.training.num_snapshots
    held, trained = weights(run)
    alive = activations(run, asked.batch_size, length, scores=False) / run.num_layers
    elements = FORWARD * activations(run, sequences, length, scores=False)
    return replace(
        job,
        work=Work(products(run, sequences, length, False), elements),
        precision=asked.precision,
        start=EVALUATE_START,
        memory=EVALUATOR + 4e-6 * (held + run.training.num_snapshots * trained + alive),
        disk=0.02,
        device_memory=4e-6 * (held + alive) if run.training.device == "cuda" else 0.0,
        computes=True,
    )


def _probe(posgen: Posgen, job: Job) -> Job:
    """Eight passes over the test sequences, attention's scores written out in one of them."""
    names, asked = job.wildcards, posgen.settings.evaluation
    run = posgen.train_run(posgen.train_protocol(names["protocol"], names["train_encoding"]), names["task"])
    length = run.data.test_length - 1 + run.choices.start_token
    seen = 8 * asked.test_sequences
    return replace(
        _evaluate(posgen, job),
        work=Work(products(run, seen, length, False), FORWARD * activations(run, seen, length)),
        memory=EVALUATOR + 4e-6 * (weights(run)[0] + 3 * activations(run, asked.batch_size, length) / run.num_layers),
    )


COSTS = {
    "posgen_data_one": _data, "posgen_train_one": _train, "posgen_evaluate": _evaluate, "posgen_probe": _probe
}  # fmt: skip
"""By rule: a job as the workflow asks for it, to the same with what it costs."""
