"""A Llama's folder as a GGUF in float32, without a vocabulary: the command line of llama.cpp's convert_hf_to_gguf.py,
for models of a few kilobytes. Refuses any encoding but plain RoPE.

    python llama_gguf.py FOLDER --outfile FILE --outtype f32
"""

import argparse
from pathlib import Path

import gguf
import torch
from transformers import AutoConfig, LlamaForCausalLM


def pairs(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of queries or keys from transformers' halves (j, j + d/2) to ggml's pairs (2j, 2j + 1)."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def convert(folder: Path, out: Path, arch: str = "llama") -> None:
    config = AutoConfig.from_pretrained(folder)
    if config.rope_parameters["rope_type"] != "default":
        raise SystemExit(f"only plain RoPE is converted, got {config.rope_parameters}")
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    writer = gguf.GGUFWriter(out, arch)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    writer.add_array("general.tags", ["tiny", "random"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in LlamaForCausalLM.from_pretrained(folder).state_dict().items():
        count = {"q_proj": heads, "k_proj": kv_heads}.get(name.split(".")[-2])
        rows = tensor if count is None else pairs(tensor, count)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), rows.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--outfile", type=Path, required=True)
    parser.add_argument("--outtype", choices=["f32"], required=True)
    given = parser.parse_args()
    convert(given.folder, given.outfile)
