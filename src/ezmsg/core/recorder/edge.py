"""The receiving end of the recorder: what a lease records, for each publisher that a subscriber is routed to.

Times of messages are seconds of `rows.clock`, as floats; see `rows`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol, cast

import numpy as np

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.recorder.calculated import TraceIds
from ezmsg.core.recorder.labels import Labels, portable
from ezmsg.core.recorder.ring import Ring, Words
from ezmsg.core.recorder.rows import (
    AGE,
    ATTRIBUTE,
    ATTRIBUTE_TYPES,
    CHANNEL_CODES,
    CHANNEL_MASK,
    CHANNEL_SHIFT,
    ERROR,
    EXTENDED,
    EXTRA,
    FOREIGN,
    HOP,
    INDEX_SHIFT,
    LABEL_SHIFT,
    LEASE,
    LEASE_TIME,
    NO_TRACE,
    PROCESS,
    QUEUE_WAIT,
    ROW_BYTES,
    SAMPLED,
    SELECTED,
    SPAN,
    TRANSPORT,
    USER_SPAN,
    clock,
    meta_word,
    pack_extra,
    pack_row,
    selected_flags,
)
from ezmsg.core.recorder.selection import Selector

_CHANNEL: Final = CHANNEL_MASK << CHANNEL_SHIFT
_OWED: Final = 1 << LEASE_TIME | 1 << QUEUE_WAIT | 1 << TRANSPORT | 1 << AGE
Value = str | int | float | bool
ATTRIBUTES: Final = 16
"""Attributes of one user span."""
ERROR_TYPES: Final = 32
"""Error types counted apart; further ones are counted as `other`."""

ProcessTrace = tuple[bytes, int, int]
"""Trace id (16 bytes), span id of this process or user span, span id of its parent (0: none)."""


class Receiver:
    """What the edges of one subscriber share: the channel kind of its last message, its native sampling decision.

    `holding` is asked, in any thread, for the edge of the message that is handled now, and since when it is (in s).
    """

    __slots__ = ("holding", "last_code", "selector")

    def __init__(self) -> None:
        """No message yet, no trace."""
        self.last_code = CHANNEL_CODES[ProfileChannelType.UNKNOWN]
        self.selector: Selector | None = None
        self.holding: Callable[[], tuple[EdgeMetrics, float] | None] | None = None


class Handled(Protocol):
    """What is known of a message that was handled."""

    message_id: int
    origin_s: float
    publish_s: float
    channel_s: float
    size: int
    trace: Any
    publisher: int


class EdgeOwner(Protocol):
    """What an edge needs of its registry."""

    def close_edge(self, edge: EdgeMetrics) -> None:
        """Unregister an edge."""
        ...


class EdgeMetrics:
    """Counts and records what one subscriber receives from one publisher. Used by one thread at a time.

    The subscriber counts and writes plain rows itself, inline; `processed` does the same for everybody else.

    Attributes:
        is_plain: Whether a message without a trace and an error becomes one row of the ring at most, and nothing else.
        timed: Whether durations are recorded at all.
        meta: The first word of the rows.
        hop_meta: The same for rows that speak for the publish as well.
        selects_all: Whether a native trace selects every message, and nothing is thinned (see `processed_selected`).
        ring: Where they go.
        receiver: What the edges of the subscriber share.
        code: The channel kind, as a code of `rows.CHANNELS`.
        ids: Those of the traces that began with its messages, where a channel calculates them.
        consumed: Messages whose lease was released.
        bytes: Their size in all.
        drops: Messages that a leaky queue dropped.
        failed: Messages whose task raised, by error type.
        thinned: Rows left out to stay within the row budget.
    """

    __slots__ = (
        "_attribute_meta",
        "_labels",
        "_lease_meta",
        "_owner",
        "_recording",
        "_selected",
        "_span_meta",
        "_thin_mask",
        "bytes",
        "code",
        "consumed",
        "drops",
        "failed",
        "foreign",
        "hop_meta",
        "ids",
        "index",
        "is_plain",
        "kind",
        "meta",
        "publisher_id",
        "receiver",
        "ring",
        "selects_all",
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
        self.publisher_id, self.topic, self.kind, self.foreign, self.index = publisher_id, topic, kind, foreign, index
        self.consumed = self.bytes = self.drops = self.thinned = 0
        self.failed: dict[str, int] = {}
        self.receiver, self.ring, self._labels, self._owner = receiver, ring, labels, owner
        self.ids: TraceIds | None = None
        self.code = CHANNEL_CODES[kind]
        self.meta = meta_word(PROCESS, index, kind, FOREIGN if foreign else 0)
        self.hop_meta = self.meta | HOP
        self._span_meta = meta_word(SPAN, index, kind)
        self._lease_meta = meta_word(LEASE, index)
        self._attribute_meta = meta_word(ATTRIBUTE, index)
        self.timed = self.is_plain = self._recording = False
        self._thin_mask = 0
        self.selects_all = False
        # The first word of a selected message's row, and the samples it owes.
        self._selected = 0, 0

    # -- the hot path -------------------------------------------------------------------------------------------------

    def processed(
        self,
        message_id: int,
        origin_s: float,
        publish_s: float,
        channel_s: float,
        start_s: float,
        end_s: float,
        size: int,
        trace: ProcessTrace | None,
        error: str | None = None,
    ) -> None:
        """The lease of one message was released.

        Args:
            message_id: Its number.
            origin_s: When the first message of its chain was published; negative if by another host's clock.
            publish_s: When it was published.
            channel_s: When this process's channel had it.
            start_s: When it was handed to the task.
            end_s: When its lease was released.
            size: Its bytes (0 for an object handed over by reference).
            trace: Trace id, span id of this processing and span id of the publish, if it is sampled.
            error: The type of the exception that left the lease's block.
        """
        self.consumed += 1
        self.bytes += size
        self.receiver.last_code = self.code
        if not self.timed and error is None:
            return
        meta, extra_meta = self.meta, EXTRA
        if error is not None:
            meta |= ERROR | self._labels.code(self._count_error(error)) << LABEL_SHIFT
        samples = spans = span_id = parent_id = 0
        trace_id = NO_TRACE
        emit = generation = 0
        selector = self.receiver.selector
        if selector is not None and selector.settle(self.index, message_id):
            wanted, _, generation = selector.selection
            owed = 1 << LEASE_TIME | (start_s >= channel_s) << QUEUE_WAIT
            if not self.foreign:
                owed |= (channel_s >= publish_s) << TRANSPORT | (0 <= origin_s <= start_s) << AGE
            emit = wanted & owed
            samples = emit.bit_count()
        ring = self.ring
        offset = ring.head
        if trace is not None and self._recording:
            trace_id, span_id, parent_id = trace
            meta |= SAMPLED
            spans = 1
        elif emit and error is None:
            meta |= selected_flags(emit, generation)
            ring.put_selected(samples, meta, message_id, origin_s, publish_s, channel_s, start_s, end_s, size)
            return
        elif not emit:
            if not self._recording:
                return
            if self.consumed & self._thin_mask:
                self.thinned += 1
            else:
                ring.put(meta, message_id, origin_s, publish_s, channel_s, start_s, end_s, size)
            return
        if emit:
            meta |= SELECTED
            extra_meta |= emit << LABEL_SHIFT | generation << INDEX_SHIFT
        pack_row(
            ring.buffer, offset & ring.mask,
            meta | EXTENDED, message_id, origin_s, publish_s, channel_s, start_s, end_s, size,
        )  # fmt: skip
        pack_extra(
            ring.buffer, offset + 64 & ring.mask,
            extra_meta, trace_id, span_id, parent_id, 0.0, 0, 0,
        )  # fmt: skip
        ring.mark(offset + 128, spans, samples)

    def processed_selected(self, message: Handled, start_s: float) -> bool:
        """The lease of a message, handed over at `start_s`, is released now; a native trace selects all messages.

        Returns:
            Whether it was recorded. Else it is one for `processed`: in another trace, too, or with times that differ.
        """
        origin_s, publish_s, channel_s = message.origin_s, message.publish_s, message.channel_s
        if message.trace is not None or message.publisher or not 0.0 <= origin_s <= publish_s <= channel_s <= start_s:
            return False
        size = message.size
        self.consumed += 1
        self.bytes += size
        self.receiver.last_code = self.code
        meta, owed = self._selected
        ring = self.ring
        offset = ring.head
        pack_row(
            ring.buffer, offset & ring.mask,
            meta, message.message_id, origin_s, publish_s, channel_s, start_s, clock(), size,
        )  # fmt: skip
        # As `Ring.mark` does.
        ring.head = end = offset + ROW_BYTES
        _, extras, spans, samples = ring.marks
        ring.marks = (end, extras, spans, samples + owed)
        return True

    def user_span(
        self,
        message_id: int,
        start_ns: int,
        end_ns: int,
        label: str | None,
        trace: ProcessTrace | None,
        error: str | None = None,
        attributes: Mapping[str, Value] | None = None,
    ) -> None:
        """Record a span of the user within a message.

        Args:
            message_id: The number of the message.
            start_ns: When it began.
            end_ns: When it ended.
            label: What it is called.
            trace: Trace id, its own span id, and the span id of the processing.
            error: The type of the exception it ended with.
            attributes: What else is told of it, of at most `ATTRIBUTES`; only with a trace.
        """
        if self.timed:
            meta = self._span_meta | self._labels.code(label or "", is_free=True) << LABEL_SHIFT
            code = 0 if error is None else self._labels.code(error)
            meta |= 0 if error is None else ERROR
            self._put(
                meta, message_id, start_ns, end_ns, 1 << USER_SPAN, self.selects(message_id), trace, code,
                self._followers(trace, attributes) if trace is not None and attributes else (),
            )  # fmt: skip

    def selects(self, message_id: int) -> bool:
        """Whether the native trace selects a message (the same answer for all that is measured of it)."""
        selector = self.receiver.selector
        return selector is not None and selector.decide(self.index, message_id)

    def dropped(self, n: int = 1) -> None:
        """Count messages that a leaky queue dropped."""
        self.drops += n

    def close(self) -> None:
        """The subscriber is no longer routed to this publisher; what was recorded is still delivered."""
        self._owner.close_edge(self)

    # -- for the registry and the 3.9 methods -------------------------------------------------------------------------

    def configure(self, recording: bool, selector: Selector | None, thin_mask: int) -> None:
        """Change what is recorded, from any thread: rows at all, a native trace, one row in `thin_mask + 1`."""
        self._recording, self._thin_mask = recording, thin_mask
        self.timed = recording or selector is not None
        self.is_plain = selector is None and not thin_mask
        self.selects_all = False
        if selector is not None and not thin_mask and not self.foreign and selector.selects_all:
            emit, _, generation = selector.selection
            emit &= _OWED
            self._selected = self.meta | selected_flags(emit, generation), emit.bit_count()
            self.selects_all = bool(emit)

    def counters(self) -> dict[str, int]:
        """Totals, by the names of the wire."""
        values = {"consumed": self.consumed, "bytes": self.bytes, "dropped": self.drops}
        held = None if self.receiver.holding is None else self.receiver.holding()
        if held is not None and held[0] is self:
            values["holding_ns"] = round((clock() - held[1]) * 1e9)
        for error, count in list(self.failed.items()):
            values[f"errors:{error}"] = count
        return values

    def lease(self, code: int, start_ns: int, end_ns: int, message_id: int, sampled: bool) -> None:
        """Record a lease of which nothing else is known."""
        if self.timed:
            meta = self._lease_meta & ~_CHANNEL | code << CHANNEL_SHIFT
            self._put(meta, message_id, start_ns, end_ns, 1 << LEASE_TIME, sampled, None)

    def span(self, code: int, start_ns: int, end_ns: int, label: str | None, message_id: int, sampled: bool) -> None:
        """Record a span of the user of which nothing else is known."""
        if self.timed:
            name = self._labels.code(label or "", is_free=True)
            meta = self._span_meta & ~_CHANNEL | code << CHANNEL_SHIFT | name << LABEL_SHIFT
            self._put(meta, message_id, start_ns, end_ns, 1 << USER_SPAN, sampled, None)

    def _count_error(self, error: str) -> str:
        error = portable(error)
        if error not in self.failed and len(self.failed) >= ERROR_TYPES:
            error = "other"
        self.failed[error] = self.failed.get(error, 0) + 1
        return error

    def _put(
        self,
        meta: int,
        message_id: int,
        start_ns: int,
        end_ns: int,
        owed: int,
        selected: bool,
        trace: ProcessTrace | None,
        error: int = 0,
        followers: Sequence[tuple[Words, Words]] = (),
    ) -> None:
        """Record a row off the hot path; `owed` are the metrics it gives if it is `selected`."""
        emit = generation = 0
        selector = self.receiver.selector
        if selected and selector is not None:
            wanted, _, generation = selector.selection
            emit = wanted & owed
        if not self._recording:
            trace = None
        words = (message_id, 0.0, 0.0, 0.0, start_ns / 1e9, end_ns / 1e9, 0)
        if trace is None and not emit:
            if self._recording:
                self.ring.put(meta, *words)
            return
        meta |= EXTENDED | (SAMPLED if trace is not None else 0) | (SELECTED if emit else 0)
        extra_meta = EXTRA | emit << LABEL_SHIFT | generation << INDEX_SHIFT
        extra = (extra_meta, *(trace or (NO_TRACE, 0, 0)), 0.0, 0, error)
        if followers and trace is not None:
            self.ring.put_followed((meta, *words), extra, emit.bit_count(), followers)
        else:
            self.ring.put_extended(meta, words, extra, emit.bit_count())

    def _followers(self, trace: ProcessTrace, attributes: Mapping[str, Value]) -> list[tuple[Words, Words]]:
        """The rows of the attributes of a span."""
        made: list[tuple[Words, Words]] = []
        labels = self._labels
        labels.attributes += len(attributes)
        labels.attributes_cut += max(0, len(attributes) - ATTRIBUTES)
        for name, value in list(attributes.items())[:ATTRIBUTES]:
            value = _plain(value)
            name_of_type = type(value).__name__
            kind = ATTRIBUTE_TYPES.index(name_of_type) if name_of_type in ATTRIBUTE_TYPES else 0
            number = int(value) if isinstance(value, int) else 0
            text = labels.code(str(value), is_free=True) if not kind else 0
            bits = int.from_bytes(struct.pack("<d", value), "little", signed=True) if isinstance(value, float) else 0
            meta = self._attribute_meta | SAMPLED | EXTENDED | labels.code(str(name), is_free=True) << LABEL_SHIFT
            row = (meta, bits, 0.0, 0.0, 0.0, 0.0, 0.0, kind)
            made.append((row, (EXTRA, trace[0], trace[1], trace[1], 0.0, number, text)))
        return made


def _plain(value: Any) -> Value:
    """A value as rows have it: not as numpy does, and no whole number that is too large for them."""
    if isinstance(value, np.generic):
        value = cast(Any, value).item()
    return str(value) if type(value) is int and not -(1 << 63) <= value < 1 << 63 else value
