"""Which variables are in force, which are mistakes, and which are secrets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ezmsg.core import config
from ezmsg.core.commands.checks.environment import known_variables, look_at_environment, shown_value


@pytest.fixture(autouse=True)
def _nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in config.variables():
        monkeypatch.delenv(name)


def test_every_variable_that_config_reads_is_known() -> None:
    source = Path(config.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r'"(EZMSG_[A-Z0-9_]+)"', source)) <= known_variables()
    assert {"EZMSG_LOGLEVEL", "EZMSG_TRACE_RATIO", "EZMSG_GRAPHSERVER_ADDR"} <= known_variables()


def test_nothing_set_is_fine() -> None:
    [finding] = look_at_environment()
    assert finding.state == "ok"


def test_what_is_set_is_told_and_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZMSG_FORCE_TCP", "perhaps")
    monkeypatch.setenv("EZMSG_SERVER_PORT_START", "12000")
    monkeypatch.setenv("EZMSG_FORCE_TPC", "1")
    monkeypatch.setenv("EZMSG_XYZZY_PLUGH", "1")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "lab")
    found = {finding.name: finding for finding in look_at_environment()}
    assert {name: finding.state for name, finding in found.items()} == {
        "EZMSG_FORCE_TCP": "problem", "EZMSG_SERVER_PORT_START": "info", "EZMSG_FORCE_TPC": "warning",
        "EZMSG_XYZZY_PLUGH": "warning", "OTEL_SERVICE_NAME": "info",
    }  # fmt: skip
    assert found["EZMSG_FORCE_TCP"].remedy.startswith("expected 1, true")
    assert found["EZMSG_FORCE_TPC"].remedy == "did you mean EZMSG_FORCE_TCP?"
    assert "another package" in found["EZMSG_XYZZY_PLUGH"].remedy


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("EZMSG_AUTHKEY", "secret", "(not shown)"),
        ("EZMSG_AUTHKEY_FILE", "/etc/key", "/etc/key"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret", "(not shown)"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:secret@host:1/x", "https://***@host:1/x"),
        ("EZMSG_FORCE_TCP", "1", "1"),
    ],
)
def test_secrets_are_not_shown(name: str, value: str, shown: str) -> None:
    assert shown_value(name, value) == shown
