"""What a preset's language models will cost, before anything runs: arithmetic, no measurement.

Legend: N parameters, T tokens of a sequence, d width, l layers, V vocabulary, G devices.
"""

from dataclasses import dataclass

from resonance.record.config import Config
from resonance.record.llm import UNTUNED, ModelSize, finetune_run, measured

PEAK_FLOPS = 312e12
"""bf16 products of an A100 per second, the paper's GPU."""
TRAIN_UTILISATION, EVALUATE_UTILISATION = 0.3, 0.4
"""The part of that peak assumed; offloading to the host may halve it."""
BF16, FP32 = 2, 4


@dataclass(frozen=True)
class Cost:
    """One job, or all of one kind for a model. Memory of one device; host memory of the machine."""

    model: str
    job: str
    gpu_hours: float
    device_gb: float
    host_gb: float
    disk_gb: float


def train_flops(size: ModelSize, tokens: int, length: int, checkpointing: bool) -> float:
    """6 N per token and 6 l d T for causal attention; a third more to recompute activations."""
    per_token = 6 * size.num_parameters + 6 * size.num_layers * size.d_model * length
    return per_token * tokens * (4 / 3 if checkpointing else 1.0)


def evaluate_flops(size: ModelSize, length: int) -> float:
    """2 N per token and 2 l d T for causal attention, over one window."""
    return (2 * size.num_parameters + 2 * size.num_layers * size.d_model * length) * length


def plan(config: Config) -> list[Cost]:
    """Every fine-tuning, and all evaluations together, of the models whose size the preset gives."""
    llm, costs = config.preset.llm, []
    asked = llm.finetuning
    for name, model in llm.models.items():
        size = model.size
        if size is None:
            continue
        n = size.num_parameters
        offload, devices = asked.deepspeed == "zero3_offload", asked.processes
        for strategy in model.strategies:
            run = finetune_run(llm, config.llm_protocol, name, strategy)
            rows = run.settings.micro_batch_size * run.length
            kept = size.num_layers * rows * size.d_model * BF16  # a checkpoint a layer
            layer = 34 * rows * size.d_model + 4 * BF16 * n // size.num_layers  # one recomputed; two gathered
            logits = rows * size.vocabulary * (BF16 + FP32)
            state = 0 if offload else 16 * n // devices
            seconds = train_flops(size, run.num_tokens, run.length, asked.gradient_checkpointing)
            for encoding in asked.encodings:
                costs.append(
                    Cost(
                        model=name,
                        job=f"fine-tune {encoding}, {strategy}",
                        gpu_hours=seconds / (PEAK_FLOPS * TRAIN_UTILISATION) / 3600,
                        device_gb=(kept + layer + logits + state) / 1e9,
                        host_gb=(18 * n if offload else 2 * n) / 1e9,  # fp32 weights, AdamW's two, bf16 and gradients
                        disk_gb=(FP32 * n + 2 * 14 * n) / 1e9,  # the model, and two checkpoints while it runs
                    )
                )
        units = sum(corpus.documents * corpus.pieces for corpus in llm.perplexity.corpora.values())
        longest, passes = model.lengths[-1], 0.0
        for encoding, strategy in measured(llm, name):
            follows = strategy == UNTUNED and config.encodings[encoding].get("method") == "dynamic_ntk"
            lengths = model.lengths if follows else [longest]  # one pass serves all lengths but there
            passes += units * sum(evaluate_flops(size, length) for length in lengths)
        costs.append(
            Cost(
                model=name,
                job=f"{len(measured(llm, name))} evaluations",
                gpu_hours=passes / (PEAK_FLOPS * EVALUATE_UTILISATION) / 3600,
                device_gb=(BF16 * n + 20 * longest * size.d_model) / 1e9,
                host_gb=BF16 * n / 1e9,
                disk_gb=0.1,
            )
        )
    return costs
