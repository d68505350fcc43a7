"""Models by source: what each becomes, and how each fails in one line."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("accelerate")
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from conftest import DATA
from llama2c import llama2c_to_folder
from llm_cases import TINY, L, make_plan, perplexity_run, spec, tiny
from resonance.encoding.ops import implementation
from resonance.hf.swap import rotation_on
from resonance.llm import models
from resonance.llm.attention import attend, attend_faster, attention_of
from resonance.llm.fetch import fetch
from resonance.llm.finetune import train
from resonance.llm.models import Base, load, prepare, tokenizer_of
from resonance.llm.perplexity import token_losses, windows
from resonance.llm.settings import ModelRun, Text, TextRun
from resonance.llm.text import BYTE_BOS, Tokenizer, pack
from resonance.record import provenance
from resonance.record.files import write_record

WANTED = {"device": "cpu", "precision": "fp32", "attention": "auto"}


def source(where: str, **fields: object) -> ModelRun:
    return ModelRun(
        **{
            "source": where, "train_length": L, "rope_base": 10_000.0,
            "tiny": TINY if where == "train:tiny" else None, "device": "cpu", "precision": "fp32", **fields,
        }
    )  # fmt: skip


@pytest.fixture(scope="session")
def stories(tmp_path_factory) -> Path:
    """The 260k-parameter Llama of llama2.c as a Hugging Face folder."""
    folder = DATA / "stories260K"
    if not folder.exists():
        pytest.skip(f"{folder.name} is not in {DATA}; set RESONANCE_TEST_DATA to its folder")
    made = tmp_path_factory.mktemp("stories") / "model"
    llama2c_to_folder(folder / "stories260K.bin", folder / "tok512.bin", made)
    return made


def test_the_tiny_model_is_a_base_like_any_other(tmp_path):
    model = tiny(spec("rope", False))
    model.save_pretrained(tmp_path / "model")
    models.base_of_tiny(source("train:tiny"), 1).write(tmp_path / "base.json")
    base = Base.read(tmp_path / "base.json")
    assert tokenizer_of(base).bos == BYTE_BOS
    loaded = load(base, spec("rope", False), **WANTED)
    x = np.arange(50)
    assert np.array_equal(token_losses(loaded, x, "fp32"), token_losses(model, x, "fp32"))


def test_bf16_computes_in_fp32_where_a_cpu_would_emulate_it(tmp_path, bf16_products):
    torch.manual_seed(0)
    tiny(spec("rope", False)).save_pretrained(tmp_path / "model")
    base = models.base_of_tiny(source("train:tiny"), 1)
    base.write(tmp_path / "base.json")
    base, x = Base.read(tmp_path / "base.json"), np.arange(L)

    def losses_and_dtype(precision: str) -> tuple[np.ndarray, torch.dtype]:
        options = WANTED | {"precision": precision}
        answering = load(base, spec("rope", False), **options, generating=True)
        return token_losses(load(base, spec("rope", False), **options), x, precision), answering.dtype

    fp32, bf16 = losses_and_dtype("fp32"), losses_and_dtype("bf16")
    assert not np.array_equal(bf16[0], fp32[0]) and (fp32[1], bf16[1]) == (torch.float32, torch.bfloat16)
    bf16_products(False)
    emulated = losses_and_dtype("bf16")
    assert np.array_equal(emulated[0], fp32[0]) and emulated[1] == torch.float32


def test_an_interleaved_checkpoint_speaks(stories):
    """Permuted into the half-split layout, it tells its story; unpermuted rows would give noise."""
    tokenizer, model = AutoTokenizer.from_pretrained(stories), AutoModelForCausalLM.from_pretrained(stories)
    ids = [1, *tokenizer.encode("Once upon a time, there was a little girl", add_special_tokens=False)]
    said = tokenizer.decode(model.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)[0][1:])
    assert said.startswith("Once upon a time, there was a little girl named Lily. She loved to play outside")


def test_its_tokenizer_says_back_what_it_read(stories):
    tokenizer = AutoTokenizer.from_pretrained(stories)
    for text in ("Tim and his mom went to the park.", "Größe, naïve, 12 — ok", "a\n\nb"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. She wanted to play with it, but it was too high. Her mom said it was time to go home. "
)


def test_a_real_checkpoint_goes_the_whole_way_through_path(stories, tmp_path):
    """path: -> base.json -> packed text -> fine-tuned a few steps with Resonance YaRN -> measured."""
    asked = source(f"path:{stories}", train_length=512)
    base = prepare(asked, tmp_path / "base.json")
    assert (base.bos, base.eos, base.vocabulary) == (1, 2, 512)
    folder = tmp_path / "books"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.txt").write_text(f"{number} " + STORY * (12 + number))
    run = TextRun(text=Text(source=f"path:{folder}", held_out=1), tokenizer="model")
    packed = pack(run, tokenizer_of(base), tmp_path / "packed")
    encoding = spec("yarn", True, train_length=512, scale=2.0)
    plan = make_plan(length=256, steps=5, learning_rate=1e-3)
    trained = train(lambda: load(base, encoding, **WANTED, training=True), packed, plan, tmp_path / "run")
    curve = [row["value"] for row in trained.rows if row["metric"] == "train_loss"]
    assert curve[-1] < curve[0] < np.log(512)
    rows = packed.of("held_out").row(0, named=True)
    tokens = packed.read(rows["start"], rows["num_tokens"])
    run = perplexity_run(lengths=[128, 256])
    before, after = (
        {n: means[0] for n, means, _ in windows(load(base, encoding, **WANTED, folder=where), tokens, run)}
        for where in (None, tmp_path / "run/model")
    )
    assert before[128] < 0.5 * np.log(512)  # it is a trained model, YaRN or not
    assert all(after[n] < before[n] for n in (128, 256))


def test_the_real_llama_2_tokenizer(tmp_path):
    folder = DATA / "llama2_tokenizer"
    if not folder.exists():
        pytest.skip(f"{folder.name} is not in {DATA}; set RESONANCE_TEST_DATA to its folder")
    pytest.importorskip("sentencepiece")
    pytest.importorskip("google.protobuf")
    from transformers import LlamaTokenizer

    LlamaTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "model")
    LlamaConfig(max_position_embeddings=4096).save_pretrained(tmp_path / "model")
    (tmp_path / "model/model.safetensors").touch()  # nothing reads it here
    base = prepare(source(f"path:{tmp_path / 'model'}", train_length=4096), tmp_path / "base.json")
    assert (base.bos, base.eos, base.vocabulary) == (1, 2, 32_000)
    tokenizer = tokenizer_of(base)
    assert tokenizer.encode("Hello world") == [15043, 3186]
    (tmp_path / "books").mkdir()
    text = "It is a truth universally acknowledged, that a single man in possession of a good fortune\n"
    (tmp_path / "books/a.txt").write_text(text)
    packed = pack(TextRun(text=Text(source=f"path:{tmp_path}/books", held_out=0), tokenizer="model"), tokenizer,
                  tmp_path / "packed")  # fmt: skip
    ids = packed.read(0, len(packed.tokens)).tolist()
    assert ids[0] == 1 and ids[-1] == 2 and 1 not in ids[1:-1]
    assert AutoTokenizer.from_pretrained(base.folder).decode(ids[1:-1]).strip() == text.strip()


def test_a_llama2c_file_that_is_not_whole(stories, tmp_path):
    folder = DATA / "stories260K"
    (tmp_path / "half.bin").write_bytes((folder / "stories260K.bin").read_bytes()[:100_000])
    with pytest.raises(ValueError, match=r"half\.bin must hold the weights that its header promises"):
        llama2c_to_folder(tmp_path / "half.bin", folder / "tok512.bin", tmp_path / "model")


def test_a_gguf_keeps_its_numbers_and_its_own_tokenizer(tmp_path):
    """A Llama written as GGUF in float32 comes back equal, with a byte-level BPE that adds no BOS."""
    gguf = pytest.importorskip("gguf")
    from resonance.llm.convert import gguf_to_folder

    torch.manual_seed(0)
    tokens = [*"abcdefghijklmnopqrstuvwxyz", "Ġ", "th", "the", "Ġthe", "<|endoftext|>"]
    config = LlamaConfig(
        vocab_size=len(tokens), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, tie_word_embeddings=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 1) + [3])
    writer.add_token_merges(["t h", "th e", "Ġ the"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(len(tokens) - 1)

    def interleaved(rows: torch.Tensor) -> torch.Tensor:  # llama.cpp's layout
        return rows.view(2, 2, 8, 32).transpose(1, 2).reshape(32, 32)

    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    state = model.state_dict()
    for theirs, ours in names.items():
        weight = state[f"model.layers.0.{theirs}.weight"]
        weight = interleaved(weight) if ours in ("attn_q", "attn_k") else weight
        writer.add_tensor(f"blk.0.{ours}.weight", weight.numpy().copy())
    for theirs, ours in (("model.embed_tokens", "token_embd"), ("model.norm", "output_norm"), ("lm_head", "output")):
        writer.add_tensor(f"{ours}.weight", state[f"{theirs}.weight"].numpy().copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    gguf_to_folder(path, tmp_path / "model")
    loaded, x = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval(), torch.arange(20)[None]
    with torch.no_grad():
        assert torch.allclose(loaded(x).logits, model(x).logits, atol=1e-6)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.encode("the the") == [tokens.index("the"), tokens.index("Ġthe")]
    assert tokenizer.eos_token_id == len(tokens) - 1 and tokenizer.bos_token_id is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"train_length": 256}, "train_length must be what the config of path:.* says, 32, got 256"),
        ({"rope_base": 5e5}, "rope_base must be what the config of path:.* says, 10000, got 500000"),
    ],
)
def test_a_preset_that_contradicts_the_model_is_an_error(tmp_path, fields, said):
    folder = tmp_path / "model"
    tiny(spec("rope", False)).save_pretrained(folder)
    save_some_tokenizer(folder)
    with pytest.raises(ValueError, match=said):
        prepare(source(f"path:{folder}", **fields), tmp_path / "base.json")


def save_some_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer as Fast
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(tokenizer_object=Fast(kinds.BPE({"a": 0}, []))).save_pretrained(folder)


def test_a_folder_without_a_model_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"no config\.json in .*; name a Hugging Face model folder"):
        prepare(source(f"path:{tmp_path}"), tmp_path / "base.json")


def test_a_models_own_code_and_its_pickles_are_refused(tmp_path):
    folder = tmp_path / "model"
    model = tiny(spec("rope", False))
    model.save_pretrained(folder)
    save_some_tokenizer(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModelForCausalLM": "own.Model"}}))
    with pytest.raises(
        ValueError, match=r"config\.json names code of the model's own \(auto_map\), which is never run"
    ):
        prepare(source(f"path:{folder}"), tmp_path / "base.json")
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"no \.safetensors in .*; weights as pickles can run code"):
        prepare(source(f"path:{folder}"), tmp_path / "base.json")


def test_a_model_of_the_hub_comes_without_code_and_is_checked_ever_after(tmp_path, monkeypatch):
    """Files of the hub's cache are links, as here; what was fetched is compared with base.json when it is read."""
    import huggingface_hub

    cached, commit = tmp_path / "cache", "f" * 40
    tiny(spec("rope", False)).save_pretrained(cached)
    save_some_tokenizer(cached)
    (cached / "modeling_own.py").write_text("raise SystemExit")
    (cached / "blob").write_bytes((cached / "config.json").read_bytes())
    (cached / "config.json").unlink()
    (cached / "config.json").symlink_to("blob")

    def download(repository: str, revision: str, **_: object) -> str:
        assert (repository, revision) == ("o/m", commit)
        return str(cached)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    fetch("hf:o/m@" + commit, tmp_path / "sources/m")
    found = {path.name for path in (tmp_path / "sources/m").iterdir()}
    assert {"config.json", "model.safetensors"} <= found and "modeling_own.py" not in found
    assert not any(path.is_symlink() for path in (tmp_path / "sources/m").iterdir())
    path = tmp_path / "m/base.json"
    path.parent.mkdir()
    prepare(source(f"hf:o/m@{commit}"), path, tmp_path / "sources/m")
    assert load(Base.read(path), spec("rope", False), **WANTED)
    with (tmp_path / "sources/m/tokenizer.json").open("a") as file:
        file.write(" ")
    with pytest.raises(ValueError, match=r"tokenizer\.json must be the file that was written there"):
        Base.read(path)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("You are trying to access a gated repo.\nMake sure to have access", "the model is gated: ask for access"),
        ("We couldn't connect to the hub to load the files", "the hub is out of reach"),
        ("x is not a local folder and is not a valid model identifier", "check its name"),
    ],
)
def test_the_hub_fails_in_one_line(error, said):
    with pytest.raises(ValueError, match=said) as raised, models.hub_errors("hf:meta-llama/Llama-2-7b-chat-hf"):
        raise OSError(error)
    assert "\n" not in str(raised.value) and "hf:meta-llama/Llama-2-7b-chat-hf" in str(raised.value)


