"""What stands in examples/ installs and runs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_a_method_in_a_package_of_its_own(tmp_path):
    source = shutil.copytree(ROOT / "examples/my_method", tmp_path / "source")  # a build leaves its folder beside it
    install = ["pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(tmp_path / "site")]
    subprocess.run([sys.executable, "-m", *install, str(source)], check=True, cwd=tmp_path)
    code = """
from resonance.encoding.frequencies import frequency_table
from resonance.encoding.spec import EncodingSpec
from resonance.record.identity import code_of
plain = frequency_table(EncodingSpec(), 64)
same = frequency_table(EncodingSpec(method="flattened"), 64)
assert abs(same.theta / plain.theta - 1).max() < 1e-12
bent = EncodingSpec(method="flattened", resonance=True, parameters={"power": 1.5})
table = frequency_table(bent, 64)
assert (table.period > 0).all() and table.theta[5] > plain.theta[5]
assert EncodingSpec.from_json(bent.to_json()) == bent
assert any("my_method" in one for one in code_of("resonance.posgen.stages:train", methods=["flattened"])), "its code"
try:
    EncodingSpec(method="flattened", parameters={"powr": 2})
except ValueError as error:
    assert "did you mean power?" in str(error)
else:
    raise AssertionError("a misspelt parameter was taken")
"""
    environment = {"PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}", "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_a_llama_is_swapped_saved_opened_and_exported():
    run = subprocess.run(
        [sys.executable, str(ROOT / "examples/llama.py")],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "swapped: resonance_yarn" in run.stdout and "logits equal bit for bit" in run.stdout
    assert "as transformers' longrope" in run.stdout


def test_the_notebook_shows_theorem_1s_gap():
    """Cell by cell, without a kernel; committed without outputs."""
    cells = json.loads((ROOT / "examples/figure1.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    scope = {}
    for cell in code:
        exec("".join(cell["source"]), scope)
    plain, resonance = (scope["gaps"][name] for name in ("RoPE", "Resonance RoPE"))
    fits = scope["fits"]
    assert 0 < fits.sum() < len(fits)
    assert (resonance[fits] == 0).all() and plain[fits].max() > 0.1 and (resonance[~fits] > 0).all()
