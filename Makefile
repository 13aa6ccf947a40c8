# Two commands on a fresh machine: `make demo` and `make test`. Both set up what they need.
#
# The usual torch for Linux brings CUDA with it. For a machine without a GPU, give TORCH_INDEX the
# address of PyTorch's index of CPU wheels: make demo TORCH_INDEX=...
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help demo demo-api demo-forest test check bench benchmarks clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

# A stamp is written last, so that an interrupted installation is never believed; and it is older
# than pyproject.toml as soon as what must be installed changes.
$(VENV)/.local: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, $(PYTHON) is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(PIP) --editable '.[local]'
	touch $@

$(VENV)/.demo: $(VENV)/.local
	$(PIP) --editable '.[local,demo]'
	touch $@

$(VENV)/.bench: $(VENV)/.local
	$(PIP) --editable '.[local,recipe,baselines]'
	touch $@

$(VENV)/.test: $(VENV)/.local
	$(PIP) --editable '.[local,forest,postgres,recipe,lm-eval,test,dev]'
	touch $@

demo: $(VENV)/.local  ## the real job on a real language model
	$(BIN)/python examples/demo.py

demo-api: $(VENV)/.demo  ## experts known by their API alone, merged by their answers
	$(BIN)/python examples/demo_api.py

demo-forest: $(VENV)/.local  ## a forest of language models, from its seed to its table
	$(BIN)/python examples/demo_forest.py

# One process a core, and one thread in each: tiny models are slower on several.
test: $(VENV)/.test  ## every test; those of Postgres run when EVOMERGE_TEST_POSTGRES names one
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile $(PYTEST_ARGS)

check: $(VENV)/.test  ## lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.bench  ## does it merge better: train the experts, measure, write docs/results.md
	$(BIN)/python -m benchmarks.repository
	$(BIN)/python -m benchmarks.evidence --setting out-of-domain in-domain robustness ablations --write

benchmarks:  ## list the measurements; each is one command
	@grep -rhoE --include='*.py' 'python (-m )?benchmarks[./].*' benchmarks | sed 's|^|$(BIN)/|'

clean:  ## remove the environment and what was built
	rm -rf $(VENV) build dist src/*.egg-info
