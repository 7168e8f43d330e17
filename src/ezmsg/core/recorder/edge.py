"""The receiving end of the recorder: one call per message, for each publisher that a subscriber is routed to."""

from __future__ import annotations

from typing import Final, Protocol

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.recorder.labels import Labels
from ezmsg.core.recorder.ring import Ring
from ezmsg.core.recorder.rows import (
    AGE,
    CHANNEL_CODES,
    CHANNEL_MASK,
    CHANNEL_SHIFT,
    ERROR,
    EXTENDED,
    EXTRA,
    FOREIGN,
    INDEX_SHIFT,
    LABEL_SHIFT,
    LEASE,
    LEASE_TIME,
    PROCESS,
    QUEUE_WAIT,
    SAMPLED,
    SELECTED,
    SPAN,
    TRANSPORT,
    USER_SPAN,
    meta_word,
    pack_extra,
    pack_row,
)
from ezmsg.core.recorder.selection import Selector

_TRACE_LOW: Final = (1 << 64) - 1
_CHANNEL: Final = CHANNEL_MASK << CHANNEL_SHIFT
ERROR_TYPES: Final = 32
"""Error types counted apart; further ones are counted as `other`."""

ProcessTrace = tuple[int, int, int]
"""Trace id (128 bits), span id of this process or user span, span id of its parent (0: none)."""


class Receiver:
    """What the edges of one subscriber share: the channel kind of its last message, its native sampling decision."""

    __slots__ = ("last_code", "selector")

    def __init__(self) -> None:
        """No message yet, no trace."""
        self.last_code = CHANNEL_CODES[ProfileChannelType.UNKNOWN]
        self.selector: Selector | None = None


class EdgeOwner(Protocol):
    """What an edge needs of its registry."""

    def close_edge(self, edge: EdgeMetrics) -> None:
        """Unregister an edge."""
        ...


