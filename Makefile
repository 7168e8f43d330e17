# Everything happens in .venv of this clone; nothing global is installed. Works with GNU make 3.81 and any POSIX sh.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# No look for newer versions; node comes from a wheel, too.
PYRIGHT := PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

.DEFAULT_GOAL := help
.PHONY: help setup demo test ecosystem-test check format proofs bench overhead soak clean

help:
	@echo "make setup    make the virtual environment $(VENV) (every target below does it on first use)"
	@echo "make demo     stream an ECG through three processes and watch its telemetry; DEMO_SECONDS=5 ends it"
	@echo "make test     run the tests; PYTEST_ARGS='-k name' selects"
	@echo "make ecosystem-test    published packages on top of this one, in an environment of their own; needs Chromium"
	@echo "make proofs   what tests prove with a part of: 100,000 traced messages, 50 graphs with a culprit"
	@echo "make check    formatting, lint, types, layers"
	@echo "make format   format the code and mend what lint can mend"
	@echo "make bench    compare with upstream ezmsg and pyzmq; BENCH_ARGS=--smoke is short"
	@echo "make overhead what telemetry costs, beside upstream and OpenTelemetry by hand; OVERHEAD_ARGS=--smoke is short"
	@echo "make soak     20 processes, some killed all the time, for 5 minutes; SOAK_SECONDS=60 ends it earlier"
	@echo "make clean    remove the virtual environment and all caches"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@PYTHON='$(PYTHON)' sh tools/make-venv $(VENV)
	$(PIP_INSTALL) hatchling editables
	$(PIP_INSTALL) --no-build-isolation --editable '.[axisarray,demo,dev,tui]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python -m examples.ecg

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

ecosystem-test: $(STAMP)
	python=$$($(BIN)/python ecosystem/environment.py) && "$$python" -m pytest -c ecosystem/pytest.ini ecosystem $(PYTEST_ARGS)

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

bench: $(STAMP)
	$(BIN)/python benchmarks/compare.py $(BENCH_ARGS)

overhead: $(STAMP)
	$(BIN)/python benchmarks/overhead.py $(OVERHEAD_ARGS)

soak: $(STAMP)
	$(BIN)/python benchmarks/soak.py $(SOAK_ARGS)

clean:
	rm -rf $(VENV) dist ecosystem/screenshots .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
