"""frequency_table against the paper's figures, straightforward loops, the released table and transformers."""

import importlib.metadata
import math
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from resonance.encoding import methods
from resonance.encoding.frequencies import FrequencyTable, frequency_table, precritical
from resonance.encoding.methods import method_names, module_of, register
from resonance.encoding.rounding import CONTROLS, ROUNDINGS, resonate
from resonance.encoding.spec import EncodingSpec

METHODS = ("rope", "dynamic_ntk", "linear", "ntk", "yarn")
OTHERS = ("factors", "llama3", "longrope")


def spec(method: str = "rope", **fields: object) -> EncodingSpec:
    return EncodingSpec(method=method, **fields)


# Properties


@pytest.mark.parametrize("head_dim", [2, 4, 64, 128])
@pytest.mark.parametrize("method", METHODS)
def test_resonance_is_one_step_on_any_method(method: str, head_dim: int) -> None:
    """Algorithm 1: every wavelength goes to its nearest integer, so it moves by at most 1/2."""
    rule = "paper" if head_dim == 2 else "bloc97"  # bloc97's exponent d/(d-2) has no value at d = 2
    fields = {"scale": 4.0, "train_length": 64, "ntk_rule": rule}
    plain = frequency_table(spec(method, **fields), head_dim, seq_len=256)
    table = frequency_table(spec(method, resonance=True, **fields), head_dim, seq_len=256)
    assert (plain.period == 0).all() and plain.period.shape == plain.theta.shape == (head_dim // 2,)
    assert table.period.dtype == np.int64 and (table.period >= 1).all()
    assert (np.abs(table.period - 2 * np.pi / plain.theta) <= 0.5).all()
    assert (table.theta == 2 * np.pi / table.period).all()
    assert (table.wavelength == table.period).all()
    assert table.attention_factor == plain.attention_factor


@pytest.mark.parametrize("method", METHODS)
def test_scale_1_is_plain_rope(method: str) -> None:
    table = frequency_table(spec(method, scale=1, train_length=64), 64, seq_len=64)
    np.testing.assert_allclose(table.theta, frequency_table(spec(), 64).theta, rtol=1e-15)  # float64
    assert table.attention_factor == 1.0


@pytest.mark.parametrize("method", ["linear", "ntk", "yarn"])
@pytest.mark.parametrize("ntk_rule", ["bloc97", "paper"])
def test_scaling_never_shortens_a_wavelength_nor_stretches_it_past_s(method: str, ntk_rule: str) -> None:
    plain = frequency_table(spec(), 64).wavelength
    scaled = frequency_table(spec(method, scale=4.0, train_length=64, ntk_rule=ntk_rule), 64).wavelength
    stretch = scaled / plain
    assert (stretch >= 1 - 1e-12).all() and (stretch <= 4 + 1e-12).all()  # float64
    assert (np.diff(stretch) >= -1e-12).all(), "slow features are stretched most"


# The paper's figures (shared/reference/published/theory.csv)


def test_shortest_and_longest_wavelength_of_llama() -> None:
    """lambda_0 = 6.283185 for any base; lambda_63 = 54410.14 for d = 128, b = 10,000 (section 3.1)."""
    for base in (100.0, 1e4, 5e5, 1e6):
        assert frequency_table(spec(base=base), 128).wavelength[0] == pytest.approx(6.283185, abs=5e-7)
    assert frequency_table(spec(), 128).wavelength[63] == pytest.approx(54410.14, abs=5e-3)


@pytest.mark.parametrize(
    ("head_dim", "train_length", "count"),
    [
        (64, 64, 9),  # lambda_j < 64 for j = 0..8; the paper's "17" is the last such dimension's index, 2c-1
        (128, 4096, 46),  # theory.csv: recomputed; feeds the LCM
    ],
)
def test_number_of_precritical_features(head_dim: int, train_length: int, count: int) -> None:
    theta = frequency_table(spec(), head_dim).theta
    inside = precritical(theta, train_length)
    assert inside.sum() == count
    assert inside[:count].all(), "they are the first ones"


def test_all_precritical_features_of_llama2_repeat_together_after_7e51_positions() -> None:
    """Section 4: the LCM of the rounded wavelengths is > 7e51 (theory.csv: 7.058e51)."""
    plain = frequency_table(spec(), 128).theta
    period = frequency_table(spec(resonance=True), 128).period
    together = math.lcm(*(int(p) for p in period[precritical(plain, 4096)]))
    assert together > 7 * 10**51
    assert f"{together:.3e}" == "7.058e+51"


def test_sum_of_rounded_wavelengths_of_llama2_in_float64() -> None:
    assert frequency_table(spec(resonance=True), 128).period.sum() == 405_898  # theory.csv


def test_rounding_in_float32_would_give_wrong_integers_at_base_1e6() -> None:
    """Why `resonate` works in float64: the usual float32 frequencies round to other wavelengths."""
    in_float32 = 1.0 / (1e6 ** (torch.arange(0, 128, 2).float() / 128))
    rounded = (2 * torch.pi / in_float32).round().long().numpy()
    assert (rounded != frequency_table(spec(base=1e6, resonance=True), 128).period).sum() >= 1


# Named references


def transformers_table(kind: str, head_dim: int, base: float, max_positions: int, seq_len: int | None, **rope: object):
    config = LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        head_dim=head_dim,
        max_position_embeddings=max_positions,
        rope_parameters={"rope_type": kind, "rope_theta": base, **rope},
    )
    inv_freq, factor = ROPE_INIT_FUNCTIONS[kind](config, device=None, seq_len=seq_len)
    return inv_freq.double().numpy(), factor


