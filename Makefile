# make repro   everything, from nothing to reports/index.html (makes .venv first; within the hour on two cores)
# make test    the tests
# make ui      the Prefect server, in the foreground: where every run is seen
# make check   lint, format, types
# make docs    the documentation as pages: site/index.html
# make bench   how fast it is against the usual ways: reports/bench.md (half an hour; after make repro)
PYTHON ?= python3
VENV := $(CURDIR)/.venv
STAMP := $(VENV)/.installed

# DVC starts stages as `python …`: the one of the environment has to come first.
RUN := PATH="$(VENV)/bin:$$PATH"
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
# The environment is this project's own, and its bytecode is written by the first process that imports it: where this
# is set (as in many containers), every process would compile torch again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: repro test ui check bench docs

repro: $(STAMP)
	$(RUN) $(VENV)/bin/selfadapt run

test: $(STAMP)
	$(RUN) HF_HUB_OFFLINE=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

ui: $(STAMP)
	$(RUN) $(VENV)/bin/selfadapt ui

check: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(STAMP)
	$(RUN) HF_HUB_OFFLINE=1 $(VENV)/bin/python -m pytest tests/bench --benchmark-columns=median --timeout 0

docs: $(VENV)/.docs
	@# without the theme's word on its successor
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

$(VENV)/.docs: pyproject.toml $(STAMP)
	$(VENV)/bin/python -m pip install --quiet --no-compile --editable '.[docs]'
	@touch $@

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: expected Python 3.11 or later as '$(PYTHON)'; run 'make PYTHON=/path/to/python3.11 …'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "error: '$(PYTHON)' cannot make virtual environments; install its venv package, e.g. 'apt-get install python3-venv'" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# what is imported gets compiled then; all of it, now, takes a minute longer
	$(VENV)/bin/python -m pip install --quiet --no-compile --editable '.[dev]'
	@touch $@
