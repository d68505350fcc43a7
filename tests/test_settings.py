"""Settings, protocols and presets: what is valid loads, and everything else is one line that tells the cure."""

import re
from pathlib import Path

import pytest
import yaml

from benchmarks.torture import configs
from resonance.encoding.rounding import ROUNDINGS
from resonance.encoding.spec import EncodingSpec
from resonance.posgen.protocol import CHOICES, Protocol, with_choices
from resonance.posgen.tasks import TASKS
from resonance.record.settings import SettingsError, read_yaml
from resonance.workflow.preset import Preset, load

ROOT = Path(__file__).resolve().parents[1]
NO_PRESETS = {"encodings", "protocols", "llm_protocols", "published", "leval"}
PRESETS = sorted(path.stem for path in (ROOT / "config").glob("*.yaml") if path.stem not in NO_PRESETS)
Replacement = tuple[str, str]

# A preset of our own to break, so that those of config/ may change.
TINY = """\
preset: tiny  # its name
posgen:
  protocols: [paper, released]
  tasks: [recursive, cot, semi_recursive]
  encodings: [rope, resonance_rope, yarn, resonance_yarn]
  seeds: [5549, 4955]
  data: {modulus: 17, j: 1, k: 3, train_length: 64, test_length: 256, num_train: 100, num_validation: 50, num_test: 40,
         seed: 0}
  model: {d_model: 16, d_ff: 32, num_heads: 2, head_dim: 64}
  training:
    batch_size: 32
    learning_rate: 2e-3
    weight_decay: 1e-2
    num_looks: 4
    num_snapshots: 2
    look_sequences: 30
    precision: bf16
    device: cpu
    compile: true
    checkpoint_seconds: 7
    steps:
      paper: {recursive: 8, cot: 9, semi_recursive: 10}
      released: {recursive: 8, cot: 9, semi_recursive: 10}
  evaluation: {curve_sequences: 5, test_sequences: 40, batch_size: 10, precision: fp32}
resources:
  data: {threads: 1, mem_mb: 1000, runtime: 5, gpu: 0}
  train: {threads: 1, mem_mb: 4000, runtime: 30, gpu: 0}
  evaluate: {threads: 1, mem_mb: 2000, runtime: 10, gpu: 0}
  render: {threads: 1, mem_mb: 1000, runtime: 5, gpu: 0}
"""


@pytest.fixture
def folder(config_folder: Path) -> Path:
    """A copy of config/ with the preset `tiny`."""
    (config_folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    return config_folder


def refusal(folder: Path, preset: str = "tiny") -> str:
    """The one line with which a folder is refused."""
    with pytest.raises(SettingsError) as error:
        load(folder, preset)
    message = str(error.value)
    assert message and message.isprintable(), f"more than one plain line: {message!r}"
    return message


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path.name} has no {old!r}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def put(path: Path, name: str, **fields: object) -> None:
    """Fields of one entry of a file of named entries; None deletes one."""
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    tree[name] = {key: value for key, value in (tree.get(name, {}) | fields).items() if value is not None}
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")


# What is there is valid


def test_our_own_preset_is_valid(folder: Path) -> None:
    """Otherwise no test below that breaks it says anything."""
    assert load(folder, "tiny").posgen.settings.training.learning_rate == 2e-3
    assert {"laptop", "paper"} <= set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid_and_keeps_the_papers_task(preset: str) -> None:
    loaded = load(ROOT / "config", preset)
    data = loaded.posgen.settings.data
    assert loaded.name == preset
    assert (data.modulus, data.j, data.k, data.train_length, data.test_length) == (17, 1, 3, 64, 256)
    assert loaded.posgen.settings.model.head_dim == 64


def test_the_paper_preset_is_the_papers_size() -> None:
    """Section 6.1.1 and appendix C.1; P10 and P14."""
    posgen = load(ROOT / "config", "paper").posgen.settings
    assert (posgen.data.num_train, posgen.data.num_validation, posgen.data.num_test) == (10_000, 1_000, 1_000)
    assert (posgen.model.d_model, posgen.model.d_ff, posgen.model.num_heads) == (512, 2048, 8)
    assert (posgen.training.batch_size, posgen.training.learning_rate) == (128, 2e-4)
    assert posgen.training.weight_decay == 1e-2
    assert posgen.seeds == [5549, 4955, 42, 3701, 49]
    assert {n for tasks in posgen.training.steps.values() for n in tasks.values()} == {150 * 79}


