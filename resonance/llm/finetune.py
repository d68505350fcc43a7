"""Training a language model: the fine-tunings of appendix C.2, and the tiny model's pretraining.

transformers' Trainer runs the loop, alone, under torchrun, or with DeepSpeed ZeRO-3 Offload. What
is ours: the order of the data, the schedule, the stop at a loss that is not finite, and that a
killed training goes on where its last whole checkpoint stands.
"""

import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from accelerate import PartialState
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from resonance.llm.attention import ON_CPU
from resonance.llm.checkpoints import WHOLE, last_whole, set_others_aside
from resonance.llm.settings import LOGIT_ROWS, FinetuneRun, TinyModel
from resonance.llm.text import Packed, Sequences
from resonance.record.files import write_json
from resonance.record.identity import identity
from resonance.record.precision import precision_here
from resonance.record.progress import Progress
from resonance.record.provenance import bits_depend_on


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One training, in steps. `schedule` maps a step (from 0) to a factor of learning_rate."""

    title: str
    length: int
    steps: int
    sequences_per_step: int
    micro_batch_size: int
    learning_rate: float
    schedule: Callable[[int], float]
    seed: int
    device: str
    precision: str
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.01
    clip_norm: float = 0.0
    checkpoint_every: int = 10**9
    gradient_checkpointing: bool = False
    deepspeed: str = "none"
    chunks: str = "all"
    resume: str = "exact"

    @property
    def num_tokens(self) -> int:
        return self.steps * self.sequences_per_step * self.length


@dataclass
class Trained:
    """The curve of a training, and from which step it went on (0: from the start)."""

    rows: list[dict] = field(default_factory=list)
    resumed_at: int = 0
    processes: int = 1


def finetune_plan(run: FinetuneRun, title: str, checkpoint_every: int) -> Plan:
    """A fine-tuning under its protocol's choices (L1 to L5, L9)."""
    choices, asked = run.choices, run.settings
    warmup = choices.warmup_steps or round(choices.warmup_fraction * run.steps)
    return Plan(
        title=title,
        length=run.length,
        steps=run.steps,
        sequences_per_step=run.sequences_per_step,
        micro_batch_size=asked.micro_batch_size,
        learning_rate=run.learning_rate,
        schedule=lambda step: warm_up(step, warmup, choices.decay_steps),
        seed=asked.seed,
        device=run.device,
        precision=precision_here(run.device, run.precision),
        beta1=choices.beta1,
        beta2=choices.beta2,
        weight_decay=choices.weight_decay,
        clip_norm=choices.clip_norm,
        checkpoint_every=checkpoint_every,
        gradient_checkpointing=asked.gradient_checkpointing,
        deepspeed=asked.deepspeed,
        chunks=choices.chunks,
        resume=choices.resume,
    )