class EdgeMetrics:
    """Counts and records what one subscriber receives from one publisher. Used by one thread at a time.

    Attributes:
        timed: Whether durations are recorded at all; when not, the caller may leave out its clock reads (pass 0).
        consumed: Messages whose lease was released.
        bytes: Their size in all.
        drops: Messages that a leaky queue dropped.
        failed: Messages whose task raised, by error type.
        thinned: Rows left out to stay within the row budget.
    """

    __slots__ = (
        "_code",
        "_labels",
        "_lease_meta",
        "_meta",
        "_owner",
        "_plain",
        "_receiver",
        "_recording",
        "_ring",
        "_span_meta",
        "_thin_mask",
        "bytes",
        "consumed",
        "drops",
        "failed",
        "foreign",
        "index",
        "kind",
        "publisher_id",
        "thinned",
        "timed",
        "topic",
    )

    def __init__(
        self,
        receiver: Receiver,
        publisher_id: str,
        topic: str,
        kind: ProfileChannelType,
        foreign: bool,
        index: int,
        ring: Ring,
        labels: Labels,
        owner: EdgeOwner,
    ) -> None:
        """Made by the registry."""
        self.publisher_id, self.topic, self.kind, self.foreign, self.index = (
            publisher_id,
            topic,
            kind,
            foreign,
            index,
        )
        self.consumed = self.bytes = self.drops = self.thinned = 0
        self.failed: dict[str, int] = {}
        self._receiver, self._ring, self._labels, self._owner = receiver, ring, labels, owner
        self._code = CHANNEL_CODES[kind]
        self._meta = meta_word(PROCESS, index, kind, FOREIGN if foreign else 0)
        self._span_meta = meta_word(SPAN, index, kind)
        self._lease_meta = meta_word(LEASE, index)
        self.timed = self._plain = self._recording = False
        self._thin_mask = 0

    # -- the hot path -------------------------------------------------------------------------------------------------

    def processed(
        self,
        message_id: int,
        origin_ns: int,
        publish_ns: int,
        channel_ns: int,
        start_ns: int,
        end_ns: int,
        size: int,
        trace: ProcessTrace | None,
        error: str | None = None,
    ) -> None:
        """The lease of one message was released.

        Args:
            message_id: Its number.
            origin_ns: When the first message of its chain was published; negative if by another host's clock.
            publish_ns: When it was published.
            channel_ns: When this process's channel had it.
            start_ns: When it was handed to the task.
            end_ns: When its lease was released.
            size: Its bytes (0 for an object handed over by reference).
            trace: Trace id, span id of this processing and span id of the publish, if it is sampled.
            error: The type of the exception that left the lease's block.
        """
        self.consumed += 1
        self.bytes += size
        self._receiver.last_code = self._code
        if self._plain and trace is None and error is None:
            if self.consumed & self._thin_mask:
                self.thinned += 1
                return
            ring = self._ring
            offset = ring.head
            pack_row(
                ring.buffer,
                offset & ring.mask,
                self._meta,
                message_id,
                origin_ns,
                publish_ns,
                channel_ns,
                start_ns,
                end_ns,
                size,
            )
            ring.head = offset + 64
        elif self.timed or error is not None:
            self._record(
                message_id,
                origin_ns,
                publish_ns,
                channel_ns,
                start_ns,
                end_ns,
                size,
                trace,
                error,
            )

    def counted(self, size: int) -> None:
        """The lease of a message was released that nobody times: what `processed` does when `timed` is false."""
        self.consumed += 1
        self.bytes += size
        self._receiver.last_code = self._code

    def user_span(
        self, message_id: int, start_ns: int, end_ns: int, label: str | None, trace: ProcessTrace | None
    ) -> None:
        """Record a span of the user within a message: its trace is trace id, own span id, span id of the processing."""
        if self.timed:
            meta = self._span_meta | self._labels.code(label or "") << LABEL_SHIFT
            row = (meta, message_id, 0, 0, 0, start_ns, end_ns, 0)
            self._put(row, 1 << USER_SPAN, self.selects(message_id), trace)

    def selects(self, message_id: int) -> bool:
        """Whether the native trace selects a message (the same answer for all that is measured of it)."""
        selector = self._receiver.selector
        return selector is not None and selector.decide(self.index, message_id)

    def dropped(self, n: int = 1) -> None:
        """Count messages that a leaky queue dropped."""
        self.drops += n

    def close(self) -> None:
        """The subscriber is no longer routed to this publisher; what was recorded is still delivered."""
        self._owner.close_edge(self)

    # -- for the registry and the 3.9 methods -------------------------------------------------------------------------

    def configure(self, recording: bool, selected: bool, thin_mask: int) -> None:
        """Change what is recorded, from any thread: rows at all, a native trace, one row in `thin_mask + 1`."""
        self._recording, self._thin_mask = recording, thin_mask
        self.timed = recording or selected
        # One row a message, unless the message itself is special: the common case, decided in one look.
        self._plain = recording and not selected

    def counters(self) -> dict[str, int]:
        """Totals, by the names of the wire."""
        values = {"consumed": self.consumed, "bytes": self.bytes, "dropped": self.drops}
        for error, count in list(self.failed.items()):
            values[f"errors:{error}"] = count
        return values

    def lease(self, code: int, start_ns: int, end_ns: int, message_id: int, sampled: bool) -> None:
        """Record a lease of which nothing else is known."""
        if self.timed:
            row = (
                self._lease_meta & ~_CHANNEL | code << CHANNEL_SHIFT,
                message_id,
                0,
                0,
                0,
                start_ns,
                end_ns,
                0,
            )
            self._put(row, 1 << LEASE_TIME, sampled, None)

    def span(self, code: int, start_ns: int, end_ns: int, label: str | None, message_id: int, sampled: bool) -> None:
        """Record a span of the user of which nothing else is known."""
        if self.timed:
            meta = self._span_meta & ~_CHANNEL | code << CHANNEL_SHIFT
            meta |= self._labels.code(label or "") << LABEL_SHIFT
            self._put(
                (meta, message_id, 0, 0, 0, start_ns, end_ns, 0),
                1 << USER_SPAN,
                sampled,
                None,
            )

    def _count_error(self, error: str) -> str:
        if error not in self.failed and len(self.failed) >= ERROR_TYPES:
            error = "other"
        self.failed[error] = self.failed.get(error, 0) + 1
        return error

    def _record(
        self,
        message_id: int,
        origin_ns: int,
        publish_ns: int,
        channel_ns: int,
        start_ns: int,
        end_ns: int,
        size: int,
        trace: ProcessTrace | None,
        error: str | None,
    ) -> None:
        """Record a message that is not plain: sampled, selected, failed, thinned, or none of it after all."""
        meta, extra_meta = self._meta, EXTRA
        if error is not None:
            meta |= ERROR | self._labels.code(self._count_error(error)) << LABEL_SHIFT
        samples = spans = trace_id = span_id = parent_id = 0
        selector = self._receiver.selector
        if selector is not None and selector.settle(self.index, message_id):
            wanted, _, generation = selector.selection
            owed = 1 << LEASE_TIME | (start_ns >= channel_ns) << QUEUE_WAIT
            if not self.foreign:
                owed |= (channel_ns >= publish_ns) << TRANSPORT | (0 <= origin_ns <= start_ns) << AGE
            if emit := wanted & owed:
                meta |= SELECTED
                extra_meta |= emit << LABEL_SHIFT | generation << INDEX_SHIFT
                samples = emit.bit_count()
        ring = self._ring
        offset = ring.head
        if trace is not None and self._recording:
            trace_id, span_id, parent_id = trace
            meta |= SAMPLED
            spans = 1
        elif not samples:
            if not self._recording:
                return
            if self.consumed & self._thin_mask:
                self.thinned += 1
            else:
                ring.put(meta, message_id, origin_ns, publish_ns, channel_ns, start_ns, end_ns, size)
            return
        pack_row(
            ring.buffer,
            offset & ring.mask,
            meta | EXTENDED,
            message_id,
            origin_ns,
            publish_ns,
            channel_ns,
            start_ns,
            end_ns,
            size,
        )
        pack_extra(
            ring.buffer,
            offset + 64 & ring.mask,
            extra_meta,
            trace_id >> 64,
            trace_id & _TRACE_LOW,
            span_id,
            parent_id,
            0,
            0,
            0,
        )
        ring.mark(offset + 128, spans, samples)

    def _put(self, row: tuple[int, ...], owed: int, selected: bool, trace: ProcessTrace | None) -> None:
        """Record a row off the hot path; `owed` are the metrics it gives if it is `selected`."""
        emit = generation = 0
        selector = self._receiver.selector
        if selected and selector is not None:
            wanted, _, generation = selector.selection
            emit = wanted & owed
        if not self._recording:
            trace = None
        if trace is None and not emit:
            if self._recording:
                self._ring.put(*row)
            return
        flags = EXTENDED | (SAMPLED if trace is not None else 0) | (SELECTED if emit else 0)
        trace_id, span_id, parent_id = trace or (0, 0, 0)
        extra_meta = EXTRA | emit << LABEL_SHIFT | generation << INDEX_SHIFT
        extra = (extra_meta, trace_id >> 64, trace_id & _TRACE_LOW, span_id, parent_id, 0, 0, 0)
        self._ring.put_extended((row[0] | flags, *row[1:]), extra, emit.bit_count())
