# Two commands do everything: `make reproduce` and `make test`.
#   PRESET=smoke|laptop|paper   how large (default laptop)
#   PYTHON=python3.12           which Python makes the environment (3.11 or later)
#   CORES=all                   how many cores the workflow may use
#   GPU=1                       make setup: DeepSpeed and FlashAttention-2 too, which PRESET=paper wants

PRESET ?= laptop
PYTHON ?= python3
CORES ?= all
VENV ?= .venv

export PATH := $(abspath $(VENV))/bin:$(PATH)
RESULTS := results/$(PRESET)
PIP := $(VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt
SNAKEMAKE := snakemake --cores $(CORES) --config preset=$(PRESET)
# A bar over all jobs on a terminal, plain lines in a file.
BAR := $(shell test -t 2 && echo --logger rich)

.PHONY: help setup plan reproduce report test lint format schema pages docs torture gpu-check clean

help:
	@echo "make reproduce   every table and figure of the paper   (PRESET=smoke|laptop|paper)"
	@echo "make plan        what that costs, before anything runs"
	@echo "make test        the tests"
	@echo "make lint        ruff, snakefmt, snakemake --lint"
	@echo "make schema      workflow/schemas from resonance.workflow.preset"
	@echo "make pages       the measured tables of docs/, of the rows in results-published/"
	@echo "make docs        the docs site, in site/"
	@echo "make gpu-check   is this GPU machine fit for PRESET=paper? ten minutes, a line a step; what needs no GPU without one"
	@echo "make torture     what gets through when everything is broken, some minutes"
	@echo "make clean       remove the environment (results/ stays)"

setup: $(VENV)/.installed $(if $(GPU),$(VENV)/.gpu)

# torch first, then the package without build isolation: so the build sees whether this torch has CUDA, and
# compiles the op's CUDA kernels for no CPU torch.
$(VENV)/.installed: pyproject.toml constraints.txt setup.py $(wildcard csrc/* csrc/*/*)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"error: Python must be >= 3.11, got {sys.version.split()[0]}; say make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) 'setuptools>=80' pybind11 'numpy>=2' torch
	$(PIP) --no-build-isolation --editable '.[workflow,llm,test]'
	touch $@

# FlashAttention-2 is compiled against the torch at hand, where a CUDA compiler is; attention runs without it.
$(VENV)/.gpu: $(VENV)/.installed
	$(PIP) --no-build-isolation --editable '.[deepspeed]'
	$(PIP) --no-build-isolation --editable '.[flash]' \
		|| echo 'flash-attn did not install: attention runs as SDPA of torch' >&2
	touch $@

plan: setup
	@python -m resonance plan --preset $(PRESET)

reproduce: setup
	@python -m resonance plan --brief --preset $(PRESET)
	$(SNAKEMAKE) $(BAR)
	@$(MAKE) --no-print-directory report

# Remade only where a table or figure is newer, so that a second `make reproduce` does nothing.
report: setup
	@if [ ! -e $(RESULTS)/report.html ] || \
	    [ -n "$$(find $(RESULTS)/tables $(RESULTS)/figures -newer $(RESULTS)/report.html)" ]; then \
	    python -m resonance crate --preset $(PRESET) && $(SNAKEMAKE) --report $(RESULTS)/report.html; \
	fi
	@echo "Every job behind them: $(RESULTS)/report.html. All tables and figures on one page: $(RESULTS)/summary.html"

# A file of tests a process at a time; those of the workflow use several cores by themselves.
test: setup
	python -m pytest -n logical --maxprocesses 4 --dist loadfile

lint: setup
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	snakemake --lint

format: setup
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

schema: setup
	python -m resonance config schema workflow/schemas/preset.schema.json

pages: setup
	for preset in laptop smollm2; do snakemake published --cores $(CORES) --config preset=$$preset || exit 1; done
	python -m figures.pages --tables results/laptop/published/tables --docs docs

torture: setup
	python -m benchmarks.torture --full

gpu-check: setup
	@python -m benchmarks.gpu_check

# Its packages are installed when it is first asked for.
docs: setup
	@$(VENV)/bin/python -c 'import material, mkdocstrings' 2>/dev/null || $(PIP) 'mkdocs-material' 'mkdocstrings[python]'
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --site-dir site
	@echo "The docs site: site/index.html"

clean:
	rm -rf $(VENV)