GRID = list(product([4, 8, 64, 128], [100.0, 1e4, 5e5], [1.0, 1.5, 4.0, 32.0], [64, 4096]))
FLOAT32 = 2e-6  # relative; theirs is computed in float32: a power, a product and a quotient


@pytest.mark.parametrize(("head_dim", "base", "scale", "train_length"), GRID)
def test_parity_with_transformers(head_dim: int, base: float, scale: float, train_length: int) -> None:
    def ours(method: str, seq_len: int | None = None, **fields: object) -> FrequencyTable:
        return frequency_table(
            spec(method, base=base, scale=scale, train_length=train_length, **fields), head_dim, seq_len
        )

    theirs, _ = transformers_table("linear", head_dim, base, train_length, None, factor=scale)
    np.testing.assert_allclose(ours("linear").theta, theirs, rtol=FLOAT32)

    # None and lengths up to L leave dynamic NTK as plain RoPE; past L both grow the base.
    for seq_len in (None, 1, train_length, train_length + 1, 3 * train_length):
        theirs, _ = transformers_table("dynamic", head_dim, base, train_length, seq_len, factor=scale)
        np.testing.assert_allclose(ours("dynamic_ntk", seq_len).theta, theirs, rtol=FLOAT32)

    for truncate, (fast, slow) in product([True, False], [(32.0, 1.0), (2.0, 1.0), (8.0, 0.5)]):
        rope = {"factor": scale, "original_max_position_embeddings": train_length, "truncate": truncate}
        theirs, factor = transformers_table(
            "yarn", head_dim, base, 8 * train_length, None, beta_fast=fast, beta_slow=slow, **rope
        )
        table = ours("yarn", truncate=truncate, beta_fast=fast, beta_slow=slow)
        # Theirs rounds gamma to float32, and gamma weighs s times as much as theta/s beside it.
        np.testing.assert_allclose(table.theta, theirs, rtol=FLOAT32 + scale * 2**-22)
        assert table.attention_factor == pytest.approx(factor, rel=1e-15)


