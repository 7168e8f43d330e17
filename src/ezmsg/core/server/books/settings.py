"""The settings of every component: the graph's source of truth. Values are opaque here, and kept encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import msgspec

from ezmsg.core.errors import SettingsTooLarge
from ezmsg.core.graphmeta import SettingsEventType
from ezmsg.core.server.books.budget import Budget
from ezmsg.core.wire.limits import PAGE_BYTES, REPORTED_BYTES, SETTINGS_BYTES
from ezmsg.core.wire.metadata import ComponentRecord, GraphRecord, SettingsValue
from ezmsg.core.wire.records import Settings, SettingsEvent
from ezmsg.core.wire.values import NONE, is_mapping


@dataclass
class SettingsEntry:
    """The settings of one component.

    `session` is the owner of its metadata, with what that says of its `initial` settings; `process` is the one that
    reported last and still lives, with what it `reported`. An entry has one of the two at least.
    """

    session: str | None = None
    initial: bytes | None = None
    process: str | None = None
    reported: bytes | None = None

    @property
    def value(self) -> bytes:
        """What holds: what was reported, else what the metadata says."""
        value = self.reported or self.initial
        assert value is not None, "an entry that nobody holds"
        return value


class SettingsBook:
    """Whose word counts for the settings of which component. Every change returns the events to tell.

    Args:
        limit_bytes: How large one value may be.
        max_bytes: How much all that processes report may take.
    """

    def __init__(self, limit_bytes: int = SETTINGS_BYTES, max_bytes: int = REPORTED_BYTES) -> None:
        self._entries: dict[str, SettingsEntry] = {}
        self._limit_bytes = limit_bytes
        self.room = Budget("settings", max_bytes)

    def values(self, after: str | None = None, limit_bytes: int = PAGE_BYTES) -> Settings:
        """What holds, sorted by address, from the one that follows `after` on: about so many bytes, one at least."""
        values: dict[str, SettingsValue] = {}
        size = 0
        for address in sorted(address for address in self._entries if after is None or address > after):
            value = self._entries[address].value
            size += len(value)
            if values and size > limit_bytes:
                return Settings(values, is_last=False)
            values[address] = _told(value)
        return Settings(values, is_last=True)

    def encoded(self, values: Mapping[str, SettingsValue]) -> dict[str, bytes]:
        """Values as they are kept.

        Raises:
            SettingsTooLarge: One of them is too large to be told.
        """
        encoded = {address: msgspec.msgpack.encode(value) for address, value in values.items()}
        for address, value in encoded.items():
            if len(value) > self._limit_bytes:
                raise SettingsTooLarge(address, len(value), self._limit_bytes)
        return encoded

    # -- metadata -----------------------------------------------------------------------------------------------------

    def registered(self, session: str, initial: Mapping[str, bytes], now_s: float) -> list[SettingsEvent]:
        """A session (whose addresses are nobody else's) registered metadata in place of what it had.

        What a living process reported stays in force; each component's event tells what is in force.
        """
        for address in [address for address, entry in self._entries.items() if entry.session == session]:
            if address not in initial:
                self._disown(address)
        events: list[SettingsEvent] = []
        for address, value in sorted(initial.items()):
            entry = self._entries.setdefault(address, SettingsEntry())
            entry.session, entry.initial = session, value
            events.append(self._event(SettingsEventType.INITIAL_SETTINGS, address, entry, now_s))
        return events

    def session_closed(self, session: str) -> None:
        """A session dropped its metadata. What a living process reported stays, without an owner."""
        for address in [address for address, entry in self._entries.items() if entry.session == session]:
            self._disown(address)

    def _disown(self, address: str) -> None:
        entry = self._entries[address]
        entry.session = entry.initial = None
        if entry.reported is None:
            del self._entries[address]

    # -- processes ----------------------------------------------------------------------------------------------------

    def report(self, process: str, address: str, value: SettingsValue, timestamp_s: float) -> list[SettingsEvent]:
        """A process (that owns the unit) tells what its settings are now.

        Raises:
            SettingsTooLarge: Nothing was changed.
            ServerFull: Processes have reported too much; nothing was changed.
        """
        encoded = self.encoded({address: value})[address]
        entry = self._entries.get(address) or SettingsEntry()
        self.room.take(len(encoded), instead_of=len(entry.reported or b""))
        self._entries[address] = entry
        entry.process, entry.reported = process, encoded
        return [self._event(SettingsEventType.SETTINGS_UPDATED, address, entry, timestamp_s, process)]

    def process_gone(self, process: str, now_s: float) -> list[SettingsEvent]:
        """A process is gone: what it reported last falls back to what the metadata says, or goes with it."""
        events: list[SettingsEvent] = []
        for address, entry in sorted(self._entries.items()):
            if entry.process != process:
                continue
            self.room.give(len(entry.reported or b""))
            entry.process = entry.reported = None
            if entry.initial is None:
                del self._entries[address]
            else:
                events.append(self._event(SettingsEventType.SETTINGS_UPDATED, address, entry, now_s))
        return events

    @staticmethod
    def _event(
        event_type: SettingsEventType,
        address: str,
        entry: SettingsEntry,
        timestamp_s: float,
        process: str | None = None,
    ) -> SettingsEvent:
        return SettingsEvent(
            timestamp=timestamp_s,
            source_session_id=entry.session,
            source_process_id=process,
            event_type=event_type.value,
            component_address=address,
            value=_told(entry.value),
        )


def _told(encoded: bytes) -> SettingsValue:
    """A value as part of a record, without having been decoded."""
    return cast(SettingsValue, msgspec.Raw(encoded))


def initial_settings(metadata: GraphRecord) -> dict[str, SettingsValue]:
    """What metadata says of the settings of its components, by address."""
    return {address: _initial(component) for address, component in metadata.components.items()}


def _initial(component: ComponentRecord) -> SettingsValue:
    serialized, shown = component.initial_settings
    structured = shown if is_mapping(shown) else NONE
    return SettingsValue(serialized, shown, structured, component.settings_schema)
