# Everything a developer or a continuous-integration machine runs. Needs Python >= 3.11 and git, nothing else:
#   make demo       fit the seed-germination data and look at the result
#   make test       lint, types, fast tests, notebooks
#   make test-all   the same with the slow tests
#   make docs       build the documentation into site/, notebooks executed
#   make bench      time and memory beside other packages; some of it: make bench BENCH="--quick"
# Another Python: make test PYTHON=python3.12. Another place for the environment: VENV=/somewhere/else.

PYTHON ?= python3.11
VENV   ?= .venv
JOBS   ?= 2

BIN       := $(VENV)/bin
PIP       := $(BIN)/python -m pip --disable-pip-version-check --quiet
NOTEBOOKS := $(wildcard notebooks/*.ipynb)

# One thread per test process: JOBS processes already fill the cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 NUMBA_NUM_THREADS=1
PYTEST     := $(ONE_THREAD) $(BIN)/python -m pytest -n $(JOBS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo install test test-all lint format types fast-tests all-tests notebooks docs bench clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(VENV)/.installed
	$(BIN)/python -m models.demo

install: $(VENV)/.installed-dev

test: lint types fast-tests notebooks

test-all: lint types all-tests notebooks

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

fast-tests: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow"

all-tests: $(VENV)/.installed-dev
	$(PYTEST)

notebooks: $(VENV)/.installed-dev
ifneq ($(NOTEBOOKS),)
	$(PYTEST) --nbmake --nbmake-timeout=300 $(NOTEBOOKS)
endif

# The cache of executed notebooks knows nothing of changes in hlik: it goes first. The variable stops an announcement.
docs: $(VENV)/.installed-docs
	rm -rf .cache
	$(ONE_THREAD) NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "site/index.html"

# The peers from PyPI in an environment of their own; lme4 and glmmTMB where R has them (benchmarks/requirements.txt).
PEERS := benchmarks/.venv

bench: $(VENV)/.installed-dev $(PEERS)/.installed
	$(BIN)/python -m benchmarks $(BENCH)

$(PEERS)/.installed: benchmarks/requirements.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install --requirement $<
	@touch $@

clean:
	rm -rf $(PEERS) benchmarks/.data $(VENV) .cache site .mypy_cache .pytest_cache .ruff_cache .hypothesis demo-output

# The stamps make the second run quick: the environment is renewed only when pyproject.toml has changed.
# Making an environment where there is one keeps what is installed in it.
$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "$(PYTHON) not found: install Python 3.11 or name another, as in: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml $(VENV)/.created
	$(PIP) install --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml $(VENV)/.created
	$(PIP) install --editable ".[dev,bambi]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml $(VENV)/.created
	$(PIP) install --editable ".[dev,bambi,docs]"
	@touch $@ $(VENV)/.installed-dev $(VENV)/.installed
