"""Streams of events: settings and topology."""

from __future__ import annotations

from typing import Literal

from ezmsg.core.wire.metadata import SettingsValue
from ezmsg.core.wire.records.fields import Record

__all__ = [
    "Event",
    "EventAck",
    "GetSettingsEvents",
    "OpenEventStream",
    "SettingsEvent",
    "SettingsEvents",
    "StreamOpened",
    "TopologyEvent",
]


class Event(Record, frozen=True, kw_only=True):
    """Base of what a stream of events carries; `timestamp` in Unix seconds.

    `seq` counts the events of one kind from 1. `missed`: how many this reader did not get before this one.
    """

    seq: int = 0
    timestamp: float
    source_session_id: str | None = None
    source_process_id: str | None = None
    missed: int = 0


class TopologyEvent(Event, frozen=True, kw_only=True):
    """Edges or processes changed; `event_type` names a TopologyEventType."""

    event_type: str
    changed_topics: list[str] = []


class SettingsEvent(Event, frozen=True, kw_only=True):
    """Settings of a component changed; `event_type` names a SettingsEventType."""

    event_type: str
    component_address: str
    value: SettingsValue


class GetSettingsEvents(Record, frozen=True):
    """Ask for the settings events after `after_seq` that the server still has."""

    after_seq: int


class SettingsEvents(Record, frozen=True):
    """The oldest of them, not more than a frame carries; `is_last` when there are no more."""

    events: list[SettingsEvent]
    is_last: bool


class OpenEventStream(Record, frozen=True):
    """Opens a role: this connection gets all events of a kind after `after_seq`, and then each as it happens.

    `epoch`: of the server that counted to `after_seq`; another begins with its first event.
    `unacknowledged`: events that came over connections before, and count as if they had come over this one.
    """

    kind: Literal["topology", "settings"]
    after_seq: int
    epoch: str = ""
    unacknowledged: int = 0


class StreamOpened(Record, frozen=True):
    """The stream has begun; `epoch` tells one server from its successor, which counts anew."""

    epoch: str


class EventAck(Record, frozen=True):
    """A reader of events, or of a profiling stream, took `count` events or batches.

    The server keeps a bounded number unacknowledged.
    """

    count: int
