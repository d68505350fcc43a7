"""`resonance export`: programs that do not know this package turn by our frequencies and amplitude.

transformers as it is runs in a process of its own that never imports `resonance`; llama.cpp runs where llama_cpp is
installed (pip install llama-cpp-python), else GGUF files are read back by `gguf` alone.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

pytest.importorskip("transformers")
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from typer.testing import CliRunner

import llama_gguf
from resonance.cli import app
from resonance.encoding.frequencies import frequency_table
from resonance.encoding.rotary import Rotary
from resonance.encoding.spec import EncodingSpec
from resonance.hf import export
from resonance.hf.export import export_transformers
from resonance.hf.gguf_file import export_gguf
from resonance.hf.inspect import inspect
from resonance.hf.swap import load_pretrained, swap_rotary

L, SCALE = 64, 4.0
YARN = EncodingSpec(method="yarn", resonance=True, scale=SCALE)
SIZES = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": L, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "phi3": Phi3Config(**SIZES, original_max_position_embeddings=L),
    "gpt_neox": GPTNeoXConfig(
        **{**SIZES, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}
    ),
}
TOKENS = torch.randint(3, 97, (2, 200), generator=torch.Generator().manual_seed(1))  # three times L

THEIRS = """
import json, sys
import torch
from transformers import AutoModelForCausalLM
torch.set_num_threads(1)
tokens = torch.tensor(json.loads(sys.stdin.read()))
for folder in sys.argv[1:]:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    rotary = next(m for m in model.modules() if hasattr(m, "inv_freq"))
    with torch.no_grad():
        logits = model(tokens, use_cache=False).logits
        more = model.generate(tokens[:1, :80], max_new_tokens=40, do_sample=False)
    torch.save([rotary.inv_freq, rotary.attention_scaling, rotary.rope_type, logits, more], folder + "/theirs.pt")
assert not [name for name in sys.modules if name.startswith("resonance")]
"""


def random_model(config, folder: Path) -> Path:
    torch.manual_seed(0)  # transformers initialises from the global generator
    model = AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.1)  # logits that say something: their span is 7
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def logits_of(model) -> torch.Tensor:
    return model.eval()(TOKENS, use_cache=False).logits


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A random Llama with plain RoPE."""
    return random_model(FAMILIES["llama"], tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory) -> Path:
    """Every family: a swapped model saved in FAMILY, exported to FAMILY.out, and run by transformers alone."""
    root = tmp_path_factory.mktemp("families")
    for family, config in FAMILIES.items():
        model = AutoModelForCausalLM.from_pretrained(random_model(config, root / "plain" / family))
        swap_rotary(model, YARN).save_pretrained(root / family)
        export_transformers(root / family, root / f"{family}.out")
    done = subprocess.run(
        [sys.executable, "-c", THEIRS, *(str(root / f"{family}.out") for family in FAMILIES)],
        input=json.dumps(TOKENS.tolist()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_as_it_is_runs_an_exported_model(theirs, family):
    """float32 rounding apart: its angles are m*theta in float32."""
    inv_freq, amplitude, kind, logits, generated = torch.load(theirs / f"{family}.out" / "theirs.pt", weights_only=True)
    table = frequency_table(YARN.filled(base=1e4, train_length=L), 2 * len(inv_freq))
    assert kind == "longrope" and amplitude == table.attention_factor > 1.1
    np.testing.assert_allclose(inv_freq.double().numpy(), table.theta, rtol=3e-7)
    ours = load_pretrained(theirs / family)
    assert (logits_of(ours) - logits).abs().max() < 3e-5
    more = ours.generate(TOKENS[:1, :80], max_new_tokens=40, do_sample=False)
    assert torch.equal(more, generated)
    without = AutoModelForCausalLM.from_pretrained(theirs / "plain" / family)
    assert (logits_of(without) - logits).abs().max() > 0.1
    assert inspect(theirs / f"{family}.out")["findings"] == []


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_weights_are_shared_and_nothing_of_the_model_changes(plain, tmp_path):
    before = digests(plain)
    export_transformers(plain, tmp_path / "out", YARN)
    assert digests(plain) == before
    after = digests(tmp_path / "out")
    assert {name for name in before if after[name] != before[name]} == {"config.json"} and set(after) == set(before)
    shared = {name for name in before if (tmp_path / "out" / name).samefile(plain / name)}
    assert shared == {"model.safetensors"}, "what may be edited must be a copy"


def test_what_is_lost_is_what_transformers_loses(plain, tmp_path):
    """Of cos and sin just below L' = 32,768, by transformers' own module beside our table."""
    spec = EncodingSpec(method="yarn", resonance=True, scale=512.0)
    exported = export_transformers(plain, tmp_path / "out", spec)
    m = torch.arange(exported.length - 2048, exported.length)
    got = LlamaRotaryEmbedding(AutoConfig.from_pretrained(tmp_path / "out"))(torch.zeros(1), m[None])
    ours = Rotary(exported.spec, head_dim=16, num_positions=exported.length).tables(m)
    gap = max((a[0, :, :8].double() - b.double()).abs().max().item() for a, b in zip(got, ours, strict=True))
    amplitude = frequency_table(exported.spec, 16).attention_factor
    assert exported.length == 32768 and 1e-3 < gap / amplitude < 4e-3
    assert exported.table == pytest.approx(gap, abs=2e-7) and exported.gap == pytest.approx(gap, rel=0.05)
    assert f"up to {exported.table:.1e} off just below position 32,768" in str(exported)


def test_vllm_and_sglang_find_our_table_in_the_words_that_they_read(plain, tmp_path):
    """By their formula (`Phi3LongRoPEScaledRotaryEmbedding`): they are not run. They take no attention_factor."""
    exported = export_transformers(plain, tmp_path / "out", YARN)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    rope, ours = config["rope_scaling"], Rotary(exported.spec, head_dim=16, num_positions=4 * L)
    powers = torch.tensor(config["rope_theta"]) ** (torch.arange(0, 16, 2) / 16)
    for which in ("short", "long"):
        theta = 1 / (torch.tensor(rope[f"{which}_factor"]) * powers)
        cos = (torch.arange(config["max_position_embeddings"])[:, None] * theta).cos() * rope[f"{which}_mscale"]
        assert (cos - ours.tables(4 * L)[0]).abs().max() < 1e-4 and cos.max() > 1.1


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": L,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, *[1.5] * 7], "long_factor": [1.0, *[4.0] * 7],
    "original_max_position_embeddings": L, "factor": 4.0,
}  # fmt: skip


@pytest.mark.parametrize("rope", [LLAMA3, LONGROPE], ids=["llama3", "longrope"])
def test_a_model_that_nobody_swapped_keeps_its_own_encoding(tmp_path, rope):
    folder = random_model(
        LlamaConfig(**{**SIZES, "max_position_embeddings": 4 * L}, rope_parameters=rope), tmp_path / "in"
    )
    export_transformers(folder, tmp_path / "out")
    before, after = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("in", "out"))
    assert after.config.rope_parameters["rope_type"] == "longrope"
    assert after.config.max_position_embeddings == 4 * L
    assert (logits_of(before) - logits_of(after)).abs().max() < 2e-5