@pytest.mark.parametrize("preset", PRESETS)
def test_runs_survive_a_round_trip_through_json(preset: str) -> None:
    posgen = load(ROOT / "config", preset).posgen
    for run in (
        posgen.data_run("paper", "cot"),
        posgen.train_run("released", "semi_recursive"),
        posgen.evaluate_run(),
    ):
        again = type(run).model_validate_json(run.to_json())
        assert again == run and again.to_json() == run.to_json()


def test_what_a_training_depends_on_leaves_out_what_it_does_not(folder: Path) -> None:
    before = load(folder, "tiny").posgen
    edit(folder / "tiny.yaml", "curve_sequences: 5", "curve_sequences: 4")
    edit(folder / "tiny.yaml", "checkpoint_seconds: 7", "checkpoint_seconds: 8")
    put(folder / "protocols.yaml", "paper", yarn_beta_fast=16.0)
    after = load(folder, "tiny").posgen
    assert before.train_run("paper", "cot") == after.train_run("paper", "cot")
    assert before.evaluate_run() != after.evaluate_run()
    assert before.spec("paper", "yarn") != after.spec("paper", "yarn")


def test_floats_may_be_written_as_everybody_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("[2e-3, 1E5, -3e+2, 1.e3, 2.5e-3, 0.1, 10, 1e, e3, 0x1f]")
    assert read_yaml(path) == [2e-3, 1e5, -3e2, 1e3, 2.5e-3, 0.1, 10, "1e", "e3", 31]


# Protocols: what they make of an encoding


def test_paper_protocol_uses_yarn_as_the_text_has_it() -> None:
    """P3: L = 64, s = 4, section 3.3's ramp and blend; alpha and beta, which it lacks, are the code's, those of LLaMA
    a variant. P4: its own temperature."""
    loaded = load(ROOT / "config", "laptop").posgen
    for name, beta in (("paper", 2.0), ("paper+beta32", 32.0)):
        assert loaded.spec(name, "resonance_yarn") == EncodingSpec(
            method="yarn", resonance=True, scale=4.0, train_length=64, beta_fast=beta, beta_slow=1.0,
            ramp="wavelength", blend="wavelength",
        ).filled()  # fmt: skip
    assert loaded.spec("paper+beta32+P3", "yarn") == loaded.spec("released", "yarn"), "from left to right"
    assert loaded.train_encoding("paper", "resonance_yarn") == "resonance_yarn"


def test_released_protocol_uses_yarn_as_the_code_has_it() -> None:
    """P2: trained unscaled. P3: 257 in L's place, s = 257/65, beta_fast 2."""
    loaded = load(ROOT / "config", "laptop").posgen
    assert (
        loaded.spec("released", "yarn")
        == EncodingSpec(
            method="yarn",
            scale=257 / 65,
            train_length=257,
            beta_fast=2.0,
            beta_slow=1.0,
            ramp="index",
            blend="frequency",
        ).filled()
    )
    trained = {name: loaded.train_encoding("released", name) for name in loaded.encodings}
    rules = {name: rule for name in trained if (rule := name.split("_")[-1]) in ROUNDINGS}
    assert trained == {
        name: f"rope_{rules[name]}" if name in rules else "resonance_rope" if name.startswith("resonance") else "rope"
        for name in loaded.encodings
    }


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_unscaled_encodings_are_the_same_in_every_protocol(protocol: str) -> None:
    loaded = load(ROOT / "config", "laptop").posgen
    assert loaded.spec(protocol, "rope") == EncodingSpec().filled()
    assert loaded.spec(protocol, "resonance_rope") == EncodingSpec(resonance=True).filled()
    assert loaded.spec(protocol, "linear") == EncodingSpec(method="linear", scale=4.0, train_length=64).filled()


def test_what_an_encodings_entry_says_wins_over_lengths_and_protocol(protocols: dict[str, Protocol]) -> None:
    fields = {"method": "yarn", "scale": 2.0, "train_length": 128, "beta_fast": 8.0, "ramp": "index", "truncate": False}
    for protocol in protocols.values():
        spec = protocol.encoding_spec(fields, 64, 256)
        assert {name: getattr(spec, name) for name in fields} == fields


