"""The conda environments of the rules: their pins and, marked `conda`, the smoke preset run in them.

Environments solved and installed by rattler from a local channel (tests/conda): no conda was at hand, nor
conda-forge. Needs py-rattler and py-rattler-build:
  pip install --constraint constraints.txt py-rattler py-rattler-build
"""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from resonance.leval.rows import ANSWERS
from resonance.llm.evaluations import evaluations
from resonance.posgen.rows import BASELINE, EVALUATION, TRAINING
from resonance.record.rows import read_rows

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = sorted((ROOT / "envs").glob("*.yaml"))
TOOLS = ROOT / "tests" / "conda"
LEFT_OUT = ("__pycache__", ".git", ".venv", ".snakemake", "results", "logs", "build", "*.egg-info", ".*_cache")
LIST_INSTALLED = """
import json, re
from importlib.metadata import distributions
print(json.dumps({re.sub("[-_.]+", "-", d.name).lower(): d.version for d in distributions()}))
"""
# What an environment file may hold, as far as ours go.
SCHEMA = {
    "type": "object",
    "required": ["channels", "dependencies"],
    "additionalProperties": False,
    "properties": {
        "channels": {"const": ["conda-forge", "nodefaults"]},
        "dependencies": {
            "type": "array",
            "items": {
                "anyOf": [
                    {"type": "string", "pattern": r"^[a-z0-9_-]+ =[0-9.]+$"},
                    {
                        "type": "object",
                        "required": ["pip"],
                        "additionalProperties": False,
                        "properties": {"pip": {"type": "array", "items": {"type": "string"}, "uniqueItems": True}},
                    },
                ]
            },
        },
    },
}


def read(environment: Path) -> tuple[list[str], list[Requirement]]:
    """What an environment asks of conda, and of pip."""
    wanted = yaml.safe_load(environment.read_text())["dependencies"]
    pip = [Requirement(entry) for section in wanted if isinstance(section, dict) for entry in section["pip"]]
    return [entry for entry in wanted if isinstance(entry, str)], pip


def pins(environment: Path) -> dict[str, str]:
    return {canonicalize_name(entry.name): str(entry.specifier).lstrip("=") for entry in read(environment)[1]}


