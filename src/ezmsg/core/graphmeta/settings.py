"""What settings look like from outside: their schema, their value, their changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from uuid import UUID

__all__ = [
    "ProcessSettingsUpdate",
    "SettingsChangedEvent",
    "SettingsEventType",
    "SettingsFieldMetadata",
    "SettingsFieldUpdateRequest",
    "SettingsSchemaMetadata",
    "SettingsSnapshotValue",
]


@dataclass
class SettingsFieldMetadata:
    """One field of a settings class, enough to draw a form without importing the class."""

    name: str
    field_type: str
    required: bool
    default: Any
    description: str | None
    bounds: tuple[float | None, float | None] | None
    choices: list[Any] | None
    widget_hint: str | None


@dataclass
class SettingsSchemaMetadata:
    """The fields of a settings class, and the family (`provider`) it belongs to.

    `json_schema` (draft 2020-12) tells what the rows of `fields` cannot: nested classes, items, exclusive bounds. It
    follows from the class, so it takes no part in comparison.
    """

    provider: str
    settings_type: str
    fields: list[SettingsFieldMetadata]
    json_schema: dict[str, Any] | None = field(default=None, compare=False, repr=False)


@dataclass
class SettingsSnapshotValue:
    """Current settings of a component, opaque (`serialized`) and readable."""

    serialized: bytes | None
    repr_value: dict[str, Any] | str
    structured_value: dict[str, Any] | None = None
    settings_schema: SettingsSchemaMetadata | None = None


class SettingsEventType(Enum):
    """Why a settings event was sent."""

    INITIAL_SETTINGS = "INITIAL_SETTINGS"
    SETTINGS_UPDATED = "SETTINGS_UPDATED"


@dataclass
class SettingsChangedEvent:
    """Settings of a component changed; `timestamp` in Unix seconds.

    `missed`: events that a reader who was too slow, or came too late, did not get before this one.
    `gap`: in the first event of a stream that lost its server and found another, which counts anew: what happened.
    Between the two anything may have changed.
    """

    seq: int
    event_type: SettingsEventType
    component_address: str
    timestamp: float
    source_session_id: str | None
    source_process_id: UUID | None
    value: SettingsSnapshotValue
    missed: int = 0
    gap: str = ""


@dataclass
class ProcessSettingsUpdate:
    """A process reports the settings of one of its units; `timestamp` in Unix seconds."""

    component_address: str
    value: SettingsSnapshotValue
    timestamp: float


@dataclass
class SettingsFieldUpdateRequest:
    """Change one field of the settings of a unit; `field_path` is dotted."""

    field_path: str
    value: Any