def test_a_protocol_may_leave_out_yarns_temperature(folder: Path) -> None:
    """P4."""
    put(folder / "protocols.yaml", "paper", yarn_temperature=False)
    loaded = load(folder, "tiny").posgen
    assert loaded.spec("paper", "yarn").attention_factor == 1.0
    assert loaded.spec("paper", "rope").attention_factor is None
    assert loaded.spec("released", "yarn").attention_factor is None


def test_training_unscaled_needs_the_unscaled_encoding_to_be_named(folder: Path) -> None:
    put(folder / "encodings.yaml", "yarn", base=5e5)
    message = refusal(folder)
    assert "train_encoding `unscaled` (P2) trains yarn with its unscaled encoding (method rope, base 500000" in message
    put(folder / "encodings.yaml", "slow_rope", method="rope", base=5e5)
    assert load(folder, "tiny").posgen.train_encoding("released", "yarn") == "slow_rope"


def test_what_is_trained_unscaled_differs_in_nothing_else(folder: Path) -> None:
    path = folder / "encodings.yaml"
    path.write_text("rope_hot: {method: rope, attention_factor: 1.2}\n" + path.read_text())
    loaded = load(folder, "tiny").posgen
    assert [loaded.train_encoding("released", name) for name in ("rope", "yarn")] == ["rope", "rope"]


@pytest.mark.parametrize("name", ["paper+P2+P2", "paper+L56+L48"])
def test_a_choice_given_twice_is_refused(name: str, protocols: dict[str, Protocol]) -> None:
    with pytest.raises(SettingsError, match="a choice must be given once"):
        with_choices(name, protocols)


# One bad thing at a time


