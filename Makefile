# Everything here works on a fresh machine that has Python 3.11+ and pip. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo test faults torture conformance lint format tree typecheck pytest bench speed recall clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

install: $(STAMP)  ## create .venv and install agentmem with its development tools

# Run again only when what is installed would change.
$(STAMP): pyproject.toml constraints-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "agentmem needs Python 3.11 or newer; say which with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing agentmem into $(VENV) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints-dev.txt -e '.[dev]'
	@touch $@

# As the command line does: idle threads that spin for long slow everything down when the machine has other work.
demo: export GOMP_SPINCOUNT := 10000
demo: $(STAMP)  ## six days, six processes: an assistant that answers on the last from what it heard on the first
	@$(BIN)/python examples/multi_day_assistant.py

test: lint typecheck pytest  ## lint, types, floors, and every test (8 minutes on 2 cores)

lint: $(STAMP)  ## ruff, and the floors between the packages
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache

format: $(STAMP)  ## let ruff fix and format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

tree: $(STAMP)  ## write the README's tree of files anew
	@$(BIN)/python tests/support/readme_tree.py --write

typecheck: $(STAMP)  ## mypy --strict
	@$(BIN)/mypy

# glibc gives each large tensor fresh zeroed pages unless told to keep what it freed; thousands of tiny models
# notice. Elsewhere these variables mean nothing.
pytest: export MALLOC_MMAP_THRESHOLD_ := 4294967296
pytest: export MALLOC_TRIM_THRESHOLD_ := 17179869184
# Without the model its tests are skipped with a reason, and fail where CI=true.
pytest: $(STAMP)  ## the tests alone
	@$(BIN)/agentmem models pull smollm2-135m </dev/null || echo "no smollm2-135m: its tests are not run"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile </dev/null

# Without root one gate is skipped with the reason; without a C compiler all are, and that fails where CI=true.
faults torture: export MALLOC_MMAP_THRESHOLD_ := 4294967296
faults torture: export MALLOC_TRIM_THRESHOLD_ := 17179869184
faults: $(STAMP)  ## kills, full disks, failing calls and power cuts: the gates of docs/RELIABILITY.md (8 minutes on 2 cores)
	@PYTHONPATH=tests $(BIN)/python -m faults </dev/null

torture: $(STAMP)  ## the same, many times over; writes the table of docs/RELIABILITY.md (hours)
	@PYTHONPATH=tests $(BIN)/python -m faults --long --page docs/RELIABILITY.md </dev/null

# Without the models the suite is skipped with a reason, and fails where CI=true.
conformance: export MALLOC_MMAP_THRESHOLD_ := 4294967296
conformance: export MALLOC_TRIM_THRESHOLD_ := 17179869184
conformance: $(STAMP)  ## LangChain's standard tests on real models (20 minutes on 2 cores)
	@for model in smollm2-135m qwen2.5-coder-0.5b; do \
	  $(BIN)/agentmem models pull $$model </dev/null || echo "no $$model: what needs it is not run"; \
	done
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=10 tests/conformance </dev/null

bench: $(STAMP)  ## the figures of docs/LOG.md (long)
	@$(BIN)/python -m benchmarks.core

speed: $(STAMP)  ## reading, replying, resuming beside transformers, each promise judged (20 minutes on 2 quiet cores)
	@$(BIN)/agentmem models pull qwen2.5-coder-0.5b </dev/null
	@$(BIN)/python -m benchmarks.speed --minutes 20

# Cells that are finished stay finished: the same command goes on where it stopped. Everything that is promised, with
# intervals narrow enough to judge it, takes a GPU: python -m benchmarks.recall long
recall: export GOMP_SPINCOUNT := 10000
recall: $(STAMP)  ## what is recalled, beside full attention and InfLLM: a first look (half an hour on 2 cores)
	@$(BIN)/agentmem models pull qwen2.5-coder-0.5b </dev/null
	@$(BIN)/python -m benchmarks.recall headline --minutes 25

clean:  ## remove .venv and every cache
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
