"""The workflow under a real Slurm of this machine, by the profile as it stands in the repository.

Left out by default (pytest -m slurm): minutes. Skipped where no Slurm can be brought up; RESONANCE_TEST_REQUIRE=slurm
makes that an error, so that CI cannot pass without. RESONANCE_SLURM_OPTIONS are more of Snakemake's, so that the
same can be run as it would be with, say, --sdm conda.
"""

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import slurm_cluster
from resonance.llm.evaluations import evaluations
from resonance.posgen.rows import EVALUATION
from resonance.record.rows import read_rows
from workflow_copy import ROOT, copy_of_repository, copy_of_run, environment_of

pytestmark = pytest.mark.slurm
PATIENT = ROOT / "profiles/slurm/bin/sbatch"
TRAININGS = "results/smoke/posgen/runs/paper/cot/{}/seed42"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if reason := slurm_cluster.why_not():
        if "slurm" in os.environ.get("RESONANCE_TEST_REQUIRE", "").split(","):
            pytest.fail(f"RESONANCE_TEST_REQUIRE asks for Slurm's tests, but no Slurm can be brought up: {reason}")
        pytest.skip(reason)
    with slurm_cluster.Cluster(tmp_path_factory.mktemp("slurm")) as up:
        yield up


def start(cluster, folder: Path, *arguments: str) -> subprocess.Popen:
    """Snakemake as it is typed, its words into a file beside the results."""
    more = shlex.split(os.environ.get("RESONANCE_SLURM_OPTIONS", ""))
    command = [sys.executable, "-m", "snakemake", "--profile", "slurm", *arguments, *more, "--config", "preset=smoke"]
    environment = {**environment_of(folder), **cluster.environment}
    environment["PATH"] = f"{Path(sys.executable).parent}:{cluster.environment['PATH']}"
    with (folder / "said.txt").open("wb") as said:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT)


def said(folder: Path) -> str:
    return (folder / "said.txt").read_text()


def hashes(folder: Path, *patterns: str) -> dict[str, str]:
    """SHA-256 of the files of a folder."""
    files = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# A little of everything: PosGen on one task, a language model that is pretrained, fine-tuned and measured, figures.
PERPLEXITY = "results/smoke/llm/tiny/runs/yarn/long/perplexity.parquet"
RELEASED = "results/smoke/posgen/runs/released/cot/{}/seed42/eval/{}.parquet"
EVALUATIONS = [
    RELEASED.format(f"{resonance}rope", f"{resonance}{name}")
    for resonance in ("", "resonance_")
    for name in ("rope", "yarn")
]
FIGURES = [f"results/smoke/figures/{name}.svg" for name in ("fig1_rotation_angles", "fig2_dependencies")]


def test_every_kind_of_job_runs_under_slurm_and_gives_the_bits_of_a_local_run(cluster, smoke_run, tmp_path, capsys):
    folder = copy_of_repository(tmp_path / "repository")
    preset = folder / "config/smoke.yaml"
    text = re.sub(r"((train|evaluate): .*)gpu: 0", r"\1gpu: 1", preset.read_text())
    assert text.count("gpu: 1") == 2, "the preset no longer holds these resources: mend the test"
    preset.write_text(text)
    before, started = len(cluster.jobs()), time.monotonic()
    assert start(cluster, folder, *EVALUATIONS, PERPLEXITY, *FIGURES).wait(timeout=1800) == 0, said(folder)[-5000:]
    jobs = cluster.jobs()[before:]
    steps = int(re.findall(r"of (\d+) steps \(100%\) done", said(folder))[-1])
    with capsys.disabled():
        print(f"\n{steps} jobs of Snakemake's as {len(jobs)} of Slurm's: {(time.monotonic() - started) / 60:.1f} min")
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}
    # PosGen's jobs and what is drawn go in groups, a language model's one by one.
    names = ("posgen_data", "posgen_train", "posgen_evaluate", "render", "llm_pack", "llm_base", "llm_finetune",
             "llm_evaluate")  # fmt: skip
    of = {name: [job for job in jobs if name in job["Comment"]] for name in names}
    assert {name: len(some) for name, some in of.items()} == {**dict.fromkeys(names, 1), "llm_pack": 2}
    assert len(jobs) == len(names) + 1

    for name in ("posgen_train", "posgen_evaluate", "llm_base", "llm_finetune", "llm_evaluate"):
        for job in of[name]:
            assert job["TresPerJob"] == "gres:gpu:1" and job["Partition"] == "gpu", name
    for name in ("posgen_data", "render", "llm_pack"):
        for job in of[name]:
            assert "TresPerJob" not in job and job["Partition"] == "cpu", name

    here, there = (root / "results/smoke" for root in (smoke_run, folder))
    made = hashes(there, "posgen/runs/**/model.safetensors", "llm/**/*.safetensors", "figures/*")
    assert Counter(Path(path).suffix for path in made) == {".safetensors": 4, ".svg": 2, ".pdf": 2, ".png": 2}
    assert made == hashes(here, *made)
    # These also carry when they were made and how long it took: their rows are compared.
    for path in EVALUATIONS:
        assert read_rows(folder / path, EVALUATION).equals(read_rows(smoke_run / path, EVALUATION)), path
    rows = [read_rows(root / PERPLEXITY, evaluations()["perplexity"].kind) for root in (folder, smoke_run)]
    assert rows[0].equals(rows[1])
    assert {job["NodeList"] for job in jobs} == set(slurm_cluster.NODES)
    assert len({job["Comment"].partition("#")[2] for job in jobs}) == len(jobs), "sent by our sbatch, each marked"


