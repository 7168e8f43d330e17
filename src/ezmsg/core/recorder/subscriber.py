"""The subscriber's end of the recorder: its edges, and the methods of the 3.9 profiling API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.recorder.edge import EdgeMetrics, EdgeOwner, Receiver
from ezmsg.core.recorder.rows import CHANNEL_CODES, NO_MESSAGE


class EdgeMaker(EdgeOwner, Protocol):
    """What a subscriber needs of its registry."""

    def open_edge(
        self,
        subscriber: SubscriberMetrics,
        publisher_id: str,
        topic: str,
        kind: ProfileChannelType,
        foreign: bool,
    ) -> EdgeMetrics:
        """Register an edge."""
        ...

    def own_edge(self, subscriber: SubscriberMetrics) -> EdgeMetrics:
        """Register the subscriber itself, for rows whose publisher is not known."""
        ...


class SubscriberMetrics(Receiver):
    """Counts and records what one subscriber receives; its edges do so per publisher. Used by one thread at a time.

    Attributes:
        received: Messages counted by `begin_message`.
        last_code: The channel kind of the last message, as a code of `rows.CHANNELS`.
        selector: The native sampling decision, when a trace selects this endpoint.
        queue_depth: Asked for the messages now waiting, when telemetry is collected; set by the subscriber.
        edges: The edges now open.
        closed_consumed: Messages consumed from edges since closed.
    """

    __slots__ = (
        "_clock",
        "_own",
        "_owner",
        "closed_consumed",
        "edges",
        "endpoint_id",
        "graph",
        "id",
        "queue_depth",
        "received",
        "task",
        "topic",
        "unit",
    )

    def __init__(
        self,
        subscriber_id: UUID,
        topic: str,
        owner: EdgeMaker,
        clock: Callable[[], int],
        graph: str | None,
        unit: str,
        task: str,
    ) -> None:
        """Made by the registry."""
        super().__init__()
        self.id, self.topic, self.graph, self.unit, self.task = subscriber_id, topic, graph, unit, task
        self.endpoint_id = f"{topic}:{subscriber_id}"
        self.received = self.closed_consumed = 0
        self.queue_depth: Callable[[], int] | None = None
        self.edges: dict[int, EdgeMetrics] = {}
        self._owner, self._clock = owner, clock
        self._own: EdgeMetrics | None = None

    def edge(
        self,
        publisher_id: UUID | str,
        topic: str,
        channel_kind: ProfileChannelType,
        *,
        foreign: bool = False,
    ) -> EdgeMetrics:
        """Open what records the messages of one publisher.

        Args:
            publisher_id: The publisher.
            topic: Its topic.
            channel_kind: How its messages come.
            foreign: Its times are of another host's clock: age and transport are counted as anomalies, not recorded.
        """
        return self._owner.open_edge(self, str(publisher_id), topic, channel_kind, foreign)

    @property
    def total(self) -> int:
        """Messages received, through whatever edge."""
        return self.received + self.closed_consumed + sum(edge.consumed for edge in list(self.edges.values()))

    # -- the methods of the 3.9 API -----------------------------------------------------------------------------------

    def begin_message(self, channel_kind: ProfileChannelType) -> bool:
        """Count a message; True when the native trace selects it (with `sample_mod` 3 the 3rd, 6th … call)."""
        self.received += 1
        self.last_code = CHANNEL_CODES[channel_kind]
        selector = self.selector
        return selector is not None and selector.next()

    def record_lease_time(
        self,
        channel_kind: ProfileChannelType,
        lease_ns: int | None,
        msg_seq: int | None = None,
        *,
        sampled: bool,
    ) -> None:
        """Record how long a message was held, until now."""
        if lease_ns is None:
            return
        now = self._clock()
        seq = NO_MESSAGE if msg_seq is None else msg_seq
        self._self_edge().lease(CHANNEL_CODES[channel_kind], now - lease_ns, now, seq, sampled)

    def record_user_span(self, span_ns: int, label: str | None, msg_seq: int | None = None, *, sampled: bool) -> None:
        """Record a span of the user that ended now."""
        now = self._clock()
        seq = NO_MESSAGE if msg_seq is None else msg_seq
        self._self_edge().span(self.last_code, now - span_ns, now, label, seq, sampled)

    def record_receive(
        self, channel_kind: ProfileChannelType, lease_ns: int | None = None, msg_seq: int | None = None
    ) -> None:
        """Count a message and record how long it was held."""
        sampled = self.begin_message(channel_kind)
        self.record_lease_time(channel_kind, lease_ns, msg_seq, sampled=sampled)

    def _self_edge(self) -> EdgeMetrics:
        if self._own is None:
            self._own = self._owner.own_edge(self)
        return self._own
