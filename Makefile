# Two commands do it all: `make demo` and `make test`. Everything runs in .venv, which `make setup` keeps up to date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LINT_TREE := .cache/lint-tree
LOWEST := .cache/gymnasium-lowest
SOURCES := lm_gym agents reward_models tests examples benchmarks scripts docs/conf.py

# Tests run in one process per core, four at most (1 GB each); one thread in each, or they would wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: setup demo test test-slow test-lowest test-all check format bench docs build clean

setup: $(STAMP)

# torch first and pinned: a range would fetch the newest build with gigabytes of CUDA packages.
$(STAMP): pyproject.toml constraints.txt lm_gym/__init__.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "setuptools>=77"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/lm-gym demo --overwrite

test: setup
	$(PYTEST)

test-slow: setup
	$(PYTEST) -m slow

# The tests of the environments on the oldest Gymnasium that pyproject.toml admits, which goes before the installed one.
test-lowest: setup
	rm -rf $(LOWEST)
	$(BIN)/python -m pip install --quiet --no-deps --target $(LOWEST) \
		"gymnasium==$$(sed -n 's/^ *"gymnasium>=\([0-9.]*\),.*/\1/p' pyproject.toml)"
	PYTHONPATH=$(LOWEST) $(BIN)/python -c "import gymnasium; print('gymnasium', gymnasium.__version__)"
	PYTHONPATH=$(LOWEST) $(BIN)/python -m pytest -q tests/lm_gym/envs

test-all: test test-lowest test-slow

# The mapped folders are visible to mypy and import-linter only in a real install, looked at from outside the checkout.
check: setup
	$(BIN)/ruff format --check --quiet $(SOURCES)
	$(BIN)/ruff check --quiet $(SOURCES)
	rm -rf $(LINT_TREE) build
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target $(LINT_TREE) .
	rm -rf build lm_gym.egg-info
	cd $(LINT_TREE) && PYTHONPATH=. $(CURDIR)/$(BIN)/lint-imports --config $(CURDIR)/pyproject.toml --no-cache
	cd $(LINT_TREE) && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p lm_gym
	$(BIN)/python -m pytest -q tests/house

format: setup
	$(BIN)/ruff format --quiet $(SOURCES)
	$(BIN)/ruff check --quiet --fix $(SOURCES)

bench: setup
	$(BIN)/python -m benchmarks.run

# The site, in .cache/site; a warning is an error.
docs: setup
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -d .cache/doctrees docs .cache/site

build: setup
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) .cache build dist runs
