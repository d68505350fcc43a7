"""The README's snippet runs, and its links lead somewhere."""

import re
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from resonance.hf.swap import describe

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_snippet_runs_on_a_model_of_llama_3s_kind(tmp_path, monkeypatch):
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    rope = {
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }  # fmt: skip
    sizes = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    torch.manual_seed(0)
    config = LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, rope_parameters=rope)
    monkeypatch.chdir(tmp_path)
    LlamaForCausalLM(config).save_pretrained("HuggingFaceTB/SmolLM2-135M")
    scope = {}
    exec(snippet, scope)
    assert describe(scope["model"])["rope_type"] == "resonance_llama3"


PAGES = [
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "results-published/README.md", "config/README.md"),
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page):
    folder = (ROOT / page).parent
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (folder / link).exists()] == []


def test_the_front_page_stays_one():
    assert len(README.splitlines()) <= 150 and len(README.split()) <= 1000
