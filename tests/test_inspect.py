"""`resonance inspect`: every seeded mistake is found by name, and published configs have none."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from resonance.cli import app
from resonance.encoding.frequencies import frequency_table
from resonance.encoding.rotary import Rotary
from resonance.encoding.spec import EncodingSpec
from resonance.hf import findings
from resonance.hf.inspect import inspect
from resonance.hf.swap import swap_rotary


def config(model_type: str, hidden: int, heads: int, length: int, vocabulary: int, **more: object) -> dict:
    return {
        "model_type": model_type, "hidden_size": hidden, "num_attention_heads": heads,
        "max_position_embeddings": length, "vocab_size": vocabulary, "torch_dtype": "bfloat16", **more,
    }  # fmt: skip


def llama2(length: int = 4096, **more: object) -> dict:
    return config("llama", 4096, 32, length, 32000, **more)


def llama3(length: int = 131072, **more: object) -> dict:
    return config("llama", 4096, 32, length, 128256, **{"rope_theta": 500_000.0, "num_key_value_heads": 8, **more})


def phi3(short: list, long: list, **more: object) -> dict:
    rope = {"type": "longrope", "short_factor": short, "long_factor": long}
    more = {"original_max_position_embeddings": 4096, "rope_theta": 10_000.0, "rope_scaling": rope, **more}
    return config("phi3", 3072, 32, 131072, 32064, **more)


def ours(changes: dict | None = None, top: dict | None = None, **encoding: object) -> dict:
    """What swap_rotary writes for Llama 2 at four times its length."""
    spec = {"method": "yarn", "resonance": True, "scale": 4.0, "base": 10_000.0, "train_length": 4096, **encoding}
    rope = {
        "rope_type": f"{'resonance' if spec['resonance'] else 'exact'}_{spec['method']}", "rope_theta": spec["base"],
        "original_max_position_embeddings": 4096, "encoding": EncodingSpec(**spec).to_dict(), **(changes or {}),
    }  # fmt: skip
    return llama2(16384, rope_parameters=rope, **(top or {}))


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LLAMA2_YARN = {"type": "yarn", "factor": 16.0, "original_max_position_embeddings": 4096, "finetuned": True}
LLAMA31 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
DEEPSEEK = {
    "type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1,
    "mscale": 1.0, "mscale_all_dim": 1.0,
}  # fmt: skip
GPT_OSS = {
    "rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "beta_fast": 32.0, "beta_slow": 1.0,
    "truncate": False,
}  # fmt: skip
# Phi-3-mini-128k-instruct, to two digits.
LONG = [
    1.08, 1.11, 1.14, 1.34, 1.59, 1.6, 1.62, 2.62, 3.23, 3.23, 4.79, 7.4, 7.7, 9.09, 12.2, 17.67, 24.46, 28.57, 30.42,
    30.84, 32.59, 32.93, 42.32, 44.96, 50.34, 50.45, 57.55, 57.93, 58.21, 60.14, 62.61, 62.62, 62.71, 63.14, 63.14,
    63.77, 63.93, 63.96, 63.97, 64.03, 64.07, 64.08, 64.12, 64.41, 64.48, 64.51, 64.53, 64.84,
]  # fmt: skip
SHORT = [
    1.0, 1.02, 1.03, 1.03, 1.05, 1.05, 1.05, 1.05, 1.05, 1.07, 1.1, 1.11, 1.16, 1.16, 1.17, 1.29, 1.34, 1.68, 1.79,
    1.82, 1.85, 1.88, 1.91, 1.94, 1.99, 2.02, 2.02, 2.02, 2.02, 2.02, 2.02, 2.03, 2.03, 2.03, 2.03, 2.03, 2.03, 2.03,
    2.03, 2.03, 2.08, 2.09, 2.19, 2.22, 2.59, 2.73, 2.75, 2.84,
]  # fmt: skip
GEMMA3 = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
}
QWEN = {"rope_theta": 1_000_000.0, "num_key_value_heads": 4}

RIGHT = {
    "llama 2 7B": llama2(rope_scaling=None),
    "llama 2 7B, YaRN 64k": llama2(65536, rope_scaling=LLAMA2_YARN),
    "vicuna 7B 16k": llama2(rope_scaling={"type": "linear", "factor": 4.0}),
    "llama 2, dynamic": llama2(rope_scaling={"type": "dynamic", "factor": 2.0}),
    "llama 3 8B": llama3(8192),
    "llama 3 8B, gradient 1M": llama3(1048576, rope_theta=3_580_165_449.0),
    "llama 3.1 8B": llama3(rope_scaling=LLAMA31),
    "llama 3.2 1B": config("llama", 2048, 32, 131072, 128256, head_dim=64, rope_theta=5e5,
                           rope_scaling={**LLAMA31, "factor": 32.0}),
    "code llama 7B": config("llama", 4096, 32, 16384, 32016, rope_theta=1_000_000),
    "smollm2 135M": config("llama", 576, 9, 8192, 49152, rope_theta=100_000, num_key_value_heads=3),
    "mistral 7B 0.1": config("mistral", 4096, 32, 32768, 32000, rope_theta=10_000.0, sliding_window=4096),
    "mistral 7B 0.3": config("mistral", 4096, 32, 32768, 32768, rope_theta=1_000_000.0),
    "mistral nemo 12B": config("mistral", 5120, 32, 1024000, 131072, rope_theta=1_000_000.0, head_dim=128),
    "qwen 2 7B": config("qwen2", 3584, 28, 131072, 152064, **QWEN),
    "qwen 2.5 7B, YaRN as its manual says": config("qwen2", 3584, 28, 32768, 152064, **QWEN, rope_scaling=YARN),
    "qwen 2.5 7B, YaRN": config("qwen2", 3584, 28, 131072, 152064, **QWEN, rope_scaling=YARN),
    "qwen 3 8B": config("qwen3", 4096, 32, 40960, 151936, head_dim=128, **QWEN),
    "phi 2": config("phi", 2560, 32, 2048, 51200, partial_rotary_factor=0.4, rope_theta=10_000.0),
    "phi 3 mini 4k": config("phi3", 3072, 32, 4096, 32064, original_max_position_embeddings=4096, rope_scaling=None),
    "phi 3 mini 128k": phi3(SHORT, LONG),
    "gemma 2 9B": config("gemma2", 3584, 16, 8192, 256000, head_dim=256, rope_theta=10_000.0),
    "gemma 3 4B": {"model_type": "gemma3", "text_config": config(
        "gemma3_text", 2560, 8, 131072, 262208, head_dim=256, rope_parameters=GEMMA3)},
    "gpt-neox 20B": config("gpt_neox", 6144, 64, 2048, 50432, rotary_pct=0.25, rotary_emb_base=10_000),
    "gpt-oss 20B": config("gpt_oss", 2880, 64, 131072, 201088, head_dim=64, rope_theta=150_000, rope_scaling=GPT_OSS),
    "deepseek v3": config("deepseek_v3", 7168, 128, 163840, 129280, rope_theta=10_000, rope_scaling=DEEPSEEK),
    "ours, resonance_yarn": ours(),
    "ours, resonance_yarn, an amplitude of its own": ours(attention_factor=1.1),
    "ours, exact_linear": ours(method="linear", resonance=False),
    "ours, resonance_dynamic_ntk": ours(method="dynamic_ntk", top={"max_position_embeddings": 4096}),
    "ours, prime wavelengths": ours(rounding="prime"),
}  # fmt: skip


def yarn(length: int = 131072, **changes: object) -> dict:
    rope = {name: value for name, value in {**YARN, **changes}.items() if value != "gone"}
    return config("qwen2", 3584, 28, length, 152064, rope_scaling=rope, **QWEN)


WRONG = {
    "a type misspelt": (yarn(rope_type="yarnn"), "unknown_rope_type: .*did you mean yarn"),
    "a type of ours misspelt": (
        ours({"rope_type": "resonace_yarn"}), "unknown_rope_type: .*did you mean resonance_yarn"),
    "a type that nobody has": (yarn(rope_type="zigzag"), "unknown_rope_type: .*must be one of default"),
    "a factor without a type": (llama2(rope_scaling={"factor": 4.0}), "factor_without_type: factor"),
    "a factor that the type drops": (
        llama2(rope_parameters={"rope_type": "default", "rope_theta": 1e4, "factor": 4.0}), "parameter_unused: factor"),
    "YaRN's betas for a linear scaling": (
        llama2(rope_scaling={"type": "linear", "factor": 4.0, "beta_fast": 32}), "parameter_unused: beta_fast"),
    "type and rope_type differ": (yarn(type="linear"), "two_types"),
    "no factor": (yarn(factor="gone"), "factor_missing"),
    "a factor below one": (llama2(rope_scaling={"type": "linear", "factor": 0.25}), "factor_below_one: .*0.25"),
    "a factor in quotes": (yarn(factor="4.0"), "not_a_number: factor is '4.0'"),
    "betas exchanged": (yarn(beta_fast=1, beta_slow=32), "betas_exchanged: .*1 and 32"),
    "a beta below the other's default": (yarn(beta_fast=0.5), "betas_exchanged: .*0.5 and 1"),
    "no original length": (yarn(original_max_position_embeddings="gone"), "original_length_missing: .*131072"),
    "an original length too large": (yarn(16384), "original_length_too_large: .*32768 is above .*16384"),
    "a factor that contradicts the lengths": (yarn(65536), "factor_contradicts_lengths: factor is 4, .* 2;"),
    "an amplitude squared": (yarn(attention_factor=1.2965), "attention_factor_squared: .*own 1.13863"),
    "an amplitude squared, longrope": (
        phi3([1.0] * 48, [2.0] * 48, rope_scaling={
            "type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48, "attention_factor": 1.41667}),
        "attention_factor_squared: .*own 1.19024"),
    "an amplitude squared in an encoding": (ours(attention_factor=1.2965), "attention_factor_squared"),
    "an amplitude of zero": (yarn(attention_factor=0.0), "not_positive: attention_factor"),
    "one mscale of two": (yarn(mscale=0.707), "mscale_alone: mscale is"),
    "mscales beside an amplitude": (yarn(mscale=1.0, mscale_all_dim=1.0, attention_factor=1.0), "two_amplitudes"),
    "a key misspelt": (yarn(beta_fasst=16), "unknown_key: beta_fasst .*did you mean beta_fast"),
    "Llama 3 with Llama 2's base": (llama3(8192, rope_theta=10_000.0), "base_of_another_model: .*500,000"),
    "Code Llama with no base, so the default": (config("llama", 4096, 32, 16384, 32016), "base_of_another_model"),
    "two bases": (
        llama2(rope_theta=1e6, rope_parameters={"rope_type": "default", "rope_theta": 1e4}),
        "base_contradicted: .*1000000.0"),
    "a base of one": (llama2(rope_theta=1.0), "base_invalid"),
    "factors for another head": (phi3(SHORT[:32], LONG[:32]), "factors_wrong_length: (short|long)_factor .*48 .* 32;"),
    "a factor of zero": (phi3([0.0, *SHORT[1:]], LONG), "factors_not_positive: short_factor"),
    "short and long exchanged": (phi3(LONG, SHORT), "factors_exchanged"),
    "one list of two": (
        phi3(SHORT, LONG, rope_scaling={"type": "longrope", "short_factor": SHORT}), "long_factor_missing"),
    "Llama 3.1's factors exchanged": (
        llama3(rope_scaling={**LLAMA31, "low_freq_factor": 4.0, "high_freq_factor": 1.0}),
        "frequency_factors_exchanged"),
    "an odd rotary dimension": (
        config("phi", 2560, 32, 2048, 51200, partial_rotary_factor=0.3375), "rotary_dim_odd: .* 27"),
    "more than the whole head": (
        config("phi", 2560, 32, 2048, 51200, partial_rotary_factor=1.5), "partial_rotary_factor_invalid"),
    "heads that do not divide": (config("llama", 4096, 30, 4096, 32000), "head_dim_undefined: .*4096 .*30"),
    "weights of eight bits": (llama2(torch_dtype="float8_e4m3fn"), "dtype_ruins_tables"),
    "two places that differ": (
        llama2(rope_scaling={"type": "linear", "factor": 2.0}, rope_parameters={
            "rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}), "two_places"),
    "ALiBi": (config("falcon", 4544, 71, 2048, 65024, alibi=True), "alibi: "),
    "no maximal length": (llama2(0), "max_length_invalid"),
    "a type of ours without its encoding": (
        llama2(rope_parameters={"rope_type": "resonance_yarn", "rope_theta": 1e4}), "encoding_missing"),
    "an encoding that is none": (ours({"encoding": None}), "encoding_unreadable"),
    "an encoding with a misspelt field": (
        ours({"encoding": {"methd": "yarn"}}), "encoding_unreadable: .*did you mean method"),
    "an encoding of another type": (ours({"rope_type": "exact_yarn"}), "encoding_contradicts_type: .*exact_yarn"),
    "an encoding of another base": (ours({"rope_theta": 5e5}), "encoding_contradicts_base: .*10000"),
    "an encoding of another L": (ours(train_length=2048), "encoding_contradicts_length: .*2048"),
    "a reach that the encoding does not have": (
        ours(top={"max_position_embeddings": 8192}), "encoding_contradicts_max_length: .*8192 .*16384"),
    "a longrope table that is not its encoding's": (
        ours({"rope_type": "longrope", "short_factor": [1.0] * 64, "long_factor": [1.0] * 64}),
        "encoding_contradicts_factors"),
    "what only transformers' own checks refuse": (llama2(num_key_value_heads="eight"), "config_refused"),
}  # fmt: skip


def found(folder: Path, values: dict) -> list[str]:
    (folder / "config.json").write_text(json.dumps(values))
    return [f"{each['name']}: {each['text']}" for each in inspect(folder)["findings"]]


@pytest.mark.parametrize("case", RIGHT)
def test_a_published_config_has_no_findings(tmp_path, case):
    assert found(tmp_path, RIGHT[case]) == []


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_found_by_name_and_nothing_else_is(tmp_path, case):
    values, expected = WRONG[case]
    named = found(tmp_path, values)
    assert named and all(re.match(expected, each) for each in named), named


@pytest.mark.parametrize("value", ['"head_dim": "16"', '"head_dim": Infinity', '"vocab_size": [64]'])
def test_a_value_of_another_kind_is_a_finding(tmp_path, value):
    text = json.dumps(llama2(rope_scaling=None))
    (tmp_path / "config.json").write_text(f"{text[:-1]}, {value}}}")  # of two values json takes the last
    assert [each["name"] for each in inspect(tmp_path)["findings"]] == ["config_refused"]


@pytest.mark.parametrize(("name", "wrong"), [("model_type", []), ("text_config", "x")])
def test_a_config_of_another_form_is_one_line(tmp_path, name, wrong):
    (tmp_path / "config.json").write_text(json.dumps({name: wrong}))
    with pytest.raises(ValueError, match=rf"config\.json: {name} must be (text|a mapping), got (list|str); mend it"):
        inspect(tmp_path)


@pytest.mark.parametrize("values", [{"model_type": "internvl_chat", "llm_config": {}}, {}])
def test_a_type_that_transformers_does_not_have_is_one_line(tmp_path, values):
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"model_type must be one of transformers', got (None|'internvl_chat')"):
        inspect(tmp_path)


def test_heads_whose_size_is_said_otherwise_have_no_finding(tmp_path):
    assert found(tmp_path, {"model_type": "gemma4_text"}) == []  # its layers' heads differ
    latent = config("glm4_moe_lite", 2048, 20, 131072, 154880, qk_rope_head_dim=64, qk_nope_head_dim=192)
    assert found(tmp_path, latent) == []


def test_every_rule_has_a_case():
    names = set(re.findall(r'Finding\(\s*"(\w+)"', Path(findings.__file__).read_text()))
    expected = " ".join(pattern for _, pattern in WRONG.values())
    assert len(names) > 25 and [name for name in sorted(names) if name not in expected] == []


def run(*arguments: object):
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def test_the_command_prints_what_the_encoding_is_and_ends_with_1_on_a_finding(tmp_path):
    """Of Llama 2 with Resonance YaRN: the numbers of a spec, and Theorem 1's integers."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(ours()))
    right = run(path)
    assert right.exit_code == 0, right.output
    for line in (
        r"model +llama$",
        r"encoding +yarn with Resonance \(nearest\), base 10000, scale 4, amplitude 1.13863$",
        r"lengths +L = 4,096, L' = 16,384$",
        r"features +64 over 128 dimensions; 40 turn fully within L, 24 do not$",
        r"table +2.8 MiB packed by period, 8.0 MiB with a row",
        r" +0 +6\.2832 +6 +-4\.51%$",
        r"findings +none$",
    ):
        assert re.search(f"^{line}", right.output, re.MULTILINE), (line, right.output)
    data = json.loads(run(path, "--json").output)
    assert data == inspect(path)
    one = data["encodings"]["all_layers"]
    spec = EncodingSpec.from_dict(one["spec"])
    assert one["resonance"] == frequency_table(spec, 128).period.tolist()
    packed = Rotary(spec, head_dim=128, num_positions=16384)
    assert one["table_bytes"] == packed.packed_cos.nbytes + packed.packed_sin.nbytes
    assert one["attention_factor"] == pytest.approx(packed.packed_cos.max().item())

    path.write_text(json.dumps(yarn(attention_factor=1.2965)))
    wrong = run(path)
    assert wrong.exit_code == 1 and "findings   1\nattention_factor_squared: " in wrong.output
    assert run(path, "--json").exit_code == 1


def test_a_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    (tmp_path / "config.json").write_text(json.dumps(RIGHT["gemma 3 4B"]))
    assert run(tmp_path, "--plot", tmp_path / "wavelengths.svg").exit_code == 0
    assert "<svg" in (tmp_path / "wavelengths.svg").read_text()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere/config.json", "got nowhere/config.json"),
        ("nobody/nothing", "--download fetches its config.json"),
        ("not a model", "got not a model, neither here nor in the cache"),
    ],
)
def test_a_target_that_is_not_there_is_one_clear_error(target, said, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=said):
        inspect(target)


def test_what_swap_rotary_saves_has_no_findings_and_is_read_without_a_model(tmp_path):
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, max_position_embeddings=32))
    swap_rotary(model, EncodingSpec(method="yarn", resonance=True, scale=4.0)).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    code = (
        "import sys\nfrom resonance.hf.inspect import inspect\n"
        "assert inspect(sys.argv[1])['findings'] == [] and inspect(sys.argv[1])['encodings']\n"
        "assert not {'transformers.models.llama.modeling_llama', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