def pretraining_plan(tiny: TinyModel, length: int, device: str, precision: str, title: str) -> Plan:
    """The tiny model's own training: 5 % warm-up, then a cosine to a tenth."""
    warmup = max(1, round(0.05 * tiny.steps))

    def schedule(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, tiny.steps - warmup)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * done))

    return Plan(
        title=title,
        length=length,
        steps=tiny.steps,
        sequences_per_step=tiny.sequences_per_step,
        micro_batch_size=tiny.sequences_per_step,
        learning_rate=tiny.learning_rate,
        schedule=schedule,
        seed=0,
        device=device,
        precision=precision_here(device, precision),
        beta2=0.95,
        weight_decay=0.1,
        clip_norm=1.0,
        checkpoint_every=max(1, tiny.steps // 5),
    )


def warm_up(step: int, warmup: int, decay_steps: int) -> float:
    """The factor at a step (from 0): rising to 1 over the warm-up; then 1, or falling to 0 at decay_steps (L2)."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 1.0 if not decay_steps else max(0.0, (decay_steps - step) / max(1, decay_steps - warmup))


def train(
    make_model: Callable[[], torch.nn.Module], packed: Packed, plan: Plan, folder: Path, *,
    made_of: Mapping[str, object] = MappingProxyType({}), code: Iterable[str] = (),
) -> Trained:  # fmt: skip
    """Train, and leave the model in folder/model. Checkpoints live in folder/checkpoints until it is done.

    make_model  called once, after DeepSpeed was set up, so that it can shard weights as they come
    made_of     what model and encoding make_model gives, by name
    code        the code that trains (`record.identity`)
                checkpoints of another identity than these make are not gone on from, but kept aside

    Equal arguments give equal weights, also through a kill: a resumed training reads the sequences
    that it would have read (L5 `exact`).

    Raises FloatingPointError at the first loss that is not finite, before the weights take it, and
    ValueError where memory does not suffice.
    """
    checkpoints = Path(folder) / "checkpoints"
    arguments = _arguments(plan, checkpoints)
    world, rank = arguments.world_size, arguments.process_index
    if rank == 0:
        set_others_aside(checkpoints, _identity_of(plan, packed, made_of, code))
    if world > 1:
        torch.distributed.barrier()
    start = last_whole(checkpoints)
    done = int(start.name.rpartition("-")[2]) if start else 0
    sequences = plan.steps * plan.sequences_per_step
    # L5: the released code skips as many micro-batches as it did steps.
    skip = done * plan.micro_batch_size * world if done and plan.resume == "micro_batches" else 0
    data = Sequences(packed, plan.length, sequences, plan.seed, chunks=plan.chunks, skip=skip)
    arguments.ignore_data_skip = bool(skip)
    if rank == 0:
        idle = sum(plan.schedule(step) == 0 for step in range(plan.steps))
        print(
            f"{plan.title}: {plan.num_tokens:,} tokens = {plan.steps} steps x {plan.sequences_per_step} sequences x "
            f"{plan.length}; {data.epochs:.2f} epochs"
            + (f"; {idle} steps train nothing, for the learning rate is 0 there (L2)" if idle else "")
            + (f"; resumed at step {done}" if done else "")
        )
    model = make_model()
    if plan.gradient_checkpointing and plan.deepspeed == "none":  # under ZeRO-3 a weight is whole only in its own call
        never_hold_all_logits(model)
    with Progress(plan.title, plan.steps, found=done, quiet=rank != 0) as progress:
        try:
            trainer = _Trainer(
                plan=plan, model=model, args=arguments, train_dataset=data, data_collator=_stack,
                callbacks=[_Watch(progress, checkpoints)],
            )  # fmt: skip
        except RuntimeError as error:  # a tracker that is not installed
            raise ValueError(f"RESONANCE_REPORT_TO: {error}") from None
        trainer.remove_callback(PrinterCallback)  # Progress says it
        try:
            trainer.train(resume_from_checkpoint=str(start) if start else None)
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"out of memory at {plan.micro_batch_size} sequences of {plan.length} tokens at a time "
                f"({str(error).splitlines()[0][:120]}); lower llm.finetuning.micro_batch_size, set "
                "gradient_checkpointing: true, or deepspeed: zero3_offload"
            ) from None
    trainer.save_model(str(Path(folder) / "model"))
    trained = Trained(rows=_curve(trainer.state.log_history, data), resumed_at=done, processes=world)
    if world > 1:
        torch.distributed.barrier()
    trainer.accelerator.end_training()
    if rank == 0:
        shutil.rmtree(checkpoints, ignore_errors=True)
    return trained


def never_hold_all_logits(model: torch.nn.Module) -> None:
    """Have a causal model's loss made of some positions at a time, their logits made again in the backward pass.

    Logits are most of what a long sequence takes: 12.9 GB for 16,384 positions and 49,152 entries.
    """
    head = model.get_output_embeddings()
    logits_of, head.forward = head.forward, lambda hidden: hidden

    def part(hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits_of(hidden).float(), targets, reduction="sum")

    def loss_of(logits: torch.Tensor, labels: torch.Tensor, num_items_in_batch: int | None = None, **_: object):
        parts = (each.flatten(0, 1).split(LOGIT_ROWS) for each in (logits[:, :-1], labels[:, 1:, None]))
        total = sum(
            checkpoint(part, hidden, targets[:, 0], use_reentrant=False) for hidden, targets in zip(*parts, strict=True)
        )
        return total / (num_items_in_batch or labels[:, 1:].numel())

    model.loss_function = loss_of


def _arguments(plan: Plan, checkpoints: Path) -> TrainingArguments:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    batch = plan.micro_batch_size * world
    if plan.sequences_per_step % batch:
        raise ValueError(
            f"micro_batch_size * processes must divide the {plan.sequences_per_step} sequences of a step, got "
            f"{plan.micro_batch_size} * {world}"
        )
    accumulation = plan.sequences_per_step // batch
    deepspeed = zero3_offload(plan, accumulation) if plan.deepspeed == "zero3_offload" else None
    prepared = deepspeed is not None and plan.device == "cpu"
    if prepared:
        _join_on_cpu(plan)
    trackers = os.environ.get("RESONANCE_REPORT_TO", "none").split(",")
    if "tensorboard" in trackers:  # its default is among the checkpoints, which go
        os.environ.setdefault("TENSORBOARD_LOGGING_DIR", f"logs/tensorboard/{plan.title}")
    try:
        return TrainingArguments(
            output_dir=str(checkpoints),
            max_steps=plan.steps,
            per_device_train_batch_size=plan.micro_batch_size,
            gradient_accumulation_steps=accumulation,
            learning_rate=plan.learning_rate,
            adam_beta1=plan.beta1,
            adam_beta2=plan.beta2,
            weight_decay=plan.weight_decay,
            max_grad_norm=plan.clip_norm,
            optim="adamw_torch",
            bf16=plan.precision == "bf16",
            use_cpu=plan.device == "cpu" and not prepared,  # it would make DeepSpeed plain data parallelism
            accelerator_config={"use_configured_state": True} if prepared else None,
            activation_checkpointing=plan.gradient_checkpointing,
            activation_checkpointing_kwargs=CHECKPOINTING if plan.device == "cpu" and deepspeed is None else None,
            deepspeed=deepspeed,
            seed=plan.seed,
            train_sampling_strategy="sequential",  # Sequences is in its order already
            dataloader_pin_memory=plan.device == "cuda",
            save_strategy="steps",
            save_steps=plan.checkpoint_every,
            save_total_limit=2,
            logging_steps=1,
            logging_nan_inf_filter=False,
            disable_tqdm=True,
            report_to=trackers,
        )
    except ImportError as error:
        raise ValueError(f"{' '.join(str(error).split())[:200]}; install what it names, or deepspeed: none") from None


def _join_on_cpu(plan: Plan) -> None:
    """Let the processes of a DeepSpeed training on CPUs know each other.

    Left to itself accelerate finds no GPU, takes each process for the only one, and every one of
    them trains on the same sequences.
    """
    if plan.precision == "bf16":
        raise ValueError("precision must be fp32 for deepspeed on a CPU, got bf16: transformers refuses it there")
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    PartialState(backend="gloo")


def zero3_offload(plan: Plan, accumulation: int) -> dict:
    """DeepSpeed's settings: ZeRO-3 with parameters and optimizer in host memory, bf16 (appendix C.2)."""
    host = {"device": "cpu", "pin_memory": plan.device == "cuda"}
    return {
        "zero_optimization": {
            "stage": 3,
            "offload_param": host,
            "offload_optimizer": host,
            "overlap_comm": plan.device == "cuda",
            "contiguous_gradients": True,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
        "bf16": {"enabled": plan.precision == "bf16"},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": plan.learning_rate,
                "betas": [plan.beta1, plan.beta2],
                "eps": 1e-8,
                "weight_decay": plan.weight_decay,
                # On a CPU there is nothing to offload from, and torch's AdamW needs no compiler.
                "torch_adam": plan.device == "cpu",
            },
        },
        "gradient_clipping": plan.clip_norm,
        "train_micro_batch_size_per_gpu": plan.micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "steps_per_print": 10**9,
    }


