# Every target sets up what it needs by itself: Python >= 3.11, pip and make are enough. Quick the second time.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# Processes of the tests would compile all of torch and timm again where this is set: 18 s a start instead of 7.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: test test-fast lint docs demo bench clean
.DEFAULT_GOAL := test

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("panfpn needs Python 3.11 or newer; name one with: make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/uv || { $(PYTHON) -m venv .venv && $(BIN)/python -m pip install --quiet uv; }
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable . --group dev
	@touch $@

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint docs
	$(BIN)/pytest --numprocesses 2 --dist worksteal

test-fast: $(READY)
	$(BIN)/pytest --numprocesses 2 -m "not slow"

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

demo: $(READY)
	$(BIN)/panfpn demo --out demo

bench: $(READY)
	$(BIN)/python benchmarks/exact_resume.py
	$(BIN)/python benchmarks/evaluation_memory.py

clean:
	rm -rf .venv .matrix site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
