"""Opening a role: the first request on a connection, its answer, and the end.

Whoever opens a role that others know by an id gives a `token` with it. Opening it again, over another connection,
needs the same token; it takes the place of the one before, and tells all that the peer owns: the server may be new.
"""

from __future__ import annotations

from ezmsg.core.wire.records.fields import Name, Number, Port, Record

__all__ = [
    "CloseSession",
    "OpenProcess",
    "OpenPublisher",
    "OpenSession",
    "OpenSubscriber",
    "ProcessOpened",
    "PublisherOpened",
    "PublisherRoute",
    "RevertSession",
    "Routing",
    "SessionOpened",
]


class OpenSession(Record, frozen=True):
    """A GraphContext begins, or is back; it owns exactly these edges as long as this connection lives.

    `keeps_metadata`: what this session registered stays, where this server has it; RegisterMetadata follows.
    """

    session_id: str = ""
    token: str = ""
    edges: list[tuple[str, str]] = []
    keeps_metadata: bool = False


class SessionOpened(Record, frozen=True):
    """`session_id` owns what this connection connects; `epoch` tells one server from its successor.

    `refused`: which of the edges would close a cycle; the session does not own them.
    """

    session_id: str
    epoch: str
    refused: list[tuple[str, str]] = []


class RevertSession(Record, frozen=True):
    """Drop the edges, metadata and settings this session owns; it stays open. Answered when done."""


class CloseSession(Record, frozen=True):
    """Drop everything this session owns, now; answered when done."""


class PublisherOpened(Record, frozen=True):
    """The publisher is registered, every affected subscriber knows it; begin paused if the graph is."""

    epoch: str


class OpenSubscriber(Record, frozen=True):
    """A subscriber asks for a topic; answered with its first Routing."""

    subscriber_id: Name
    topic: Name
    pid: int
    boot_id: Name
    token: Name = ""


class PublisherRoute(Record, frozen=True):
    """Where one publisher is."""

    publisher_id: Name
    topic: Name
    pid: int
    boot_id: Name
    host: Name
    port: Port
    door: Name = ""
    num_buffers: Number = 32


class OpenPublisher(PublisherRoute, frozen=True):
    """A publisher offers a topic, reachable at `host:port` and, on its own host, at the Unix door `door`."""

    token: str = ""


class Routing(Record, frozen=True):
    """All publishers that now reach a subscriber. Sent as a request: the answer confirms that it was applied.

    `topics` are all that reach it. A publisher it hears on one of them that is not among `publishers` has ended, or is
    not back yet at a server that is new: it is heard to its end. Those on other topics are cut off at once.
    `is_partial`: the server is new and knows only part of the graph: others stay, except publishers on topics `cut`.
    """

    publishers: list[PublisherRoute]
    topics: list[str] = []
    is_partial: bool = False
    cut: list[str] = []


class OpenProcess(Record, frozen=True):
    """A ProcessControlClient connects, or is back; it owns exactly these `units` (None: it has not registered)."""

    pid: int
    host: Name
    client_id: Name = ""
    token: Name = ""
    units: list[Name] | None = None


class ProcessOpened(Record, frozen=True):
    """The id under which the process is known. `refused`: which of its units others own, and which process does."""

    client_id: str
    refused: dict[str, str] = {}
