# Every target that needs the virtual environment sets it up first; `make` alone prints this file's help.

PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Prints a Python's version; fails on one that this project does not run on.
VERSION := -c 'import sys; v = sys.version_info[:2]; print("%d.%d" % v); sys.exit(not (3, 11) <= v <= (3, 13))'
WANTED := elrea needs Python 3.11, 3.12 or 3.13: make setup PYTHON=python3.12

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test test-faults fuzz check backbone bench-clusters bench-features bench-inference bench-sweep clean

help: ## Print this help
	@echo "make TARGET [VARIABLE=value ...]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  PYTHON=python3.12   the Python that a new $(VENV) is made with (3.11 to 3.13; now: $(PYTHON))"
	@echo "  PIP_ARGS=...        passed on to pip (another index, a proxy, -v to see it work)"
	@echo "  ARGS=...            passed on by run, the tests and backbone: make run ARGS='seed=1 plan=true'"

setup: $(STAMP) ## Make .venv with the pinned dependencies (done by the targets below as needed)

# The stamp goes first and comes back last: whatever breaks in between, the next make sets up again.
# A .venv with a working pip is kept and brought up to date, so that a broken download costs little.
$(STAMP): pyproject.toml constraints.txt
	@rm -f $@
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  found=$$("$(PYTHON)" $(VERSION) 2>/dev/null) || \
	    { echo "make: '$(PYTHON)' is $${found:+Python }$${found:-no working Python}; $(WANTED)" >&2; exit 1; }; \
	  echo "Making $(VENV) with Python $$found"; \
	  "$(PYTHON)" -m venv --clear $(VENV) || exit 1; \
	fi
	@found=$$($(BIN)/python $(VERSION)) || \
	  { echo "make: $(VENV) holds Python $$found (make clean removes it); $(WANTED)" >&2; exit 1; }
	@echo "Installing the pinned dependencies into $(VENV) (some minutes the first time)"
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@

run: $(STAMP) ## Run the main job: train, cluster, specialise, route and score on the built-in exam
	$(BIN)/python run.py +experiment=elrea_mmlu $(ARGS)

test: $(STAMP) ## Run the tests, side by side (ARGS=-n0: one by one)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-faults: $(STAMP) ## Kill, stop, fill up and share a small run in every way, and compare (twenty minutes)
	$(BIN)/python -m tests.faults.harness $(ARGS)

fuzz: $(STAMP) ## Feed every reader with files that are nearly right (ten minutes; ARGS='--minutes 60')
	$(BIN)/python -m tests.fuzz.harness $(ARGS)

check: $(STAMP) ## Lint, check the format, check the types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

backbone: $(STAMP) ## Train the built-in backbone anew, as it was shipped (takes long)
	$(BIN)/python -m elrea.models.tiny.train $(ARGS)

bench-features: $(STAMP) ## Measure what gradient features cost (half an hour; ARGS='--models tiny': minutes)
	$(BIN)/python -m experiments.benchmarks.features $(ARGS)

bench-clusters: $(STAMP) ## Measure what clustering costs, up to 200,000 features (some minutes)
	$(BIN)/python -m experiments.benchmarks.clusters $(ARGS)

bench-inference: $(STAMP) ## Measure what all members at once cost (an hour; ARGS='--models tiny': minutes)
	$(BIN)/python -m experiments.benchmarks.inference $(ARGS)

bench-sweep: $(STAMP) ## Measure what a sweep costs over its stages, and over its jobs alone (half an hour)
	$(BIN)/python -m experiments.benchmarks.sweep $(ARGS)

clean: ## Remove .venv and the caches; runs and the store stay
	rm -rf $(VENV) build elrea.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find elrea tests experiments conf -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
