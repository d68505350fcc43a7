"""PosGen for any encoding: each encoding by its formula, the tasks' promises, and the command from end to end."""

import importlib
import itertools
import math
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from resonance.encoding.rotary import Rotary
from resonance.encoding.spec import EncodingSpec
from resonance.posgen.decoder import Decoder
from resonance.posgen.ranking import rank, tasks
from resonance.posgen.ranking.board import write_board
from resonance.posgen.ranking.check import checked
from resonance.posgen.ranking.data import write_data
from resonance.posgen.ranking.decoder import PlacedDecoder
from resonance.posgen.ranking.encoding import PositionEncoding, Sizes
from resonance.posgen.ranking.encodings import encodings, named
from resonance.posgen.ranking.rows import RANKING
from resonance.posgen.ranking.train import SIZES, config_of
from resonance.posgen.tasks import generate
from resonance.record.rows import read_rows, read_run, write_rows

SMALL = Sizes(train_length=16, test_length=64, num_heads=2, head_dim=8, d_model=12)
POSITIONS = torch.arange(20)
CONFIG = config_of(tasks.TASKS["look_back"])


def made(name: str, sizes: Sizes = SMALL) -> PositionEncoding:
    torch.manual_seed(0)
    return encodings()[name](sizes)


def qk(sizes: Sizes = SMALL, num: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(1)
    return tuple(torch.randn(2, sizes.num_heads, num, sizes.head_dim, generator=draws) for _ in range(2))


def added(name: str) -> torch.Tensor:
    """What an encoding adds to scores of zero, [B, H, T, T]."""
    with torch.no_grad():
        return made(name).score(torch.zeros(2, 2, 20, 20), qk()[0], POSITIONS)


def test_no_encoding_does_nothing() -> None:
    q, k = qk()
    nope = made("nope")
    turned = nope.turn(q, k, POSITIONS)
    assert torch.equal(turned[0], q) and torch.equal(turned[1], k)
    assert torch.equal(nope.embed(q, POSITIONS), q) and torch.equal(nope.score(q, q, POSITIONS), q)


def test_sinusoids_are_the_papers() -> None:
    found = made("sinusoidal").embed(torch.zeros(1, 20, 12), POSITIONS)[0]
    for m, i in itertools.product((0, 1, 19), range(6)):
        angle = m / 10_000 ** (2 * i / 12)
        assert found[m, 2 * i : 2 * i + 2].tolist() == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-6)