def test_attention_by_name(monkeypatch):
    assert attention_of("auto", "cpu", "bf16") == "sdpa"
    with pytest.raises(ValueError, match=r"llm\.attention must be auto or sdpa here"):
        attention_of("flash_attention_2", "cpu", "bf16")
    for has, asked, runs in (
        ("amx_bf16 avx512_bf16", "auto", "sdpa"),
        ("avx512_bf16", "auto", "sdpa_float32"),
        ("avx512_bf16", "sdpa", "sdpa"),
        ("bf16", "auto", "sdpa"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: dict.fromkeys(has.split(), True))
        model = tiny()
        attend_faster(model, asked, "cpu", "bf16")
        assert model.config._attn_implementation == runs
    attend_faster(fp32 := tiny(), "auto", "cpu", "fp32")
    assert fp32.config._attn_implementation == "sdpa"


@pytest.mark.skipif(not torch.cpu.get_capabilities().get("avx512_bf16"), reason="a CPU with AVX-512's bfloat16")
@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_the_wide_attention_is_nearer_to_the_exact_one_than_torchs(key_heads):
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(2, heads, 300, 32, generator=generator).bfloat16() for heads in (4, key_heads, key_heads)]
    toward = torch.randn(2, 300, 4, 32, generator=generator).bfloat16()
    module = torch.nn.Module()
    module.is_causal, module.num_key_value_groups = True, 4 // key_heads

    def made(attend, dtype):
        inputs = [x.to(dtype, copy=True).requires_grad_() for x in given]
        out, _ = attend(module, *inputs, None, scaling=0.2)
        (out * toward.to(dtype)).sum().backward()
        return [out.detach().double(), *(x.grad.double() for x in inputs)]

    exact, theirs = (made(sdpa_attention_forward, dtype) for dtype in (torch.float64, torch.bfloat16))
    for ours, other, wanted in zip(made(attend, torch.bfloat16), theirs, exact, strict=True):
        assert (ours - wanted).abs().mean() < 1.05 * (other - wanted).abs().mean() < 0.02 * wanted.abs().mean()
    assert torch.backends.mkldnn.matmul.fp32_precision != "bf16"
    with pytest.raises(ValueError, match="does not support `softcap`"):
        attend(module, *given, None, softcap=30.0)