@pytest.mark.parametrize(
    ("replacement", "key", "rule"),
    [
        # a key that is no key, in any place: the likeliest is named
        (("batch_size: 32", "batchsize: 32"), "posgen.training.batchsize", "no such key; did you mean batch_size?"),
        (("  evaluation: ", "  evaluations: "), "posgen.evaluations", "did you mean evaluation?"),
        (("runtime: 30,", "runtime: 30, memory: 4,"), "resources.train.memory", "no such key"),
        (("seed: 0", "seed: 0, zzz: 1"), "posgen.data.zzz", "no such key; the keys here are modulus, keyed_modulus, j"),
        (("posgen:", "ruler: {}\nposgen:"), "ruler", "no such key; the keys here are preset, posgen, llm, leval"),
        # a missing key
        (("    batch_size: 32\n", ""), "posgen.training.batch_size", "must be given"),
        (("preset: tiny", ""), "preset", "must be given"),
        (("gpu: 0", ""), "resources.data.gpu", "must be given"),
        # a wrong type: nothing is converted silently
        (("batch_size: 32", "batch_size: 32.0"), "posgen.training.batch_size", "should be a valid integer, got 32.0"),
        (("batch_size: 32", "batch_size: '32'"), "posgen.training.batch_size", "should be a valid integer, got '32'"),
        (("batch_size: 32", "batch_size: true"), "posgen.training.batch_size", "should be a valid integer, got True"),
        (("batch_size: 32", "batch_size:"), "posgen.training.batch_size", "should be a valid integer, got None"),
        (("compile: true", "compile: 1"), "posgen.training.compile", "should be a valid boolean, got 1"),
        (("learning_rate: 2e-3", "learning_rate: fast"), "posgen.training.learning_rate", "valid number, got 'fast'"),
        (("seeds: [5549, 4955]", "seeds: 5549"), "posgen.seeds", "should be a valid list, got 5549"),
        (("precision: bf16", "precision: fp16"), "posgen.training.precision", "'fp32', 'tf32' or 'bf16', got 'fp16'"),
        (("device: cpu", "device: tpu"), "posgen.training.device", "should be 'cpu' or 'cuda', got 'tpu'"),
        (("model: {", "model: [{"), "", "not valid YAML"),
        (("model: {d_model: 16, d_ff: 32, num_heads: 2, head_dim: 64}", "model: 3"), "posgen.model", "got 3"),
        # a size out of range
        (("d_model: 16", "d_model: -16"), "posgen.model.d_model", "should be greater than or equal to 1, got -16"),
        (("num_train: 100", "num_train: 0"), "posgen.data.num_train", "greater than or equal to 1, got 0"),
        (("seed: 0", "seed: -1"), "posgen.data.seed", "should be greater than or equal to 0, got -1"),
        (("[5549, 4955]", "[5549, -1]"), "posgen.seeds.1", "should be greater than or equal to 0, got -1"),
        (("learning_rate: 2e-3", "learning_rate: 0"), "posgen.training.learning_rate", "greater than 0, got 0"),
        (("learning_rate: 2e-3", "learning_rate: .nan"), "posgen.training.learning_rate", "got nan"),
        (("learning_rate: 2e-3", "learning_rate: .inf"), "posgen.training.learning_rate", "finite number, got inf"),
        (("weight_decay: 1e-2", "weight_decay: 1e400"), "posgen.training.weight_decay", "finite number, got inf"),
        (("modulus: 17", "modulus: 1"), "posgen.data.modulus", "should be greater than or equal to 2, got 1"),
        (("head_dim: 64", "head_dim: 63"), "posgen.model", "head_dim must be even, got 63; a rotation turns pairs"),
        # what must fit together
        (("test_length: 256", "test_length: 64"), "posgen.data", "got 64 and 64: train short, test long"),
        (("train_length: 64", "train_length: 5"), "posgen.data", "j + k + 1 < train_length < test_length"),
        (("test_length: 256", "test_length: 65"), "posgen.data", "test_length"),  # neither an even nor an odd OOD token
        (("seeds: [5549, 4955]", "seeds: [1, 1]"), "posgen", "seeds must name each entry once, got [1, 1]"),
        (("seeds: [5549, 4955]", "seeds: []"), "posgen.seeds", "at least 1 item"),
        (("[rope, resonance_rope,", "[rope, rope,"), "posgen", "encodings must name each entry once"),
        (("look_sequences: 30", "look_sequences: 51"), "posgen", "look_sequences must be <= the split's size 50, got"),
        (("test_sequences: 40", "test_sequences: 41"), "posgen", "evaluation.test_sequences must be <= "),
        (("curve_sequences: 5", "curve_sequences: 51"), "posgen", "evaluation.curve_sequences must be <= "),
        (("batch_size: 32", "batch_size: 101"), "posgen", "batch_size must be <= data.num_train = 100, got 101"),
        (("precision: bf16", "precision: tf32"), "posgen", "training.precision must be fp32 or bf16 where training.d"),
        (("precision: fp32", "precision: tf32"), "posgen", "evaluation.precision must be fp32 or bf16 where training"),
        (("num_snapshots: 2", "num_snapshots: 3"), "posgen", "training.num_snapshots must divide num_looks = 4, got 3"),
        (("paper: {recursive: 8, cot: 9,", "paper: {recursive: 8,"), "posgen", "steps.paper.cot must be given"),
        (("{recursive: 8", "{recursive: 3"), "posgen", "steps.paper.recursive must be >= num_looks = 4, got 3"),
        (("{recursive: 8", "{recursiv: 8"), "posgen.training.steps.paper.recursiv", "must be one of recursive, cot, s"),
        (("tasks: [recursive,", "tasks: [recurring,"), "posgen.tasks.0", "task must be one of recursive, cot, "),
        # names
        (("preset: tiny", "preset: small"), "", "preset must be the file's name tiny, got 'small'"),
        (("[rope, resonance_rope,", "[rope, resonanse_rope,"), "posgen.encodings", "did you mean resonance_rope?"),
        (("protocols: [paper,", "protocols: [papr,"), "", "papr"),
        # YAML itself
        (("preset: tiny", "preset: tiny\npreset: paper"), "", "line 2: not valid YAML: key 'preset' is given twice"),
        (("    batch_size: 32", "    batch_size: 32\n    batch_size: 1"), "", "key 'batch_size' is given twice"),
        (("num_heads: 2", "num_heads: 2, num_heads: 5"), "", "key 'num_heads' is given twice; keep one"),
        (("posgen:", "posgen: {"), "", "not valid YAML"),
        (("seed: 0", "seed: *nowhere"), "", "not valid YAML: found undefined alias"),
        (("seed: 0", "seed: !!python/object/apply:os.getcwd []"), "", "could not determine a constructor"),
        (("posgen:", "--- {}\nposgen:"), "", "not valid YAML"),
        (("    batch_size: 32", "\tbatch_size: 32"), "", "not valid YAML"),
        (("seed: 0", "seed: \x01"), "", "not valid YAML"),
        (("seed: 0", "seed: 2001-99-99"), "", "'2001-99-99' is no timestamp"),
        (("seed: 0", "seed: !!int abc"), "", "line 8: not valid YAML: 'abc' is no int, or too long a one"),
        (("seed: 0", 'seed: !!int ""'), "", "'' is no int"),
        (("seed: 0", 'seed: !!float ""'), "", "'' is no float"),
        (("seed: 0", "seed: !!bool maybe"), "", "'maybe' is no bool"),
        (("seed: 0", "seed: !!timestamp foo"), "", "'foo' is no timestamp"),
        (("seed: 0", "seed: 1" + 5000 * "0"), "", "is no int, or too long a one"),
        (("seed: 0", "seed: 0x" + 100_000 * "f"), "", "is no int, or too long a one"),
        (("seed: 0", "seed: [&a [1, 1], &b [*a, *a], [*b, *b]]"), "posgen.data.seed", "should be a valid integer, got"),
        (("    batch_size: 32", "    ? [1]\n    : 2"), "", "a key must be a word"),
        # what no computer holds
        (("modulus: 17", "modulus: 9223372036854775807"), "posgen.data.modulus", "less than or equal to 2147483648"),
        (("d_model: 16", "d_model: 1" + 25 * "0"), "posgen.model.d_model", "less than or equal to 1099511627776"),
        # what is said of a protocol that nobody runs
        (("      paper: {", "      paper+P2: {cot: 5}\n      paper: {"), "posgen.training.steps", "'paper+P2' is not"),
        (("      paper: {", "      papr: {cot: 5}\n      paper: {"), "posgen.training.steps", "did you mean paper?"),
        (("seed: 0", '"se\\ned": 0'), "", "no such key"),
    ],
)  # fmt: skip
def test_bad_preset_is_one_line_with_file_key_and_rule(
    replacement: Replacement, key: str, rule: str, folder: Path
) -> None:
    edit(folder / "tiny.yaml", *replacement)
    message = refusal(folder)
    assert message.startswith(str(folder / "tiny.yaml"))
    assert f": {key}: " in message or not key
    assert rule in message


