"""Answers of a server that may be larger than a frame: asked for in parts."""

from __future__ import annotations

from contextlib import suppress

from msgspec.structs import replace

from ezmsg.core.control.link import ServerLink
from ezmsg.core.errors import StaleSnapshot
from ezmsg.core.wire import records as r
from ezmsg.core.wire.metadata import SettingsValue

# Until a graph that changes all the time is given up: each time the whole of it is asked for again.
SNAPSHOT_TRIES = 5


async def whole_snapshot(client: ServerLink, timeout_s: float) -> r.Snapshot:
    """The graph at one moment.

    Raises:
        StaleSnapshot: It needs several answers, and changed between them, again and again.
    """
    for _ in range(SNAPSHOT_TRIES - 1):
        with suppress(StaleSnapshot):
            return await _snapshot(client, timeout_s)
    return await _snapshot(client, timeout_s)


async def _snapshot(client: ServerLink, timeout_s: float) -> r.Snapshot:
    snapshot = await client.request(r.GetSnapshot(), r.Snapshot, timeout_s)
    return replace(snapshot, sessions=[await _whole(client, state, timeout_s) for state in snapshot.sessions])


async def _whole(client: ServerLink, state: r.SessionState, timeout_s: float) -> r.SessionState:
    if not state.is_apart:
        return state
    apart = await client.request(r.GetMetadata(state.session_id, state.version), r.Metadata, timeout_s)
    return replace(state, metadata=apart.metadata, is_apart=False)


async def all_settings(client: ServerLink, timeout_s: float) -> dict[str, SettingsValue]:
    """The settings of every component, sorted by address, each as it was when its part was asked for."""
    values: dict[str, SettingsValue] = {}
    after: str | None = None
    while True:
        page = await client.request(r.GetSettings(after), r.Settings, timeout_s)
        values.update(page.values)
        if page.is_last:
            return values
        after = max(page.values)


async def all_settings_events(client: ServerLink, after_seq: int, timeout_s: float) -> list[r.SettingsEvent]:
    """Every event after this number that the server still has."""
    events: list[r.SettingsEvent] = []
    while True:
        page = await client.request(r.GetSettingsEvents(after_seq), r.SettingsEvents, timeout_s)
        events += page.events
        if page.is_last:
            return events
        after_seq = page.events[-1].seq
