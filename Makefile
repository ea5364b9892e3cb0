# `make repro` runs the pipeline and `make test` the tests, each in an environment of its own making (.venv).
# The plain way, in an environment that you have: pip install -c constraints.txt -e . && dvc repro

PYTHON ?= python3
VENV := .venv
DVC := $(VENV)/bin/dvc

# dvc.yaml says `python`: it is the environment's.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Old and new pip take the versions of the build tools from different variables.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help repro grid report test torture lint bench

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

repro: $(VENV)/.installed  ## the pipeline with the parameters of params.yaml, then its scores
	$(DVC) repro
	$(DVC) metrics show

grid: $(VENV)/.installed  ## the paper's grid of experiments; GRID="--jobs 2 --status": more of its options
	$(VENV)/bin/python -m stages.grid -S dataset=dailydialog -S protocol=paper $(GRID)

report: $(VENV)/.installed-report  ## all experiments beside the paper's tables: metrics/report.md and metrics/report.html
	$(VENV)/bin/python -m stages.report

test: lint  ## lint, formatting, types and tests
	$(VENV)/bin/pytest -n auto --maxprocesses 4 --dist loadfile

torture: $(VENV)/.installed-dev  ## kill the stages at random moments, compare bytes; TORTURE="--rounds 100 --seed 7": how often, where to begin
	$(VENV)/bin/python -m tests.faults.torture $(TORTURE)

lint: $(VENV)/.installed-dev  ## lint, formatting and types alone
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(VENV)/.installed-bench  ## its speed beside Trainer, PEFT and generate; BENCH="--only a b --repeats 5": more of its options
	$(DVC) repro pair-extract
	$(VENV)/bin/python -m stages.bench $(BENCH)

# A stamp is written when the work is done, so a make that was stopped does it again and a second make does not.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ERROR make: PYTHON: found" \
	  "'$(PYTHON)', $$($(PYTHON) --version 2>&1 | head -n 1); name one of 3.11 or newer: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml constraints.txt
	$(VENV)/bin/python -m pip install -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-%: $(VENV)/.created pyproject.toml constraints.txt
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[$*]'
	@touch $@
