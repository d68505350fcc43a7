"""Tiny language models, texts and plans for the tests of the language-model half."""

from pathlib import Path

import torch

from resonance.encoding.spec import EncodingSpec
from resonance.hf.swap import swap_rotary
from resonance.llm.evaluations.perplexity import PerplexityRun, PerplexitySettings
from resonance.llm.finetune import Plan
from resonance.llm.models import make_tiny
from resonance.llm.protocol import LlmProtocol
from resonance.llm.settings import PerplexityChoices, Text, TextRun, TinyModel
from resonance.llm.text import Packed, Tokenizer, pack
from resonance.record.settings import parse, read_yaml

ROOT = Path(__file__).resolve().parents[1]
L = 32
TINY = TinyModel(
    d_model=16, d_ff=24, num_layers=2, num_heads=2, text="t", steps=4, sequences_per_step=4, learning_rate=1e-2
)


def spec(method: str = "yarn", resonance: bool = True, **fields: object) -> EncodingSpec:
    scale = {} if method == "rope" else {"scale": 4.0}
    return EncodingSpec(**{"method": method, "resonance": resonance, "train_length": L, **scale, **fields}).filled()


def tiny(asked: EncodingSpec | None = None, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)  # transformers initialises from the global generator
    return swap_rotary(make_tiny(TINY, L, 10_000.0), asked or spec()).eval()


def make_text(folder: Path, held_out: int = 2, documents: int = 8, length: int = 400) -> Packed:
    """Documents in which every byte follows from the two before it: learnable, and no two alike."""
    books = folder / "books"
    books.mkdir(parents=True)
    for number in range(documents):
        letters = [number % 20, (3 * number + 1) % 20]
        for i in range(length):
            letters.append((letters[-1] + letters[-2] + (i % 37 == 0)) % 20)
        (books / f"{number}.txt").write_bytes(bytes(97 + letter for letter in letters))
    return pack(
        TextRun(text=Text(source=f"path:{books}", held_out=held_out), tokenizer="bytes"),
        Tokenizer.of_bytes(),
        folder / "packed",
    )


def protocols() -> dict[str, LlmProtocol]:
    path = ROOT / "config/llm_protocols.yaml"
    return {name: parse(LlmProtocol, fields, name) for name, fields in read_yaml(path).items()}


def make_plan(**changes: object) -> Plan:
    return Plan(
        **{
            "title": "test", "length": L, "steps": 6, "sequences_per_step": 4, "micro_batch_size": 2,
            "learning_rate": 1e-2, "schedule": lambda step: 1.0, "seed": 0, "device": "cpu", "precision": "fp32",
            "checkpoint_every": 2, **changes,
        }
    )  # fmt: skip


def perplexity_run(lengths=(16, 32, 64), documents=2, pieces=1, protocol="paper", **choices: object) -> PerplexityRun:
    chosen = {**protocols()[protocol].choices(PerplexityChoices).model_dump(), **choices}
    return PerplexityRun(
        choices=PerplexityChoices(**chosen),
        model="tiny",
        lengths=list(lengths),
        min_tokens={"t": 1},
        settings=PerplexitySettings(corpora={"t": {"documents": documents, "pieces": pieces}}, seed=0),
        device="cpu",
        precision="fp32",
        attention="auto",
    )
