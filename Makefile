# make run    start iwtag: web server and workers, on sample photographs the first time
# make test   install what the tests need and run every check
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
SERVICES := $(if $(DATABASE_URL)$(IWTAG_BROKER_URL),requirements/services.txt)

.PHONY: run test lint types unit lock clean
.DEFAULT_GOAL := run

run: $(VENV)/.base
	@$(PY) manage.py setup && exec $(PY) manage.py up

test: lint types unit

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(PY) manage.py makemigrations --check --dry-run

types: $(VENV)/.dev
	$(VENV)/bin/mypy

unit: $(VENV)/.dev
	$(PY) -m pytest -n auto --dist loadfile -m "not cluster and not browser"
	$(PY) -m pytest -n 2 --dist loadgroup -m "cluster or browser"

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "iwtag needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name one that fits: make run PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Could not make a virtual environment (on Debian and Ubuntu: apt install python3-venv)."; exit 1; }

# a stamp per list of packages: a later start installs nothing
$(VENV)/.base: requirements/base.txt $(SERVICES) | $(PY)
	@echo "Installing iwtag's packages into $(VENV) (once)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements/base.txt $(addprefix -r ,$(SERVICES))
	@touch $@

$(VENV)/.dev: requirements/dev.txt requirements/torch.txt requirements/tests.txt | $(PY)
	@echo "Installing what the tests need into $(VENV) (once)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt -r requirements/torch.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/tests.txt
	@touch $@ $(VENV)/.base

# pins again what pyproject.toml asks for (needs uv)
lock:
	uv pip compile --quiet --universal --python-version 3.11 --no-header pyproject.toml -o requirements/base.txt
	uv pip compile --quiet --universal --python-version 3.11 --no-header pyproject.toml --extra postgres --extra redis -o requirements/services.txt
	uv pip compile --quiet --universal --python-version 3.11 --no-header pyproject.toml --group dev -o requirements/dev.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
