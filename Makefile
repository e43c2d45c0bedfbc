# Everything runs in .venv, which deploy/prepare.py makes with nothing but the standard library and pip.
# `make PYTHON=python3.12 …` chooses the Python; only Python and make need be on PATH.

.PHONY: demo test lint types fast sites sim bench clean env
.SILENT:

PYTHON ?= $(shell for p in python3 python python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN = .venv/bin

demo: env
	$(BIN)/transfer2go demo $(ARGS)

# Lint and types first: they fail in seconds. Three processes; what shares a federation stays in one (tests/conftest.py).
# They start hundreds of Pythons: bytecode is kept, also where the environment says otherwise, and the tests' own is made
# beside the types' check, or each of the three would make it.
test: export PYTHONDONTWRITEBYTECODE =
test: lint
	$(BIN)/python -m pytest --collect-only -q > /dev/null 2>&1 & \
	$(BIN)/mypy && { wait; $(BIN)/python -m pytest -n 3 --no-loadscope-reorder $(ARGS); }

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

fast: env
	$(BIN)/python -m pytest -m "not sites" $(ARGS)

sites: env
	$(BIN)/python -m pytest -m sites $(ARGS)

sim: env
	$(BIN)/python -m pytest tests/sim $(ARGS)

bench: env
	$(BIN)/python -m tests.bench $(ARGS)

env:
	if [ -z "$(PYTHON)" ]; then echo "no Python 3.11 or newer on PATH; install one, or run: make PYTHON=/path/to/python3.11" >&2; exit 5; fi
	"$(PYTHON)" deploy/prepare.py

clean:
	"$(PYTHON)" deploy/prepare.py --clean
