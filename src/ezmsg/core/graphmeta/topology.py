"""The graph at one moment, and that it changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple
from uuid import UUID

from ezmsg.core.graphmeta.components import GraphMetadata

__all__ = ["Edge", "GraphSnapshot", "SnapshotProcess", "SnapshotSession", "TopologyChangedEvent", "TopologyEventType"]


class TopologyEventType(Enum):
    """What kind of topology changed."""

    GRAPH_CHANGED = "GRAPH_CHANGED"
    PROCESS_CHANGED = "PROCESS_CHANGED"


@dataclass
class TopologyChangedEvent:
    """Edges or processes changed; `timestamp` in Unix seconds.

    `missed`: events that a reader who was too slow, or came too late, did not get before this one.
    `gap`: in the first event of a stream that lost its server and found another, which counts anew: what happened.
    Between the two anything may have changed.
    """

    seq: int
    event_type: TopologyEventType
    timestamp: float
    changed_topics: list[str]
    source_session_id: str | None
    source_process_id: UUID | None
    missed: int = 0
    gap: str = ""


class Edge(NamedTuple):
    """A directed connection between two topics."""

    from_topic: str
    to_topic: str


@dataclass
class SnapshotSession:
    """One session: its edges (sorted) and metadata."""

    edges: list[Edge]
    metadata: GraphMetadata | None


@dataclass
class SnapshotProcess:
    """One process; `pid` and `host` are None until it registers."""

    process_id: UUID
    pid: int | None
    host: str | None
    units: list[str]


@dataclass
class GraphSnapshot:
    """The whole graph at one moment."""

    graph: dict[str, list[str]]
    edge_owners: dict[Edge, list[str]]
    sessions: dict[str, SnapshotSession]
    processes: dict[UUID, SnapshotProcess] = field(default_factory=dict[UUID, SnapshotProcess])