@pytest.mark.parametrize(
    ("file", "entry", "fields", "expected"),
    [
        ("encodings", "linear", {"method": "linar"}, "linear: method must be one of rope, dynamic_ntk, "),
        ("encodings", "linear", {"scale": 0.25}, "linear: scale is L'/L and must be >= 1, got 0.25"),
        ("encodings", "linear", {"scal": 2}, "linear: scal is not a field of an encoding"),
        ("encodings", "linear", {"base": 10**400}, "linear: base must be a finite number"),
        ("encodings", "linear", {"base": float("inf")}, "linear: base must be a finite number"),
        ("encodings", "yarn", {"beta_slow": 64}, "yarn: beta_slow and beta_fast must satisfy 0 < beta_slow"),
        ("encodings", 1, {"method": "linear"}, "1"),
        ("encodings", "a/../b", {"method": "linear"}, "a/../b"),
        ("encodings", "a\nb", {"method": "linear"}, "a\\nb"),
        ("protocols", "paper", {"dropout": 1.0}, "paper: dropout: should be less than 1, got 1.0"),
        ("protocols", "paper", {"trained": "most"}, "trained: should be 'all' or 'all_but_feed_forward', got 'most'"),
        ("protocols", "paper", {"selection": None, "selektion": "last"}, "selektion: no such key; did you mean"),
        ("protocols", "paper", {"selection": None}, "paper: selection: must be given"),
        ("protocols", "paper", {"num_extra_tokens": 10**25}, "paper: num_extra_tokens: should be less than or equal"),
        ("llm_protocols", "paper", {"resonance_methods": ["yran"]}, "; did you mean yarn?"),
        ("leval", "system_texts", {"exam": None, "exm": "Read."}, "'exm' is not in what is asked, which names exam, "),
        ("leval", "system_texts", {"exam": None}, "system_texts must have exam"),
        ("protocols", "paper", {"start_token": True}, "num_extra_tokens must be >= 1 with start_token, got 0"),
        ("protocols", "paper", {"yarn_beta_slow": 2.0}, "yarn_beta_slow must be < yarn_beta_fast, got 2.0 and 2.0"),
        ("protocols", "half", {"prefixes": "distinct"}, ": must be given"),
    ],
)  # fmt: skip
def test_bad_encoding_or_protocol_is_one_line_with_file_name_and_rule(
    file: str, entry: str, fields: dict, expected: str, folder: Path
) -> None:
    path = folder / f"{file}.yaml"
    put(path, entry, **fields)
    message = refusal(folder)
    assert message.startswith(str(path)) and expected in message


