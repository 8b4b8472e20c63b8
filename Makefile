PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow check bench docs weights clean

help:
	@echo "make demo       install and find what makes embedded digit classifiers fail"
	@echo "make test       install with the test extras and run the tests"
	@echo "make check      lint, types, room order"
	@echo "make test-slow  the tests that take minutes"
	@echo "make bench      the benchmarks"
	@echo "make docs       the documentation as a site"
	@echo "make weights    train the embedded weights again, in runs/"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# A stamp per set of extras, so that an unchanged environment is not installed again.
$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[web]'
	@touch $@
$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@
$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# A network nobody here wrote, for a slow test. Without what it requires: its torchvision does not import beside a CPU
	@# wheel of torch, and torchmetrics fails where a torchvision is installed that does not import.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps digit-recognizer-py==0.1.0
	@touch $@
$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

demo: $(VENV)/.core
	$(BIN)/failscape demo

# A process a core, of one thread each: most tests are too small to keep several threads busy. A file stays in one process,
# since its tests share what is costly to make.
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/sympathetic.py
	$(BIN)/python benchmarks/stylegan2.py
	$(BIN)/python benchmarks/influence.py
	$(BIN)/python benchmarks/vae.py
	$(BIN)/python benchmarks/frontier.py

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

weights: $(VENV)/.core
	for recipe in src/failscape/assets/recipes/*.toml; do \
		$(BIN)/failscape train embedded $$(basename $$recipe .toml) || exit 1; \
	done

clean:
	rm -rf $(VENV) site
