# Two commands do everything: `make demo` and `make test`. Both build the environment first.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Half of all Python files, of which next to none are imported: those are compiled when they are.
SELDOM := /(tests|transformers/models|ray/(rllib|serve|tune)|torch/testing|pip|mypy|azure|hive_metastore|networkx|pygments)/
# Some of the tests' time is waiting for servers and clusters, so three files at once keep two cores busy; tests/order.py says which.
PYTEST_ARGS ?= -n 3 --dist loadfile --no-loadscope-reorder

.PHONY: help install demo check fast test suite faults lint style types contracts cluster cluster-down benchmark constraints

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(STAMP)  ## build .venv with everything that demo and test need

$(STAMP): pyproject.toml infra/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip  # Python brings an older one, which takes half a minute more
	$(BIN)/pip install --quiet --no-compile --constraint infra/constraints.txt --editable '.[dev]'
	-$(BIN)/python -m compileall -qq --workers 0 -x '$(SELDOM)' $(VENV)/lib  # as pip does on one core; some hold templates, which fail
	@touch $@

demo: install  ## embedded S3 server, generated images, the job three times, pictures and quality (about 3 minutes)
	$(BIN)/masklake demo --output demo-out

check: style  ## lint, types, contracts and the fast unit tests
	@$(MAKE) --no-print-directory --jobs 2 fast types contracts

fast: install
	$(BIN)/python -m pytest tests/unit -m 'not slow' -n 2 --dist worksteal

test: lint suite  ## format, lint, types, import contracts, all tests; with `--jobs 2`, types are checked beside the tests

suite: install
	$(BIN)/python -m pytest $(PYTEST_ARGS)

faults: install  ## kill, pause, fill and break a real job, TRIALS times from SEED; the report goes to build/faults.json
	$(BIN)/python -m tests.faults --trials $(or $(TRIALS),24) --seed $(or $(SEED),1)

lint: style types contracts  ## format, lint, types and import contracts only

style: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

cluster: install  ## a two-node Ray cluster and an S3 server on loopback, to submit jobs to
	$(BIN)/python -m infra.cluster up

cluster-down: install  ## stop what `make cluster` started
	$(BIN)/python -m infra.cluster down

constraints: install  ## write down the versions that are installed now
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' > infra/constraints.txt
