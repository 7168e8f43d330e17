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
.PHONY: help setup demo test ecosystem-test check format docs docs-test proofs bench overhead soak
.PHONY: stack-up stack-down stack-test stack-pictures dashboards clean

help:
	@echo "make setup    make the virtual environment $(VENV) (every target below does it on first use)"
	@echo "make demo     stream an ECG through three processes and watch its telemetry; DEMO_SECONDS=5 ends it"
	@echo "make test     run the tests; PYTEST_ARGS='-k name' selects"
	@echo "make ecosystem-test    published packages on top of this one, in an environment of their own; needs Chromium"
	@echo "make proofs   what tests prove with a part of: 100,000 traced messages, 50 graphs with a culprit"
	@echo "make check    formatting, lint, types, layers"
	@echo "make format   format the code and mend what lint can mend"
	@echo "make docs     build the documentation into site/; a broken link or a missing reference is an error"
	@echo "make docs-test  run every code block of the documentation"
	@echo "make bench    compare with upstream ezmsg and pyzmq; BENCH_ARGS=--smoke is short"
	@echo "make overhead what telemetry costs, beside upstream and OpenTelemetry by hand; OVERHEAD_ARGS=--smoke is short"
	@echo "make soak     20 processes, some killed all the time, for 5 minutes; SOAK_SECONDS=60 ends it earlier"
	@echo "make stack-up collector, Prometheus, Tempo and Grafana in Docker; STACK_PROFILE=demo with the demo"
	@echo "make stack-down ends them; their data stays"
	@echo "make stack-test tests the stack with real binaries and without Docker; STACK_SECONDS=120 plays longer"
	@echo "make stack-pictures draws every panel, into build/panels"
	@echo "make dashboards writes grafana/dashboards again"
	@echo "make clean    remove the virtual environment and all caches"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@PYTHON='$(PYTHON)' sh tools/make-venv $(VENV)
	@echo "installing into $(VENV): some 100 packages, one to three minutes the first time"
	@$(PIP_INSTALL) hatchling editables
	@rm -f $@
	@sh tools/tell-progress $(VENV) & teller=$$!; \
	{ $(PIP_INSTALL_ALOUD) --no-build-isolation --editable '.[axisarray,demo,dev,stack,tui]' && touch $@; } | $(NAMES); \
	kill $$teller
	@test -e $@

demo: $(STAMP)
	$(BIN)/python -m examples.ecg

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --ignore tests/stack --ignore tests/docs/test_pages.py $(PYTEST_ARGS)

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
	$(BIN)/python -m benchmarks.steps

overhead: $(STAMP)
	$(BIN)/python benchmarks/overhead.py $(OVERHEAD_ARGS)

soak: $(STAMP)
	$(BIN)/python benchmarks/soak.py $(SOAK_ARGS)

stack-up:
	sh tools/stack-secrets deploy/secrets
	docker compose $(if $(STACK_PROFILE),--profile $(STACK_PROFILE)) up --detach --wait
	@echo "Grafana is at http://localhost:3000 (user admin, password in deploy/secrets/grafana_admin_password)"
	@echo "start a graph with:  export OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318"

stack-down:
	docker compose --profile demo down

# The binaries are built once, in minutes: see deploy/testing/binaries.py.
stack-test: $(STAMP)
	STACK_BINARIES="$$($(BIN)/python -m deploy.testing.binaries)" $(BIN)/python -m pytest tests/stack $(PYTEST_ARGS)

stack-pictures: $(STAMP)
	STACK_SECONDS=$${STACK_SECONDS:-90} $(BIN)/python -m grafana.pictures build/panels

dashboards: $(STAMP)
	$(BIN)/python -m grafana.generate

clean:
	rm -rf $(VENV) build dist site .cache ecosystem/screenshots .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
