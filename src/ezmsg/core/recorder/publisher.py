"""The publisher's end of the recorder: one call per broadcast, and the methods of the 3.9 profiling API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

from ezmsg.core.recorder.ids import chance
from ezmsg.core.recorder.labels import Labels
from ezmsg.core.recorder.ring import Ring
from ezmsg.core.recorder.rows import (
    BACKPRESSURE_WAIT,
    EXTENDED,
    EXTRA,
    INDEX_SHIFT,
    INSTANT,
    LABEL_SHIFT,
    NO_PREVIOUS,
    PUBLISH,
    PUBLISH_DELTA,
    SAMPLED,
    SELECTED,
    SERIALIZE,
    WAIT,
    meta_word,
    pack_extra,
    pack_row,
)
from ezmsg.core.recorder.selection import Selector

NEVER: Final = 1 << 62
ALWAYS: Final = -NEVER
_TRACE_LOW: Final = (1 << 64) - 1

PublishTrace = tuple[int, int, int]
"""Trace id (128 bits), span id of this publish, span id of its parent (0: root)."""


class PublisherMetrics:
    """Counts and records what one publisher does. Used by one thread at a time, the one that registered it.

    Attributes:
        timed: Whether durations are recorded at all; when not, the caller may leave out its clock reads (pass 0).
        sent: Messages published.
        bytes: Their size in all.
        backpressure_ns: Time they waited for a slot.
        inflight: Messages not yet released, as of the last call.
        shm_reallocations: How often the shared memory grew; the publisher adds to it.
        thinned: Rows left out to stay within the row budget.
        next_root_ns: From when on a message without a trace may begin one (see `sample_root`).
    """

    __slots__ = (
        "_blame",
        "_clock",
        "_holders",
        "_labels",
        "_last_start_ns",
        "_meta",
        "_plain",
        "_recording",
        "_ring",
        "_root_period_ns",
        "_root_ratio",
        "_selector",
        "_thin_mask",
        "_thins",
        "_wait_meta",
        "backpressure_ns",
        "bytes",
        "endpoint_id",
        "graph",
        "id",
        "index",
        "inflight",
        "next_root_ns",
        "num_buffers",
        "sent",
        "shm_reallocations",
        "thinned",
        "timed",
        "topic",
    )

    def __init__(
        self,
        publisher_id: UUID,
        topic: str,
        num_buffers: int,
        index: int,
        ring: Ring,
        labels: Labels,
        clock: Callable[[], int],
        graph: str | None,
    ) -> None:
        """Made by the registry."""
        self.graph = graph
        self.id, self.topic, self.num_buffers, self.index = publisher_id, topic, num_buffers, index
        self.endpoint_id = f"{topic}:{publisher_id}"
        self.sent = self.bytes = self.backpressure_ns = self.inflight = self.shm_reallocations = self.thinned = 0
        self._ring, self._labels, self._clock = ring, labels, clock
        self._meta = meta_word(PUBLISH, index)
        self._wait_meta = meta_word(WAIT, index)
        self._last_start_ns = NO_PREVIOUS
        self._blame = 0
        self._holders: dict[str, int] = {}
        self.timed = self._plain = self._thins = self._recording = False
        self._selector: Selector | None = None
        self._thin_mask = 0
        self.next_root_ns = NEVER
        self._root_period_ns = 0
        self._root_ratio: float | None = None

    # -- the hot path -------------------------------------------------------------------------------------------------

    def sample_root(self, start_ns: int) -> bool:
        """Whether a message without a trace shall begin one; the first of a publisher does.

        The publisher does this inline, to save the call.
        """
        return start_ns >= self.next_root_ns and self.begin_root(start_ns)

    def published(
        self,
        message_id: int,
        origin_ns: int,
        start_ns: int,
        end_ns: int,
        wait_ns: int,
        serialize_ns: int,
        size: int,
        inflight: int,
        fanout: int,
        trace: PublishTrace | None,
    ) -> None:
        """One broadcast is done.

        Args:
            message_id: Its number.
            origin_ns: When the first message of its chain was published; negative if by another host's clock.
            start_ns: `broadcast` entered.
            end_ns: `broadcast` about to return.
            wait_ns: Time spent waiting for a slot, 0 if it did not wait.
            serialize_ns: Time spent serializing, 0 if it was not serialized.
            size: Bytes sent (0 for an object handed over by reference).
            inflight: Messages not yet released, this one included.
            fanout: Channels it went to.
            trace: Trace id, span id and parent span id of a sampled message.
        """
        self.sent += 1
        self.bytes += size
        self.inflight = inflight
        if wait_ns:
            self.backpressure_ns += wait_ns
        if self._plain and trace is None:
            ring = self._ring
            offset = ring.head
            pack_row(
                ring.buffer,
                offset & ring.mask,
                self._meta,
                message_id,
                origin_ns,
                start_ns,
                end_ns,
                wait_ns,
                serialize_ns,
                size,
            )
            ring.head = offset + 64
            self._last_start_ns = start_ns
        elif self._thins and trace is None and self.sent & self._thin_mask:
            self.thinned += 1
            self._last_start_ns = start_ns
        elif self.timed:
            self._record(
                self._meta,
                message_id,
                origin_ns,
                start_ns,
                end_ns,
                wait_ns,
                serialize_ns,
                size,
                fanout,
                trace,
            )

    def counted(self, size: int, inflight: int) -> None:
        """One broadcast is done that nobody times: what `published` does when `timed` is false, for less."""
        self.sent += 1
        self.bytes += size
        self.inflight = inflight

    def blame(self, holder: str, wait_ns: int) -> None:
        """Say who held the slot that the broadcast about to be recorded had to wait for."""
        self._holders[holder] = self._holders.get(holder, 0) + wait_ns
        if self.timed:
            self._blame = self._labels.code(holder)

    # -- the methods of the 3.9 API -----------------------------------------------------------------------------------

    def record_publish(self, inflight: int, msg_seq: int | None = None) -> None:
        """Count a message published now, as number `msg_seq`."""
        seq = self.sent if msg_seq is None else msg_seq
        self.sent += 1
        self.inflight = inflight
        if self.timed:
            now = self._clock()
            self._record(self._meta | INSTANT, seq, now, now, now, 0, 0, 0, 0, None)

    def record_backpressure_wait(self, wait_ns: int, msg_seq: int | None = None) -> None:
        """Count time that message `msg_seq` (default: the next) waited for a slot; it ended now."""
        seq = self.sent if msg_seq is None else msg_seq
        self.backpressure_ns += wait_ns
        if self.timed:
            now = self._clock()
            self._record_wait((self._wait_meta, seq, 0, now - wait_ns, now, wait_ns, 0, 0))

    def sample_inflight(self, inflight: int) -> None:
        """Note how many messages are not yet released."""
        self.inflight = inflight

    # -- for the registry ---------------------------------------------------------------------------------------------

    def configure(self, recording: bool, selector: Selector | None, thin_mask: int) -> None:
        """Change what is recorded, from any thread: rows at all, a native trace, one row in `thin_mask + 1`."""
        self._recording, self._selector, self._thin_mask = recording, selector, thin_mask
        self.timed = recording or selector is not None
        # One row a message, unless the message itself is special: the common case, decided in one look.
        self._plain = recording and selector is None and not thin_mask
        self._thins = recording and selector is None and thin_mask > 0

    def configure_roots(self, rate_hz: float, ratio: float | None) -> None:
        """Change how many messages begin a trace: a share of them, or (with `ratio` None) so many per second."""
        self._root_ratio = ratio
        if ratio is not None:
            self.next_root_ns = ALWAYS if ratio > 0 else NEVER
            self._root_period_ns = 0
        elif rate_hz <= 0:
            self.next_root_ns = NEVER
        else:
            self._root_period_ns = int(1e9 / rate_hz)
            self.next_root_ns = ALWAYS

    def counters(self) -> dict[str, int]:
        """Totals and last gauges, by the names of the wire."""
        values = {
            "sent": self.sent,
            "bytes": self.bytes,
            "backpressure_ns": self.backpressure_ns,
            "inflight": self.inflight,
            "shm_reallocations": self.shm_reallocations,
        }
        for holder, wait_ns in list(self._holders.items()):
            values[f"blame_ns:{holder}"] = wait_ns
        return values

    @property
    def selector(self) -> Selector | None:
        """The native sampling decision, when a trace selects this endpoint."""
        return self._selector

    # -- beneath ------------------------------------------------------------------------------------------------------

    def begin_root(self, start_ns: int) -> bool:
        """Whether a message begins a trace, now that the time for one has come."""
        ratio = self._root_ratio
        if ratio is None:
            self.next_root_ns = start_ns + self._root_period_ns
            return True
        return self.sent == 0 or chance(ratio)

    def _record(
        self,
        meta: int,
        message_id: int,
        origin_ns: int,
        start_ns: int,
        end_ns: int,
        wait_ns: int,
        serialize_ns: int,
        size: int,
        fanout: int,
        trace: PublishTrace | None,
    ) -> None:
        """Record a publish that is not plain: sampled, selected, thinned, or none of it after all."""
        previous_ns, self._last_start_ns = self._last_start_ns, start_ns
        extra_meta = EXTRA
        samples = spans = trace_id = span_id = parent_id = 0
        selector = self._selector
        if selector is not None and selector.settle(self.index, message_id):
            wanted, _, generation = selector.selection
            owed = 1 << PUBLISH_DELTA | (wait_ns > 0) << BACKPRESSURE_WAIT | (serialize_ns > 0) << SERIALIZE
            if emit := wanted & owed:
                meta |= SELECTED
                extra_meta |= emit << LABEL_SHIFT | generation << INDEX_SHIFT
                samples = emit.bit_count()
        if trace is not None and self._recording:
            trace_id, span_id, parent_id = trace
            meta |= SAMPLED
            spans = 1
        elif not samples:
            if not self._recording:
                return
            if self.sent & self._thin_mask:
                self.thinned += 1
                return
        blame, self._blame = self._blame, 0
        # Extended also when nothing but thinning asks for it: the interval needs the start of the message before.
        ring = self._ring
        offset = ring.head
        pack_row(
            ring.buffer,
            offset & ring.mask,
            meta | EXTENDED,
            message_id,
            origin_ns,
            start_ns,
            end_ns,
            wait_ns,
            serialize_ns,
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
            previous_ns,
            fanout,
            blame,
        )
        ring.mark(offset + 128, spans, samples)

    def _record_wait(self, row: tuple[int, ...]) -> None:
        selector = self._selector
        if selector is not None and selector.decide(self.index, row[1]):
            wanted, _, generation = selector.selection
            if emit := wanted & 1 << BACKPRESSURE_WAIT:
                extra = (EXTRA | emit << LABEL_SHIFT | generation << INDEX_SHIFT, 0, 0, 0, 0, NO_PREVIOUS, 0, 0)
                self._ring.put_extended((row[0] | SELECTED | EXTENDED, *row[1:]), extra, 1)
                return
        if self._recording:
            self._ring.put(*row)