def copy_without(smoke_run: Path, folder: Path, *encodings: str) -> tuple[dict[str, Path], list[str]]:
    """A copy of the finished run that lacks some trainings: their folders, and the targets that ask for them."""
    copy_of_run(smoke_run, folder)
    runs = {encoding: folder / TRAININGS.format(encoding) for encoding in encodings}
    for run in runs.values():
        shutil.rmtree(run)
    return runs, [str((run / "model.safetensors").relative_to(folder)) for run in runs.values()]


def trainings_of(folder: Path, command: Sequence[str]) -> list[tuple[int, str, str]]:
    """(process, encoding, number of the Slurm job) of the trainings that run in a copy of the repository."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
            if {"resonance", *command} <= set(words) and (process / "cwd").resolve() == folder:
                encoding = next(word for word in words if word.endswith(("/seed42", "/long"))).split("/")[-2]
                job = re.search(r"SLURM_JOB_ID=(\d+)", (process / "environ").read_bytes().decode())
                found.append((int(process.name), encoding, job[1]))
        except OSError:
            continue
    return found


def new_trainings(
    workflow: subprocess.Popen, folder: Path, command: Sequence[str] = ("posgen", "train")
) -> Iterator[tuple[int, str, str]]:
    """Each of these once, as they come, until the workflow ends."""
    seen = set()
    while workflow.poll() is None:
        for training in trainings_of(folder, command):
            if training[0] not in seen:
                seen.add(training[0])
                yield training
        time.sleep(0.05)


def test_jobs_that_time_out_are_cancelled_or_requeued_end_as_they_should(cluster, smoke_run, tmp_path):
    """Three trainings, each frozen when it starts. One stays so beyond its time, and its second try runs. One is
    cancelled at every try, and fails after the third. One is requeued, and runs under its first number."""
    late, cancelled, requeued = "rope", "resonance_rope", "yarn"
    folder = tmp_path / "repository"
    runs, targets = copy_without(smoke_run, folder, late, cancelled, requeued)
    preset = folder / "config/smoke.yaml"
    text = preset.read_text().replace("mem_mb: 4000, runtime: 30", "mem_mb: 4000, runtime: 1")
    assert "runtime: 1," in text, "the preset no longer holds these resources: mend the test"
    preset.write_text(text)
    arguments = [*targets, "--group-components", "posgen_train=1"]

    before, seen, limits = len(cluster.jobs()), defaultdict(list), {}
    workflow = start(cluster, folder, *arguments)
    for process, encoding, job in new_trainings(workflow, folder):
        seen[encoding].append(job)
        if encoding != cancelled and len(seen[encoding]) > 1:
            limits[encoding] = next(one["TimeLimit"] for one in cluster.jobs() if one["JobId"] == job)
            cluster.ask("scontrol", "update", f"JobId={job}", "TimeLimit=30")  # a busy machine may need it
            continue
        os.kill(process, signal.SIGSTOP)
        if encoding == cancelled:
            cluster.ask("scancel", job)
        if encoding == requeued:
            cluster.ask("scontrol", "requeue", job)
    assert workflow.returncode != 0, "one was cancelled for good"

    jobs = {job["JobId"]: job for job in cluster.jobs()[before:]}
    states = {encoding: [jobs[job]["JobState"] for job in seen[encoding]] for encoding in runs}
    assert states[late] == ["TIMEOUT", "COMPLETED"]
    assert states[cancelled] == ["CANCELLED"] * 3
    assert states[requeued] == ["COMPLETED"] * 2 and len(set(seen[requeued])) == 1, "the same job, run twice"
    assert jobs[seen[requeued][0]]["Restarts"] == "1"
    assert len(jobs) == 6, "none was sent twice"
    first, second = (jobs[job] for job in seen[late])
    assert (first["TimeLimit"], limits) == ("00:01:00", {late: "00:02:00", requeued: "00:01:00"})
    assert "mem=4000M" in first["TRES"] and "mem=8000M" in second["TRES"]

    words = said(folder)
    for encoding, why in ((late, "DUE TO TIME LIMIT"), (cancelled, "CANCELLED AT")):
        (log,) = (folder / "logs/slurm").rglob(f"{seen[encoding][0]}.log")
        assert f"log: {log} (check log file(s)" in words, "a failed job says where its log is"
        assert f"logs/smoke/posgen_train_one/paper/cot/{encoding}/seed42.log" in words
        assert why in log.read_text() and why in words
    for encoding in (late, requeued):
        made, local = (root / TRAININGS.format(encoding) / "model.safetensors" for root in (folder, smoke_run))
        assert made.read_bytes() == local.read_bytes()
    assert not (runs[cancelled] / "model.safetensors").exists()

    done = {encoding: (runs[encoding] / "model.safetensors").stat().st_mtime_ns for encoding in (late, requeued)}
    assert start(cluster, folder, *arguments).wait(timeout=900) == 0, said(folder)[-5000:]
    assert len(cluster.jobs()) == before + 7, "the second start sends what is missing"
    assert done == {name: (runs[name] / "model.safetensors").stat().st_mtime_ns for name in done}
    assert (runs[cancelled] / "model.safetensors").exists()


def test_a_failed_group_keeps_what_it_has_finished(cluster, smoke_run, tmp_path):
    """Two trainings as one Slurm job; the second of them is killed."""
    folder = tmp_path / "repository"
    runs, targets = copy_without(smoke_run, folder, "rope", "yarn")
    before, order = len(cluster.jobs()), []
    workflow = start(cluster, folder, *targets, "--retries", "0")
    for process, encoding, _ in new_trainings(workflow, folder):
        order.append(encoding)
        if len(order) == 2:
            os.kill(process, signal.SIGKILL)
    assert workflow.returncode != 0 and len(order) == 2
    first, second = (runs[encoding] / "model.safetensors" for encoding in order)
    made = first.stat().st_mtime_ns
    assert not second.exists()
    assert start(cluster, folder, *targets).wait(timeout=900) == 0, said(folder)[-5000:]
    assert second.exists() and first.stat().st_mtime_ns == made
    assert len(cluster.jobs()) == before + 2


def test_a_fine_tuning_that_is_preempted_goes_on_from_its_checkpoint(cluster, smoke_run, tmp_path):
    """A job that may send others away asks for all of its node; Slurm queues the fine-tuning again, by its number."""
    folder = copy_of_run(smoke_run, tmp_path / "repository")
    target = "results/smoke/llm/tiny/runs/yarn/long/model"
    run = folder / target.removesuffix("/model")
    shutil.rmtree(run)
    before, preempted = len(cluster.jobs()), []
    workflow = start(cluster, folder, target)
    for process, _, job in new_trainings(workflow, folder, ("llm", "finetune")):
        if preempted:
            continue
        while not (run / "checkpoints/checkpoint-1/complete.json").exists():
            assert workflow.poll() is None, said(folder)[-5000:]
            time.sleep(0.002)
        os.kill(process, signal.SIGSTOP)
        assert not (run / "run.json").exists(), "it was not stopped in time"
        node = next(one["NodeList"] for one in cluster.jobs() if one["JobId"] == job)
        urgent = ["--partition=urgent", "--exclusive", f"--nodelist={node}", "--output=/dev/null"]
        cluster.ask("sbatch", *urgent, "--wrap", "sleep 1")
        preempted.append(job)
    assert workflow.returncode == 0, said(folder)[-5000:]

    jobs = {job["JobId"]: job for job in cluster.jobs()[before:]}
    assert len(jobs) == 2 and {job["JobState"] for job in jobs.values()} == {"COMPLETED"}
    assert jobs[preempted[0]]["Restarts"] == "1"
    log = (folder / "logs/smoke/llm_finetune/tiny/yarn/long.log").read_text()
    assert re.search(r"resumed at step [12]", log), log
    there = hashes(folder, f"{target}/*.safetensors")
    assert there and there == hashes(smoke_run, f"{target}/*.safetensors")


@pytest.mark.parametrize("seconds", [14, 0])
def test_a_controller_that_is_busy_gets_a_job_once(cluster, seconds):
    """It answers nothing for longer than Slurm's sbatch waits, and has taken the job: the number is found. Or it is
    away, and back later."""
    controller, before = cluster.controller, len(cluster.jobs())
    environment = {**os.environ, **cluster.environment, "RESONANCE_SBATCH_SECONDS": "60"}
    command = ["--parsable", "--comment", "a_rule", "--output=/dev/null", "--wrap", "true"]
    alone = subprocess.run(["sbatch", *command], env=environment, capture_output=True, text=True)
    assert alone.returncode == 0
    if seconds:
        controller.send_signal(signal.SIGSTOP)
    else:
        cluster.stop_controller()
    sent = subprocess.Popen([PATIENT, *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(seconds or 12)
    if seconds:
        controller.send_signal(signal.SIGCONT)
    else:
        cluster.start_controller()
    out, err = sent.communicate(timeout=120)
    assert (sent.returncode, err) == (0, b"")
    jobs = cluster.jobs()[before:]
    assert len(jobs) == 2 and out.decode().strip() == jobs[1]["JobId"]
    assert re.fullmatch(r"a_rule#\w{12}", jobs[1]["Comment"])


def test_what_sbatch_refuses_for_good_is_refused_at_once(cluster):
    command = [PATIENT, "--parsable", "--comment", "a_rule", "--partition=none", "--wrap", "true"]
    refused = subprocess.run(
        command, env={**os.environ, **cluster.environment}, capture_output=True, text=True, timeout=5
    )
    assert refused.returncode == 1 and "invalid partition" in refused.stderr
