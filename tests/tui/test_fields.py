"""Settings as rows of a form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from ezmsg.core.settingsmeta import settings_snapshot_value
from ezmsg.tui.fields import Field, changes, fields_of


@dataclass
class Inner:
    low: float = 1.0
    names: list[str] = field(default_factory=lambda: ["a"])


@dataclass
class Outer:
    gain: float = field(default=2.0, metadata={"ge": 0, "le": 10, "description": "factor"})
    taps: int = 3
    mode: Literal["fast", "good"] = "fast"
    is_on: bool = False
    label: str = "x"
    limit: int | None = None
    inner: Inner = field(default_factory=Inner)


def rows(value: Any) -> dict[str, Field]:
    return {row.path: row for row in fields_of(settings_snapshot_value(value))}


def test_every_field_gets_the_editor_its_schema_asks_for() -> None:
    kinds = {path: row.kind for path, row in rows(Outer()).items()}
    assert kinds == {
        "gain": "number", "taps": "integer", "mode": "choice", "is_on": "switch", "label": "text",
        "limit": "integer", "inner.low": "number", "inner.names": "json",
    }  # fmt: skip
    assert rows(Outer())["gain"].hint == "0 to 10, factor"
    assert rows(Outer())["mode"].choices == ("fast", "good")


def test_without_a_schema_the_values_tell() -> None:
    assert {path: row.kind for path, row in rows({"a": 1, "b": {"c": True}}).items()} == {
        "a": "integer",
        "b.c": "switch",
    }
    assert fields_of(settings_snapshot_value(object())) == []


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [("gain", "3", 3.0), ("taps", "7", 7), ("label", "1", "1"), ("limit", "", None), ("inner.names", '["b"]', ["b"])],
)
def test_a_text_becomes_a_value_of_the_kind(path: str, text: str, value: Any) -> None:
    assert rows(Outer())[path].parse(text) == value


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [("gain", "much", "'much' is not a number"), ("taps", "2.5", "whole number"), ("inner.names", "[", "JSON")],
)
def test_a_text_that_is_none_is_refused_before_it_is_sent(path: str, text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rows(Outer())[path].parse(text)


def test_changes_are_told_by_field() -> None:
    before, after = settings_snapshot_value(Outer()), settings_snapshot_value(Outer(gain=3.0, label="y"))
    assert changes(before, after) == "gain 2.0 → 3.0, label x → y"
    assert changes(after, after) == "sent again"