def _keep_attention():
    return create_selective_checkpoint_contexts([ON_CPU.default])


CHECKPOINTING = {"use_reentrant": False, "context_fn": _keep_attention}
"""On a CPU: what attention gave is kept, all else made again. It gives the same bits in less time, and a layer's output
takes little of a host's memory."""


def _stack(rows: list[np.ndarray]) -> dict[str, torch.Tensor]:
    ids = torch.from_numpy(np.stack(rows))
    return {"input_ids": ids, "labels": ids}


class _Trainer(Trainer):
    """The Trainer with the plan's schedule, and a stop at a loss that is not finite."""

    def __init__(self, *, plan: Plan, **options: object) -> None:
        self.plan = plan
        super().__init__(**options)

    def create_scheduler(self, num_training_steps: int, optimizer=None):
        if self.lr_scheduler is None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, self.plan.schedule)
        return self.lr_scheduler

    def compute_loss(self, *arguments: object, **options: object) -> torch.Tensor:
        """Checked here, before anything goes backward: DeepSpeed's backward ends in the update of the weights."""
        loss = super().compute_loss(*arguments, **options)
        if not torch.isfinite(loss):
            step = self.state.global_step
            raise FloatingPointError(
                f"the loss at step {step + 1} is {loss.item()}; the weights of step {step} were kept from it and the "
                "last checkpoint stands. Lower llm.finetuning.learning_rate, or train in fp32"
            )
        return loss


