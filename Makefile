# `make repro` runs the pipeline, `make test` the tests. Both first make an environment (.venv).
# Without make, in your own environment: pip install -c constraints.txt -e . && dvc repro

PYTHON ?= python3
VENV := .venv
DVC := $(VENV)/bin/dvc

# dvc.yaml calls `python`: this makes it the environment's.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Old and new versions of pip read the build tools' versions from different variables.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help repro grid report test tests torture lint bench

help:  ## print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

# A DVC that was killed leaves .dvc/tmp/rwlock behind. The next one refuses to start if it cannot read that file, or if
# a process has the number in it, as in a container, where DVC is always number 1. And DVC has no words for what is wrong
# in params.yaml, and removes outputs before a stage finds it.
define BEFORE
import os, pathlib, psutil, sys
from stages.params.schema import StageError, load_params
lock, here = pathlib.Path(".dvc/tmp/rwlock"), os.getcwd()
found = [each.info for each in psutil.process_iter(["cmdline", "cwd"])]
runs = [each for each in found if each["cwd"] == here and "dvc" in map(os.path.basename, (each["cmdline"] or [])[:3])]
if not runs and lock.exists() and lock.read_text(errors="replace") != "{}":
    lock.unlink()
    print(f"{lock}: left by a DVC that was killed; removed")
try:
    load_params()
except StageError as error:
    sys.exit(f"ERROR make: {error}")
endef
export BEFORE

repro: $(VENV)/.installed  ## run the pipeline with the parameters of params.yaml, then print the scores
	@$(VENV)/bin/python -c "$$BEFORE"
	$(DVC) repro
	$(DVC) metrics show

grid: $(VENV)/.installed  ## run the paper's grid of experiments; more options: GRID="--seeds 0 1"
	$(VENV)/bin/python -m stages.grid -S dataset=dailydialog -S protocol=paper $(GRID)

report: $(VENV)/.installed-report  ## compare all experiments with the paper's tables: metrics/report.md and metrics/report.html
	$(VENV)/bin/python -m stages.report --publish

test: $(VENV)/.installed-dev  ## run lint, type checks and the tests
	@$(MAKE) --no-print-directory --jobs=2 lint tests

tests: $(VENV)/.installed-dev
	$(VENV)/bin/pytest -n auto --maxprocesses 4 --dist loadfile

torture: $(VENV)/.installed-dev  ## kill the stages at random moments and compare bytes; more options: TORTURE="--rounds 100 --seed 7"
	$(VENV)/bin/python -m tests.faults.torture $(TORTURE)

lint: $(VENV)/.installed-dev  ## check style, formatting and types only
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(VENV)/.installed  ## compare the speed with Trainer, PEFT and generate; more options: BENCH="--only training --repeats 5"
	$(DVC) repro pair-extract
	$(VENV)/bin/python -m stages.bench $(BENCH)

# Each step writes its stamp at the end: a make that was stopped repeats the step, a second make does not.
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
