# make demo       from nothing to an answer from a group of pods
# make demo-down  remove everything that the demo made
# make test       everything that CI runs
# make chaos      an hour of faults in a group that serves (MINUTES=60 SEED=1 EVERY=60)

PYTHON ?= python3
# A new environment whenever the locked requirements change; the stamp comes last, so that one that
# was interrupted is made again.
STAMP := .venv/.made-$(shell cksum < requirements/dev.txt | cut -d ' ' -f 1)
BIN := .venv/bin
export PYTHONPATH := operator:.
export PYTHONUNBUFFERED := 1

.PHONY: demo demo-down test chaos down setup check unit generate format lock sbom audit

demo: setup
	@$(BIN)/python -m tests.kind.demo run

demo-down: setup
	@$(BIN)/python -m tests.kind.demo down

TEST_CLUSTER := $(or $(LLAMACLUSTER_TEST_CLUSTER),llamacluster-test)

# Cluster and images are steps of their own, because the first time they take long and show how far
# they are; in the tests' fixtures they are there already then.
test: check
	@echo "==> Cluster and images"
	@$(BIN)/python -m tests.kind up --renew --name $(TEST_CLUSTER)
	@$(BIN)/python -m tests.kind images --name $(TEST_CLUSTER)
	@echo "==> Tests: unit, engine, cluster, end to end"
	@$(BIN)/pytest -v --durations 15 \
	  tests/unit tests/model tests/engine tests/cluster tests/e2e tests/chaos

MINUTES ?= 60
SEED ?= 1
EVERY ?= 60

# On the tests' cluster, which it leaves as it was.
chaos: setup
	@LLAMACLUSTER_TEST_CLUSTER=$(TEST_CLUSTER) \
	  $(BIN)/python -m tests.chaos --minutes $(MINUTES) --seed $(SEED) --every $(EVERY)

# Remove the tests' cluster, which `make test` leaves for its next run.
down: setup
	@$(BIN)/python -m tests.kind down --name $(TEST_CLUSTER)

check: setup
	@echo "==> Format"
	@$(BIN)/ruff format --check .
	@echo "==> Lint"
	@$(BIN)/ruff check .
	@echo "==> Types"
	@$(BIN)/mypy
	@echo "==> Import layers"
	@$(BIN)/lint-imports --no-logo

unit: check
	@$(BIN)/pytest tests/unit

generate: setup
	@$(BIN)/python -m llamacluster.api.crd .
	@$(BIN)/python -m tests.chartreadme

format: setup
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# Needs pip-tools in the environment: pip install pip-tools
COMPILE = $(BIN)/pip-compile -q --generate-hashes --strip-extras --allow-unsafe --no-header \
  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host
lock: setup
	@$(BIN)/pip install --quiet pip-tools
	@$(COMPILE) -o requirements/operator.txt pyproject.toml
	@$(COMPILE) --extra dev -c requirements/operator.txt -o requirements/dev.txt pyproject.toml
	@$(COMPILE) -o requirements/audit.txt requirements/audit.in

# What the images are made of, as CycloneDX, and under which licences: into build/sbom.
sbom: setup
	@$(BIN)/python -m tests.supplychain sbom build/sbom

# Known vulnerabilities of the locked packages. Says so when it cannot be asked; never fails a build.
audit: setup
	@$(BIN)/python -m tests.supplychain audit

setup: $(STAMP)

$(STAMP): requirements/dev.txt
	@echo "==> Python environment: .venv"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && apt-get install -y -qq python3-venv; } \
	  || { echo "Python's venv module is missing: install python3-venv"; exit 1; }
	@rm -rf .venv && $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@