@pytest.mark.parametrize("name", ["rope", "resonance_rope", "linear", "ntk", "dynamic_ntk", "yarn", "resonance_yarn"])
def test_a_rotation_is_that_of_its_spec(name: str) -> None:
    rotating, (q, k) = made(name), qk()
    spec = rotating.spec
    assert (spec.method, spec.resonance) == (name.removeprefix("resonance_"), name.startswith("resonance_"))
    if spec.method != "rope":
        assert (spec.train_length, spec.scale) == (16, 4)
    rotary = Rotary(spec, head_dim=8, num_positions=20, pair_layout="interleaved")
    for ours, theirs in zip(rotating.turn(q, k, POSITIONS), rotary(q, k), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_p_rope_leaves_its_slowest_quarter() -> None:
    p_rope, rope, (q, k) = made("p_rope"), made("rope"), qk()
    ours, theirs = p_rope.turn(q, k, POSITIONS)[0], rope.turn(q, k, POSITIONS)[0]
    torch.testing.assert_close(ours[..., :6], theirs[..., :6])
    assert torch.equal(ours[..., 6:], q[..., 6:])


def test_fope_is_a_series_in_the_frequencies_that_training_sees() -> None:
    fope, (q, k) = made("fope"), qk()
    theta = [10_000 ** (-2 * j / 8) for j in range(4) if 10_000 ** (-2 * j / 8) >= 2 * math.pi / 16]
    assert len(theta) == 1 and fope.num_features == 1
    found = fope.turn(q, k, POSITIONS)[0][0, 1, 7]  # head 1, position 7
    cos, sin = (float(fope.get_buffer(name)[1, 0, 0]) for name in ("cos", "sin"))
    assert cos != 1 and abs(cos - 1) < 2
    x = q[0, 1, 7]
    cos, sin = (torch.tensor([c, 1.0, 1.0, 1.0]) for c in (cos * math.cos(7 * theta[0]), sin * math.sin(7 * theta[0])))
    expected = torch.cat((x[:4] * cos - x[4:] * sin, x[4:] * cos + x[:4] * sin))
    torch.testing.assert_close(found, expected)


def test_alibis_slopes_are_those_of_transformers() -> None:
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    theirs = build_mpt_alibi_tensor(2, 20)[:, 0]  # -slope * (19 - n): the row of the last query
    torch.testing.assert_close(added("alibi")[0, :, -1], theirs.float())


def test_t5s_buckets_are_those_of_transformers() -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = torch.arange(400)
    theirs = T5Attention._relative_position_bucket(-distance, bidirectional=False, num_buckets=32, max_distance=128)
    assert torch.equal(made("t5").bucket(distance), theirs)
    bias = made("t5").bias.weight
    torch.testing.assert_close(added("t5")[0, :, 19, 0], bias[made("t5").bucket(torch.tensor(19))])


def test_fire_is_its_equation() -> None:
    fire = made("fire")
    found = added("fire")[0]
    for m, n in ((3, 1), (18, 2), (19, 19)):
        share = math.log(0.1 * (m - n) + 1) / math.log(0.1 * max(m, 16) + 1)
        with torch.no_grad():
            torch.testing.assert_close(found[:, m, n], fire.f(torch.tensor([share])))


def test_cope_counts_what_the_gates_let_through() -> None:
    cope, (q, _) = made("cope"), qk()
    torch.nn.init.normal_(cope.e, generator=torch.Generator().manual_seed(2))
    score = torch.randn(2, 2, 20, 20, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found = cope.score(score, q, POSITIONS) - score
    for m, n in ((5, 2), (19, 0), (7, 7)):
        p = min(sum(torch.sigmoid(score[1, 0, m, i]).item() for i in range(n, m + 1)), 16)
        below = min(math.floor(p), 15)
        e = cope.e[:, below] + (p - below) * (cope.e[:, below + 1] - cope.e[:, below])
        assert found[1, 0, m, n].item() == pytest.approx((q[1, 0, m] @ e).item(), abs=1e-4)


def test_a_window_hides_what_is_farther_than_half_of_the_length() -> None:
    hidden = added("window")[0, 0].isinf().tril()
    assert torch.equal(hidden, (POSITIONS[:, None] - POSITIONS >= 8))


def test_randomized_positions_are_drawn_without_repetition() -> None:
    draws = torch.Generator().manual_seed(0)
    one, other = (made("randomized").positions(20, draws) for _ in range(2))
    assert (one.diff() > 0).all() and one[0] >= 0 and one[-1] < 128 and not torch.equal(one, other)
    q, k = qk()
    turned = made("randomized").turn(q, k, one)
    rotary = Rotary(EncodingSpec(method="rope"), head_dim=8, num_positions=128, pair_layout="interleaved")
    torch.testing.assert_close(turned, rotary(q, k, one))


def test_the_model_is_posgens() -> None:
    """With RoPE the logits are those of PosGen's decoder of the same seed."""
    placed = PlacedDecoder(CONFIG, SIZES, encodings()["rope"], torch.Generator().manual_seed(0))
    decoder = Decoder(CONFIG, torch.Generator().manual_seed(0))
    tokens = torch.randint(CONFIG.vocab_size, (2, 30), generator=torch.Generator().manual_seed(1))
    rotary = Rotary(EncodingSpec(method="rope"), head_dim=64, num_positions=30, pair_layout="interleaved")
    with torch.no_grad():
        torch.testing.assert_close(placed(tokens, torch.arange(30)), decoder(tokens, rotary.at(30)))


@pytest.mark.parametrize("name", sorted(encodings()))
def test_every_encoding_is_causal_finite_and_runs_to_4l(name: str) -> None:
    checked(encodings()[name], CONFIG, SIZES)


BAD = {
    "looks ahead": "def score(self, score, q, positions): return score + score.mean(-1, keepdim=True).cumsum(-1)",
    "int64": "def positions(self, num_tokens, draws): return torch.arange(num_tokens).float()",
    "finite": "def embed(self, x, positions): return x / 0",
    "shapes": "def turn(self, q, k, positions): return q, k[:, :, :100]",
}


@pytest.mark.parametrize("said", BAD)
def test_an_encoding_that_cannot_be_used_is_one_line(said: str, tmp_path: Path) -> None:
    body = BAD[said].replace(": return", ":\n        return")
    if said == "looks ahead":  # through the queries, since what a score says of later keys is masked
        body = "def embed(self, x, positions):\n        return x + x.mean(1, keepdim=True)"
    (tmp_path / "bad.py").write_text(
        "import torch\nfrom resonance.posgen.ranking.encoding import PositionEncoding\n\n"
        f"class Bad(PositionEncoding):\n    {body}\n"
    )
    with pytest.raises(ValueError, match=said) as found:
        checked(named(str(tmp_path / "bad.py"))[1], CONFIG, SIZES)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "must hold one subclass of PositionEncoding, got none"),
        ("import nothing_of_the_kind", "does not run, ModuleNotFoundError"),
        ("class A(PositionEncoding): ...\nclass B(PositionEncoding): ...", "got A, B; name one"),
    ],
)
def test_a_file_that_holds_no_encoding_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"from resonance.posgen.ranking.encoding import PositionEncoding\n{text}\n")
    with pytest.raises(ValueError, match=said):
        named(str(path))


