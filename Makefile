# SPDX-License-Identifier: Apache-2.0
# Every target depends on .venv, which is made from the lock file and updated when the lock file changes.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# One more than the number of processors, because the tests often wait for I/O.
WORKERS ?= $(shell expr 1 + $$(getconf _NPROCESSORS_ONLN))
# The tests' SQLite files are in memory if there is room for them, so that no commit waits for a disk.
TEST_FOLDER := $(or $(TMPDIR),$(shell df -Pm /dev/shm 2> /dev/null \
  | awk 'NR == 2 && $$4 > 2000 { print $$6 }'),/tmp)
# pip trusts the system's certificates; uv by default only its own. For proxies that inspect TLS, uv
# is told to use the system's certificates, if there are any, and a file that is configured for pip.
SYSTEM_CERTS := import os, ssl, sys; p = ssl.get_default_verify_paths(); \
  sys.exit(not (sys.platform == "darwin" or p.cafile or p.capath and os.listdir(p.capath)))
CERT_FILE := $(or $(SSL_CERT_FILE),$(PIP_CERT),$(REQUESTS_CA_BUNDLE))

# Without compiled files, each of the hundreds of processes that the tests start compiles for seconds.
unexport PYTHONDONTWRITEBYTECODE

UV_SYNC = if $(BIN)/python -c '$(SYSTEM_CERTS)'; then export UV_SYSTEM_CERTS=$${UV_SYSTEM_CERTS:-true}; fi; \
  $(if $(CERT_FILE),export SSL_CERT_FILE='$(CERT_FILE)';) \
  VIRTUAL_ENV= UV_PROJECT_ENVIRONMENT=$(abspath $(VENV)) $(BIN)/uv sync --quiet --locked --python $(BIN)/python

UI_TYPES := ui/generated/values.ts
WITH_NODE := export PATH="$$PATH:$(abspath $(BIN))"

.DEFAULT_GOAL := help
.PHONY: help setup demo picture test test-clients test-ui image site ui ui-dev check format soak chaos fuzz bench wheel schema lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(READY) ## make .venv from the lock file (all other targets depend on this)

