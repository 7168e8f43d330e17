"""When `ezmsg.otel` is let into a process."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ezmsg.core.telemetry import extension


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `load` imports, in place of the packages."""
    names: list[str] = []

    def import_module(name: str) -> Any:
        names.append(name)
        return SimpleNamespace(start=lambda: print)

    monkeypatch.setattr(extension, "importlib", SimpleNamespace(import_module=import_module))
    monkeypatch.setitem(sys.modules, extension.OTEL_API, ModuleType("trace"))
    return names


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, []),
        ({"EZMSG_OTEL": "off", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, []),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, [extension.PACKAGE]),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, []),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/v1/metrics"}, [extension.PACKAGE]),
        ({"OTEL_TRACES_EXPORTER": "console"}, [extension.PACKAGE]),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}, []),
        ({"EZMSG_OTEL": "agent"}, [extension.PACKAGE]),
    ],
)
def test_a_program_that_uses_opentelemetry_is_joined_where_an_agent_exports(
    monkeypatch: pytest.MonkeyPatch, imported: list[str], variables: dict[str, str], wanted: list[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert extension.load() is None
    assert imported == wanted


def test_a_program_that_does_not_use_opentelemetry_is_spared(
    monkeypatch: pytest.MonkeyPatch, imported: list[str]
) -> None:
    monkeypatch.delitem(sys.modules, extension.OTEL_API)
    monkeypatch.setenv("EZMSG_OTEL", "agent")
    assert (extension.load(), imported) == (None, [])


def test_global_hears_what_links_tell(monkeypatch: pytest.MonkeyPatch, imported: list[str]) -> None:
    monkeypatch.setenv("EZMSG_OTEL", "global")
    assert (extension.load(), imported) == (print, [extension.IN_PROCESS])


@pytest.mark.parametrize("value", ["global", "nonsense"])
def test_what_goes_wrong_is_logged_and_no_reason_to_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str
) -> None:
    def fail(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(extension, "importlib", SimpleNamespace(import_module=fail))
    monkeypatch.setenv("EZMSG_OTEL", value)
    assert extension.load() is None
    assert "telemetry goes on without OpenTelemetry in this process" in caplog.text
