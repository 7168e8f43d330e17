"""What the server answers, as users know it: the records of `graphmeta`."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from ezmsg.core.graphmeta import (
    Edge,
    GraphMetadata,
    GraphSnapshot,
    SettingsChangedEvent,
    SettingsEventType,
    SettingsSnapshotValue,
    SnapshotProcess,
    SnapshotSession,
    TopologyChangedEvent,
    TopologyEventType,
)
from ezmsg.core.wire import records as r
from ezmsg.core.wire.metadata import SettingsValue, value_of


def graph_snapshot(state: r.Snapshot) -> GraphSnapshot:
    """The whole graph."""
    graph: dict[str, list[str]] = {node: [] for node in state.graph.nodes}
    for from_topic, to_topic, _ in state.graph.edges:
        graph[from_topic].append(to_topic)
    return GraphSnapshot(
        graph={node: sorted(targets) for node, targets in graph.items()},
        edge_owners={Edge(a, b): owners for a, b, owners in state.graph.edges},
        sessions={session.session_id: _session(session) for session in state.sessions},
        processes={UUID(entry.process_id): _process(entry) for entry in state.processes},
    )


def _session(state: r.SessionState) -> SnapshotSession:
    metadata = None if state.metadata is None else value_of(state.metadata, GraphMetadata)
    return SnapshotSession([Edge(*edge) for edge in state.edges], metadata)


def _process(state: r.ProcessState) -> SnapshotProcess:
    return SnapshotProcess(UUID(state.process_id), state.pid, state.host, list(state.units))


def topology_event(event: r.TopologyEvent, gap: str = "") -> TopologyChangedEvent:
    """One event of topology; `gap`: what happened to the stream before it."""
    return TopologyChangedEvent(
        seq=event.seq,
        event_type=TopologyEventType(event.event_type),
        timestamp=event.timestamp,
        changed_topics=list(event.changed_topics),
        source_session_id=event.source_session_id,
        source_process_id=_uuid(event.source_process_id),
        missed=event.missed,
        gap=gap,
    )


def settings_event(event: r.SettingsEvent, gap: str = "") -> SettingsChangedEvent:
    """One event of settings; `gap`: what happened to the stream before it."""
    return SettingsChangedEvent(
        seq=event.seq,
        event_type=SettingsEventType(event.event_type),
        component_address=event.component_address,
        timestamp=event.timestamp,
        source_session_id=event.source_session_id,
        source_process_id=_uuid(event.source_process_id),
        value=value_of(event.value, SettingsSnapshotValue),
        missed=event.missed,
        gap=gap,
    )


def settings_table(values: Mapping[str, SettingsValue]) -> dict[str, SettingsSnapshotValue]:
    """The settings of every component, by address."""
    return {address: value_of(value, SettingsSnapshotValue) for address, value in values.items()}


def _uuid(text: str | None) -> UUID | None:
    return None if text is None else UUID(text)