def test_a_folder_in_use_is_left_alone(plain, tmp_path):
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(ValueError, match="out must be a new or empty folder"):
        export_transformers(plain, tmp_path, YARN)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


DYNAMIC = EncodingSpec(method="dynamic_ntk", scale=2.0)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (DYNAMIC, "got dynamic_ntk, (which follows|whose frequencies follow)"),
        (EncodingSpec(method="yarn", scale=2.0, base=5e5), "base must be the model's own, 10000.0, got 500000.0"),
        (EncodingSpec(method="yarn", scale=2.0, train_length=99), "train_length must be the model's own, 64, got 99"),
    ],
)
@pytest.mark.parametrize("to", [export_transformers, export_gguf])
def test_what_cannot_be_said_is_refused_and_nothing_is_left(plain, tmp_path, to, spec, said):
    with pytest.raises(ValueError, match=said):
        to(plain, tmp_path / "out", spec)
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_comes_back_as_another_is_refused(plain, tmp_path, monkeypatch):
    right = export.as_longrope

    def wrong(*arguments):
        said = right(*arguments)
        return said | {"long_factor": [1.0001 * factor for factor in said["long_factor"]]}

    monkeypatch.setattr(export, "as_longrope", wrong)
    with pytest.raises(ValueError, match=r"theta off by 1\.0e-04"):
        export_transformers(plain, tmp_path / "out", YARN)
    assert list(tmp_path.iterdir()) == []


# GGUF


