"""Language models by source, behind one small file: base.json says where the weights and the tokenizer are.

transformers does the modelling; `resonance.hf.swap` puts the encoding in.
"""

import hashlib
import os
import warnings
from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from resonance.encoding.spec import EncodingSpec
from resonance.hf.swap import describe, load_pretrained, original_length, rotation_on
from resonance.llm.attention import attend_faster, attention_of
from resonance.llm.base import Base, hub_errors
from resonance.llm.base import tokenizer_of as tokenizer_of
from resonance.llm.convert import gguf_to_folder
from resonance.llm.settings import ModelRun, TinyModel
from resonance.llm.text import BYTE_BOS, BYTE_EOS, BYTE_VOCABULARY, BYTES
from resonance.record.files import read_json, read_record, sums
from resonance.record.precision import precision_here
from resonance.record.provenance import Stopwatch, bits_depend_on, cuda_versions, device_name
from resonance.record.settings import Settings, SettingsError

PACKAGES = ("transformers", "tokenizers", "accelerate", "deepspeed", "flash-attn", "gguf", "datasets")
"""Whose versions a run of this half names beside those that every run names."""


def prepare(model: ModelRun, path: Path, source: Path | None = None) -> Base:
    """base.json of a model that exists: a package's GGUF (converted beside it), a folder, one of the hub.

    source  where a `pypi:` package was unpacked, or an `hf:` model was put
    """
    kind, _, name = model.source.partition(":")
    folder = f"./{os.path.relpath(source, path.parent)}" if kind == "hf" else name
    if kind == "pypi":
        files = sorted(Path(source).rglob("*.gguf"))
        if len(files) != 1:
            raise ValueError(f"source {model.source} must hold one .gguf file, got {len(files)} in {source}")
        folder = "./model"
        with hub_errors(model.source):
            gguf_to_folder(files[0], path.parent / "model")
    where = str(path.parent / folder) if folder.startswith("./") else folder
    _check_data(model.source, Path(where))
    with hub_errors(model.source):
        config, tokenizer = AutoConfig.from_pretrained(where), AutoTokenizer.from_pretrained(where)
    check_config(model, config)
    base = Base(
        source=model.source,
        folder=folder,
        tokenizer="model",
        bos=tokenizer.bos_token_id,
        eos=tokenizer.eos_token_id,
        vocabulary=config.get_text_config().vocab_size,
        train_length=model.train_length,
        rope_base=model.rope_base,
        digest=_digest(model),
    )
    base.write(path)
    return base


def _check_data(source: str, folder: Path) -> None:
    """Raises ValueError for a folder without a model, and for one with code of its own or weights as pickles."""
    if not (folder / "config.json").exists():
        raise ValueError(f"source {source}: no config.json in {folder}; name a Hugging Face model folder")
    for path in sorted(folder.glob("*config.json")):
        if "auto_map" in read_json(path):
            raise ValueError(
                f"source {source}: {path} names code of the model's own (auto_map), which is never run here; name a "
                "model whose class transformers has"
            )
    if not any(folder.glob("*.safetensors")):
        raise ValueError(
            f"source {source}: no .safetensors in {folder}; weights as pickles can run code when they are read, and "
            "are not: convert them, with save_pretrained where you trust them"
        )


def check_config(model: ModelRun, config) -> None:
    """Raises ValueError where a preset's facts are not those of the model's config."""
    text = config.get_text_config()
    for key, wanted, found in (
        ("train_length", model.train_length, original_length(text)),
        ("rope_base", model.rope_base, float((text.rope_parameters or {}).get("rope_theta", 0))),
    ):
        if wanted != found:
            raise ValueError(f"{key} must be what the config of {model.source} says, {found:g}, got {wanted:g}")


