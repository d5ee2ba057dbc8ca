# One command each to set up, check, test and try. Needs git, Python 3.11 or later, and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup check format test chaos prove mutate demo bench readme screenshots clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(READY)  ## virtual environment in .venv with everything for development

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

check: $(READY)  ## formatter, linter, strict types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## lay out the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(READY)  ## all tests
	$(BIN)/python -m pytest -n 2 -q

chaos: $(READY)  ## the tests with faults and kills, with twenty seeds instead of one
	CHAOS_SEEDS=20 $(BIN)/python -m pytest -n 2 -q tests/test_chaos.py tests/test_kills.py

prove: $(READY) mutate  ## what takes long to prove: guards, a throttled load, then 100 killed loads and deletions each
	$(BIN)/python benchmarks/throttled.py --against --strict
	$(BIN)/python tests/prove_kills.py --trials 100 --scopes 2000
	$(BIN)/python tests/prove_kills.py --trials 100 --scopes 2000 --destination postgres
	$(BIN)/python tests/prove_dask.py --trials 20
	$(BIN)/python tests/prove_shards.py --trials 20 --destination postgres
	$(BIN)/python tests/prove_shards.py --trials 20 --destination ducklake
	$(BIN)/python tests/prove_dagster.py
	$(BIN)/python tests/prove_deletions.py --trials 100
	$(BIN)/python tests/prove_deletions.py --trials 100 --destination postgres

mutate: $(READY)  ## change the guards of the deletions in one place at a time: the tests must notice each change
	$(BIN)/python tests/prove_guards.py

demo: $(READY)  ## load five simulated days into cockpit_demo/, no credentials needed
	$(BIN)/cockpit demo

bench: $(READY)  ## the load beside what one would write instead, a small load, a throttled one, and large ones
	$(BIN)/python benchmarks/compare_loads.py
	$(BIN)/python benchmarks/load_scale.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/throttled.py
	$(BIN)/python benchmarks/dask_tenants.py
	$(BIN)/python benchmarks/marts_scale.py
	$(BIN)/python benchmarks/move_history.py
	$(BIN)/python benchmarks/million_rows.py
	$(BIN)/python benchmarks/cost_model.py

readme: $(READY)  ## fill in what README.md takes from the code and from runs
	$(BIN)/python docs/update_readme.py

screenshots: $(READY)  ## the pictures of dashboard and report in README.md, from the demo; needs Chromium
	$(BIN)/python docs/screenshots.py

clean:  ## remove what the other targets made
	rm -rf $(VENV) cockpit_demo build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