class _Watch(TrainerCallback):
    """Progress, and the mark of a whole checkpoint."""

    def __init__(self, progress: Progress, checkpoints: Path) -> None:
        self.progress, self.checkpoints = progress, checkpoints

    def on_log(self, args, state, control, logs=None, **_: object) -> None:
        if logs and "loss" in logs:
            self.progress.report(state.global_step, f"loss {logs['loss']:.4f}")

    def on_save(self, args, state, control, **_: object) -> None:
        if args.world_size > 1:
            torch.distributed.barrier()  # every process has written its part
        if args.process_index == 0:
            write_json(self.checkpoints / f"checkpoint-{state.global_step}" / WHOLE, {"step": state.global_step})


def _identity_of(plan: Plan, packed: Packed, made_of: Mapping[str, object], code: Iterable[str]) -> dict[str, str]:
    """Everything that a training depends on but for the number of its devices (each checkpoint says it)."""
    known = {field.name: getattr(plan, field.name) for field in fields(plan)}
    del known["title"], known["checkpoint_every"]  # no number depends on them
    known["schedule"] = [plan.schedule(step) for step in range(plan.steps)]
    known |= {"text": packed.run, "documents": packed.documents["document"].to_list(), "torch": torch.__version__}
    known["processor"] = bits_depend_on(plan.device)
    return identity({**known, **made_of}, code)


def _curve(history: list[dict], data: Sequences) -> list[dict]:
    """Loss, learning rate and gradient norm of every step, those before a kill included."""
    names = {"loss": "train_loss", "learning_rate": "learning_rate", "grad_norm": "gradient_norm"}
    per_step = data.epochs / max(1, max((entry["step"] for entry in history if "loss" in entry), default=1))
    return [
        {"step": entry["step"], "epoch": entry["step"] * per_step, "metric": metric, "value": float(entry[key])}
        for entry in history
        if "loss" in entry
        for key, metric in names.items()
        if key in entry and math.isfinite(float(entry[key]))
    ]
