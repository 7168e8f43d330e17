"""The graph: its edges, its publishers as a whole, and what a snapshot of it says."""

from __future__ import annotations

from ezmsg.core.wire.metadata import GraphRecord
from ezmsg.core.wire.records.fields import Name, Record, Seconds

__all__ = [
    "Connect",
    "Counts",
    "Disconnect",
    "GetCounts",
    "GetGraph",
    "GetMetadata",
    "GetSnapshot",
    "GraphEdges",
    "Metadata",
    "Pause",
    "ProcessState",
    "Resume",
    "SessionState",
    "Shutdown",
    "Snapshot",
    "Sync",
]


class Connect(Record, frozen=True):
    """Add an edge, owned by this connection's session, or persistent when it has none."""

    from_topic: Name
    to_topic: Name


class Disconnect(Record, frozen=True):
    """Give up this owner's share of an edge."""

    from_topic: Name
    to_topic: Name


class Pause(Record, frozen=True):
    """To the server: pause all publishers. To a publisher: pause."""


class Resume(Record, frozen=True):
    """To the server: resume all publishers. To a publisher: resume."""


class Sync(Record, frozen=True):
    """Pause, and answer when every outstanding message was released."""

    timeout_s: Seconds | None = None


class Shutdown(Record, frozen=True):
    """Ask the server to end in order."""


class GetGraph(Record, frozen=True):
    """Ask for the edges and their owners."""


class GraphEdges(Record, frozen=True):
    """Every node, and every edge with its owners."""

    nodes: list[str]
    edges: list[tuple[str, str, list[str]]]


class GetCounts(Record, frozen=True):
    """Ask what the server refused, dropped and gave up so far."""


class Counts(Record, frozen=True):
    """How often, by what; only what happened."""

    values: dict[str, int]


class GetSnapshot(Record, frozen=True):
    """Ask for the whole graph at this moment."""


class SessionState(Record, frozen=True):
    """One session in a snapshot. If its metadata `is_apart`, `GetMetadata` tells it, of this `version`."""

    session_id: str
    edges: list[tuple[str, str]]
    metadata: GraphRecord | None = None
    version: int = 0
    is_apart: bool = False


class ProcessState(Record, frozen=True):
    """One process in a snapshot; pid and host are None until it registers."""

    process_id: str
    pid: int | None
    host: str | None
    units: list[str]


class Snapshot(Record, frozen=True):
    """The whole graph at one moment.

    `links`: the telemetry links of processes without a ProcessControlClient.
    """

    graph: GraphEdges
    sessions: list[SessionState]
    processes: list[ProcessState]
    links: list[str] = []


class GetMetadata(Record, frozen=True):
    """Ask for metadata that a snapshot had no room for; refused if the session has another version by now."""

    session_id: str
    version: int


class Metadata(Record, frozen=True):
    """It."""

    metadata: GraphRecord