@pytest.mark.parametrize(("fails", "status"), [("flash-attn", 0), ("deepspeed", 1)])
def test_flash_attention_that_does_not_build_costs_no_environment(fails: str, status: int, tmp_path: Path) -> None:
    """With a python that installs all but one package."""
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/sh\ncase "$*" in *" {fails}") exit 1;; -c*) echo "C++ (avx2)";; esac\n')
    stand_in.chmod(0o755)
    done = subprocess.run(
        ["sh", ROOT / "envs/llm-cuda.post-deploy.sh"], capture_output=True, text=True, cwd=ROOT,
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "CONDA_PREFIX": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert ("attention runs as SDPA of torch" in done.stderr) == (fails == "flash-attn")


def test_every_rule_names_its_environment() -> None:
    files = sorted((ROOT / "workflow/rules").glob("*.smk"))
    text = "".join(file.read_text() for file in files)
    names = {
        "DRAWING": '"../../envs/figures.yaml"', "POSGEN_ENVIRONMENT": 'environment("posgen", ',
        "LLM_ENVIRONMENT": 'environment("llm", ',
    }  # fmt: skip
    for name, value in names.items():
        assert f"\n{name} = {value}" in text
    found = re.findall(r"^( *)rule ?(\w*):\n(.*?)(?=^\1\S|\Z)", text, re.DOTALL | re.MULTILINE)
    assert len(found) == len(re.findall(r"^ *rule ?\w*:$", text, re.MULTILINE)) >= 15
    for _, name, body in found:
        (environment,) = re.findall(r"^ +conda:\n +(.+)$", body, re.MULTILINE)
        half = re.search(r"-m resonance (posgen|llm|leval) ", body)
        wanted = {"posgen": "POSGEN_ENVIRONMENT", "llm": "LLM_ENVIRONMENT", "leval": "LLM_ENVIRONMENT"}
        drawn = ("DRAWING", names["DRAWING"])
        assert environment in ((wanted[half[1]],) if half else drawn), f"rule {name}: {environment}"


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda path: path.stem)
def test_an_environment_is_well_formed_and_its_pins_are_those_of_constraints(environment: Path) -> None:
    jsonschema.validate(yaml.safe_load(environment.read_text()), SCHEMA)
    known = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    known = {canonicalize_name(name): version for name, version in known.items()}
    for name, version in pins(environment).items():
        assert known.get(name) == version, f"{environment.name}: {name}=={version}, constraints.txt: {known.get(name)}"


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda path: path.stem)
def test_nothing_that_pip_installs_is_left_unpinned(environment: Path) -> None:
    """What the pinned packages require, as far as they are installed here, is pinned too."""
    pinned, known = pins(environment), 0
    todo = [(name, frozenset()) for name in pinned]
    for name, extras in todo:
        try:
            required = [Requirement(entry) for entry in requires(name) or []]
        except PackageNotFoundError:
            continue
        known += 1
        for entry in required:
            if entry.marker is None or any(entry.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                assert canonicalize_name(entry.name) in pinned, f"{environment.name}: {name} requires {entry}"
                if (again := (canonicalize_name(entry.name), frozenset(entry.extras))) not in todo:
                    todo.append(again)
    assert known > 15


def test_figures_need_no_torch_and_gpus_get_cudas() -> None:
    by_name = {path.stem: pins(path) for path in ENVIRONMENTS}
    assert set(by_name) == {"figures", "posgen", "llm", "posgen-cuda", "llm-cuda"}
    assert not {"torch", "transformers"} & set(by_name["figures"])
    for half in ("posgen", "llm"):
        assert by_name[half].items() <= by_name[f"{half}-cuda"].items(), "the same and CUDA's"
        assert "nvidia-cublas" not in by_name[half] and "nvidia-cublas" in by_name[f"{half}-cuda"]
        # A CPU build (2.13.0+cpu) meets == but not ===.
        assert "torch===" in (ROOT / f"envs/{half}-cuda.yaml").read_text()
        assert "torch===" not in (ROOT / f"envs/{half}.yaml").read_text()
        for name in (half, f"{half}-cuda"):
            assert "--editable ." in (ROOT / f"envs/{name}.post-deploy.sh").read_text(), "rules run the checkout"


# From here on rattler.


@pytest.fixture(scope="module")
def rattler():
    missing = [name for name in ("rattler", "rattler_build") if importlib.util.find_spec(name) is None]
    if missing:
        said = f"{' and '.join(missing)} must be installed: pip install -c constraints.txt py-rattler py-rattler-build"
        if "conda" in os.environ.get("RESONANCE_TEST_REQUIRE", "").split(","):
            pytest.fail(f"RESONANCE_TEST_REQUIRE asks for conda's tests, and {said}")
        pytest.skip(said)
    import rattler

    return rattler


@pytest.mark.conda
@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda path: path.stem)
def test_conda_specs_are_strictly_valid(environment: Path, rattler) -> None:
    for spec in read(environment)[0]:
        match = rattler.MatchSpec(spec, strict=True)
        assert match.name is not None and match.version is not None