def test_a_file_takes_no_registered_name(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from resonance.posgen.ranking.encoding import PositionEncoding\nclass rope(PositionEncoding): ...\n"
    )
    with pytest.raises(ValueError, match="rope is the name of a registered encoding; rename"):
        named(str(tmp_path / "mine.py"))


def test_a_training_that_fails_is_one_line_with_encoding_task_and_seed(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from resonance.posgen.ranking.encoding import PositionEncoding\n\n\nclass Mine(PositionEncoding):\n"
        "    def embed(self, x, positions):\n        return x / (0 if len(x) == 32 else 1)\n"
    )
    with pytest.raises(ValueError, match="Mine on look_back, seed 0: FloatingPointError: the loss at step 1 is nan"):
        rank.rank([str(tmp_path / "mine.py"), "rope"], tmp_path / "out", tmp_path / "none", (0,), 1, None, 0.01)


def test_a_class_of_several_is_named(tmp_path: Path) -> None:
    template = Path(rank.__file__).with_name("template.py")
    assert named(f"{template}:LogBias")[0] == named(str(template))[0] == "LogBias"
    (colon := tmp_path / "a:b").mkdir()
    marked = colon / "mine.py"  # by an editor that begins a file with a mark
    marked.write_bytes(b"\xef\xbb\xbf" + template.read_bytes())
    assert named(str(marked))[0] == "LogBias" and rank._of_file(marked)["code"]
    for wrong, said in (
        (f"{template}:Log", "must hold the class Log"),
        ("roep", "must be a file"),
        ("no.py", "no such"),
    ):
        with pytest.raises(ValueError, match=said):
            named(wrong)


FAR = [name for name, task in tasks.TASKS.items() if task.far]


@pytest.mark.parametrize("task", FAR)
@pytest.mark.parametrize(("split", "length"), [("train", 64), ("test", 256), ("test", 65)])
def test_what_is_asked_for_repeats_one_far_token_that_nothing_else_repeats(task: str, split: str, length: int) -> None:
    drawn = tasks.draw(task, split, 60, length)
    assert drawn.tokens.shape == (60, length) and drawn.tokens.min() >= 0
    assert drawn.tokens.max() < tasks.TASKS[task].vocabulary
    assert drawn.asked.any(axis=1).mean() > 0.9
    for tokens, source in zip(drawn.tokens, drawn.source, strict=True):
        asked = np.flatnonzero(source >= 0)
        values = tokens[source[asked]]
        said = values % 8 + tasks.NUM_KEYS * 9 if task == "recall" else values
        assert (tokens[asked] == said).all() and (source[asked] < asked).all()
        assert len(set(source[asked])) == len(asked)


