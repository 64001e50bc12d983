# make up     everything on this machine: servers, central stack, projects, a lease for each
# make install   puts `dataplane` on PATH, in $(PREFIX)/bin; make uninstall takes it away
# make check  style, types and the tests that need no server;  make test: all tests. Both install what only they need.
PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/.installed
DEV    := .venv/.installed-dev

# What the shell has for Python says nothing of what is imported here; nor keeps it what is imported from being compiled
# once: images of Python set that variable, and every process would compile all of it again.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONDONTWRITEBYTECODE

.PHONY: setup setup-dev install uninstall engine up preview down reset test check lint bench docs format lock

# Byte code is written at the first import: most of what is installed is never imported.
define install
	@echo "Installing what $< pins into .venv, once."
	@set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --no-compile --progress-bar off \
	    --require-hashes -r $< | awk -v all="$$(grep -c '^[a-z].*==' $<)" \
	    '/^(Collecting|Requirement already)/ { printf "\r\033[K%d of %d  %s", ++n, all, $$2; fflush() } \
	     /^Installing/ { printf "\r\033[Kunpacking"; fflush() } END { printf "\r\033[K" }' || \
	    { echo "The packages are not installed. pip needs an index that has them, this once: see PIP_INDEX_URL," \
	        "or PIP_NO_INDEX=1 with PIP_FIND_LINKS, a folder of wheels." >&2; exit 1; }
	@touch $@
endef

$(STAMP) $(DEV): SHELL := bash

$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	@$(PYTHON) -m venv .venv
	$(install)

$(DEV): requirements-dev.txt $(STAMP)
	$(install)

setup: $(STAMP)

setup-dev: $(DEV)

# A program that calls this checkout's: in any folder, with this checkout's Python and stacks.
PREFIX  ?= $(HOME)/.local
COMMAND := $(PREFIX)/bin/dataplane

install: $(STAMP)
	@if [ -e "$(COMMAND)" ] && ! grep -q '^# Written by `make install` of the data plane' "$(COMMAND)"; then \
	    echo "$(COMMAND) is something else: remove it, or set PREFIX" >&2; exit 1; fi
	@mkdir -p "$(PREFIX)/bin"
	@printf '%s\n' '#!/bin/sh' '# Written by `make install` of the data plane.' "exec '$(CURDIR)/dataplane' \"\$$@\"" > "$(COMMAND)"
	@chmod 755 "$(COMMAND)"
	@echo "$(COMMAND) calls $(CURDIR)/dataplane"
	@case ":$$PATH:" in *":$(PREFIX)/bin:"*) ;; *) echo "$(PREFIX)/bin is not on PATH: add it, or set PREFIX" ;; esac

uninstall:
	@if [ -e "$(COMMAND)" ] && grep -q '^# Written by `make install` of the data plane' "$(COMMAND)"; then rm "$(COMMAND)"; fi

# The real Pulumi CLI, built from source where the official one is not to be had; from then on `make up` uses it.
engine: $(STAMP)
	@$(BIN)/python -m data_plane.engine.cli

up: $(STAMP)
	@./dataplane up

preview: $(STAMP)
	@./dataplane preview

down: $(STAMP)
	@./dataplane local stop

reset: $(STAMP)
	@./dataplane local reset

# WORKERS: processes that take a module at a time; they mostly wait for servers, and each may have some 600 MB of them.
WORKERS ?= 3
XDIST    = --numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder

test: $(DEV)
	$(BIN)/python -m pytest $(XDIST)

# While working: what needs no server, and style and types.
check: lint $(DEV)
	$(BIN)/python -m pytest $(XDIST) tests/unit tests/policy

lint: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/deptry .
	./dataplane project schema --check
	./dataplane catalog --check
	$(BIN)/python -m docs.generate --check

# What things cost, as ratios measured side by side in one run (bench/README.md). SCALE=--help: less, or more, of it.
bench: $(DEV)
	$(BIN)/python bench/policies.py
	$(BIN)/python -m bench.scale $(SCALE)
	$(BIN)/python -m bench.scale.logins

# The generated parts of the pages in docs/.
docs: $(DEV)
	$(BIN)/python -m docs.generate

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Pins every dependency by hash: of the program and its local servers, and of these with every tool.
LOCK = $(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --no-header --quiet
lock: $(DEV)
	$(LOCK) --extra program --extra policies --extra migrations --extra local --output-file requirements.txt
	$(LOCK) --all-extras --group dev --constraints requirements.txt --output-file requirements-dev.txt
