# make up     everything on this machine: servers, central stack, projects, a lease for each
# make test   all tests;  make lint: style and types
PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/.installed

.PHONY: setup up preview down reset test lint bench docs format lock

$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

setup: $(STAMP)

up: $(STAMP)
	@./dataplane up

preview: $(STAMP)
	@./dataplane preview

down: $(STAMP)
	@./dataplane servers stop

reset: $(STAMP)
	@./dataplane servers reset

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	./dataplane schema --check
	./dataplane catalogue --check
	$(BIN)/python docs/draw.py --check

# What things cost, as ratios measured side by side in one run (bench/README.md). SCALE=--help: less, or more, of it.
bench: $(STAMP)
	$(BIN)/python bench/policies.py
	$(BIN)/python -m bench.scale $(SCALE)

# The pictures in docs/architecture.md, from what the program declares.
docs: $(STAMP)
	$(BIN)/python docs/draw.py

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Pins every dependency by hash; `uv` has to be on PATH.
lock:
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-header --quiet --output-file requirements.txt