@pytest.fixture(scope="module")
def plain_gguf(plain, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "plain.gguf"
    llama_gguf.convert(plain, path)
    return path


def value(path: Path, key: str) -> object:
    return gguf.GGUFReader(path).get_field(key).contents()


def test_a_gguf_gets_our_factors_and_amplitude_and_keeps_the_rest(plain_gguf, tmp_path):
    out = tmp_path / "out.gguf"
    exported = export_gguf(plain_gguf, out, YARN)
    before, after = ({tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors} for path in (plain_gguf, out))
    assert set(after) - set(before) == {"rope_freqs.weight"}
    for name, tensor in before.items():
        assert np.array_equal(tensor.data, after[name].data) and tensor.tensor_type == after[name].tensor_type
    table = frequency_table(exported.spec, 16)
    theta = 1e4 ** (-np.arange(8) / 8) / after["rope_freqs.weight"].data
    np.testing.assert_allclose(theta, table.theta, rtol=1e-6)
    assert value(out, "llama.rope.scaling.attn_factor") == pytest.approx(table.attention_factor, rel=1e-7)
    assert value(out, "llama.rope.scaling.type") == "none" and value(out, "llama.context_length") == 4 * L
    assert value(out, "general.tags") == ["tiny", "random"] and exported.theta < 3e-7 and exported.table < 3e-5


def test_the_factors_undo_what_llama_cpp_loses_in_its_powers(tmp_path):
    """It multiplies b^(-2/d) in float32 feature by feature; with the factors of exact powers theta is 2e-6 off."""
    config = LlamaConfig(**{**SIZES, "hidden_size": 256, "num_attention_heads": 2})  # 64 features
    llama_gguf.convert(random_model(config, tmp_path / "in"), tmp_path / "in.gguf")
    spec = export_gguf(tmp_path / "in.gguf", tmp_path / "out.gguf", YARN).spec
    factors = next(t.data for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors if t.name == "rope_freqs.weight")
    steps = np.full(64, 1e4 ** (-2 / 128), dtype=np.float32)
    steps[0] = 1
    np.testing.assert_allclose(np.multiply.accumulate(steps) / factors, frequency_table(spec, 128).theta, rtol=1e-6)


def test_a_folder_goes_through_the_converter_with_plain_rope(plain, plain_gguf, tmp_path):
    """The tests' own converter refuses any other encoding; llama.cpp's has the same command line."""
    swapped = swap_rotary(AutoModelForCausalLM.from_pretrained(plain), YARN)
    swapped.save_pretrained(tmp_path / "swapped")
    made = export_gguf(tmp_path / "swapped", tmp_path / "a.gguf", converter=llama_gguf.__file__, outtype="f32")
    export_gguf(plain_gguf, tmp_path / "b.gguf", YARN)
    assert made.spec == YARN.filled(base=1e4, train_length=L)
    read = [
        {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / f"{name}.gguf").tensors} for name in "ab"
    ]
    assert set(read[0]) == set(read[1]) and all(np.array_equal(read[0][name], read[1][name]) for name in read[0])
    with pytest.raises(ValueError, match=r"must take the model, got: .*invalid choice: 'q8_0'"):
        export_gguf(tmp_path / "swapped", tmp_path / "c.gguf", converter=llama_gguf.__file__, outtype="q8_0")


def test_a_gguf_is_refused_where_llama_cpp_would_turn_by_another_table(plain, plain_gguf, tmp_path, monkeypatch):
    export_gguf(plain_gguf, tmp_path / "once.gguf", YARN)
    llama_gguf.convert(plain, tmp_path / "qwen2.gguf", arch="qwen2")
    monkeypatch.setenv("PATH", "")
    for source, spec, said in (
        (plain_gguf, None, "spec must say which encoding"),
        (plain_gguf, DYNAMIC, "got dynamic_ntk, whose frequencies follow"),
        (tmp_path / "once.gguf", YARN, "must hold plain RoPE .* rope_freqs.weight"),
        (tmp_path / "qwen2.gguf", YARN, "takes factors in llama.cpp .* got qwen2"),
        (plain, YARN, "converter must be llama.cpp's convert_hf_to_gguf.py"),
    ):
        with pytest.raises(ValueError, match=said):
            export_gguf(source, tmp_path / "new" / "out.gguf", spec)
    with pytest.raises(ValueError, match="out must not exist yet"):
        export_gguf(plain_gguf, tmp_path / "once.gguf", YARN)
    assert list((tmp_path / "new").iterdir()) == []


def test_llama_cpp_runs_an_exported_model(plain, plain_gguf, tmp_path):
    """Past the training length, and past the table's periods; without the factors, or the amplitude, it is another."""
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    export_gguf(plain_gguf, tmp_path / "out.gguf", YARN)
    export_gguf(plain_gguf, tmp_path / "no-amplitude.gguf", EncodingSpec(**{**YARN.to_dict(), "attention_factor": 1.0}))
    expected = logits_of(load_pretrained(plain, YARN))[0].numpy()

    def off(path: Path) -> float:
        model = llama_cpp.Llama(
            str(path), n_ctx=4 * L, n_threads=1, logits_all=True, type_k=0, type_v=0, flash_attn=False, verbose=False
        )
        model.eval(TOKENS[0].tolist())
        gap = float(np.abs(model.scores[: TOKENS.shape[1]] - expected).max())
        model.close()
        return gap

    assert off(tmp_path / "out.gguf") < 1e-4
    assert off(tmp_path / "no-amplitude.gguf") > 0.02
    assert off(plain_gguf) > 0.1


def test_the_command_says_what_was_written_and_what_is_lost(plain, plain_gguf, tmp_path):
    (tmp_path / "spec.json").write_text(YARN.to_json())
    for to, source, spec in (
        ("transformers", plain, tmp_path / "spec.json"),
        ("gguf", plain_gguf, '{"resonance": true}'),
    ):
        done = CliRunner().invoke(app, ["export", str(source), str(tmp_path / to), "--to", to, "--spec", str(spec)])
        assert done.exit_code == 0, done.output
        assert "read back: theta within" in done.output and "exactly 0 here" in done.output
    wrong = CliRunner().invoke(app, ["export", str(plain), str(tmp_path / "new"), "--to", "gguf", "--spec", "{method}"])
    assert "--spec must be JSON, got '{method}'" in str(wrong.exception)
