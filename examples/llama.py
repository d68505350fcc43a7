"""Put Resonance YaRN into a Llama, save it, open it again, and write it for programs that do not know us.

python examples/llama.py                          # on a tiny random Llama, in a second
python examples/llama.py FOLDER-OR-HUB-NAME OUT   # on yours: OUT/model is ours, OUT/exported everybody's
"""

import sys
import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from resonance.encoding.spec import EncodingSpec
from resonance.hf.export import export_transformers
from resonance.hf.swap import describe, load_pretrained


def tiny(folder: Path) -> Path:
    """A random Llama of 130 thousand parameters: 8 rotary features, trained length 64."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=256, max_position_embeddings=64, **sizes)).save_pretrained(folder)
    return folder


def main(source: str | Path, out: Path) -> None:
    # What the spec leaves out (base, trained length) is the model's own.
    model = load_pretrained(source, EncodingSpec(method="yarn", scale=4, resonance=True))
    about = describe(model)
    print(f"swapped: {about['rope_type']}, rotated by {about['rotation']}")
    model.save_pretrained(out / "model")

    again = load_pretrained(out / "model")  # the encoding comes back from config.json
    tokens = torch.arange(100)[None] % model.config.vocab_size
    with torch.no_grad():
        same = torch.equal(model(tokens).logits, again(tokens).logits)
    print(f"opened again: logits {'equal bit for bit' if same else 'DIFFER'}")

    # Others compute m*theta in float32 where we look up m mod period; the report says how far off that is.
    print(export_transformers(out / "model", out / "exported"))


if __name__ == "__main__":
    if len(sys.argv) not in (1, 3):
        sys.exit("error: give a model and a folder to write, or nothing for a tiny random model")
    if len(sys.argv) == 3:
        main(sys.argv[1], Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(tiny(Path(folder, "tiny")), Path(folder))
