"""llama2.c's .bin as a Hugging Face folder: how the tests get a real checkpoint of 260k parameters."""

import struct
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def llama2c_to_folder(weights: Path, tokenizer: Path, folder: Path) -> None:
    """A model of karpathy's llama2.c (version 0: seven int32, then float32) and its tokenizer, as a folder.

    Its queries and keys turn the pairs (2j, 2j+1); Hugging Face's Llama turns (j, j + d/2): their
    rows are permuted, which changes no product q.k.

    Raises ValueError for a file that is not whole.
    """
    raw = Path(weights).read_bytes()
    dim, hidden, layers, heads, kv_heads, vocabulary, length = struct.unpack("7i", raw[:28])
    values, at = np.frombuffer(raw, dtype="<f4", offset=28), 0
    head_dim, shared, vocabulary = dim // heads, vocabulary > 0, abs(vocabulary)

    def take(*shape: int) -> torch.Tensor:
        nonlocal at
        size = int(np.prod(shape))
        if at + size > len(values):
            raise ValueError(f"{weights} must hold the weights that its header promises, got {len(values)} numbers")
        at += size
        return torch.from_numpy(values[at - size : at].reshape(shape).copy())

    def half_split(rows: torch.Tensor, count: int) -> torch.Tensor:
        return rows.view(count, head_dim // 2, 2, dim).transpose(1, 2).reshape(count * head_dim, dim)

    state = {"model.embed_tokens.weight": take(vocabulary, dim)}
    stacked = {
        "input_layernorm": take(layers, dim),
        "self_attn.q_proj": take(layers, heads * head_dim, dim),
        "self_attn.k_proj": take(layers, kv_heads * head_dim, dim),
        "self_attn.v_proj": take(layers, kv_heads * head_dim, dim),
        "self_attn.o_proj": take(layers, dim, heads * head_dim),
        "post_attention_layernorm": take(layers, dim),
        "mlp.gate_proj": take(layers, hidden, dim),
        "mlp.down_proj": take(layers, dim, hidden),
        "mlp.up_proj": take(layers, hidden, dim),
    }
    for name, by_layer in stacked.items():
        for layer, rows in enumerate(by_layer):
            count = {"self_attn.q_proj": heads, "self_attn.k_proj": kv_heads}.get(name)
            state[f"model.layers.{layer}.{name}.weight"] = rows if count is None else half_split(rows, count)
    state["model.norm.weight"] = take(dim)
    take(2, length, head_dim // 2)  # its tables of cos and sin, which the config's base gives as well
    state["lm_head.weight"] = state["model.embed_tokens.weight"] if shared else take(vocabulary, dim)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=dim,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=length,
        rms_norm_eps=1e-5,
        tie_word_embeddings=shared,
    )
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    model.save_pretrained(folder)
    _llama2c_tokenizer(tokenizer, vocabulary).save_pretrained(folder)


def _llama2c_tokenizer(path: Path, vocabulary: int) -> PreTrainedTokenizerFast:
    """tokenizer.bin: per piece a float32 score and a counted string; better scores merge first."""
    raw, at, pieces = Path(path).read_bytes(), 4, []
    for _ in range(vocabulary):
        score, size = struct.unpack_from("<fi", raw, at)
        pieces.append((raw[at + 8 : at + 8 + size].decode(errors="replace"), score))
        at += 8 + size
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    names += [piece.replace(" ", "▁") for piece, _ in pieces[len(names) :]]
    ids = {name: i for i, name in enumerate(names)}
    ranked = sorted(range(259, vocabulary), key=lambda i: -pieces[i][1])
    merges = [
        (names[i][:cut], names[i][cut:])
        for i in ranked
        for cut in range(1, len(names[i]))
        if names[i][:cut] in ids and names[i][cut:] in ids
    ]
    made = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