@pytest.mark.parametrize("preset", ["desktop", "encodings", "protocols", "", "../tiny", "tiny.yaml"])
def test_unknown_preset_is_refused_with_the_names_there_are(preset: str, folder: Path) -> None:
    assert refusal(folder, preset).startswith(f"preset must be one of {', '.join([*PRESETS, 'tiny'])}, got {preset!r}")


def test_every_encoding_is_checked_not_only_those_that_the_preset_names(folder: Path) -> None:
    put(folder / "encodings.yaml", "mine", method="my_method")
    assert "mine: method must be one of" in refusal(folder)


@pytest.mark.parametrize("file", ["tiny", "encodings", "protocols"])
@pytest.mark.parametrize(
    "content", [b"", b"\n# nothing\n", b"3", b"[]", b"text", b"a: 1", b"\xff\xfe\xfa", b"a: \x00", b"{", 2000 * b"["]
)
def test_a_file_of_something_else_is_one_line(content: bytes, file: str, folder: Path) -> None:
    (folder / f"{file}.yaml").write_bytes(content)
    assert refusal(folder).startswith(str(folder / f"{file}.yaml"))


@pytest.mark.parametrize("file", ["tiny", "encodings", "leval"])
def test_a_folder_in_a_files_place_is_one_line(file: str, folder: Path) -> None:
    path = folder / f"{file}.yaml"
    path.unlink()
    path.mkdir()
    assert refusal(folder) == f"{path}: must be a file that can be read (Is a directory); mend it"


@pytest.mark.parametrize("file", ["encodings", "protocols"])
def test_a_missing_file_is_one_line(file: str, folder: Path) -> None:
    (folder / f"{file}.yaml").unlink()
    assert refusal(folder) == f"{folder / file}.yaml: no such file"


def test_settings_are_frozen(folder: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(folder, "tiny").posgen.settings.data.modulus = 3


# Whatever one does to a file


@pytest.mark.parametrize(
    ("preset", "names"),
    [
        ("tiny", ["tiny.yaml", "encodings.yaml", "protocols.yaml"]),
        ("smoke", ["smoke.yaml", "llm_protocols.yaml", "leval.yaml"]),
    ],
)
def test_load_succeeds_or_refuses_in_one_line_whatever_was_done_to_a_file(
    preset: str, names: list[str], folder: Path
) -> None:
    ends = configs(folder, preset, names, 150)  # `benchmarks.torture --full` makes 2,600
    assert ends["traceback"] == 0 and ends["valid"] > 10 and ends["one line"] > 50


def test_the_schema_for_editors_names_every_key_with_its_meaning() -> None:
    schema = Preset.model_json_schema()
    for kind in (schema, *schema["$defs"].values()):
        assert kind["additionalProperties"] is False
    described = schema["$defs"]["DataSettings"]["properties"]
    assert all(re.search(r"\w", field["description"]) for field in described.values())
    assert schema["$defs"]["Study"]["properties"]["tasks"]["items"]["enum"] == list(TASKS)


# Studies, and protocols one choice apart


def test_a_choice_is_taken_from_the_other_protocol(folder: Path, protocols: dict[str, Protocol]) -> None:
    flipped = with_choices("paper+P5+P9", protocols)
    assert (flipped.num_layers, flipped.start_token, flipped.num_extra_tokens) == (6, True, 5)
    fields = {"num_layers", "start_token", "num_extra_tokens"}
    assert flipped.model_dump(exclude=fields) == protocols["paper"].model_dump(exclude=fields)


def test_all_choices_of_the_other_make_the_other(protocols: dict[str, Protocol]) -> None:
    everything = "+".join(CHOICES)
    assert with_choices(f"paper+{everything}", protocols) == protocols["released"]
    assert with_choices(f"released+{everything}", protocols) == protocols["paper"]


def test_a_variant_has_sequences_of_its_own_and_an_encoding_for_them(folder: Path) -> None:
    edit(folder / "tiny.yaml", "protocols: [paper, released]", "protocols: [paper, paper+L32, paper+k4]")
    posgen = load(folder, "tiny").posgen
    runs = [posgen.train_run(name, "cot").data for name in ("paper", "paper+L32", "paper+k4")]
    assert [(data.train_length, data.k) for data in runs] == [(64, 3), (32, 3), (64, 4)]
    assert [posgen.data_run(name, "cot").data for name in ("paper", "paper+L32", "paper+k4")] == runs
    assert posgen.data_protocol("paper+L32") == "paper+L32" and posgen.train_protocol("paper+k4", "rope") == "paper+k4"
    spec = posgen.spec("paper+L32", "yarn")
    assert (spec.train_length, spec.scale) == (32, 8.0)


def test_a_variant_that_does_not_fit_is_refused_by_its_key(folder: Path) -> None:
    edit(folder / "tiny.yaml", "protocols: [paper, released]", "protocols: [paper, paper+L300]")
    said = refusal(folder)
    assert "posgen.protocols: a variant's data: " in said and "train_length < test_length - 1, got 300 and 256" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("papper", "'papper' is not defined; config/protocols.yaml names paper, released, and paper+P5, say"),
        ("papper+P5", "'papper+P5' is not defined"),
        ("paper+P11", "'paper+P11': a choice must be one of P1, P2, P3"),
        ("paper+", "'paper+': a choice must be one of P1"),
    ],
)
def test_a_choice_that_is_none_is_refused(protocols: dict[str, Protocol], name: str, said: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(said)):
        with_choices(name, protocols)


