# Few verbs. `make demo` and `make test` work on a fresh machine with Python >= 3.11 and nothing else;
# the browser tests want Debian's chromium package and are skipped without it.

PYTHON ?= python3
# On a machine with NVIDIA GPUs this brings CUDA along; for another build see pytorch.org/get-started.
TORCH ?= torch==2.13.0
TRITON ?= triton==3.9.0
SNAKEMAKE ?= snakemake==9.27.1
VENV ?= .venv
PORT ?= 3000
MINUTES ?= 60
# Processes that run tests at the same time.
TESTERS ?= 2
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.lock
DEMO := virnucpro_core/demo
export VIRNUCPRO_HOME ?= $(CURDIR)/.virnucpro
export DAGSTER_HOME ?= $(VIRNUCPRO_HOME)/dagster

.PHONY: help demo ui test ray slurm torture audit lint docs package architecture settings bench screenshots clean
.DEFAULT_GOAL := help

help:  ## these verbs
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.user  ## call the genomes that ship with the package, in the demo profile
	$(BIN)/virnucpro predict $(DEMO)/viral.fa $(DEMO)/non_viral.fa \
	  --sample demo --profile demo --chunk-size 300 --out demo-results

ui: $(VENV)/.user  ## the web UI and the daemon on loopback; drop files into .virnucpro/inbox
	$(BIN)/virnucpro ui --port $(PORT)

test: $(VENV)/.dev $(VENV)/snakemake/bin/snakemake  ## all tests that need no GPU; the last lines say which were skipped and why
	$(BIN)/python -m pytest -n $(TESTERS) --dist loadfile -m "not gpu and not ray and not slurm and not long"

ray: $(VENV)/.dev  ## a Ray cluster of four pretended machines, one of which dies; what Kubernetes would be told
	$(PIP) --editable ".[dev,ray,kubernetes]"
	$(BIN)/python -m pytest tests/clusters

slurm: $(VENV)/.dev  ## a Slurm of three pretended nodes: one dies, a job is preempted; as root, with slurm-wlm and munge
	$(BIN)/python -m pytest tests/clusters -m "not ray"

lint: $(VENV)/.dev  ## design rules: ruff, mypy; whether Dagster can load the definitions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@# In an instance of its own, which is removed: linting leaves nothing in your home.
	home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && cp dagster.yaml "$$home" && \
	  DAGSTER_HOME="$$home" VIRNUCPRO_HOME="$$home" $(BIN)/dg check defs

docs: $(VENV)/.dev  ## the documentation site, into site/; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

package: $(VENV)/.dev  ## build the source archive and the wheel into dist/, and check both
	rm -rf dist build
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*

architecture: $(VENV)/.dev  ## draw the picture of the rooms in docs/architecture.md from the imports
	$(BIN)/python docs/rooms.py

settings: $(VENV)/.dev  ## write the table of all settings in docs/operations.md from the options and variables
	$(BIN)/python docs/settings.py

audit: $(VENV)/.dev  ## pinned versions against requirements-advisories.md, and pip-audit's database if it can be reached
	$(BIN)/python -m pytest tests/test_advisories.py
	$(PIP) pip-audit && $(BIN)/python -m pip_audit --strict --no-deps --disable-pip --requirement requirements.lock \
	  || echo "pip-audit found something, or could not look up a package: see above"

torture: $(VENV)/.dev $(VENV)/.postgres  ## kill, starve, damage and soak for MINUTES=60; prints docs/durability.md's table
	$(BIN)/python -m torture --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/.dev  ## the quick benchmark that needs no GPU; its ratios to the plain loop beside the kept ones
	new=$$(mktemp) && trap 'rm -f "$$new"' EXIT && $(BIN)/python -m benchmarks.sequences --out "$$new" && \
	  $(BIN)/python -m benchmarks.compare --ratios --all benchmarks/results/sequences.json "$$new"

screenshots: $(VENV)/.dev  ## the pictures of the documentation
	$(BIN)/python docs/screenshots.py

clean:  ## remove the environment, what was built, the demo's results and .virnucpro
	rm -rf $(VENV) .virnucpro demo-results dist build site

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$(PYTHON) is older than 3.11: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) "$(TORCH)"

$(VENV)/.user: $(BIN)/python pyproject.toml requirements.lock
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml requirements.lock
	$(PIP) --editable ".[dev]"
	@# A CPU build of torch comes without triton, whose interpreter tests the GPU kernels here.
	[ "$$(uname -sm)" != "Linux x86_64" ] || $(BIN)/python -c "import triton" 2>/dev/null || $(PIP) "$(TRITON)"
	touch $@ $(VENV)/.user

# Its requirements and those of other tools exclude each other: an environment of its own.
$(VENV)/snakemake/bin/snakemake: | $(BIN)/python
	$(BIN)/python -m venv $(VENV)/snakemake
	$(VENV)/snakemake/bin/pip install --quiet --disable-pip-version-check "$(SNAKEMAKE)"

$(VENV)/.postgres: $(VENV)/.dev
	$(PIP) --editable ".[dev,postgres]"
	touch $@
