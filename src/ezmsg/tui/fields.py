"""Settings as rows of a form: what each field is called, holds, and takes. Drawn from the schema, without the class."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from ezmsg.core.graphmeta import SettingsFieldMetadata, SettingsSnapshotValue

Kind = Literal["switch", "choice", "integer", "number", "text", "json"]
# Nested settings are shown so deep; below they are JSON.
DEPTH = 4


@dataclass(frozen=True, slots=True)
class Field:
    """One field.

    Attributes:
        path: Its name, dotted where it lies in another.
        kind: Which editor it gets.
        value: What it holds now, as JSON can say it.
        hint: What it takes: bounds, description.
        choices: All it takes, if it is one of them.
        is_nullable: Whether it may be None, which is written as nothing.
    """

    path: str
    kind: Kind
    value: Any
    hint: str = ""
    choices: tuple[Any, ...] = ()
    is_nullable: bool = False

    @property
    def text(self) -> str:
        """The value as it stands in an editor."""
        if self.value is None:
            return ""
        return self.value if self.kind == "text" else json.dumps(self.value, ensure_ascii=False)

    def parse(self, text: str) -> Any:
        """The value that a text stands for. Whether it is allowed says the process that owns the settings.

        Raises:
            ValueError: It stands for none of this kind.
        """
        if not text.strip() and self.is_nullable:
            return None
        if self.kind == "text":
            return text
        try:
            if self.kind == "integer":
                return int(text)
            return float(text) if self.kind == "number" else json.loads(text)
        except ValueError:
            wanted = {"integer": "a whole number", "number": "a number"}.get(self.kind, 'JSON, like [1, 2] or "text"')
            raise ValueError(f"{text!r} is not {wanted}") from None


def fields_of(settings: SettingsSnapshotValue) -> list[Field]:
    """The rows for these settings, nested ones by dotted paths; none if nothing is known of their fields."""
    values = settings.structured_value
    if values is None and isinstance(settings.repr_value, dict):
        values = settings.repr_value
    if values is None:
        return []
    described = {row.name: row for row in settings.settings_schema.fields} if settings.settings_schema else {}
    found: list[Field] = []
    for name, value in values.items():
        _add(found, name, value, described.get(name), DEPTH)
    return found


def _add(found: list[Field], path: str, value: Any, row: SettingsFieldMetadata | None, depth: int) -> None:
    if isinstance(value, Mapping) and value and depth:
        for name, inner in cast(Mapping[str, Any], value).items():
            _add(found, f"{path}.{name}", inner, None, depth - 1)
        return
    if row is None:
        found.append(Field(path, _kind_of_value(value), value))
        return
    is_nullable = (row.default is None and not row.required) or bool(re.search(r"Optional|None", row.field_type))
    choices = tuple(row.choices) if row.choices else ()
    kind: Kind = "choice" if choices else _kind_of_row(row, value)
    found.append(Field(path, kind, value, _hint(row, kind), choices, is_nullable))


def _kind_of_row(row: SettingsFieldMetadata, value: Any) -> Kind:
    by_widget: dict[str, Kind] = {
        "checkbox": "switch", "int_input": "integer", "float_input": "number", "text_input": "text"
    }  # fmt: skip
    kind = by_widget.get(row.widget_hint or "")
    if kind is None and row.widget_hint == "slider":
        kind = "integer" if re.search(r"\bint\b", row.field_type) else "number"
    if kind == "switch" and value is None:
        return "json"
    return kind or _kind_of_value(value)


def _kind_of_value(value: Any) -> Kind:
    if isinstance(value, bool):
        return "switch"
    if isinstance(value, (int, float)):
        return "number" if isinstance(value, float) else "integer"
    return "text" if isinstance(value, str) else "json"


def _hint(row: SettingsFieldMetadata, kind: Kind) -> str:
    parts = [_bounds(row.bounds, kind)] if row.bounds else []
    if kind == "json":
        parts.append("JSON")
    return ", ".join([*parts, *([row.description] if row.description else [])])


def _bounds(bounds: tuple[float | None, float | None], kind: Kind) -> str:
    low, high = bounds
    of = " characters" if kind == "text" else " items" if kind == "json" else ""
    if low is None:
        return f"up to {high:g}{of}"
    return f"{low:g} or more{of}" if high is None else f"{low:g} to {high:g}{of}"


def changes(before: SettingsSnapshotValue | None, now: SettingsSnapshotValue) -> str:
    """What is different, in a few words."""
    if before is None:
        return "first seen with " + (", ".join(f"{field.path} {field.text}" for field in fields_of(now)) or "no fields")
    old, new = ({field.path: field.text for field in fields_of(value)} for value in (before, now))
    if not new:
        return "changed" if before != now else "sent again"
    told = [f"{path} {old.get(path, '-')} → {text}" for path, text in new.items() if old.get(path) != text]
    return ", ".join(told) or "sent again"
