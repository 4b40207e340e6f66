# The commands: `make near` (what a change can break, in a minute), `make test` (all of it, or one room: `make test
# ROOM=files`), `make test-all`, `make demo`, `make examples` and `make bench`. All build .venv first, from pyproject.toml and constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
DATA ?=
MINUTES ?= 7
ROOM ?=
PART ?=
NAME ?=
SMALL ?=
RESUME ?=

# Lint, types and layers side by side: each takes one core, and keeps a cache.
JOBS := $(MAKE) --no-print-directory --jobs=2 --output-sync=target

.PHONY: near test test-all checks lint types layers bytecode tests audit bom wheel matrix demo examples docs bench fuzz system clean

test: system .venv/installed
	@$(BIN)/python tests/timed.py $(MAKE) --no-print-directory checks tests

checks: .venv/installed
	@$(JOBS) types lint layers bytecode

# The tests that stand nearest to what changed since the last commit, for a minute.
near: .venv/installed
	@OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python tests/near.py

# And the tests with the mark `whole`: whole matrices, benches, the notebook; and known vulnerabilities of the versions
# that dependencies may have, where the advisory service can be reached; the list of packages; and the wheel in an
# environment of its own. Then
# each network in every way that it is advertised, and each explanation of it: two hours more, on one core. The pages
# docs/*-matrix.md are their outcome.
test-all: export CHOICE :=
test-all: test audit bom wheel matrix

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("hilum needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	@echo "installing into .venv" >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' >&2
	@touch .venv/installed

# Real peers for the tests. Without root they are named, and the tests that need them are skipped with the reason.
system:
	@sh tests/system_packages.sh

lint: .venv/installed
	@$(BIN)/ruff check src tests bench data
	@$(BIN)/ruff format --check src tests bench data

types: .venv/installed
	@$(BIN)/mypy

layers: .venv/installed
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

# Files of tests side by side, one core each: threads of two that wait for each other would slow both. The order is that
# of tests/conftest.py: rooms that take longest first, so that no core waits at the end. Bytecode is kept, whatever the
# environment says: else each of the hundreds of processes that tests start compiles the whole source anew.
CHOICE ?= -m "not whole"
tests: .venv/installed
	@PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/pytest $(CHOICE) --numprocesses auto --maxprocesses 4 \
		--dist loadfile --no-loadscope-reorder $(if $(ROOM),tests/$(ROOM))

# Beside the types, which take one core: else each worker of the tests compiles all of their files, and those of src.
bytecode: .venv/installed
	@collected=$$(PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/pytest $(CHOICE) --collect-only -qq \
		$(if $(ROOM),tests/$(ROOM))) || { echo "$$collected" >&2; exit 1; }

audit: .venv/installed
	@$(BIN)/python tests/audit_dependencies.py

# The installed packages as CycloneDX, which `document` reads as `software/bom.json` of a subject's folder.
bom: .venv/installed
	@$(BIN)/python -m cyclonedx_py environment --pyproject pyproject.toml --output-reproducible --of JSON --output-file bom.json $(BIN)/python

# The wheel without the checkout, in a fresh environment: its dependencies are downloaded, doctor looks at the machine,
# and the demo trains there.
wheel: .venv/installed
	@$(BIN)/python tests/wheel.py

matrix: .venv/installed
	@OMP_NUM_THREADS=1 $(BIN)/python bench/networks_matrix.py $(NAME) $(if $(RESUME),--resume)
	@OMP_NUM_THREADS=1 $(BIN)/python bench/explanations_matrix.py $(NAME)

demo: .venv/installed
	@$(BIN)/hilum demo $(DATA) --minutes $(MINUTES) --out demo --overwrite

# A run of each kind of problem and a trial, whose reports stay in examples/, or one of them: make examples NAME=survival.
examples: MINUTES = 2
examples: .venv/installed
	@$(if $(filter-out trial,$(NAME)),,$(BIN)/python bench/trial.py)
	@$(if $(filter trial,$(NAME)),,$(BIN)/python bench/examples.py $(NAME) --minutes $(MINUTES))

# All comparisons, or one: make bench PART=reading. A trial that measures nothing: make bench SMALL=1.
bench: .venv/installed
	@$(BIN)/python bench/all.py $(PART) $(if $(SMALL),--small) $(if $(RESUME),--resume)

# Damaged image files by number, through all readers: make fuzz, or make fuzz FILES=2000 RESUME=1.
fuzz: FILES = 20000
fuzz: .venv/installed
	@OMP_NUM_THREADS=1 $(BIN)/python bench/fuzz.py --files $(FILES) $(if $(RESUME),--resume)

docs: .venv/installed
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --editable '.[docs]' >&2
	@$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv demo examples families medmnist site
