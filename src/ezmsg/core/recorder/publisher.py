"""The publisher's end of the recorder: what a broadcast records, and the methods of the 3.9 profiling API.

Times are seconds of `rows.clock`, as floats; see `rows`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.recorder.calculated import TraceIds
from ezmsg.core.recorder.handover import Holder, nobody
from ezmsg.core.recorder.ids import chance
from ezmsg.core.recorder.labels import Labels
from ezmsg.core.recorder.ring import Ring
from ezmsg.core.recorder.roots import RootTurns
from ezmsg.core.recorder.rows import (
    BACKPRESSURE_WAIT,
    ERROR,
    EXTENDED,
    EXTRA,
    INDEX_SHIFT,
    INSTANT,
    LABEL_SHIFT,
    LINK,
    NO_PREVIOUS_S,
    NO_TRACE,
    PUBLISH,
    PUBLISH_DELTA,
    ROW_BYTES,
    SAMPLED,
    SELECTED,
    SERIALIZE,
    WAIT,
    clock,
    meta_word,
    pack_extra,
    pack_row,
    selected_flags,
)
from ezmsg.core.recorder.selection import Selector
from ezmsg.core.recorder.waits import Waits
from ezmsg.core.recorder.ways import Ways

NEVER: Final = float("inf")
ALWAYS: Final = -NEVER
PublishTrace = tuple[bytes, int, int, Sequence[tuple[bytes, int]]]
"""Trace id (16 bytes), span id of this publish, that of its parent (0: root), and trace and span ids of what else it
follows from."""


class PublisherMetrics:
    """Counts and records what one publisher does. Used by one thread at a time, the one that registered it.

    A publisher counts and writes plain rows itself, inline; `published` does the same for everybody else.

    Attributes:
        is_plain: Whether a message without a trace becomes one row of the ring at most, and nothing else.
        timed: Whether durations are recorded at all.
        turns: Shared with the other publishers of the topic: whose turn it is to begin a trace.
        teller: What a receiver in the same loop is told that records the publish as well: `index`, or 0 if nobody does.
        meta: The first word of the rows.
        ids: Those of the traces that begin here, where they are calculated.
        ring: Where they go.
        selects_all: Whether a native trace selects every message, and nothing is thinned (see `record_selected`).
        sent: Messages published.
        bytes: Their size in all.
        waits: How long they waited for a slot.
        last_start_s: When `broadcast` was entered last.
        inflight_gauge: Tells the messages not yet released; set by the publisher.
        left_to: Tells who is to record publishes here, if anybody is; set by the publisher.
        shm_reallocations: How often the shared memory grew; the publisher adds to it.
        thinned: Rows left out to stay within the row budget.
        roots: Traces that were due to begin here.
        roots_thinned: Those of them left out to stay within the budget.
        next_root_s: From when on a message without a trace may begin one (see `begin_root`).
        begins_all: Whether each does, without asking; also these must not begin before `next_root_s`.
    """

    __slots__ = (
        "_blame",
        "_clock",
        "_inflight",
        "_labels",
        "_link_meta",
        "_recording",
        "_root_mask",
        "_root_period_s",
        "_root_ratio",
        "_selected",
        "_selector",
        "_thin_mask",
        "_wait_meta",
        "_ways",
        "begins_all",
        "bytes",
        "endpoint_id",
        "graph",
        "id",
        "ids",
        "index",
        "inflight_gauge",
        "is_plain",
        "last_start_s",
        "left_to",
        "meta",
        "next_root_s",
        "num_buffers",
        "ring",
        "roots",
        "roots_thinned",
        "selects_all",
        "sent",
        "shm_reallocations",
        "teller",
        "thinned",
        "timed",
        "topic",
        "turns",
        "waits",
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
        turns: RootTurns,
    ) -> None:
        """Made by the registry."""
        self.graph, self.turns = graph, turns
        self.id, self.topic, self.num_buffers, self.index = publisher_id, topic, num_buffers, index
        self.endpoint_id = f"{topic}:{publisher_id}"
        self.sent = self.bytes = self.shm_reallocations = self.thinned = self._inflight = 0
        self.inflight_gauge: Callable[[], int] | None = None
        self.left_to: Callable[[], Holder | None] = nobody
        self.ring, self._labels, self._clock = ring, labels, clock
        self.meta = meta_word(PUBLISH, index)
        self.ids = TraceIds()
        self._wait_meta = meta_word(WAIT, index)
        self._ways = Ways()
        self._link_meta = meta_word(LINK, index)
        self.last_start_s = NO_PREVIOUS_S
        self.waits = Waits()
        self._blame = 0
        self.timed = self.is_plain = self._recording = False
        self.teller = 0
        self._selector: Selector | None = None
        self.selects_all = False
        # The flags of a selected message's row, and the samples it owes: with a wait, with serialization, with both.
        self._selected = ((0, 0),) * 4
        self._thin_mask = 0
        self.next_root_s = NEVER
        self.begins_all = False
        self._root_period_s = 0.0
        self._root_ratio: float | None = None
        self._root_mask = self.roots = self.roots_thinned = 0

    # -- the hot path -------------------------------------------------------------------------------------------------

    def published(
        self,
        message_id: int,
        origin_s: float,
        start_s: float,
        end_s: float,
        wait_s: float,
        serialize_s: float,
        size: int,
        fanout: int,
        trace: PublishTrace | None,
    ) -> None:
        """One broadcast is done.

        Args:
            message_id: Its number.
            origin_s: When the first message of its chain was published; negative if by another host's clock.
            start_s: `broadcast` entered.
            end_s: `broadcast` about to return.
            wait_s: Time spent waiting for a slot, 0 if it did not wait.
            serialize_s: Time spent serializing, 0 if it was not serialized.
            size: Bytes sent (0 for an object handed over by reference).
            fanout: Channels it went to.
            trace: Of a sampled message.
        """
        self.sent += 1
        self.bytes += size
        if wait_s:
            self.waits.add(round(wait_s * 1e9))
        self.record(message_id, origin_s, start_s, end_s, wait_s, serialize_s, size, fanout, trace)

    def record(
        self,
        message_id: int,
        origin_s: float,
        start_s: float,
        end_s: float,
        wait_s: float,
        serialize_s: float,
        size: int,
        fanout: int,
        trace: PublishTrace | None,
        flags: int = 0,
    ) -> None:
        """Record a broadcast that was counted: plain, sampled, selected, thinned, or none of it after all."""
        if not self.timed:
            return
        previous_s, self.last_start_s = self.last_start_s, start_s
        ring = self.ring
        selector = self._selector
        if selector is None and trace is not None and not trace[3]:
            blame, self._blame = (self._blame if wait_s else 0), 0
            ring.put_span(
                self.meta | flags, message_id, origin_s, start_s, end_s, wait_s, serialize_s, size,
                trace[0], trace[1], trace[2], previous_s, fanout, blame,
            )  # fmt: skip
            return
        offset = ring.head
        if self.is_plain and trace is None:
            pack_row(
                ring.buffer, offset & ring.mask,
                self.meta | flags, message_id, origin_s, start_s, end_s, wait_s, serialize_s, size,
            )  # fmt: skip
            ring.head = offset + 64
            return
        if self.selects_all and trace is None:
            self._blame = 0
            more_flags, owed = self._selected[(wait_s > 0) + 2 * (serialize_s > 0)]
            pack_row(
                ring.buffer, offset & ring.mask,
                self.meta | flags | more_flags, message_id, previous_s, start_s, end_s, wait_s, serialize_s, size,
            )  # fmt: skip
            # As `Ring.mark` does.
            ring.head = end = offset + ROW_BYTES
            _, extras, spans, samples = ring.marks
            ring.marks = (end, extras, spans, samples + owed)
            return
        meta, extra_meta = self.meta | flags, EXTRA
        samples = spans = span_id = parent_id = 0
        trace_id, links = NO_TRACE, ()
        if selector is not None and selector.settle(self.index, message_id):
            wanted, _, generation = selector.selection
            owed = 1 << PUBLISH_DELTA | (wait_s > 0) << BACKPRESSURE_WAIT | (serialize_s > 0) << SERIALIZE
            if emit := wanted & owed:
                samples = emit.bit_count()
                if trace is None and self._recording and not self._thin_mask:
                    self._blame = 0
                    meta |= selected_flags(emit, generation)
                    ring.put_selected(samples, meta, message_id, previous_s, start_s, end_s, wait_s, serialize_s, size)
                    return
                meta |= SELECTED
                extra_meta |= emit << LABEL_SHIFT | generation << INDEX_SHIFT
        if trace is not None and self._recording:
            trace_id, span_id, parent_id, links = trace
            meta |= SAMPLED
            spans = 1
        elif not samples:
            if not self._recording:
                return
            if not self._thin_mask:
                ring.put(self.meta | flags, message_id, origin_s, start_s, end_s, wait_s, serialize_s, size)
                return
            if self.sent & self._thin_mask:
                self.thinned += 1
                return
        blame, self._blame = (self._blame if wait_s else 0), 0
        if links:
            row = message_id, origin_s, start_s, end_s, wait_s, serialize_s, size
            extra = extra_meta, trace_id, span_id, parent_id, previous_s, fanout, blame
            ring.put_linked(meta | EXTENDED, row, extra, samples, self._link_meta, links)
            return
        # Extended also when nothing but thinning asks for it: the interval needs the start of the message before.
        pack_row(
            ring.buffer, offset & ring.mask,
            meta | EXTENDED, message_id, origin_s, start_s, end_s, wait_s, serialize_s, size,
        )  # fmt: skip
        pack_extra(
            ring.buffer, offset + 64 & ring.mask,
            extra_meta, trace_id, span_id, parent_id, previous_s, fanout, blame,
        )  # fmt: skip
        ring.mark(offset + 128, spans, samples)

    def record_selected(self, message_id: int, start_s: float, end_s: float) -> None:
        """Record a broadcast to one subscriber of this loop, in no trace but a native one that selects all messages."""
        previous_s, self.last_start_s = self.last_start_s, start_s
        flags, owed = self._selected[0]
        ring = self.ring
        offset = ring.head
        pack_row(
            ring.buffer, offset & ring.mask,
            self.meta | flags, message_id, previous_s, start_s, end_s, 0.0, 0.0, 0,
        )  # fmt: skip
        # As `Ring.mark` does.
        ring.head = end = offset + ROW_BYTES
        _, extras, spans, samples = ring.marks
        ring.marks = (end, extras, spans, samples + owed)

    def record_late(
        self, message_id: int, origin_s: float, start_s: float, end_s: float, trace: PublishTrace | None = None
    ) -> None:
        """Record a broadcast to one subscriber of this loop after later ones have begun.

        A native trace that was set in the meantime does not select it, and the next interval does not begin with it.
        """
        if not self._recording:
            return
        if trace is None:
            self.ring.put(self.meta, message_id, origin_s, start_s, end_s, 0.0, 0.0, 0)
        else:
            self.ring.put_span(
                self.meta, message_id, origin_s, start_s, end_s, 0.0, 0.0, 0,
                trace[0], trace[1], trace[2], NO_PREVIOUS_S, 1, 0,
            )  # fmt: skip

    def record_failed(
        self, message_id: int, origin_s: float, start_s: float, wait_s: float, error: str, trace: PublishTrace | None
    ) -> None:
        """Record, for its trace, that a broadcast ends now, with an exception of this type and nothing sent."""
        blame, self._blame = (self._blame if wait_s else 0), 0
        if self._recording and trace is not None:
            trace_id, span_id, parent_id, links = trace
            meta = self.meta | ERROR | SAMPLED | EXTENDED | self._labels.code(error) << LABEL_SHIFT
            row = message_id, origin_s, start_s, clock(), wait_s, 0.0, 0
            extra = EXTRA, trace_id, span_id, parent_id, NO_PREVIOUS_S, 0, blame
            self.ring.put_linked(meta, row, extra, 0, self._link_meta, links)

    def wait_ended(self, wait_ns: int, holder: str) -> None:
        """As `Waits.ended`; the broadcast about to be recorded is the one that waited."""
        self.waits.ended(wait_ns, holder)
        if self.timed:
            self._blame = self._labels.code(holder)

    def take_blame(self) -> int:
        """The label, in the first word of a row, of who made the broadcast about to be recorded wait."""
        blame, self._blame = self._blame, 0
        return blame << LABEL_SHIFT

    def begin_root(self, start_s: float) -> bool:
        """Whether a message begins a trace, now that the time for one (`next_root_s`) has come; the first one does.

        By rate, unless another publisher of the topic has taken the turn.
        """
        ratio = self._root_ratio
        if ratio is None:
            is_turn, self.next_root_s = self.turns.take(start_s, self._root_period_s)
            if not is_turn:
                return False
        elif not (ratio >= 1 or self.sent == 0 or chance(ratio)):
            return False
        if self._root_mask:
            self.roots += 1
            if self.roots & self._root_mask:
                self.roots_thinned += 1
                return False
        return True

    # -- the methods of the 3.9 API -----------------------------------------------------------------------------------

    def record_publish(self, inflight: int, msg_seq: int | None = None) -> None:
        """Count a message published now, as number `msg_seq`."""
        seq = self.sent if msg_seq is None else msg_seq
        self.sent += 1
        self._inflight = inflight
        if self.timed:
            now_s = self._clock() / 1e9
            self.record(seq, now_s, now_s, now_s, 0.0, 0.0, 0, 0, None, INSTANT)

    def record_backpressure_wait(self, wait_ns: int, msg_seq: int | None = None) -> None:
        """Count time that message `msg_seq` (default: the next) waited for a slot; it ended now."""
        seq = self.sent if msg_seq is None else msg_seq
        self.waits.add(wait_ns)
        if self.timed:
            now_ns = self._clock()
            self._record_wait(seq, (now_ns - wait_ns) / 1e9, now_ns / 1e9, wait_ns / 1e9)

    def sample_inflight(self, inflight: int) -> None:
        """Note how many messages are not yet released."""
        self._inflight = inflight

    @property
    def inflight(self) -> int:
        """Messages not yet released: now where the publisher tells, else as noted last."""
        return self._inflight if self.inflight_gauge is None else self.inflight_gauge()

    # -- for the registry ---------------------------------------------------------------------------------------------

    def configure(self, recording: bool, selector: Selector | None, thin_mask: int) -> None:
        """Change what is recorded, from any thread: rows at all, a native trace, one row in `thin_mask + 1`."""
        self._recording, self._selector, self._thin_mask = recording, selector, thin_mask
        timed = recording or selector is not None
        if timed and not self.timed:
            self.last_start_s = NO_PREVIOUS_S  # of some message before the last
        self.timed = timed
        self.is_plain = selector is None and not thin_mask
        self.selects_all = False
        if selector is not None and not thin_mask and selector.selects_all:
            wanted, _, generation = selector.selection
            emits = [
                wanted & (1 << PUBLISH_DELTA | has_wait << BACKPRESSURE_WAIT | has_serialize << SERIALIZE)
                for has_serialize in (False, True)
                for has_wait in (False, True)
            ]
            self._selected = tuple((selected_flags(emit, generation), emit.bit_count()) for emit in emits)
            self.selects_all = bool(emits[0])
        self.teller = self.index if recording else 0

    def configure_roots(self, rate_hz: float, ratio: float | None) -> None:
        """Change which messages begin a trace: a share of them, or (with `ratio` None) so many per second and topic."""
        self._root_ratio = ratio
        if ratio is not None:
            self.next_root_s = ALWAYS if ratio > 0 else NEVER
            self._root_period_s = 0.0
        elif rate_hz <= 0:
            self.next_root_s = NEVER
        else:
            self._root_period_s = 1 / rate_hz
            self.next_root_s = ALWAYS
        self._note_all()

    def goes_by(self, way: ProfileChannelType, channels: Mapping[ProfileChannelType, int]) -> None:
        """From now on messages leave the process this way (UNKNOWN: they do not), by so many channels of each kind.

        A message is serialised once: where some channels see shared memory and others do not, the way is SHM.
        """
        self._ways.take(channels, self.bytes)
        self.meta = meta_word(PUBLISH, self.index, way)

    def thin_roots(self, throttle: int) -> None:
        """Begin one trace in two to this power of those that are due."""
        self._root_mask = (1 << throttle) - 1
        self._note_all()

    def _note_all(self) -> None:
        self.begins_all = self._root_ratio is not None and self._root_ratio >= 1 and not self._root_mask

    def counters(self) -> dict[str, int]:
        """Totals and last gauges, by the names of the wire; a wait that is on counts up to now."""
        values = {
            "sent": self.sent,
            "bytes": self.bytes,
            "inflight": self.inflight,
            "shm_reallocations": self.shm_reallocations,
        }
        for way, size in self._ways.counts(self.bytes).items():
            values[f"bytes_by:{way}"] = size
        return values | self.waits.counters()

    @property
    def selector(self) -> Selector | None:
        """The native sampling decision, when a trace selects this endpoint."""
        return self._selector

    # -- beneath ------------------------------------------------------------------------------------------------------

    def _record_wait(self, message_id: int, start_s: float, end_s: float, wait_s: float) -> None:
        words = (message_id, 0.0, start_s, end_s, wait_s, 0.0, 0)
        selector = self._selector
        if selector is not None and selector.decide(self.index, message_id):
            wanted, _, generation = selector.selection
            if emit := wanted & 1 << BACKPRESSURE_WAIT:
                extra_meta = EXTRA | emit << LABEL_SHIFT | generation << INDEX_SHIFT
                extra = (extra_meta, NO_TRACE, 0, 0, NO_PREVIOUS_S, 0, 0)
                self.ring.put_extended(self._wait_meta | SELECTED | EXTENDED, words, extra, 1)
                return
        if self._recording:
            self.ring.put(self._wait_meta, *words)