def make_tiny(tiny: TinyModel, train_length: int, rope_base: float) -> LlamaForCausalLM:
    """A Llama over bytes, freshly initialised; the caller seeds torch."""
    config = LlamaConfig(
        vocab_size=BYTE_VOCABULARY,
        hidden_size=tiny.d_model,
        intermediate_size=tiny.d_ff,
        num_hidden_layers=tiny.num_layers,
        num_attention_heads=tiny.num_heads,
        num_key_value_heads=tiny.num_heads,
        max_position_embeddings=train_length,
        rope_parameters={"rope_type": "default", "rope_theta": rope_base},
        tie_word_embeddings=True,
        bos_token_id=BYTE_BOS,
        eos_token_id=BYTE_EOS,
    )
    return LlamaForCausalLM(config)


def base_of_tiny(model: ModelRun, num_parameters: int) -> Base:
    return Base(
        source=model.source,
        folder="./model",
        tokenizer=BYTES,
        bos=BYTE_BOS,
        eos=BYTE_EOS,
        vocabulary=BYTE_VOCABULARY,
        train_length=model.train_length,
        rope_base=model.rope_base,
        digest=_digest(model),
        num_parameters=num_parameters,
    )


def _digest(model: ModelRun) -> str:
    return hashlib.sha256(model.to_json().encode()).hexdigest()


def load(
    base: Base, spec: EncodingSpec, *, device: str, precision: str, attention: str, folder: Path | None = None,
    training: bool = False, generating: bool = False,
) -> torch.nn.Module:  # fmt: skip
    """The base's weights, or those of a fine-tuned folder, with an encoding in place and checked.

    On a GPU bf16 weights serve evaluation; training keeps float32 ones, as does a CPU (autocast), unless it
    generates: a token at a time, casting the weights would take longer than the products.
    """
    precision = precision_here(device, precision)
    narrow = precision == "bf16" and (device == "cuda" or generating) and not training
    with hub_errors(base.source):
        model = load_pretrained(
            folder or base.folder,
            spec,
            dtype=torch.bfloat16 if narrow else torch.float32,
            attn_implementation=attention_of(attention, device, precision),
            use_safetensors=True,  # no pickles
        )
    attend_faster(model, attention, device, precision)
    return model if training else model.to(device).eval()


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """bf16: on a CPU that has them products over float32 weights; a GPU's weights are bf16 themselves."""
    on_cpu = device.type == "cpu" and precision_here("cpu", precision) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=on_cpu)


def measured(
    names: dict, run: Settings, base: Base, loaded: object, spec: EncodingSpec, code: list[str], threads: int,
    made: dict, watch: Stopwatch,
) -> dict:  # fmt: skip
    """What stands behind the rows that a model was measured for."""
    return {
        **names,
        "settings": run.model_dump(mode="json"),
        "source": base.source,
        "num_parameters": sum(p.numel() for p in loaded.parameters()),
        "spec": spec.to_dict(),
        "threads": threads,
        "precision": precision_here(run.device, run.precision),
        **describe(loaded),
        "device": device_name(run.device),
        "code": code,
        "provenance": made,
        "cost": watch.read(),
    }


def made_of(run: Settings, spec: EncodingSpec, base: Path, model: Path | None) -> dict:
    """What all that a model says depends on beside the run, the code and what it reads, for `record.identity`.

    model  fine-tuned weights: themselves, for another training of the same settings may end elsewhere
    """
    return {
        "precision used": precision_here(run.device, run.precision),
        "encoding": spec.to_dict(),
        "base": read_record(base, "base"),
        "weights": sums(model) if model else "the base's",
        "processor": bits_depend_on(run.device),
        "torch": torch.__version__,
    }


def torch_on(device: str, threads: int):
    """torch, with so many threads. Raises SettingsError where the device is not there."""
    torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            f"llm.device is cuda, but torch sees no GPU here ({cuda_versions()}); run on a machine with one, mend its "
            "driver or install torch for an older CUDA (docs/installing.md), or choose a preset for the CPU "
            "(PRESET=laptop)"
        )
    if (rotation := rotation_on(device)).startswith("torch reference ("):
        warnings.warn(
            f"rotations run as {rotation}: the op was built without CUDA. The numbers are the same, and it is slower; "
            "install this package again where nvcc is (docs/installing.md)",
            stacklevel=2,
        )
    return torch
