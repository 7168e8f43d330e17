"""Importing ezmsg.core is cheap and free of OpenTelemetry, which belongs to ezmsg.otel."""

import subprocess
import sys


def test_importing_core_does_not_import_opentelemetry() -> None:
    code = "import sys, ezmsg.core; print(*(name for name in sys.modules if name.startswith('opentelemetry')))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.split() == []
