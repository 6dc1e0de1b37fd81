# Few verbs. `make demo` and `make test` work on a fresh machine with Python >= 3.11 and nothing else.

PYTHON ?= python3
# On a machine with NVIDIA GPUs this brings CUDA along; for another build see pytorch.org/get-started.
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
export VIRNUCPRO_HOME ?= $(CURDIR)/.virnucpro
export DAGSTER_HOME ?= $(VIRNUCPRO_HOME)/dagster
PORT ?= 3000

.PHONY: demo ui test lint bench clean

demo: $(VENV)/.user  ## call the genomes that ship with the package, in the demo profile
	$(BIN)/virnucpro predict $$($(BIN)/python -c "from virnucpro_core.profiles import DEMO; print(DEMO / 'viral.fa', DEMO / 'non_viral.fa')") \
	  --sample demo --profile demo --chunk-size 300 --out demo-results

ui: $(VENV)/.user  ## the Dagster web UI and daemon on loopback; drop files into $(VIRNUCPRO_HOME)/inbox
	$(BIN)/virnucpro ui --port $(PORT)

test: $(VENV)/.dev  ## all tests that need no GPU
	$(BIN)/python -m pytest -m "not gpu"

lint: $(VENV)/.dev  ## design rules: ruff, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev  ## benchmarks that need no GPU
	$(BIN)/python benchmarks/sequences.py

clean:  ## the environment and what the demo made
	rm -rf $(VENV) .virnucpro demo-results

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH)

$(VENV)/.user: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable .
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml requirements.lock
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable ".[dev]"
	touch $@ $(VENV)/.user
