# Every target makes the environment it needs: .venv, from pyproject.toml and the pins of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
BENCH_INSTALLED := .venv/.bench-installed
SERVER := http://127.0.0.1:4200/api
OBJECTS ?=
PARTS ?=
# What Python compiles as it imports is kept even where the machine says otherwise: training imports four thousand
# modules, and a suite or a server starts dozens of processes.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test lint type bench serve clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

# uv honours UV_FIND_LINKS only; a machine whose pip has find-links (PIP_FIND_LINKS or pip.conf) keeps its wheels there.
install = links="$${PIP_FIND_LINKS:-$$($(BIN)/pip config get global.find-links 2>/dev/null || true)}"; \
	  if [ -n "$$links" ]; then export UV_FIND_LINKS="$$links"; fi; \
	  $(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q uv
	$(install) '.[dev]'
	touch $@

$(BENCH_INSTALLED): $(INSTALLED)
	$(install) '.[bench]'
	touch $@

demo: $(INSTALLED) ## the whole main job on a CPU: data, training, a video, its report (OBJECTS=folder of GLBs to use yours)
	$(BIN)/manivideo demo $(if $(OBJECTS),--objects "$(OBJECTS)")

# A file's tests stay in one process, which shares their fixtures, and files go out in order, the longest (flows)
# early. Threads of BLAS beside the processes would only spin.
test: $(INSTALLED) ## the tests, a process per core (up to four)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED) ## ruff (lint and format) and the import rule
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

type: $(INSTALLED) ## mypy on the packages
	$(BIN)/mypy -n auto

# OMP_NUM_THREADS: numba and Mesa bring threads of their own; BLAS' would spin beside them.
bench: $(BENCH_INSTALLED) ## speed and memory beside peers, into outputs/bench/ (PARTS="mlo_frames …" to run some)
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench $(PARTS)

serve: export DO_NOT_TRACK = 1
serve: export PREFECT_SERVER_ANALYTICS_ENABLED = false
serve: export PREFECT_API_URL = $(SERVER)
# The server has a session of its own (setsid), so that Ctrl-C stops the worker first, while it can still report.
serve: $(INSTALLED) ## a Prefect server with its pages on port 4200, every flow deployed, and a worker (stop with Ctrl-C)
	setsid $(BIN)/prefect server start & server=$$!; trap 'kill $$server 2>/dev/null' EXIT INT TERM; \
	  until $(BIN)/python -c "from urllib.request import urlopen; urlopen('$(SERVER)/health')" 2>/dev/null; do sleep 1; done; \
	  $(BIN)/prefect work-pool create local --type process --overwrite && \
	  $(BIN)/prefect --no-prompt deploy --all && \
	  $(BIN)/python -m flows.runs && \
	  $(BIN)/prefect worker start --pool local

clean: ## remove the environment, caches and outputs (records under data/ stay)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build outputs *.egg-info
