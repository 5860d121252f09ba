# Every target builds what it needs: `make run` and `make test` work on a machine with nothing but python3 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The stamp carries the interpreter's version, so that PYTHON=python3.12 rebuilds an environment made by 3.11.
VERSION := $(shell $(PYTHON) -c 'import sys; print(".".join(map(str, sys.version_info[:3])))' 2>/dev/null)
STAMP := $(VENV)/installed-$(VERSION)

.PHONY: env run test test-all docs lint clean

env: $(STAMP)

$(STAMP): pyproject.toml
	@test -n "$(VERSION)" || { echo "no Python interpreter named '$(PYTHON)'" >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[experiments,serving,notebooks,docs,dev]'
	@touch $@

run: env  ## train the place-name resolver (five to ten minutes of training on two cores)
	$(BIN)/python -m experiments.geonames train

# Nearly all of its time is XLA compiling on one core; a file's fixtures stay in one process.
test: env  ## the test suite (about ten minutes on two cores)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: env  ## with notebooks, experiments and statistics (about twenty minutes)
	$(BIN)/python -m pytest -n 2 --dist loadfile

# pdoc's warnings (names that cannot be resolved, annotations that cannot be read) are errors.
docs: env  ## pages from the records of the experiments, and the API reference in build/api/
	$(BIN)/python -m docs.build
	$(BIN)/python -W error -m pdoc jaxml --math --docformat google --output-directory build/api

lint: env  ## style, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