@pytest.mark.parametrize(("head_dim", "base", "scale", "train_length"), GRID)
def test_llama3_and_longrope_are_transformers_own(head_dim, base, scale, train_length) -> None:
    fields = {"base": base, "scale": scale, "train_length": train_length}
    rope = {"factor": scale, "original_max_position_embeddings": train_length}
    for low, high in ((1.0, 4.0), (0.5, 32.0)):
        own = {"low_freq_factor": low, "high_freq_factor": high}
        theirs, _ = transformers_table("llama3", head_dim, base, 8 * train_length, None, **rope, **own)
        found = frequency_table(spec("llama3", parameters=own, **fields), head_dim)
        np.testing.assert_allclose(found.theta, theirs, rtol=FLOAT32 + scale * 2**-22)
    draw = np.random.default_rng(head_dim)
    own = {name: (1 + 9 * draw.random(head_dim // 2)).tolist() for name in ("short_factor", "long_factor")}
    for seq_len in (None, train_length, train_length + 1):
        theirs, factor = transformers_table("longrope", head_dim, base, 8 * train_length, seq_len, **rope, **own)
        found = frequency_table(spec("longrope", parameters=own, **fields), head_dim, seq_len)
        np.testing.assert_allclose(found.theta, theirs, rtol=FLOAT32)
        assert found.attention_factor == pytest.approx(factor, rel=1e-15)
        name = "long_factor" if seq_len == train_length + 1 else "short_factor"
        general = frequency_table(spec("factors", parameters={"factors": own[name]}, base=base), head_dim)
        np.testing.assert_array_equal(general.theta, found.theta)
    with pytest.raises(ValueError, match=f"long_factor must hold {head_dim // 2 + 1} numbers > 0"):
        frequency_table(spec("longrope", parameters=own, **fields), head_dim + 2, train_length + 1)


def test_difference_from_transformers_truncation_is_a_choice_that_changes_the_table() -> None:
    """`truncate` widens the ramp to whole feature indices (YaRN's code); without it the ramp's ends are fractions."""
    widened = frequency_table(spec("yarn", scale=4.0, train_length=64, beta_fast=2), 64).theta
    exact = frequency_table(spec("yarn", scale=4.0, train_length=64, beta_fast=2, truncate=False), 64).theta
    assert not np.allclose(widened, exact, rtol=1e-3)


def test_difference_from_transformers_the_ramp_is_clamped_at_d_minus_1_not_at_the_last_feature() -> None:
    """As in YaRN's code: with L beyond the slowest wavelength, the ramp still ends past the last feature, d/2-1."""
    table = frequency_table(spec("yarn", scale=4.0, train_length=10**6, truncate=False, beta_slow=0.01), 8)
    stretch = frequency_table(spec(), 8).theta / table.theta
    low = 8 * math.log(10**6 / (32 * 2 * math.pi)) / (2 * math.log(1e4))
    gamma = 1 - (3 - low) / (7 - low) if low < 3 else 1.0
    assert low < 7
    assert 1 / stretch[3] == pytest.approx((1 - gamma) / 4 + gamma, rel=1e-12)


@pytest.mark.parametrize("name", ["rope", "yarn", "resonance_rope", "resonance_yarn"])
def test_released_tables(name: str, released_golden: dict[str, np.ndarray]) -> None:
    """P3: 257 positions in L's place, s = 257/65, beta_fast 2, beta_slow 1. Theirs is float32."""
    fields = {"resonance": name.startswith("resonance")}
    if name.endswith("yarn"):
        fields |= {"method": "yarn", "scale": 257 / 65, "train_length": 257, "beta_fast": 2.0, "beta_slow": 1.0}
    table = frequency_table(EncodingSpec(**fields), 64)
    np.testing.assert_allclose(table.theta, released_golden[f"{name}.inv_freq"], rtol=FLOAT32)


# YaRN's two ramps and two blends


@pytest.mark.parametrize("train_length", [64, 257, 4096])
@pytest.mark.parametrize(("beta_fast", "beta_slow"), [(32.0, 1.0), (2.0, 1.0)])
@pytest.mark.parametrize("blend", ["frequency", "wavelength"])
@pytest.mark.parametrize("ramp", ["index", "wavelength"])
def test_yarn_equals_a_straightforward_loop(
    ramp: str, blend: str, beta_fast: float, beta_slow: float, train_length: int
) -> None:
    """Section 3.3 for `wavelength`, YaRN's published code for `index`, feature by feature."""
    d, b, s = 64, 10_000.0, 4.0
    fields = {"ramp": ramp, "blend": blend, "beta_fast": beta_fast, "beta_slow": beta_slow}
    found = frequency_table(spec("yarn", scale=s, train_length=train_length, **fields), d)

    def feature_turning(turns: float) -> float:
        return d / 2 * math.log(train_length / (2 * math.pi * turns), b)

    low = max(math.floor(feature_turning(beta_fast)), 0)
    high = min(math.ceil(feature_turning(beta_slow)), d - 1)
    for j in range(d // 2):
        wavelength = 2 * math.pi * b ** (2 * j / d)
        if ramp == "index":
            gamma = 1.0 if j <= low else 0.0 if j >= high else 1 - (j - low) / (high - low)
        elif wavelength < train_length / beta_fast:
            gamma = 1.0
        elif wavelength > train_length / beta_slow:
            gamma = 0.0
        else:
            gamma = (train_length / wavelength - beta_slow) / (beta_fast - beta_slow)
        if blend == "wavelength":
            expected = 2 * math.pi / ((1 - gamma) * s * wavelength + gamma * wavelength)
        else:
            expected = (1 - gamma) * 2 * math.pi / (s * wavelength) + gamma * 2 * math.pi / wavelength
        assert found.theta[j] == pytest.approx(expected, rel=1e-12), f"feature {j}"  # float64


def test_the_blends_agree_where_gamma_is_0_or_1_and_nowhere_else() -> None:
    tables = [
        frequency_table(spec("yarn", scale=4.0, train_length=4096, ramp="wavelength", blend=blend), 128).theta
        for blend in ("frequency", "wavelength")
    ]
    turns = 4096 * frequency_table(spec(), 128).theta / (2 * np.pi)
    between = (turns > 1) & (turns < 32)
    assert 0 < between.sum() < 64
    np.testing.assert_allclose(tables[0][~between], tables[1][~between], rtol=1e-15)  # float64
    assert (tables[0][between] > tables[1][between]).all(), "a harmonic mean of wavelengths is below the arithmetic"


@pytest.mark.parametrize("ramp", ["index", "wavelength"])
@pytest.mark.parametrize("blend", ["frequency", "wavelength"])
def test_yarn_keeps_the_fastest_features_and_interpolates_the_slowest_by_s(ramp: str, blend: str) -> None:
    plain = frequency_table(spec(), 128).theta
    found = frequency_table(spec("yarn", scale=8.0, train_length=4096, ramp=ramp, blend=blend), 128).theta
    assert found[0] == plain[0]
    assert found[-1] == pytest.approx(plain[-1] / 8, rel=1e-15)


def test_yarns_temperature_and_its_override() -> None:
    """sqrt(1/t) = 0.1 ln(s) + 1; at s = 257/65 the logits carry 1.294 (P4)."""
    fields = {"scale": 257 / 65, "train_length": 257}
    factor = frequency_table(spec("yarn", **fields), 64).attention_factor
    assert factor == pytest.approx(0.1 * math.log(257 / 65) + 1, rel=1e-15)
    assert factor**2 == pytest.approx(1.294, abs=5e-4)
    assert frequency_table(spec("yarn", attention_factor=1.0, **fields), 64).attention_factor == 1.0
    assert frequency_table(spec("linear", scale=4.0), 64).attention_factor == 1.0


# NTK


def test_ntk_grows_the_base_by_either_rule() -> None:
    """Paper, C.2: b s. Released code (bloc97): b s^(d/(d-2))."""
    for rule, grown in (("paper", 4e4), ("bloc97", 1e4 * 4 ** (64 / 62))):
        expected = [grown ** (-2 * j / 64) for j in range(32)]
        found = frequency_table(spec("ntk", scale=4.0, ntk_rule=rule), 64).theta
        np.testing.assert_allclose(found, expected, rtol=1e-13)  # float64


def test_bloc97_interpolates_the_slowest_feature_by_exactly_s() -> None:
    """The reason for the exponent d/(d-2)."""
    plain, found = frequency_table(spec(), 64).theta, frequency_table(spec("ntk", scale=4.0), 64).theta
    assert plain[-1] / found[-1] == pytest.approx(4.0, rel=1e-13)
    assert found[0] == plain[0] == 1.0


@pytest.mark.parametrize(("rule", "growth"), [("paper", 3.0), ("bloc97", (4 * 3 - 3) ** (64 / 62))])
def test_dynamic_ntk_scales_by_the_current_length(rule: str, growth: float) -> None:
    """L_c = 3 L. Paper: s = L_c/L. Released code: (s L_c/L - (s-1))^(d/(d-2))."""
    found = frequency_table(spec("dynamic_ntk", scale=4.0, train_length=64, ntk_rule=rule), 64, seq_len=192).theta
    np.testing.assert_allclose(found, [(1e4 * growth) ** (-2 * j / 64) for j in range(32)], rtol=1e-13)  # float64


# Odd shapes and errors


def test_head_dim_2_is_one_feature_of_theta_1() -> None:
    assert frequency_table(spec(), 2).theta.tolist() == [1.0]
    assert frequency_table(spec(resonance=True), 2).period.tolist() == [6]


@pytest.mark.parametrize("head_dim", [0, 1, 3, -2, 2.0, True, "64", None])
def test_head_dim_must_be_even_and_positive(head_dim: object) -> None:
    with pytest.raises(ValueError, match=r"^head_dim must be an even integer >= 2, got .*pairs of dimensions$"):
        frequency_table(spec(), head_dim)


@pytest.mark.parametrize("method", ["ntk", "dynamic_ntk"])
def test_bloc97_has_no_exponent_at_head_dim_2(method: str) -> None:
    with pytest.raises(ValueError, match=r"^head_dim must be >= 4 for ntk_rule bloc97, got 2"):
        frequency_table(spec(method, scale=4.0, train_length=8), 2, seq_len=16)


# Rules of rounding


ROPE = 1e4 ** (-np.arange(0, 128, 2) / 128)
WAVELENGTHS = [
    2 * np.pi / ROPE,  # LLaMA2's
    2 * np.pi * 1e6 ** (np.arange(0, 128, 2) / 128) * 8,  # long ones
    np.random.default_rng(0).uniform(2, 300, size=32),  # in no order
]


def rounded(wavelength: np.ndarray, rounding: str) -> np.ndarray:
    return 2 * np.pi / resonate(2 * np.pi / wavelength, rounding)[0]


@pytest.mark.parametrize("wavelength", WAVELENGTHS, ids=["rope", "long", "any"])
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_a_period_is_the_wavelength_and_only_the_controls_have_none(rounding: str, wavelength: np.ndarray) -> None:
    theta, period = resonate(2 * np.pi / wavelength, rounding)
    if rounding in CONTROLS:
        assert not period.any()
        return
    assert period.dtype == np.int64 and (period >= 1).all()
    np.testing.assert_array_equal(theta, 2 * np.pi / period)


@pytest.mark.parametrize("wavelength", WAVELENGTHS, ids=["rope", "long", "any"])
def test_what_each_rule_rounds_to(wavelength: np.ndarray) -> None:
    found = {rule: rounded(wavelength, rule) for rule in ROUNDINGS}
    integer = {rule: np.rint(found[rule]) for rule in ROUNDINGS}
    np.testing.assert_array_equal(integer["nearest"], np.rint(wavelength))
    assert (integer["floor"] <= wavelength).all() and (wavelength - integer["floor"] < 1).all()
    assert (integer["ceil"] >= wavelength).all() and (integer["ceil"] - wavelength < 1).all()
    for rule, rest in (("even", 0), ("odd", 1)):
        assert (integer[rule] % 2 == rest).all() and (abs(integer[rule] - wavelength) <= 1).all()
    assert len(set(integer["prime"])) == len(wavelength)
    assert all(
        n >= 2 and all(n % d for d in range(2, math.isqrt(n) + 1)) for n in integer["prime"].astype(int).tolist()
    )
    taken = integer["coprime"].astype(int).tolist()
    assert all(math.gcd(a, b) == 1 for i, a in enumerate(taken) for b in taken[:i])


@pytest.mark.parametrize("rounding", ["prime", "coprime"])
def test_the_nearest_free_integer_is_the_nearest_by_exhaustion(rounding: str) -> None:
    """Slowly: of all integers to 1,000, those that fit beside the earlier ones, the nearest."""
    wavelength, taken = 2 * np.pi / ROPE[:30], []

    def fits(n: int) -> bool:
        if rounding == "prime":
            return n not in taken and all(n % d for d in range(2, n))
        return all(math.gcd(n, other) == 1 for other in taken)

    for value in wavelength:
        taken.append(min((n for n in range(2, 1000) if fits(n)), key=lambda n: abs(n - value)))
    np.testing.assert_array_equal(np.rint(rounded(wavelength, rounding)), taken)


def test_the_controls_move_wavelengths_as_far_and_to_no_integer() -> None:
    wavelength = 2 * np.pi / ROPE
    reflected, half, lowered, raised = (rounded(wavelength, rule) for rule in CONTROLS)
    np.testing.assert_allclose(reflected - wavelength, wavelength - np.rint(wavelength), atol=1e-9)
    np.testing.assert_allclose(half % 1, 0.5, atol=1e-9)
    np.testing.assert_allclose((wavelength - lowered, raised - wavelength), 0.5, atol=1e-9)
    assert (abs(lowered - np.rint(lowered)) > 1e-3).all() and (abs(raised - np.rint(raised)) > 1e-3).all()


def test_a_rule_follows_any_method_and_nearest_is_the_default() -> None:
    yarn = {"method": "yarn", "scale": 4, "train_length": 64}
    plain = frequency_table(EncodingSpec(**yarn), 64)
    found = frequency_table(EncodingSpec(**yarn, resonance=True, rounding="even"), 64)
    np.testing.assert_array_equal(found.theta, resonate(plain.theta, "even")[0])
    assert found.attention_factor == plain.attention_factor
    default = frequency_table(EncodingSpec(**yarn, resonance=True), 64)
    np.testing.assert_array_equal(default.period, np.rint(plain.wavelength).astype(int))


def test_resonance_refuses_a_wavelength_that_rounds_to_zero() -> None:
    with pytest.raises(ValueError, match=r"^resonance needs wavelengths that round to at least 1 position, got 0.419"):
        resonate(np.array([1.0, 15.0]))


# The registry


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict:
    """The registry, put back afterwards."""
    method_names()
    monkeypatch.setattr(methods, "_METHODS", dict(methods._METHODS))
    monkeypatch.setattr(methods, "_MODULES", dict(methods._MODULES))
    return methods._METHODS


def test_a_registered_method_gets_resonance_and_its_amplitude_for_nothing(registry: dict) -> None:
    @register("halved", needs_train_length=True)
    def halved(of: EncodingSpec, head_dim: int, seq_len: int | None = None) -> np.ndarray:
        return np.full(head_dim // 2, 2 * np.pi / 10.4)

    halved.attention_factor = lambda of: 1.5
    with pytest.raises(ValueError, match="train_length must be given for method halved"):
        frequency_table(spec("halved"), 8)
    table = frequency_table(spec("halved", train_length=64, resonance=True), 8)
    assert table.period.tolist() == [10] * 4 and table.attention_factor == 1.5
    with pytest.raises(ValueError, match=f"method halved is registered already, by {__name__}; choose another name"):
        register("halved")(halved)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([1.0, 0.5, 0.1], "must return d/2 = 4 finite frequencies > 0, got 3 of them"),
        ([1.0, 0.5, 0.0, 0.1], r"got 0\.0 for feature 2"),
        ([1.0, np.nan, 0.2, 0.1], "got nan for feature 1"),
        ([[1.0, 0.5, 0.2, 0.1]], r"got an array of shape \[1, 4\]"),
    ],
)
def test_what_a_method_returns_is_checked(registry: dict, returned: list, said: str) -> None:
    register("wrong")(lambda of, head_dim, seq_len=None: returned)
    with pytest.raises(ValueError, match=f"method wrong {said}" if said.startswith("must") else said):
        frequency_table(spec("wrong"), 8)


def test_the_papers_names_are_taken(registry: dict) -> None:
    with pytest.raises(ValueError, match=r"method rope is registered already, by resonance\.encoding\.methods\.rope"):
        register("rope")(lambda of, head_dim, seq_len=None: np.ones(head_dim // 2))


def test_every_method_has_a_file_of_its_own() -> None:
    assert [module_of(name) for name in (*METHODS, *OTHERS)] == [
        f"resonance.encoding.methods.{name}" for name in (*METHODS, *OTHERS)
    ]


def test_an_installed_package_adds_a_method_by_its_entry_point(registry: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    def constant(of: EncodingSpec, head_dim: int, seq_len: int | None = None) -> np.ndarray:
        return np.full(head_dim // 2, 0.5)

    def entry_points(*, group: str) -> list:
        assert group == "resonance.methods"
        return [SimpleNamespace(name="constant", module="a_package.constant", load=lambda: constant)]

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    monkeypatch.setattr(methods, "entry_points", entry_points)
    methods._load.cache_clear()
    assert method_names() == ["rope", *sorted((*METHODS[1:], *OTHERS)), "constant"]
    assert module_of("constant") == "a_package.constant"
    assert frequency_table(EncodingSpec.from_json('{"method": "constant"}'), 4).theta.tolist() == [0.5, 0.5]
