# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-image test-rest check install clean

demo: $(INSTALLED)  ## run the whole story on handwritten digits
	$(VENV)/bin/auditkit demo

# Building and running the real image takes as long as everything else, so it runs beside it.
test: check  ## static checks, then every test
	$(MAKE) --jobs=2 --keep-going test-image test-rest

test-image: $(INSTALLED)
	$(VENV)/bin/pytest -m image

test-rest: $(INSTALLED)
	$(VENV)/bin/pytest -m "not image"

check: $(INSTALLED)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

install: $(INSTALLED)

# Pinned with hashes, so nothing but these exact files is ever installed.
$(INSTALLED): constraints.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --require-hashes -r constraints.txt
	$(VENV)/bin/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(VENV) demo
