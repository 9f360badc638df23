# Commands to try, test and develop OCPS; `make help` lists them.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
# How many processes run tests side by side; modules of tests are spread over them.
WORKERS ?= 4
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help venv demo demo-csc test test-loaded faults soak screenshots lint format services clean

help:  ## Show this.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */make \1\t/' | expand -t 18

venv: $(VENV)/.ready  ## Make .venv with everything that is needed, byte-compiled.

$(VENV)/.ready: requirements.txt requirements-local.txt setup.cfg demo/setup.cfg $(shell find middleware -name '*.py' -o -name '*.cfg' -o -name '*.idl' -o -name '*.yaml')
	@test -n "$(PYTHON)" || { echo "make: OCPS needs Python 3.11 or newer, and none was found"; exit 1; }
	@bin/make_venv.sh "$(PYTHON)" "$(VENV)"
	@touch $@

demo: venv  ## Watch an observing script command real pipelines over SAL.
	@$(BIN)/python demo/observe.py

demo-csc: venv  ## Run an OCPS with DemoCam's data, to try scripts with.
	@$(BIN)/python demo/stay.py

test: venv  ## Run all tests; with REQUIRE_SERVICES=1 a missing service is a failure.
	@# Else, where PYTHONDONTWRITEBYTECODE is set, each of the many processes under test would compile all of OCPS.
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m compileall -q python demo/python
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder $(PYTEST_ARGS)

test-loaded: venv  ## Run all tests while another process keeps one core busy.
	@$(BIN)/python -c 'while True: pass' & busy=$$!; trap "kill $$busy" EXIT; trap 'exit 130' INT TERM; $(MAKE) test

faults: venv  ## Inject faults into a working OCPS: [SECONDS=60] [SEED=…].
	$(BIN)/python -m faults $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

soak: venv  ## Work OCPS for long, and see whether its costs stay flat: [MINUTES=].
	$(BIN)/python -m soak --picture build/soak.svg $(if $(MINUTES),--minutes $(MINUTES))

screenshots: venv  ## Take the pictures of the dashboard in doc/pictures; needs Chromium (make services).
	@$(BIN)/python -m tests.dashboard.screenshots

lint: venv  ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv  ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

services:  ## Install the system services that tests use (Debian, Ubuntu; as root).
	@bin/install_services.sh

clean:  ## Remove the files that these commands created.
	rm -rf $(VENV) .demo build .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find . -name '*.egg-info' -type d -prune -exec rm -rf {} +
