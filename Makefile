# SPDX-License-Identifier: Apache-2.0
# Every target depends on .venv, which is made from the lock file and updated when the lock file changes.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# One more than the number of processors, because the tests often wait for I/O.
WORKERS ?= $(shell expr 1 + $$(getconf _NPROCESSORS_ONLN))
# pip trusts the system's certificates; uv by default only its own. For proxies that inspect TLS, uv
# is told to use the system's certificates, if there are any, and a file that is configured for pip.
SYSTEM_CERTS := import os, ssl, sys; p = ssl.get_default_verify_paths(); \
  sys.exit(not (sys.platform == "darwin" or p.cafile or p.capath and os.listdir(p.capath)))
CERT_FILE := $(or $(SSL_CERT_FILE),$(PIP_CERT),$(REQUESTS_CA_BUNDLE))

.DEFAULT_GOAL := help
.PHONY: help setup demo picture test check format soak fuzz bench wheel lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(READY) ## make .venv from the lock file (all other targets depend on this)

$(READY): uv.lock pyproject.toml setup-requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "novitai needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making a virtual environment in $(VENV) ..."; $(PYTHON) -m venv $(VENV); } \
	  || { rm -rf $(VENV); echo "python3 cannot make a virtual environment: on Debian, apt install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/uv || { echo "Downloading uv ..."; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r setup-requirements.txt; }
	@echo "Downloading and installing the packages of uv.lock ..."
	@if $(BIN)/python -c '$(SYSTEM_CERTS)'; then export UV_SYSTEM_CERTS=$${UV_SYSTEM_CERTS:-true}; fi; \
	  $(if $(CERT_FILE),export SSL_CERT_FILE='$(CERT_FILE)';) \
	  VIRTUAL_ENV= UV_PROJECT_ENVIRONMENT=$(abspath $(VENV)) $(BIN)/uv sync --quiet --locked --python $(BIN)/python
	@touch $@

demo: setup ## show one instance from request to deletion (DEMO_FLAGS=--once exits afterwards)
	@$(BIN)/novitai demo $(DEMO_FLAGS)

test: setup ## run all tests (PYTEST_FLAGS=... is passed to pytest)
	@$(BIN)/pytest -n $(WORKERS) --dist worksteal $(PYTEST_FLAGS)

check: setup ## check lint, format, types, import rules and words to avoid
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m tools.words

format: setup ## format the sources and apply the linter's fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

soak: setup ## test the lifecycle with 50,000 random steps (an hour)
	@TEST_MODEL_EXAMPLES=500 TEST_MODEL_STEPS=100 $(BIN)/pytest -s tests/lifecycle/test_model.py

fuzz: setup ## send thousands of random requests to a running server (minutes)
	@FUZZ_EXAMPLES=500 $(BIN)/pytest -s tests/fuzz

bench: setup ## run the benchmarks; each result is a ratio to a reference measured at the same time
	@$(BIN)/python -m benchmarks

wheel: setup ## build the wheel into dist/, for uv tool install or pipx install
	@$(BIN)/uv build --quiet --wheel
	@ls dist/*.whl

picture: setup ## draw docs/demo.svg from the output of the demo
	@$(BIN)/python -m tools.picture

lock: setup ## update the lock file within the limits of pyproject.toml
	@$(BIN)/uv lock --upgrade
	@$(BIN)/uv export --quiet --only-group setup --no-emit-project --no-header -o setup-requirements.txt

clean: ## remove the files made by the targets
	@rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist
