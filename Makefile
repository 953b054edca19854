# make demo       from nothing to an answer from a group of pods
# make demo-down  remove everything that the demo made
# make test       everything that CI runs
# make docs       the documentation as a site, into build/docs
# make dashboards the dashboards as pictures, of a group that is scaled by its load and struck
# make chaos      an hour of faults in a group that serves (MINUTES=60 SEED=1 EVERY=60)

PYTHON ?= python3
# What runs and clones of this user share: the Python environment, one for each state of the locked
# requirements and each Python, and what mypy found out.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/llamacluster
KEY := $(shell { cat requirements/dev.txt; $(PYTHON) -c 'import sys; print(sys.version, sys.base_prefix)'; } \
  2>/dev/null | cksum | cut -d ' ' -f 1)
VENV := $(CACHE)/venv/$(KEY)
BIN := .venv/bin
export PYTHONPATH := operator:.
export PYTHONUNBUFFERED := 1
export MYPY_CACHE_DIR := $(CACHE)/mypy

.PHONY: demo demo-down test chaos dashboards down setup check docs unit generate format lock sbom audit

demo: setup
	@$(BIN)/python -m tests.kind.demo run

demo-down: setup
	@$(BIN)/python -m tests.kind.demo down

TEST_CLUSTER := $(or $(LLAMACLUSTER_TEST_CLUSTER),llamacluster-test)

# Cluster and images are steps of their own, because the first time they take long and show how far
# they are; in the tests' fixtures they are there already then.
test: check audit docs
	@echo "==> Cluster and images"
	@$(BIN)/python -m tests.kind up --renew --name $(TEST_CLUSTER)
	@$(BIN)/python -m tests.kind images --name $(TEST_CLUSTER)
	@echo "==> Tests in which nothing waits: all at once"
	@$(BIN)/pytest -v -n auto --durations 10 -m "beside or not engine" \
	  tests/unit tests/model tests/engine
	@echo "==> Tests of groups, cluster and whole: one at a time, or they miss their time"
	@$(BIN)/pytest -v --durations 40 -m "not beside" \
	  tests/engine tests/cluster tests/e2e tests/chaos

MINUTES ?= 60
SEED ?= 1
EVERY ?= 60

# On the tests' cluster, which it leaves as it was.
chaos: setup
	@LLAMACLUSTER_TEST_CLUSTER=$(TEST_CLUSTER) \
	  $(BIN)/python -m tests.chaos --minutes $(MINUTES) --seed $(SEED) --every $(EVERY) \
	  $(if $(ENCRYPTED),--encrypted)

# With Prometheus and prometheus-adapter in the tests' cluster, which are removed again.
dashboards: setup
	@LLAMACLUSTER_TEST_CLUSTER=$(TEST_CLUSTER) $(BIN)/python -m tests.monitoring

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

# In an environment of its own, which is made once (2 s of CPU afterwards).
docs: setup
	@echo "==> Documentation"
	@$(BIN)/python -m tests.site build/docs

unit: check
	@$(BIN)/pytest -n auto tests/unit

generate: setup
	@$(BIN)/python -m llamacluster.api.crd .
	@$(BIN)/python -m llamacluster.cli.reference .
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
	@$(COMPILE) -o requirements/docs.txt requirements/docs.in
	@$(COMPILE) -o requirements/dashboards.txt requirements/dashboards.in

# What the images are made of, as CycloneDX, and under which licences: into build/sbom.
sbom: setup
	@$(BIN)/python -m tests.supplychain sbom build/sbom

# Known vulnerabilities of the locked packages. Says so when it cannot be asked; never fails a build.
audit: setup
	@$(BIN)/python -m tests.supplychain audit

setup: $(VENV)
	@[ "$$(readlink .venv)" = $(VENV) ] || { rm -rf .venv && ln -s $(VENV) .venv; }

# Made in a folder of its own, to which the environment's name leads in the end: who is interrupted,
# or at work beside another, leaves nothing half-made under that name.
$(VENV):
	@echo "==> Python environment: $@"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && apt-get install -y -qq python3-venv; } \
	  || { echo "Python's venv module is missing: install python3-venv"; exit 1; }
	@mkdir -p $(@D) && made=$$(mktemp -d $@-XXXXXX) && trap 'rm -rf $$made' EXIT INT TERM \
	  && $(PYTHON) -m venv $$made \
	  && $$made/bin/pip install --quiet --disable-pip-version-check --require-hashes \
	       -r requirements/dev.txt \
	  && ln -sfn $$made $@ && trap - EXIT
