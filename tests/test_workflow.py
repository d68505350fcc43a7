"""The workflow itself, on the smoke preset, in a copy of the repository."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from snakemake.scheduling.job_scheduler import JobScheduler

from resonance import cli
from resonance.posgen.rows import EVALUATION, TRAINING
from resonance.record.rows import read_rows, read_run
from resonance.workflow import crate as crates
from resonance.workflow import scheduler
from workflow_copy import ENVIRONMENT, ROOT, copy_of_run, environment_of, jobs_of, run_snakemake, snakemake, wanted

pytestmark = pytest.mark.workflow


def test_every_table_and_figure_is_made_and_a_second_run_does_nothing(finished):
    folder = finished / "results/smoke"
    tables = {p.name for p in (folder / "tables").iterdir()}
    for protocol in ("paper", "released"):
        assert {f"table1_{protocol}{end}" for end in (".csv", "_pairs.csv", ".md", ".tex", ".html")} <= tables
    assert {f"table2_leval{end}" for end in (".csv", "_pairs.csv", ".md", ".tex", ".html")} <= tables
    for name in (
        "fig1_rotation_angles", "fig2_dependencies", "fig3_validation_loss_paper", "fig4_perplexity_stand_in_tiny",
    ):  # fmt: skip
        for kind in ("pdf", "svg", "png"):
            assert (folder / f"figures/{name}.{kind}").stat().st_size > 2000
    for stem in ("fig4_perplexity_stand_in_tiny", "table2_stand_in_tiny"):
        assert {f"{stem}{end}" for end in (".csv", "_pairs.csv", ".md", ".tex", ".html")} <= tables
    summary = (folder / "summary.html").read_text(encoding="utf-8")
    assert summary.count("<img") == len([*(folder / "figures").glob("*.svg")])
    assert summary.count("<h3>") == summary.count("<img") + len([*(folder / "tables").glob("*.html")])
    planned = snakemake(finished, "--dry-run")
    assert "Nothing to be done" in planned.stdout + planned.stderr


def test_the_scheduler_sets_one_timer_at_a_time(monkeypatch):
    monkeypatch.setattr(JobScheduler, "_schedule_reevalutation", JobScheduler._schedule_reevalutation)
    scheduler.one_timer_at_a_time()
    waiting = SimpleNamespace(_open_jobs=threading.Semaphore(0))
    for _ in range(3):  # passes of one second
        JobScheduler._schedule_reevalutation(waiting, 0.2)
    assert waiting._open_jobs.acquire(timeout=10)
    assert not waiting._open_jobs.acquire(timeout=0.4)
    for _ in range(100):  # a pass that asks as soon as it is woken is woken again
        JobScheduler._schedule_reevalutation(waiting, 0.001)
        assert waiting._open_jobs.acquire(timeout=10)


@pytest.mark.parametrize(
    ("study", "jobs"),
    [
        ("extended", {"posgen_encoding": 2, "posgen_evaluate": 2, "study_table": 1}),
        ("keyed", {"posgen_settings": 3, "posgen_data_one": 1, "posgen_baseline": 1, "posgen_train_one": 2,
                   "posgen_evaluate": 2, "study_table": 1, "study_shortcuts": 1}),
        ("rounding", {"posgen_encoding": 2, "posgen_train_one": 4, "posgen_evaluate": 8, "posgen_collect": 1,
                      "rounding_table": 1}),
        ("ablation", {"posgen_settings": 2, "posgen_encoding": 8, "posgen_evaluate": 8, "posgen_collect": 1,
                      "ablation_table": 1}),
        ("aliases", {"posgen_probe": 4, "posgen_collect": 1, "aliases_table": 1}),
    ],
)  # fmt: skip
def test_a_study_adds_only_what_table_1_has_not_trained(finished, study, jobs):
    assert wanted(finished, study) == jobs


def test_studies_run_to_their_tables_and_measure_shared_models_under_their_own_names(finished):
    run = snakemake(finished, "ablation", "aliases", "--cores", "2")
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-5000:]
    folder = finished / "results/smoke"
    for kind in ("csv", "md", "tex", "html"):
        assert (folder / f"tables/ablation.{kind}").stat().st_size > 300
    runs = folder / "posgen/runs/paper+P2/cot"
    assert {p.name for p in runs.iterdir()} == {"rope", "resonance_rope"}
    assert not list(runs.rglob("model.safetensors")), "trained under paper, measured under paper+P2"
    rows = read_rows(runs / "rope/seed42/eval/yarn.parquet", EVALUATION)
    assert rows.select("protocol", "train_encoding", "encoding").unique().rows() == [("paper+P2", "rope", "yarn")]
    assert {"aliases.md", "aliases.csv"} <= {p.name for p in (folder.parent / "smoke/tables").iterdir()}
    made = read_run(folder / "posgen/studies/ablation.parquet")
    trained = {
        (each["settings"]["protocol"], each["settings"]["choices"]["num_layers"]) for each in made["made"].values()
    }
    assert made["study"] == "ablation" and trained == {("paper", 2), ("released", 6)}, (
        "P2 and P3 train nothing of theirs"
    )


@pytest.mark.parametrize(
    ("target", "groups"),
    [
        ([], {"posgen_data": 2, "posgen_train": 9, "posgen_evaluate": 10, "render": 4}),
        (
            ["results/paper/posgen/runs/released/cot/rope/seed49/eval/yarn.parquet"],
            {"posgen_data": 1, "posgen_train": 1, "posgen_evaluate": 1},
        ),
    ],
    ids=["Table 1 at the paper's size", "one cell"],
)
def test_slurm_jobs_are_a_handful_and_one_cell_can_be_asked_for_alone(finished, target, groups):
    """Seen by a dry run; no Slurm is asked."""
    planned = snakemake(finished, *target, "--dry-run", "--workflow-profile", "profiles/slurm", preset="paper")
    assert planned.returncode == 0, planned.stderr
    made = re.findall(r"Group job (\w+) ", planned.stdout)
    for name, count in groups.items():
        assert made.count(name) == count


def test_a_job_sent_to_slurm_keeps_the_cores_and_gpus_that_its_preset_asks_for(finished):
    """Not those of the machine that sends it, and not those of a group."""
    target = "results/paper/llm/llama2_7b/runs/yarn/long/run.json"
    planned = snakemake(finished, target, "--dry-run", "--profile", "slurm", preset="paper")
    assert planned.returncode == 0, planned.stderr
    job = planned.stdout.split("rule llm_finetune:")[1].split("rule ")[0]
    assert "threads: 32" in job
    resources = re.search(r"resources: (.*)", job)[1].split(", ")
    assert {"gpu=4", "nodes=1", "mem_mb=400000", "runtime=2880"} <= set(resources)


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="DeepSpeed is at hand")
def test_fine_tuning_under_deepspeed_is_refused_where_it_is_not_installed(finished):
    """Before a job is queued; a dry run, another target and --sdm conda do not ask for it."""
    refused = snakemake(finished, "finetune", "--cores", "1", preset="paper")
    assert refused.returncode != 0 and "which is not installed here; say make setup GPU=1" in refused.stderr
    assert "llm_base" not in refused.stdout


def test_kept_rows_are_drawn_as_those_of_a_run(finished):
    """Table 1 of one protocol, collected: the same numbers, and nothing is trained."""
    made, kept = finished / "results/smoke", finished / "results-published/smoke"
    nothing = snakemake(finished, "published")
    assert nothing.returncode != 0 and "results-published/ keeps nothing of preset smoke" in nothing.stderr
    collect = [sys.executable, "-m", "resonance", "collect", "smoke", "table1", "--protocol", "released"]
    subprocess.run([*collect, kept / "table1_released.parquet"], cwd=finished, env=ENVIRONMENT, check=True)
    shutil.copy(ROOT / "results-published/ranking.parquet", kept.parent)  # the leaderboard's, of no preset
    try:
        assert wanted(finished, "published") == {
            "published_study_table": 1,
            "published_verdict": 1,
            "published_leaderboard": 1,
        }
        run = snakemake(finished, "published", "--cores", "1")
        assert run.returncode == 0, run.stderr
        for end in (".csv", "_pairs.csv"):
            drawn = made / f"published/tables/table1_released{end}"
            assert drawn.read_bytes() == (made / f"tables/table1_released{end}").read_bytes()
    finally:
        shutil.rmtree(kept.parent)


@pytest.fixture(scope="module")
def crate(smoke_run, tmp_path_factory) -> Path:
    """Of the run itself: its copy has what other tests of this file have made since."""
    packed = tmp_path_factory.mktemp("crate") / "smoke.crate.zip"
    command = [sys.executable, "-m", "resonance", "crate", "--preset", "smoke", "--output", packed]
    subprocess.run(command, cwd=smoke_run, env=ENVIRONMENT, check=True)
    return packed


def test_a_crate_holds_a_runs_tables_figures_and_rows_and_what_made_them(smoke_run, crate):
    with zipfile.ZipFile(crate) as packed:
        inside = {name: packed.read(name) for name in packed.namelist()}
    about = {each["@id"]: each for each in json.loads(inside["ro-crate-metadata.json"])["@graph"]}
    run = about["#run-smoke"]
    made = {each["@id"] for each in run["result"]}
    folder = smoke_run / "results/smoke"
    drawn = {path for kind in ("tables", "figures") for path in (folder / kind).iterdir()} | {folder / "summary.html"}
    assert {path.relative_to(smoke_run).as_posix() for path in drawn} <= made
    rows = {name for name in made if name.endswith(".parquet")}
    of = Counter(Path(name).name for name in rows)
    assert (of["train.parquet"], of["rope.parquet"], of["perplexity.parquet"], of["scores.parquet"]) == (21, 6, 4, 4)
    assert not any("posgen/data" in name for name in made)
    assert all(inside[name] == (smoke_run / name).read_bytes() for name in made)
    assert {"config/smoke.yaml"} <= {each["@id"] for each in run["object"]} <= set(inside)
    assert run["startTime"] <= run["endTime"] and about["#torch"]["softwareVersion"] == torch.__version__


def test_a_run_without_its_summary_is_not_packed(smoke_run, tmp_path):
    part = tmp_path / "results/smoke/posgen/studies"
    shutil.copytree(smoke_run / "results/smoke/posgen/runs", part)
    with pytest.raises(ValueError, match=r"results/smoke must hold a whole run, got no summary\.html"):
        crates.write(tmp_path / "run.zip", "smoke", tmp_path)


def test_a_crate_is_a_workflow_run_crate(crate):
    """By its own validator, in the environment that .ci/run makes for it."""
    python = ROOT / ".venv/crate/bin/python"
    if not python.exists() and "crate" not in os.environ.get("RESONANCE_TEST_REQUIRE", "").split(","):
        pytest.skip(f"needs roc-validator in {python.parents[1]}")
    said = subprocess.run(
        [python, ROOT / "tests/crate_validator.py", crate], cwd=crate.parent, capture_output=True, text=True
    )
    assert said.stdout == "valid\n", said.stdout + said.stderr


# By target: how many files it is, and what they are called.
STAGES = {
    "posgen_data": (21, r"posgen/data/\w+/\w+/\w+\.parquet"),  # of the study `keyed` too
    "posgen_train": (18, r"posgen/runs/.*/model\.safetensors"),
    "table1": (8, r"tables/table1_\w+\.\w+"),
    "figure3": (6, r"figures/fig3_validation_loss_\w+\.\w+"),
    "finetune": (2, r"llm/tiny/runs/\w+/long/model"),
    "perplexity": (4, r"llm/tiny/runs/\w+/\w+/perplexity\.parquet"),
    "figure4": (8, r"\w+/fig4_perplexity_stand_in_tiny(_pairs)?\.\w+"),
    "passkey": (8, r"\w+/passkey_stand_in_tiny(_pairs)?\.\w+"),
    "leval": (4, r"leval/tiny/\w+/\w+/scores\.parquet"),
    "table2": (10, r"tables/table2_(leval|stand_in_tiny)(_pairs)?\.\w+"),
    "tables": (18, r"tables/table[12]_\w+\.\w+"),
    "figures": (37, r"\w+/(fig\d_\w+|passkey_stand_in_tiny\w*|shortcuts_table1_\w+|verdict)\.\w+"),
}


def test_a_stage_is_a_target_and_what_all_has_made_is_there(finished):
    planned = snakemake(finished, *STAGES, "--dry-run", "--forceall")
    files = {rule: said["input"] for rule, said in jobs_of(planned.stdout) if rule in STAGES}
    assert {rule: len(set(paths)) for rule, paths in files.items()} == {rule: n for rule, (n, _) in STAGES.items()}
    for rule, (_, pattern) in STAGES.items():
        assert [path for path in files[rule] if not re.fullmatch(f"results/smoke/{pattern}", path)] == [], rule
    assert wanted(finished, *STAGES) == {"posgen_settings": 1, "posgen_data_one": 1}, "one task of `keyed`"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dry-run", "--config", "preset=larptop"], "preset must be one of"),
        (["--dry-run", "--config", "preset=smoke", "seeds=3"], "no such key; the only one is preset"),
    ],
)
def test_a_wrong_config_key_stops_before_anything_runs(finished, arguments, said):
    run = run_snakemake(arguments, finished)
    assert run.returncode != 0
    assert said in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr


def test_a_first_fall_that_nobody_predicted_is_not_run(finished):
    run = run_snakemake(["falls", "--config", "preset=laptop", "--dry-run"], finished)
    assert run.returncode != 0
    said = "results-published/predictions/falls.csv must hold laptop, paper, recursive, rope, 6; predict it first"
    assert said in run.stdout + run.stderr


def newest_step(run: Path) -> int:
    return max((int(path.stem.removeprefix("step")) for path in run.glob("checkpoints/step*")), default=0)


def processes_of(folder: Path) -> list[int]:
    """The trainings that run in a copy of the repository, by process number."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if {b"resonance", b"posgen", b"train"} <= set(words) and (process / "cwd").resolve() == folder:
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds the training by /proc")
def test_killed_trainings_go_on_and_the_workflow_ends_with_the_same_files(finished, tmp_path):
    """First the job alone is killed, so that Snakemake deletes its outputs; then Snakemake with it."""
    folder = copy_of_run(finished, tmp_path / "repository")
    preset = folder / "config/smoke.yaml"
    text = preset.read_text().replace("released:\n        {recursive: 8,", "released:\n        {recursive: 90,")
    assert "{recursive: 90," in text, "the preset no longer holds these steps: mend the test"
    preset.write_text(text.replace("checkpoint_seconds: 30", "checkpoint_seconds: 0"))
    run = folder / "results/smoke/posgen/runs/released/recursive/rope/seed42"
    shutil.rmtree(run)
    target = str((run / "model.safetensors").relative_to(folder))
    command = [
        sys.executable,
        "-m",
        "snakemake",
        target,
        "--config",
        "preset=smoke",
        "--cores",
        "1",
        "--rerun-incomplete",
    ]
    environment = environment_of(folder)
    outputs = {"model.safetensors", "snapshots.safetensors", "train.parquet", "run.json"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def killed_after(step: int, everything: bool) -> None:
        workflow = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **quiet)
        while newest_step(run) < step and workflow.poll() is None:
            time.sleep(0.01)
        if everything:
            os.killpg(workflow.pid, signal.SIGKILL)
        for process in processes_of(folder):
            os.kill(process, signal.SIGKILL)
        assert workflow.wait() != 0, "the training ended before it could be killed"
        assert newest_step(run) >= step, "the checkpoints stay"
        assert not outputs & {path.name for path in run.rglob("*")}, "nothing that could be taken for whole"

    killed_after(15, False)
    killed_after(newest_step(run) + 15, True)
    assert snakemake(folder, "--unlock").returncode == 0
    again = snakemake(folder, target, "--rerun-incomplete")
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    log = (folder / "logs/smoke/posgen_train_one/released/recursive/rope/seed42.log").read_text()
    assert re.search(r"going on from the checkpoint of step [0-9]+ of 90", log)
    assert {path.name for path in run.iterdir()} == outputs, "no checkpoints and no leftovers"
    posgen = folder / "results/smoke/posgen"
    whole = [
        sys.executable, "-m", "resonance", "posgen", "train", str(posgen / "settings/released/recursive/train.json"),
        str(posgen / "encodings/released/rope.json"),
        *(str(posgen / f"data/released/recursive/{split}.parquet") for split in ("train", "validation")),
        str(tmp_path / "whole"), "--seed=42",
    ]  # fmt: skip
    subprocess.run(whole, cwd=folder, check=True, **quiet)
    for name in ("model.safetensors", "snapshots.safetensors"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    rows = [read_rows(path / "train.parquet", TRAINING) for path in (run, tmp_path / "whole")]
    assert rows[0].equals(rows[1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["config", "check", "larptop"],
         "preset must be one of laptop, paper, paper_cpu, smoke, smollm2, got 'larptop'"),
        (["posgen", "generate", "absent.json", *(f"--output={s}.parquet" for s in ("train", "validation", "test"))],
         "absent.json"),
        (["posgen", "generate", "results/smoke/posgen/settings/paper/cot/data.json",
          *(f"--output={s}.parquet" for s in ("a/train", "b/train", "test", "validation"))],
         "one each, got a/train.parquet, b/train.parquet"),
        (["posgen", "train", "config/smoke.yaml", "e.json", "t.parquet", "v.parquet", "out", "--seed=1"],
         "config/smoke.yaml: not valid JSON"),
        (["llm", "pack", "config/smoke.yaml", "out"], "config/smoke.yaml: not valid JSON"),
        (["llm", "fetch", f"pypi:no-such-package-of-ours==0#sha256={'0' * 64}", "out"], "could not be fetched"),
        (["llm", "fetch", "pypi:no-such-package-of-ours==0", "out"], "source must be pypi:NAME==VERSION#sha256=DIGEST"),
        (["plan", "--preset=larptop"], "preset must be one of"),
        (["plan", "--preset=smoke", "--device=v100"], "--device must be one of cpu, a100, h100, got 'v100'"),
        (["plan", "--preset=smokey"], "; did you mean smoke?"),
        (["plan", "--preset=smoke", "--brief", "--check"], "--brief and --check must be asked one at a time"),
        (["crate", "--preset=paper"], "results/paper must hold a whole run, got no rows"),
        (["trace", "44.81", "--rows=config"], "--rows must be a folder of kept rows, got config without any"),
        (["inspect", "config/smoke.yaml", "--plot=config"], "--plot must be a file whose ending says its kind"),
        (["export", "config", "out", "--to=transformers", "--outtype=f32"], "--outtype must go with --to gguf"),
        (["collect", "smoke", "tabel1", "out.parquet"], "; did you mean table1?"),
        (["leval", "tasks", "config/smoke.yaml", "out"], "config/smoke.yaml: not valid JSON"),
        (["leval", "score", "config"], "config must hold predictions as .jsonl, got none"),
        (["leval", "compare", "config", "config"], "config: not a file"),
    ],
)  # fmt: skip
def test_a_command_line_mistake_is_one_line(finished, arguments, said, monkeypatch, capfd):
    monkeypatch.chdir(finished)
    monkeypatch.setattr(sys, "argv", ["resonance", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    errors = capfd.readouterr().err
    assert ended.value.code == 2
    assert len(errors.strip().splitlines()) == 1 and errors.startswith("error: ")
    assert said in errors


def test_a_mistake_is_one_line_and_status_2_where_it_is_typed(finished):
    command = [sys.executable, "-m", "resonance", "config", "check", "larptop"]
    run = subprocess.run(command, cwd=finished, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert len(run.stderr.strip().splitlines()) == 1 and run.stderr.startswith("error: preset must be one of")
