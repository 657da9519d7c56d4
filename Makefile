# make serve   serve the bundled models on port 8000       make test   set up and run the whole test suite
# make lint    formatting, lint and types                  make soak   the long runs that `make test` leaves out
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MODEL ?= data/pretrained/tatoeba-en-de data/pretrained/tatoeba-de-en
PORT ?= 8000
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: serve test lint format soak clean

serve: $(VENV)/.serve
	@exec $(BIN)/nmt serve --port $(PORT) $(MODEL)

# Two files of tests at a time, and then, one at a time, those that want the machine for themselves.
test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder -m 'not alone'
	$(BIN)/python -m pytest -m alone

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

soak: $(VENV)/.dev
	$(BIN)/python benchmarks/prepare_memory.py
	$(BIN)/python benchmarks/decode_soak.py --minutes 30
	$(BIN)/python benchmarks/serve_soak.py --minutes 30
	STRATA_FUZZ_S=300 $(BIN)/python -m pytest -s tests/test_openapi.py

# A stamp says what is installed; it is made anew when the project's needs change. The folder alone is no proof of that.
$(BIN)/python:
	@echo "making $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what serving needs (a minute or two)"
	@$(PIP) --editable '.[serve,documents]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing what training, serving and the tests need (a few minutes)"
	@$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.serve

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
