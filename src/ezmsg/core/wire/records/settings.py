"""Metadata and settings of components."""

from __future__ import annotations

from ezmsg.core.wire.metadata import GraphRecord, SettingsValue
from ezmsg.core.wire.records.fields import Name, Record, Timestamp

__all__ = [
    "GetSettings",
    "GetSettingsInputTopic",
    "RegisterMetadata",
    "ReportSettings",
    "Settings",
    "SettingsInputTopic",
]


class RegisterMetadata(Record, frozen=True):
    """Replace what this session says about the components it runs."""

    metadata: GraphRecord


class ReportSettings(Record, frozen=True):
    """A process tells the settings of a unit it owns; `timestamp` in Unix seconds."""

    component_address: Name
    value: SettingsValue
    timestamp: Timestamp


class GetSettings(Record, frozen=True):
    """Ask for the settings of every component, or of those whose address follows this one."""

    after: str | None = None


class Settings(Record, frozen=True):
    """The first of them, sorted by address, not more than a frame carries; `is_last` when there are no more."""

    values: dict[str, SettingsValue]
    is_last: bool = True


class GetSettingsInputTopic(Record, frozen=True):
    """Ask where a component takes new settings."""

    component_address: Name


class SettingsInputTopic(Record, frozen=True):
    """There."""

    topic: str
