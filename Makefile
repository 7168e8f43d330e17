# Everything happens in .venv of this clone; nothing global is installed. Works with GNU make 3.81 and any POSIX sh.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.docs-installed
PIP_INSTALL_ALOUD := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
PIP_INSTALL := $(PIP_INSTALL_ALOUD) --quiet
# Of what pip says, what shows that something goes on.
NAMES := sed -n -e 's/^Collecting \([A-Za-z0-9._-]*\).*/  \1/p' -e 's/^Installing collected.*/  putting them in place/p'
# No look for newer versions; node comes from a wheel, too.
PYRIGHT := PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format docs docs-test proofs bench overhead soak clean

help:
	@echo "make setup    make the virtual environment $(VENV) (every target below does it on first use)"
	@echo "make demo     stream an ECG through three processes and watch its telemetry; DEMO_SECONDS=5 ends it"
	@echo "make test     run the tests; PYTEST_ARGS='-k name' selects"
	@echo "make proofs   what tests prove with a part of: 100,000 traced messages, 50 graphs with a culprit"
	@echo "make check    formatting, lint, types, layers"
	@echo "make format   format the code and mend what lint can mend"
	@echo "make docs     build the documentation into site/; a broken link or a missing reference is an error"
	@echo "make docs-test  run every code block of the documentation"
	@echo "make bench    compare with upstream ezmsg and pyzmq; BENCH_ARGS=--smoke is short"
	@echo "make overhead what telemetry costs, beside upstream and OpenTelemetry by hand; OVERHEAD_ARGS=--smoke is short"
	@echo "make soak     20 processes, some killed all the time, for 5 minutes; SOAK_SECONDS=60 ends it earlier"
	@echo "make clean    remove the virtual environment and all caches"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@PYTHON='$(PYTHON)' sh tools/make-venv $(VENV)
	@echo "installing into $(VENV): some 70 packages, one to three minutes the first time"
	@$(PIP_INSTALL) hatchling editables
	@rm -f $@
	@{ $(PIP_INSTALL_ALOUD) --no-build-isolation --editable '.[axisarray,demo,dev,tui]' && touch $@; } | $(NAMES)
	@test -e $@

demo: $(STAMP)
	$(BIN)/python -m examples.ecg

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --ignore tests/docs/test_pages.py $(PYTEST_ARGS)

proofs: $(STAMP)
	PROOFS=whole $(BIN)/python -m pytest tests/otel/test_accounts.py tests/core/messages/test_blame.py $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(PYRIGHT)
	$(BIN)/lint-imports --no-logo

format: $(STAMP)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

$(DOCS_STAMP): $(STAMP)
	@echo "installing the generator of the documentation"
	@$(PIP_INSTALL) --no-build-isolation --editable '.[docs]'
	@touch $@

docs: $(DOCS_STAMP)
	$(BIN)/zensical build --clean --strict

docs-test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 tests/docs/test_pages.py $(PYTEST_ARGS)

bench: $(STAMP)
	$(BIN)/python benchmarks/compare.py $(BENCH_ARGS)

overhead: $(STAMP)
	$(BIN)/python benchmarks/overhead.py $(OVERHEAD_ARGS)

soak: $(STAMP)
	$(BIN)/python benchmarks/soak.py $(SOAK_ARGS)

clean:
	rm -rf $(VENV) dist site .cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
