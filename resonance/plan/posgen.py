"""The jobs of PosGen, with the FLOP, the memory and the disk of each."""

from collections.abc import Iterable
from typing import NamedTuple

from resonance.plan.job import Job, Work, light_job
from resonance.record import runs
from resonance.record.config import Cell, Config
from resonance.record.runs import TrainRun

TRAIN_START, EVALUATE_START = 11.0, 2.2  # seconds of a CPU job before its first step: imports, compiled code
EAGER = 3.0  # what an element costs in uncompiled training, in those of compiled training
FORWARD = 0.36  # an element in an uncompiled forward pass, in those of compiled forward and backward


class Training(NamedTuple):
    """One trained model."""

    protocol: str
    task: str
    train_encoding: str
    seed: int


def training_of(cell: Cell) -> Training:
    """The model that an evaluation measures; what protocols and encodings share is one."""
    return Training(cell.train_protocol, cell.task, cell.train_encoding, cell.seed)


def jobs(config: Config, studies: Iterable[str] = ("table1",)) -> list[Job]:
    """Every job that the studies need, once: what they share is trained and generated once."""
    studies = list(dict.fromkeys(studies))
    return jobs_of_cells(config, [cell for study in studies for cell in config.study_cells(study)], studies)


def jobs_of_cells(config: Config, cells: Iterable[Cell], studies: Iterable[str] = ()) -> list[Job]:
    """The same for any evaluations, with the tables and figures of some studies."""
    cells = sorted(set(cells))
    trainings = sorted({training_of(cell) for cell in cells})
    data = config.preset.posgen.data
    splits = [(data.num_train, data.train_length), (data.num_validation + data.num_test, data.test_length)]
    sequences = sum(count * length for count, length in splits) * 0.6e-6  # a token takes 0.4 to 0.8 bytes
    drawn = sorted({(config.data_protocol(cell.protocol), cell.task) for cell in cells})
    made = [light_job(config, "posgen_data", *place, disk=sequences) for place in drawn]
    lists = {study: config.preset.posgen.all_studies[study] for study in studies}
    beside = [study for study in lists if study in ("table1", "extended", "keyed")]
    scored = {
        (protocol, task) for study in beside for protocol in lists[study].protocols for task in lists[study].tasks
    }
    made += [light_job(config, "posgen_baseline", *place) for place in sorted(scored)]
    of = {place: runs.train_run(config, *place) for place in {(t.protocol, t.task) for t in trainings}}
    made += [_train_job(config, of[t.protocol, t.task]) for t in trainings]
    made += [_evaluate_job(config, of[cell.train_protocol, cell.task], cell.protocol) for cell in cells]
    for study, its in lists.items():
        if study not in beside:
            made += [light_job(config, "posgen_collect", study), light_job(config, f"{study}_table")]
            continue
        made += [light_job(config, "study_table", study, protocol) for protocol in its.protocols]
        if study != "extended":
            made += [light_job(config, "study_shortcuts", study, protocol) for protocol in its.protocols]
        if study == "table1":
            made += [light_job(config, "figure1"), light_job(config, "figure2")]
            made += [light_job(config, "figure3", protocol) for protocol in its.protocols]
    return made


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


def _train_job(config: Config, run: TrainRun) -> Job:
    (held, trained), settings = weights(run), run.training
    snapshots = 4e-6 * settings.num_snapshots * trained
    alive = activations(run, settings.batch_size, run.data.train_length)
    checkpoint = 16e-6 * trained + snapshots  # weights, two moments, the best look so far
    return Job(
        "posgen_train",
        (run.protocol, run.task),
        config.preset.resources.of("train"),
        train_work(run),
        settings.precision,
        TRAIN_START,
        memory=470 + 3.3e-6 * alive + 16e-6 * held + snapshots,
        disk=4e-6 * held + snapshots,
        scratch=3 * checkpoint,  # two are kept while one is written
        device_memory=4e-6 * alive + 16e-6 * held if settings.device == "cuda" else 0.0,
        computes=True,
    )


def _evaluate_job(config: Config, run: TrainRun, protocol: str) -> Job:
    asked, length = config.preset.posgen.evaluation, run.data.test_length - 1 + run.choices.start_token
    sequences = asked.test_sequences + asked.curve_sequences * run.training.num_snapshots
    held, trained = weights(run)
    alive = activations(run, asked.batch_size, length, scores=False) / run.num_layers
    return Job(
        "posgen_evaluate",
        (protocol, run.task),
        config.preset.resources.of("evaluate"),
        Work(products(run, sequences, length, False), FORWARD * activations(run, sequences, length, scores=False)),
        asked.precision,
        EVALUATE_START,
        memory=330 + 4e-6 * (held + run.training.num_snapshots * trained + alive),
        disk=0.02,
        device_memory=4e-6 * (held + alive) if run.training.device == "cuda" else 0.0,
        computes=True,
    )