def test_the_query_of_each_task_says_what_is_asked() -> None:
    for tokens, source in zip(*vars(tasks.draw("look_back", "test", 20, 256)).values(), strict=True):
        assert set(np.flatnonzero(source >= 0) - 1) == set(np.flatnonzero(tokens[:-1] == 17))
        assert {t - s for t, s in enumerate(source) if s >= 0} == {24}
    for tokens, source in zip(*vars(tasks.draw("flip_flop", "test", 20, 256)).values(), strict=True):
        for t in np.flatnonzero(source >= 0):
            writes = [2 * pair + 1 for pair in range(t // 2) if tokens[2 * pair] == 8]
            assert tokens[t - 1] == 9 and source[t] == writes[-1]
    for tokens, source in zip(*vars(tasks.draw("recall", "test", 20, 256)).values(), strict=True):
        for t in np.flatnonzero(source >= 0):
            assert tokens[source[t]] // 8 == tokens[t - 1] - 64


@pytest.mark.parametrize("task", tasks.TASKS)
def test_sequences_are_the_same_everywhere_and_splits_differ(task: str) -> None:
    one, again = (tasks.draw(task, "test", 5, 64) for _ in range(2))
    assert np.array_equal(one.tokens, again.tokens) and np.array_equal(one.source, again.source)
    assert not np.array_equal(one.tokens, tasks.draw(task, "train", 5, 64).tokens)


@pytest.mark.parametrize("task", ["recursive", "cot", "semi_recursive"])
@pytest.mark.parametrize("window", [2, 3, 4])
def test_the_oracle_of_the_papers_tasks_is_what_a_count_of_all_prefixes_gives(task: str, window: int) -> None:
    prefixes = np.stack(np.unravel_index(np.arange(17**4), (17,) * 4), axis=1)
    x = generate(tasks.rule_of(task), prefixes, 14)
    reached = []
    for t in range(8, 14):  # the likeliest token under every content of the window
        pairs, counts = np.unique(x[:, t - window : t + 1], axis=0, return_counts=True)
        _, place = np.unique(pairs[:, :-1], axis=0, return_inverse=True)
        best = np.zeros(place.max() + 1, dtype=int)
        np.maximum.at(best, place.ravel(), counts)
        reached.append(best.sum() / 17**4)
    drawn = tasks.Drawn(x[:1], np.zeros((1, 14), dtype=int))
    assert tasks.oracle(task, window, drawn, 8) == pytest.approx(np.mean(reached))


def test_near_tokens_leave_chance() -> None:
    recall = tasks.drawn_for("recall", "test")
    assert tasks.oracle("recall", 32, recall, 64) == pytest.approx(1 / 8)
    look_back = tasks.drawn_for("look_back", "test")
    assert [tasks.oracle("look_back", w, look_back, 64) for w in (23, 24)] == pytest.approx([1 / 17, 1])
    flip_flop = tasks.drawn_for("flip_flop", "test")
    assert tasks.oracle("flip_flop", 16, flip_flop, 64) < 0.3


def a_ranking(path: Path, **values: dict[int, float]) -> None:
    """Rows of encodings, all metrics of a seed alike, under the code of now of RoPE."""
    of = rank._made_of("rope", encodings()["rope"], 1.0)
    rows = [
        {"encoding": name, "task": task, "metric": metric, "made": "key", "seed": seed, "value": value}
        for name, by_seed in values.items()
        for task in tasks.TASKS
        for metric in RANKING.metrics
        for seed, value in by_seed.items()
    ]
    write_rows(path, RANKING, rows, {"made": {"key": of}})


def test_rank_trains_a_file_and_puts_it_beside_the_others(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """All of it but the number of steps; run again, nothing is trained."""
    mine = tmp_path / "mine.py"
    mine.write_text(Path(rank.__file__).with_name("template.py").read_text())
    here = [str(mine), "rope"], tmp_path / "out", tmp_path / "none.parquet", (0, 1), 2, tmp_path / "all.parquet", 0.01
    rank.rank(*here)
    rows = read_rows(tmp_path / "all.parquet", RANKING)
    assert len(rows) == 2 * len(tasks.TASKS) * 2 * len(RANKING.metrics) and set(rows["encoding"]) == {"LogBias", "rope"}
    assert set(read_run(tmp_path / "all.parquet")["made"]) == set(rows["made"])
    assert rows.filter(encoding="LogBias", metric="parameters")["value"].unique().to_list() == [
        4.0
    ]  # two layers' heads
    first = capsys.readouterr()
    assert "12/24" in first.err and "no kept rows here" in first.err
    rank.rank(*here)
    again = capsys.readouterr()
    assert "24" not in again.err and again.out == first.out
    for kind in ("md", "html", "csv", "png", "svg"):
        assert (tmp_path / f"out/leaderboard.{kind}").stat().st_size > 1000


def test_rows_that_were_ranked_otherwise_are_refused(tmp_path: Path) -> None:
    kept = tmp_path / "kept.parquet"
    a_ranking(kept, rope={0: 0.5})
    with pytest.raises(ValueError, match=r"kept\.parquet was ranked otherwise: ranking\.steps is"):
        rank.rank(["nope"], tmp_path / "out", kept, (0,), 1, None, 0.01)
    a_ranking(kept, rope={0: 0.5}, alibi={0: 0.5})
    with pytest.raises(ValueError, match=r"alibi is of other code, resonance\.encoding is .*; rank it again, --keep"):
        rank.rank(["nope"], tmp_path / "out", kept, (0,), 1)
    with pytest.raises(ValueError, match="no rows of rope to compare with"):
        rank.rank(["nope"], tmp_path / "out", tmp_path / "no.parquet", (0,), 1)


def test_the_kept_leaderboard_is_of_the_code_that_is_here() -> None:
    """Else `resonance posgen rank FILE` refuses to run; what makes no number of it must be no part of its identity."""
    rows, _ = rank._kept(rank.KEPT, {"mine": rank._made_of("nope", encodings()["nope"], 1.0)})
    assert rows["encoding"].n_unique() == 17


def test_a_file_is_known_by_what_it_imports_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := tmp_path / "resonance").mkdir()  # as a checkout may be called
    monkeypatch.syspath_prepend(folder)
    (mine := folder / "mine.py").write_text(
        "import slopes\nfrom resonance.posgen.ranking.encoding import PositionEncoding\n"
        "class Mine(PositionEncoding):\n    slope = slopes.SLOPE\n"
    )
    known = []
    for slope in ("0.1", "0.9"):
        monkeypatch.delitem(sys.modules, "slopes", raising=False)
        importlib.invalidate_caches()
        (folder / "slopes.py").write_text(f"SLOPE = {slope}  # {len(known) * 'x'}\n")
        known.append(rank._made_of(str(mine), named(str(mine))[1], 1.0))
    monkeypatch.delitem(sys.modules, "slopes")
    assert known[0]["encoding.beside"] != known[1]["encoding.beside"] and "slopes " in known[0]["encoding.beside"]
    assert known[0]["encoding.file"] == known[1]["encoding.file"]
    assert "resonance.posgen.ranking.encoding " in known[0]["encoding.code"]


def test_a_file_may_register_its_class_as_ours_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is run more than once in a process."""
    monkeypatch.setattr("resonance.posgen.ranking.encodings._ENCODINGS", dict(encodings()))
    (mine := tmp_path / "mine.py").write_text(
        "from resonance.posgen.ranking.encoding import PositionEncoding\n"
        "from resonance.posgen.ranking.encodings import register\n"
        "@register('my_own')\nclass Mine(PositionEncoding): pass\n"
    )
    assert named(str(mine))[0] == named(str(mine))[0] == "Mine"


def test_the_leaderboard_tells_what_survives(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    kept = tmp_path / "kept.parquet"
    noise = {0: 0.001, 1: -0.001, 2: 0.0}
    a_ranking(
        kept,
        rope={seed: 0.5 + 3 * each for seed, each in noise.items()},
        better={seed: 0.9 + each for seed, each in noise.items()},
        same={seed: 0.51 - 9 * each for seed, each in noise.items()},
    )
    write_board(tmp_path / "board", read_rows(kept, RANKING), ["better"])
    table = pl.read_csv(tmp_path / "board.csv")
    better = table.filter(encoding="better", task="recall").row(0, named=True)
    assert better["minus_rope"] == pytest.approx(40) and better["p_holm"] < 0.05 and better["low"] > 39
    assert table.filter(encoding="same", task="recall")["p_holm"].item() > 0.05
    text = (tmp_path / "board.md").read_text()
    assert "**better (yours)**" in text and "6 / 0" in text and text.index("better") < text.index("| RoPE")
    assert "better - RoPE on recall, 2L to 4L: +40.0" in capsys.readouterr().out


def test_one_seed_says_that_it_decides_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    kept = tmp_path / "kept.parquet"
    a_ranking(kept, rope={0: 0.5}, mine={0: 0.9})
    write_board(tmp_path / "board", read_rows(kept, RANKING), ["mine"])
    assert "this decides nothing" in (tmp_path / "board.md").read_text()
    assert "+40.0 too few seeds" in capsys.readouterr().out


def test_nothing_is_significant_of_two_seeds_or_beside_a_reference_of_one(tmp_path: Path) -> None:
    kept = tmp_path / "kept.parquet"
    for seeds in ({"rope": [0, 1], "mine": [0, 1]}, {"rope": [0], "mine": [0, 1, 2]}):
        a_ranking(kept, **{name: dict.fromkeys(of, 0.9 if name == "mine" else 0.4) for name, of in seeds.items()})
        write_board(tmp_path / "board", read_rows(kept, RANKING), [])
        text = (tmp_path / "board.md").read_text()
        assert "**" not in text.replace("**mine", "") and "6 / 0" not in text and ". With " in text
        assert pl.read_csv(tmp_path / "board.csv")["p_holm"].is_null().all()


def test_one_seed_beside_three_is_named(tmp_path: Path) -> None:
    kept = tmp_path / "kept.parquet"
    a_ranking(kept, rope={0: 0.5, 1: 0.6, 2: 0.5}, mine={0: 0.9})
    write_board(tmp_path / "board", read_rows(kept, RANKING), ["mine"])
    text = (tmp_path / "board.md").read_text()
    assert "3 seeds (mine: 1), below" in text and "mine: With 1 seed(s) nothing is tested: this decides nothing" in text


def test_the_guides_snippet_scores_the_files(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[1] / "docs/rank.md").read_text()
    made = {}
    exec(guide.split("```python\n")[1].split("```")[0], made)
    write_data("look_back", tmp_path, "jsonl")
    drawn = tasks.drawn_for("look_back", "test")
    said = drawn.tokens.copy()
    said[:, 128:] = -1
    assert made["score"](tmp_path / "test.jsonl", said) == {"in L": 100, "to 2L": 100, "to 4L": 0}


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_tasks_files_can_be_scored_without_this_package(form: str, tmp_path: Path) -> None:
    write_data("recall", tmp_path, form)
    read = pl.read_parquet if form == "parquet" else pl.read_ndjson
    test = read(tmp_path / f"test.{form}")
    drawn = tasks.drawn_for("recall", "test")
    assert np.array_equal(np.array(test["tokens"].to_list()), drawn.tokens)
    assert np.array_equal(np.array(test["asked"].to_list()), drawn.asked)
    assert "Chance: 12.5 %" in (tmp_path / "README.md").read_text()
    with pytest.raises(ValueError, match="task must be one of look_back"):
        write_data("remember", tmp_path, form)
    write_data("recall", tmp_path, form)  # its own files are replaced
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"README\.md must be absent or this command's own"):
        write_data("recall", tmp_path, form)
