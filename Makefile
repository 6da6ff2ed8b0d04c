# Works on a machine that has CPython >= 3.11, make and a way to a package index.
# `make` says what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.made
LOCK := requirements/dev.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

# What has Python files in it and is checked beside flowrt/ itself.
BESIDE := $(sort $(foreach d,bench examples tests,$(if $(shell find $(d) -name '*.py' 2>/dev/null | head -1),$(d))))
ARGS ?=

say = printf '\033[1m%s\033[0m\n' "$(1)"

.PHONY: help
help: ## this list
	@printf 'flowrt: make <target> [ARGS="..."] [PYTHON=python3.x]\n\n'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) \
		| while IFS='|' read -r name text; do printf '%-16s %s\n' "$$name" "$$text"; done

# ------------------------------------------------------------------------------- environment

.PHONY: venv
venv: $(STAMP) ## make .venv (anew when pyproject.toml or requirements/ changed)

# One shell finds a Python that is new enough and can make environments, or says what is missing.
define find_python
found=; \
for p in $(if $(PYTHON),"$(PYTHON)",python3 python3.14 python3.13 python3.12 python3.11 python); do \
	if command -v "$$p" >/dev/null 2>&1 \
		&& "$$p" -c 'import sys; sys.exit(sys.implementation.name != "cpython" or sys.version_info < (3, 11))' 2>/dev/null; \
	then found=$$p; break; fi; \
done; \
if [ -z "$$found" ]; then \
	echo 'flowrt needs CPython 3.11 or newer$(if $(PYTHON), and PYTHON=$(PYTHON) is not one,, and none was found; say which with PYTHON=/path/to/python).' >&2; \
	exit 1; \
fi; \
if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	echo "$$found cannot make environments: install its venv module (on Debian and Ubuntu: python3-venv)." >&2; \
	exit 1; \
fi
endef

# Everything at the exact version in the lock file, the build backend too, then flowrt in place.
$(STAMP): pyproject.toml $(LOCK)
	@$(find_python); \
	$(call say,making $(VENV) with $$("$$found" -V)); \
	if ! { [ -x $(BIN)/python ] && $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; } \
		|| [ -n "$(PYTHON)" ]; then "$$found" -m venv --clear $(VENV); fi; \
	$(BIN)/python -m pip install --quiet --constraint $(LOCK) hatchling editables; \
	$(BIN)/python -m pip install --quiet --constraint $(LOCK) --no-build-isolation --editable '.[dev]'; \
	$(BIN)/python -m pip check --quiet; \
	touch $@

.PHONY: lock
lock: ## write requirements/dev.txt anew with the newest versions
	@$(find_python); \
	fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	"$$found" -m venv "$$fresh"; \
	"$$fresh/bin/python" -m pip install --quiet --editable '.[dev]'; \
	{ echo '# Exact versions of everything in .venv. Written by `make lock`; used as constraints.'; \
	  "$$fresh/bin/python" -m pip freeze --exclude-editable; } > $(LOCK); \
	$(call say,wrote $(LOCK); now run make test check)

# ------------------------------------------------------------------------------------- use it

.PHONY: demo
demo: $(STAMP) ## a flow over real flight data; stop it and run it again: it goes on where it was
	@trap : INT; \
	$(BIN)/flowrt run examples.flights:flow --checkpoints .demo/checkpoints --param rate=4000 $(ARGS); \
	$(BIN)/python -m examples.flights .demo/figures

.PHONY: demo-clean
demo-clean: ## forget what the demo has read and written
	@rm -rf .demo

.PHONY: flights-year
flights-year: $(STAMP) ## examples/data/flights-2013.csv.gz: the whole year instead of January
	@$(BIN)/python examples/data/make_data.py --year $(ARGS)

# ------------------------------------------------------------------------------------ hold it

.PHONY: test
test: $(STAMP) ## every test
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: check
check: lint types layers spelling docs ## everything but the tests: lint, format, types, layers, spelling, docs

.PHONY: lint
lint: $(STAMP)
	@$(call say,lint and format)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo 'not formatted: run make format' >&2; exit 1; }

.PHONY: format
format: $(STAMP) ## write the code in the one format, and mend what lint can mend
	@$(BIN)/ruff check --quiet --fix . || true
	@$(BIN)/ruff format --quiet .

.PHONY: types
types: $(STAMP)
	@$(call say,types)
	@$(BIN)/mypy --no-error-summary flowrt $(BESIDE)

.PHONY: layers
layers: $(STAMP)
	@$(call say,layers)
	@out=$$($(BIN)/lint-imports --no-cache 2>&1) || { echo "$$out" >&2; exit 1; }
	@$(BIN)/python -m pytest -q --no-header tests/test_layering.py tests/test_kernel_is_pure.py tests/test_public_names.py

.PHONY: spelling
spelling: $(STAMP)
	@$(call say,spelling)
	@$(BIN)/codespell flowrt operators tests examples docs $(wildcard bench) *.md

.PHONY: docs
docs: $(STAMP) ## build the docs into site/; a broken link is an error
	@$(call say,docs)
	@$(BIN)/mkdocs build --quiet --strict

.PHONY: crash
crash: KILLS ?= 1000
crash: SEED ?= $(shell date +%s)
crash: $(STAMP) ## kill jobs at random and at every named point and restore them (KILLS=1000 SEED=...)
	@HYPOTHESIS_PROFILE=crash FLOWRT_CRASH_KILLS=$(KILLS) FLOWRT_CRASH_SEED=$(SEED) \
		$(BIN)/python -m pytest -m crash --timeout 600 $(ARGS)

.PHONY: simulate
simulate: SEEDS ?= 2000
simulate: FIRST ?= $(shell date +%s)
simulate: SEED ?=
simulate: $(STAMP) ## whole jobs on a simulated world (SEEDS=2000 FIRST=...; SEED=... repeats one with its trace)
	@FLOWRT_SIMULATE_SEEDS=$(SEEDS) FLOWRT_SIMULATE_FIRST=$(FIRST) FLOWRT_SIMULATE_SEED=$(SEED) \
		$(BIN)/python -m pytest tests/simulate -m simulate $(if $(SEED),-s) $(ARGS)

.PHONY: soak
soak: SECONDS ?= 180
soak: $(STAMP) ## jobs that run for minutes: memory stays flat, nothing is lost (SECONDS=180)
	@FLOWRT_SOAK_SECONDS=$(SECONDS) $(BIN)/python -m pytest tests/soak -m soak $(ARGS)

.PHONY: bench
bench: $(STAMP) ## the questions in bench/ and their answers beside the budgets
	@$(BIN)/python -m bench $(ARGS)

.PHONY: coverage
coverage: $(STAMP) ## lines and branches of the kernel that the tests run
	@$(BIN)/python -m pytest -q --cov --cov-report=term --cov-report=html $(ARGS)

.PHONY: clean
clean: ## remove the environment, caches and build results
	@rm -rf $(VENV) build dist site htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache \
		.ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