@pytest.mark.parametrize(
    ("cuda", "driver", "said"),
    [
        ("13.0", "550.54.14", "built for CUDA 13.0, whose driver is 580 or later; the driver here is 550.54.14"),
        ("12.8", None, "built for CUDA 12.8, whose driver is 525 or later; the driver here is none"),
        (None, "580.82.07", "built without CUDA; the driver here is 580.82.07"),
    ],
)
def test_a_gpu_that_is_not_seen_is_told_with_its_versions(cuda, driver, said, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(provenance, "driver_version", lambda: driver)
    with pytest.raises(ValueError, match=re.escape(said)) as raised:
        models.torch_on("cuda", torch.get_num_threads())
    assert "\n" not in str(raised.value)


def test_a_rotation_without_a_cuda_kernel_is_told_by_its_device(monkeypatch):
    """However fast the kernels of the CPU are."""
    monkeypatch.setattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", lambda name, key: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert rotation_on("cuda") == "torch reference (cuda)" and rotation_on("cpu") == implementation()
    with pytest.warns(UserWarning, match=r"rotations run as torch reference \(cuda\): the op was built without CUDA"):
        models.torch_on("cuda", torch.get_num_threads())
    monkeypatch.setattr(torch._C, "_dispatch_has_kernel_for_dispatch_key", lambda name, key: key == "CUDA")
    assert rotation_on("cuda") == "C++ (cuda)"


def test_a_base_of_other_keys_is_refused(tmp_path):
    write_record(tmp_path / "base.json", "base", {"folder": "x"})
    with pytest.raises(ValueError, match="must describe a base model"):
        Base.read(tmp_path / "base.json")


def test_bytes_know_every_text():
    assert Tokenizer.of_bytes().encode("é") == [195, 169]
