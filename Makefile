# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-image test-stories test-services test-rest check install clean threat-model

demo: $(INSTALLED)  ## run the whole story on handwritten digits
	$(VENV)/bin/auditkit demo

# Tests that start real processes, as folders; those of the real image are among them.
STORIES := tests/e2e tests/faults
SERVICES := tests/agent tests/cli tests/server

# Three parts at a time, the longest first: stories wait for clocks, images for the disk.
test: check  ## static checks, then every test
	$(MAKE) --jobs=3 --keep-going test-image test-stories test-services test-rest

test-image: $(INSTALLED)
	$(VENV)/bin/pytest -m image

test-stories: $(INSTALLED)
	$(VENV)/bin/pytest -m "not image" $(STORIES)

test-services: $(INSTALLED)
	$(VENV)/bin/pytest -m "not image" $(SERVICES)

test-rest: $(INSTALLED)
	$(VENV)/bin/pytest -m "not image" $(addprefix --ignore=,$(STORIES) $(SERVICES))

threat-model: $(INSTALLED)  ## write docs/threat-model.md anew from the attacks
	PYTHONPATH=. $(VENV)/bin/python tests/adversary/threat_model.py

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