@pytest.fixture(scope="module")
def shell(rattler, tmp_path_factory) -> dict[str, str]:
    """Environment variables under which `conda` is rattler with a local channel."""
    sys.path.insert(0, str(TOOLS))
    from channel import make_channel

    folder = tmp_path_factory.mktemp("channels")
    make_channel(folder, pip_version="26.1.2", compiler_version="1.11.0")
    return {
        **os.environ,
        "PATH": os.pathsep.join([str(TOOLS / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "RESONANCE_TEST_CHANNELS": str(folder),
        "XDG_CACHE_HOME": str(folder / "snakemake"),
        "PIP_NO_COMPILE": "1",
    }


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the repository without a compiled op."""
    folder = tmp_path_factory.mktemp("conda") / "repository"
    return Path(shutil.copytree(ROOT, folder, symlinks=True, ignore=shutil.ignore_patterns("*.so", *LEFT_OUT)))


def snakemake(
    folder: Path, environment: dict[str, str], *arguments: str, preset: str = "smoke", said: bool = False
) -> str:
    """What it prints, with `said` what it says too."""
    command = [sys.executable, "-m", "snakemake", *arguments, "--config", f"preset={preset}"]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-5000:]
    return run.stdout + run.stderr if said else run.stdout


@pytest.mark.conda
@pytest.mark.parametrize(
    ("preset", "named"), [("smoke", {"figures", "posgen", "llm"}), ("paper", {"figures", "posgen-cuda", "llm-cuda"})]
)
def test_a_presets_device_chooses_its_environments_and_they_go_into_a_container(
    preset: str, named: set[str], checkout: Path, shell: dict[str, str]
) -> None:
    dockerfile = snakemake(checkout, shell, "--containerize", preset=preset)
    assert set(re.findall(r"^COPY envs/([\w-]+)\.yaml ", dockerfile, re.MULTILINE)) == named
    assert dockerfile.startswith("FROM ") and dockerfile.count("conda env create") == len(named)


# In each environment what its rules import: PosGen trained and measured; a language model pretrained, fine-tuned,
# measured and asked; a figure and a table. Rules that are left out import nothing else.
ASKED = [
    "posgen/runs/released/cot/rope/seed42/eval/yarn.parquet",
    "posgen/data/released/cot/baseline.parquet",
    "llm/tiny/runs/yarn/long/perplexity.parquet",
    "llm/tiny/runs/rope/untuned/passkey.parquet",
    "leval/tiny/rope/untuned/scores.parquet",
    "tables/table2_leval.csv",
    "figures/fig1_rotation_angles.svg",
]
KINDS = {
    "posgen/runs/**/eval/*.parquet": EVALUATION,
    "posgen/runs/**/train.parquet": TRAINING,
    "posgen/**/baseline.parquet": BASELINE,
    **{f"llm/**/{name}.parquet": evaluation.kind for name, evaluation in evaluations().items()},
    "leval/**/scores.parquet": ANSWERS,
}


def contents(folder: Path, like: Path | None = None) -> dict[str, str]:
    """The digest of every table and figure, and of every result's rows (its header has times); like: of those that
    another folder has."""
    like = like or folder
    found = {path: None for part in ("tables", "figures") for path in (like / part).iterdir()}
    for pattern, kind in KINDS.items():
        results_of_kind = list(like.glob(pattern))
        assert results_of_kind, f"{like} holds no {pattern}: mend the test"
        found |= dict.fromkeys(results_of_kind, kind)
    digests = {}
    for path, kind in found.items():
        own = folder / path.relative_to(like)
        data = read_rows(own, kind).write_csv().encode() if kind else own.read_bytes()
        digests[str(path.relative_to(like))] = hashlib.sha256(data).hexdigest()
    return digests


def run_python(environment: Path, code: str) -> str:
    """What an environment's Python says, in a folder of its own."""
    done = subprocess.run(
        [environment / "bin/python", "-c", code], cwd=environment, capture_output=True, text=True, timeout=120
    )
    return done.stdout.strip() or done.stderr


@pytest.mark.conda
def test_rules_run_in_their_environments_with_the_results_of_a_run_without(
    checkout: Path, shell: dict[str, str], smoke_run: Path
) -> None:
    asked = [f"results/smoke/{path}" for path in ASKED]
    snakemake(checkout, shell, *asked, "--sdm", "conda")
    made = {path.with_suffix("").name: path for path in (checkout / ".snakemake/conda").glob("*.yaml")}
    places = {
        source.stem: checkout / ".snakemake/conda" / name
        for name, path in made.items()
        for source in ENVIRONMENTS
        if source.read_bytes() == path.read_bytes()
    }
    assert set(places) == {"figures", "posgen", "llm"} and len(made) == 3
    assert "No module named 'torch'" in run_python(places["figures"], "import torch")
    for half in ("posgen", "llm"):
        assert Path(run_python(places[half], "import resonance; print(resonance.__file__)")).is_relative_to(checkout)
        installed = json.loads(run_python(places[half], LIST_INSTALLED))
        del installed["resonance-rope"], installed["pip"]
        assert {name: version.split("+")[0] for name, version in installed.items()} == pins(ROOT / f"envs/{half}.yaml")
    run = checkout / "results/smoke/llm/tiny/runs/yarn/long"
    assert json.loads((run / "run.json").read_text())["rotation"].startswith("C++"), "built by the post-deploy script"
    assert "Nothing to be done" in snakemake(checkout, shell, *asked, "--sdm", "conda", "--dry-run", said=True)

    made = checkout / "results/smoke"
    assert contents(made) == contents(smoke_run / "results/smoke", like=made)
