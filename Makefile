# The newcomer's path:  make demo   make test   make lint   make bench   make clean
#
# Everything is installed into .venv in this folder, once; after that a target only does its own work.
# Another interpreter:  make demo PYTHON=python3.12     A virtual environment elsewhere:  make test VENV=/path/to/venv

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
# The first interpreter between 3.10 and 3.13 that runs and can make a virtual environment.
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))
PYTHON ?= $(shell for p in python3 python3.12 python3.13 python3.11 python3.10 python; do \
	if $$p -c '$(SUITABLE)' >/dev/null 2>&1; then echo $$p; break; fi; done)
# On a terminal pip shows what it downloads; elsewhere, as in continuous integration, it is silent unless it fails.
PIP_SHOWS := $(shell if [ -t 2 ]; then echo --progress-bar on; else echo --quiet --quiet; fi)
# What is installed without its dependencies, on purpose (below), is nothing to warn of.
PIP := $(BIN)/python -m pip install $(PIP_SHOWS) --no-warn-conflicts --disable-pip-version-check --no-input --constraint constraints.txt

.PHONY: help demo test slicer-test lint format bench wheel clean

help:
	@echo "make demo    super-resolve a real MR volume and show what is gained (writes demo-output/)"
	@echo "make test    run the tests, with branch coverage of the library"
	@echo "make slicer-test SLICER=/path/to/Slicer   the user's journey in a real Slicer, with pictures in slicer-test-output/"
	@echo "make lint    ruff (rules and format) and mypy"
	@echo "make format  let ruff rewrite the code"
	@echo "make bench   slices per second and memory beside SwinIR"
	@echo "make wheel   build dist/*.whl and check that it is complete"
	@echo "make clean   remove what make created, .venv included"

# --- environments: one stamp file per set of requirements, renewed when they change ---

$(BIN)/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "Python 3.10, 3.11, 3.12 or 3.13 with venv and pip is needed (on Debian: apt install python3 python3-venv)" >&2; exit 1; fi
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing mrsuperres and its requirements into $(VENV) (once; PyTorch is large)"
	@$(PIP) --editable . "matplotlib>=3.8"
	@touch $@

# Only one data file of nilearn is read, so none of its dependencies are wanted; likewise one network of spandrel.
$(VENV)/.demo: $(VENV)/.base
	@$(PIP) --no-deps "nilearn>=0.10"
	@touch $@

$(VENV)/.test: $(VENV)/.demo
	@echo "installing the test tools into $(VENV) (once)"
	@$(PIP) --editable ".[test]"
	@touch $@

$(VENV)/.bench: $(VENV)/.base
	@$(PIP) --no-deps "spandrel>=0.4" "typing_extensions>=4.0"
	@touch $@

# --- targets ---

# The module in a real Slicer 5.12 or newer: its self-test, then a step for each fault that was once found by hand.
slicer-test:
	@if [ ! -x "$(SLICER)" ]; then echo "name the application: make slicer-test SLICER=/path/to/Slicer" >&2; exit 1; fi
	@MRSUPERRES_PICTURES="$(CURDIR)/slicer-test-output" "$(SLICER)" --testing --no-splash --disable-settings \
		--additional-module-paths "$(CURDIR)/MRSuperRes" --python-script "$(CURDIR)/Testing/Slicer/journey.py"

demo: $(VENV)/.demo
	@$(BIN)/mrsuperres demo --output demo-output $(DEMO_ARGS)

# Files of tests side by side: a process a core, four at most, since each loads PyTorch.
test: $(VENV)/.test
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --cov --cov-report=term $(PYTEST_ARGS)

lint: $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.test
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.bench
	@$(BIN)/python Testing/Benchmarks/bench.py $(BENCH_ARGS)

wheel: $(BIN)/python
	@rm -rf dist
	@$(BIN)/python -m pip wheel --quiet --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@$(BIN)/python Testing/check_wheel.py dist

clean:
	rm -rf .venv demo-output build dist .coverage .coverage.* htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
