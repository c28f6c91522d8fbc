# Everything runs in a virtual environment of the project's own, made when it is first needed.
VENV ?= .venv
PYTHON ?= python3
DEMO_FLAGS ?=
BIN := $(VENV)/bin

.PHONY: install demo test lint unit reliability chaos clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: install  ## Train a small retriever on this machine's Python sources, validated as it trains.
	$(BIN)/python examples/quickstart/demo.py $(DEMO_FLAGS)

test: lint unit reliability chaos  ## Everything that a change must pass.

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

unit: install
	$(BIN)/pytest -n 2 --dist loadfile

reliability: install  ## The requirements R1 to R31, on real files and processes.
	$(BIN)/pytest -m reliability tests/reliability

chaos: install  ## 25 schedules of kills, rewrites, rotations and full disks.
	$(BIN)/python -m tests.chaos --schedules 25 --jobs 2

clean:
	rm -rf $(VENV) demo