def test_a_preset_that_names_no_choice_is_refused_by_its_key(folder: Path) -> None:
    edit(folder / "tiny.yaml", "protocols: [paper, released]", "protocols: [paper, paper+P11]")
    assert "tiny.yaml: posgen.protocols: 'paper+P11': a choice must be one of P1" in refusal(folder)


STUDY = """\
  studies:
    ablation: {protocols: [paper, paper+P2, paper+P3, released, released+P3], tasks: [cot], seeds: [5549],
               encodings: [rope, resonance_rope, yarn, resonance_yarn]}
resources:
"""


def test_what_protocols_share_is_trained_once(folder: Path) -> None:
    edit(folder / "tiny.yaml", "resources:\n", STUDY)
    loaded = load(folder, "tiny").posgen
    cells = loaded.cells("ablation")
    assert len(cells) == 20
    trained = {(c.protocol, c.encoding): (c.train_protocol, c.train_encoding) for c in cells}
    assert trained["paper", "yarn"] == ("paper", "yarn")
    assert trained["paper+P2", "yarn"] == ("paper", "rope"), "P2: trained unscaled, as paper trains RoPE"
    assert trained["paper+P3", "rope"] == ("paper", "rope"), "P3 concerns YaRN alone"
    assert trained["paper+P3", "yarn"] == ("paper+P3", "yarn"), "another table to train with"
    assert trained["released+P3", "yarn"] == ("released", "rope"), "YaRN's table is used in evaluation only"
    assert len(set(trained.values())) == 4 + 2 + 2 == len(loaded.trainings("ablation"))
    assert loaded.train_run("paper+P3", "cot").steps == loaded.train_run("paper", "cot").steps


def test_a_study_shares_the_rules_of_the_presets_own_lists(folder: Path) -> None:
    for old, new, said in (
        ("[paper, paper+P2", "[paper, paper", "posgen.studies.ablation: protocols must name each entry once"),
        ("[paper, paper+P2", "[paper+P2", "posgen.studies.ablation.protocols must hold paper, from which paper+P2 is"),
        ("tasks: [cot]", "tasks: [cot_keyed]", "posgen: training.steps.paper.cot_keyed must be given"),
        ("yarn, resonance_yarn]}", "yarm]}", "posgen.studies.ablation.encodings: 'yarm' is not in "),
        ("    ablation:", "    ablations:", "posgen.studies.ablations"),
    ):
        (folder / "tiny.yaml").write_text(TINY.replace("resources:\n", STUDY.replace(old, new)))
        assert said in refusal(folder)


def test_keyed_tasks_have_their_own_modulus(folder: Path) -> None:
    loaded = load(ROOT / "config", "laptop").posgen
    assert loaded.train_run("paper", "cot_keyed").data.modulus == 11
    assert loaded.data_run("paper", "cot").data.modulus == 17
    assert loaded.train_run("paper", "cot_keyed").vocab_size == 11
