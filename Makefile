# Two commands matter to a newcomer: `make up` and `make test`. CONTRIBUTING.md explains the rest.
PY ?= python3
SEED ?= 20261122
WORKERS ?= 2
IN_VENV = $(PY) scripts/bootstrap.py run
IN_DEV_VENV = $(PY) scripts/bootstrap.py run --dev
IN_BENCH_VENV = $(PY) scripts/bootstrap.py run --bench

.PHONY: up down test kit openapi check lint bench lock

up: ## start this HQ and run a first workflow
	@$(IN_VENV) rawr up --run repo-briefing

down: ## stop this HQ
	@$(IN_VENV) rawr down

test: ## the whole test suite
	@$(IN_DEV_VENV) pytest -q -n $(WORKERS) -p randomly -p xdist --randomly-seed=$(SEED) $(ARGS)

kit: ## the real @orpc/client, a stock OpenAPI generator and the Inngest SDK for TypeScript, pinned, for tests with them
	@npm ci --prefix tests/host/orpc_kit --ignore-scripts --no-audit --no-fund
	@npm ci --prefix tests/host/openapi_kit --ignore-scripts --no-audit --no-fund
	@npm ci --prefix tests/engine_server/ts_kit --ignore-scripts --no-audit --no-fund

openapi: ## write docs/openapi from the contract
	@$(IN_DEV_VENV) python scripts/openapi.py

lint: ## style and format
	@$(IN_DEV_VENV) ruff check .
	@$(IN_DEV_VENV) ruff format --check .

check: lint ## lint, types and import contracts
	@$(IN_DEV_VENV) mypy
	@$(IN_DEV_VENV) lint-imports --config importlinter.toml

bench: ## the README's performance claims, as ratios
	@$(IN_BENCH_VENV) python -m bench

lock: ## compile requirements/*.txt from pyproject.toml
	@$(PY) scripts/lock.py $(ARGS)
