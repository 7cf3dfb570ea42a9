# Everything runs from nothing but Python (3.11 or newer), make and a package index.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
INBOX  ?= examples/quickstart/inbox

.PHONY: help demo test lint types check bench contention conformance mcp-conformance mutate redteam simulate fuzz kills opa lock clean
help: ## what can be made here
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/.run: requirements/run.txt requirements/opa.txt pyproject.toml
	@echo "==> making $(VENV) (runtime, pinned by hash)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --ignore-requires-python -r requirements/opa.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt requirements/litestream.txt
	@echo "==> adding the test and lint tools"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt -r requirements/litestream.txt
	@touch $@

$(BIN)/opa: scripts/opa.py | $(VENV)/.run
	@$(BIN)/python scripts/opa.py $@
	@touch $@

opa: $(BIN)/opa ## the pinned OPA program, built once per version and kept in the user's cache

demo: $(VENV)/.run ## run the quickstart on real parts (INBOX=DIR for a folder of your own)
	@$(BIN)/python examples/quickstart/demo.py --inbox "$(INBOX)"

test: $(VENV)/.dev $(BIN)/opa ## every test: unit, integration (real servers), end to end
	@$(BIN)/python -m pytest

lint: $(VENV)/.dev ## ruff and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(VENV)/.dev ## mypy, strict
	@$(BIN)/mypy

check: lint types test ## what CI runs

bench: $(VENV)/.dev ## measure against floors of the same run; writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks

contention: $(VENV)/.run ## 200 agents, 3 tenants, 2 endpoints, three schedulers; writes docs/contention.md and .svg
	@$(BIN)/python -m benchmarks.contention

conformance: $(VENV)/.dev ## public suites (YAML, JSON, OPA's own cases) against what we ship: make conformance CASES=DIR
	@test -d "$(CASES)" || { echo "say where the suites are: make conformance CASES=DIR"; exit 64; }
	@if test -f "$(CASES)/cases.jsonl"; then $(BIN)/python tests/conformance/opa.py "$(CASES)"; \
	else $(BIN)/python tests/conformance/yaml_json.py "$(CASES)"; fi

mcp-conformance: $(VENV)/.dev $(BIN)/opa ## the MCP gateway before the protocol's inspector and conformance suite (needs npm)
	@$(BIN)/python tests/conformance/mcp_gateway.py

mutate: $(VENV)/.dev ## remove guards and rules of the shipped policies one at a time: do their tests notice?
	@$(BIN)/python tests/mutation/policies.py

redteam: $(VENV)/.dev $(BIN)/opa ## hostile corpora end to end, and again with guards removed one at a time; writes docs/redteam.md
	@$(BIN)/python tests/redteam --report docs/redteam.md

SEEDS ?= 1000..+300
simulate: $(VENV)/.dev ## the whole runtime in a simulated world, crashes and all: make simulate SEEDS=1000..+300
	@$(BIN)/python tests/simulation $(SEEDS)

FUZZ ?=
fuzz: $(VENV)/.dev ## guided fuzzing of frames, manifests, events, archives: make fuzz FUZZ="frames.serve --cases 100000 --seed 7"
	@$(BIN)/python tests/fuzz $(FUZZ)

KILLS ?= 50
kills: $(VENV)/.dev $(BIN)/opa ## kill -9 of server, runtime and both in turn during a load: make kills KILLS=50
	@$(BIN)/python tests/e2e/e2e_kills.py $(KILLS)

lock: ## pin all dependencies again (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 pyproject.toml requirements/build.in requirements/demo.in -o requirements/run.txt
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 -c requirements/run.txt requirements/dev.in -o requirements/dev.txt
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 requirements/bench.in -o requirements/bench.txt
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 -c requirements/run.txt requirements/framework.in -o requirements/framework.txt

clean: ## remove the environment and local state
	rm -rf $(VENV) .agentos build dist
