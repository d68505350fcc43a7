"""A GGUF with its tokenizer as a Hugging Face folder. Read as data: no pickle, nothing run."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

_CONTROL = 3  # GGUF's token type of special tokens


def gguf_to_folder(path: Path, folder: Path) -> None:
    """A GGUF's weights, dequantized to float32, and its byte-level BPE, as a folder.

    The tokenizer is built from the file's own vocabulary and merges: transformers' automatic
    conversion of such files adds a BOS that the model was not trained with. So documents get no
    BOS, and <|endoftext|> as their end where the vocabulary has it.

    Raises ValueError for a tokenizer of another kind.
    """
    read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # one that is not marked as quantized
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    _gguf_tokenizer(path).save_pretrained(folder)


def _gguf_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    kind, pre = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("model", "pre"))
    if kind != "gpt2" or pre not in ("smollm", "gpt-2", "default"):
        raise ValueError(f"{path.name}: the tokenizer must be gpt2 with pre smollm or gpt-2, got {kind} with {pre}")
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"].contents()]
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    by_byte = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = [pre_tokenizers.Digits(individual_digits=True)] if pre == "smollm" else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*digits, by_byte])
    made.decoder = decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"].contents()
    control = [token for token, type_ in zip(tokens, types, strict=True) if type_ == _CONTROL]
    end = "<|endoftext|>" if "<|endoftext|>" in control else None
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=end, additional_special_tokens=control)
