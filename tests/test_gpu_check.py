"""`make gpu-check` where no GPU is: what it says, and that a step which hangs or fails is one line."""

import pytest
import torch

from benchmarks import gpu_check


def test_a_step_says_what_it_found_and_one_that_hangs_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    made = gpu_check.run("machine", "cpu")
    assert made["passed"] and any("torch" in said for said in made["said"]), made
    monkeypatch.setitem(gpu_check.STEPS, "machine", (0.2, gpu_check.machine))
    hung = gpu_check.run("machine", "cpu")
    assert not hung["passed"] and hung["said"] == ["ended at its limit of 0.2 s"]
    page = gpu_check.page("A <machine>", [made, hung])
    assert "A &lt;machine&gt;" in page and page.count('class="fail"') == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_step_that_fails_says_why_in_one_line() -> None:
    made = gpu_check.run("answer", "cuda")
    assert not made["passed"] and len(made["said"]) == 1 and "\n" not in made["said"][0], made