$(READY): uv.lock pyproject.toml clients/python/pyproject.toml setup-requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "novitai needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making a virtual environment in $(VENV) ..."; $(PYTHON) -m venv $(VENV); } \
	  || { rm -rf $(VENV); echo "python3 cannot make a virtual environment: on Debian, apt install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/uv || { echo "Downloading uv ..."; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r setup-requirements.txt; }
	@echo "Downloading and installing the packages of uv.lock ..."
	@$(UV_SYNC)
	@touch $@

demo: setup ## show one instance from request to deletion (DEMO_FLAGS=--once exits afterwards)
	@$(BIN)/novitai demo $(DEMO_FLAGS)

test: setup ## run all tests (PYTEST_FLAGS=... is passed to pytest)
	@TMPDIR=$(TEST_FOLDER) $(BIN)/pytest -n $(WORKERS) --dist worksteal $(PYTEST_FLAGS)

test-clients: setup ## generate clients of the OpenAPI document with three generators, compile them and run them
	@command -v npm > /dev/null || { $(UV_SYNC) --group node; } || true
	@PATH="$$PATH:$(abspath $(BIN))" $(BIN)/pytest clients/tests

test-ui: setup ## drive the dashboard in Chromium against a live server, and build it again
	@$(BIN)/python -c 'import playwright' 2> /dev/null && command -v npm > /dev/null \
	  || { $(UV_SYNC) --group ui $$(command -v npm > /dev/null || echo --group node); } || true
	@$(BIN)/python -c 'import playwright' 2> /dev/null \
	  || { echo "skipped: playwright cannot be installed from PyPI"; test "$(TEST_REQUIRE_SERVICES)" != 1; exit; }; \
	  $(WITH_NODE); $(BIN)/pytest ui/tests $(PYTEST_FLAGS)

image: setup ## build deploy/Containerfile on a Debian made by mmdebstrap, start it and test it (as root; minutes)
	@$(BIN)/pytest --timeout 1200 deploy/tests $(PYTEST_FLAGS)

site: setup ## build the documentation as a site in build/site, and check it
	@test -x $(BIN)/zensical || { $(UV_SYNC) --group site $$(command -v npm > /dev/null || echo --group node); }
	@$(WITH_NODE); $(BIN)/python -m tools.docs_site && $(BIN)/pytest deploy/site/tests $(PYTEST_FLAGS)

ui: $(UI_TYPES) ## build the dashboard of ui/ into src/novitai/web/static/
	@cd ui && $(WITH_NODE) && npm run --silent check && npm run --silent build -- --logLevel warn

ui-dev: $(UI_TYPES) ## serve the dashboard from its sources, with the API at NOVITAI_URL
	@cd ui && $(WITH_NODE) && npm run --silent dev

# The packages, and the types of the API as the server's sources have it now.
.PHONY: $(UI_TYPES)
$(UI_TYPES): setup
	@command -v npm > /dev/null || { $(UV_SYNC) --group node; }
	@mkdir -p ui/generated
	@$(BIN)/python -m tools.openapi ui/generated/openapi.json > /dev/null
	@cd ui && $(WITH_NODE) && npm ci --no-audit --no-fund --ignore-scripts --silent && npm run --silent types

check: setup ## check lint, format, types, import rules and words to avoid
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m tools.words

format: setup ## format the sources and apply the linter's fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

SOAK ?= model load bench
SOAK_SECONDS ?= 7200

soak: setup ## long runs, hours in all: random steps of the lifecycle (SOAK=model), mixed load on each store (SOAK=load), a long table and memory (SOAK=bench)
ifneq ($(filter model,$(SOAK)),)
	@TEST_STALENESS_READS=100000 $(BIN)/pytest -s --timeout 3600 tests/lifecycle/queries/test_staleness.py
	@TEST_MODEL_EXAMPLES=500 TEST_MODEL_STEPS=100 $(BIN)/pytest -s tests/lifecycle/test_model.py
endif
ifneq ($(filter load,$(SOAK)),)
	@$(BIN)/python -m tests.chaos soak --seconds $(SOAK_SECONDS)
	@$(BIN)/python -m tests.chaos soak --seconds $(SOAK_SECONDS) --store postgresql
endif
ifneq ($(filter bench,$(SOAK)),)
	@$(BIN)/python -m benchmarks soak --json build/soak.json $(BENCH_FLAGS)
endif

CHAOS ?= model processes postgresql pgbouncer upgrade
# How many runs each part has.
CHAOS_MODEL_RUNS      ?= 10000
CHAOS_PROCESSES_RUNS  ?= 250
CHAOS_POSTGRESQL_RUNS ?= 250
CHAOS_PGBOUNCER_RUNS  ?= 60
CHAOS_UPGRADE_RUNS    ?= 60
CHAOS_FLAGS ?=

chaos: setup ## crash processes at every crash point and check what is promised (an hour); CHAOS=model does one part
	@export TMPDIR=$(TEST_FOLDER); $(foreach part,$(CHAOS),timeout --signal=INT 3600 $(BIN)/python -m tests.chaos $(part) \
	  --runs $(CHAOS_$(shell echo $(part) | tr a-z A-Z)_RUNS) $(CHAOS_FLAGS) &&) true

fuzz: setup ## send thousands of random requests to a running server (minutes)
	@FUZZ_EXAMPLES=500 $(BIN)/pytest -s tests/fuzz

bench: setup ## compare with yardsticks of the same minute (BENCH=reads for one group, BENCH_FLAGS=...)
	@$(BIN)/python -c 'import fastapi' 2> /dev/null || { $(UV_SYNC) --group bench; } > /dev/null 2>&1 || true
	@$(BIN)/python -m benchmarks $(BENCH) $(BENCH_FLAGS)

wheel: setup ## build the wheels of the server and of the Python client into dist/
	@$(BIN)/uv build --quiet --wheel --all-packages
	@ls dist/*.whl

schema: setup ## write the tables of a new SQLite file, after a migration was added
	@PYTHONHASHSEED=0 $(BIN)/python -m tools.schema

picture: setup ## draw docs/demo.svg from the output of the demo
	@$(BIN)/python -m tools.picture

lock: ## update the lock file within the limits of pyproject.toml
	@test -x $(BIN)/uv || $(MAKE) setup
	@$(BIN)/uv lock --upgrade
	@$(BIN)/uv export --quiet --only-group setup --no-emit-project --no-header -o setup-requirements.txt
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate clients/openapi-python-client/requirements.in -o clients/openapi-python-client/requirements.txt

clean: ## remove the files made by the targets
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist build \
	  clients/typescript/node_modules clients/typescript/generated clients/typescript/build \
	  ui/node_modules ui/generated
