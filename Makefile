# `make setup` once, then `make demo` to see a model learn and `make test` before a commit.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup lock demo test pytest check format clean

help:
	@echo "make setup   install mio and its tools into $(VENV)  (PYTHON=... chooses the interpreter)"
	@echo "make lock    take the newest versions of all packages into constraints.txt"
	@echo "make demo    train the four stages on the digits world, minutes on a laptop"
	@echo "make test    style, types and tests"
	@echo "make check   style and types only"
	@echo "make format  let ruff rewrite the sources"

setup: $(STAMP)

# the stamp is older than these when dependencies, entry points or versions have changed
$(STAMP): pyproject.toml constraints.txt | $(BIN)/uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt \
	  --build-constraint constraints.txt --editable '.[dev]'
	@touch $@

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: mio needs Python 3.11 or newer and '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true);" \
	       "run make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: '$(PYTHON)' cannot make virtual environments; install its venv package" \
	       "(on Debian and Ubuntu: apt install python3-venv)" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv

# one set of versions for all systems and Pythons, which names no index
lock: | $(BIN)/uv
	UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade \
	  --no-annotate --extra dev --output-file constraints.txt pyproject.toml

demo: setup
	$(BIN)/mio fit recipes/stage4.yaml

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@imports=$$($(BIN)/lint-imports --no-logo) || { echo "$$imports"; exit 1; }

# both at once: mypy keeps one core busy for a minute or two
test: setup
	@$(MAKE) --no-print-directory --jobs 2 check pytest

pytest: setup
	$(BIN)/python -m compileall -q mio
	$(BIN)/python -m pytest -n auto --maxprocesses 8

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
