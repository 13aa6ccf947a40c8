# Two commands on a fresh machine: `make demo` and `make test`. Both set up what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check bench clean

$(VENV)/.local: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -e '.[local]'
	touch $@

$(VENV)/.test: $(VENV)/.local
	$(BIN)/pip install --quiet -e '.[local,postgres,test,dev,recipe]'
	touch $@

demo: $(VENV)/.local  ## the real job on a real language model
	$(BIN)/python examples/demo.py

test: $(VENV)/.test  ## every test
	$(BIN)/python -m pytest -q

check: $(VENV)/.test  ## lint, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist src/*.egg-info
