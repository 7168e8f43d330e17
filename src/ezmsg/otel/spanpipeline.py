"""The pipeline of spans: a bounded queue of rows, expanded when their turn comes.

Rows wait as they came (128 bytes each); as objects of the SDK they would take twenty times that.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from ezmsg.core.graphmeta import TraceSpan
from ezmsg.core.recorder.rows import SPAN_ROW, is_link
from ezmsg.core.wire.records import ClockAnchor, EndpointRecord
from ezmsg.otel.ledger import Ledger
from ezmsg.otel.outcome import Outcome, Sender
from ezmsg.otel.pipeline import Pipeline
from ezmsg.otel.registry import Registry
from ezmsg.otel.settings import Settings
from ezmsg.otel.spans import readable_span
from ezmsg.otel.state import Process

Expand = Callable[[memoryview, Mapping[int, EndpointRecord], Mapping[int, str], ClockAnchor], list[TraceSpan]]

ROW_BYTES = SPAN_ROW.itemsize
REMEMBERED_IDS = 1 << 16

logger = logging.getLogger("ezmsg.otel")


@dataclass(frozen=True, slots=True)
class Rows:
    """Span rows of one process, and the anchor that came with them."""

    process: Process
    anchor: ClockAnchor
    data: memoryview

    def __len__(self) -> int:
        return len(self.data) // ROW_BYTES

    def split(self, count: int) -> tuple[Rows, Rows]:
        """The first `count` rows and the links of the last of them, and the others."""
        rows = np.frombuffer(self.data, dtype=SPAN_ROW)
        while 0 < count < len(rows) and is_link(rows[count]):
            count += 1
        at = count * ROW_BYTES
        head = Rows(self.process, self.anchor, self.data[:at])
        return head, Rows(self.process, self.anchor, self.data[at:])


class SpanPipeline(Pipeline[Sequence[ReadableSpan]]):
    """Exports spans in batches, each span once."""

    def __init__(
        self,
        sender: Sender[Sequence[ReadableSpan]],
        registry: Registry,
        ledger: Ledger,
        settings: Settings,
        expand: Expand,
    ) -> None:
        super().__init__("traces", sender, ledger)
        self._registry = registry
        self._expand = expand
        self.limit = settings.span_queue
        self._batch = min(settings.span_batch, self.limit)
        self._delay_s = settings.span_delay_s
        self._queue: deque[Rows] = deque()
        self._waiting = 0
        self._waiting_since_s = 0.0
        self._ready: list[ReadableSpan] = []
        self._recent = RecentIds(REMEMBERED_IDS)

    @property
    def usage(self) -> int:
        """Spans that wait for export."""
        with self._changed:
            return self._backlog()

    def offer(self, process: Process, anchor: ClockAnchor, data: bytes) -> None:
        """Queue rows; what has no room is dropped, and counted. Never waits."""
        rows = Rows(process, anchor, memoryview(data))
        with self._changed:
            room = 0 if self._is_stopping else max(0, self.limit - self._backlog())
            if len(rows) > room:
                self._ledger.dropped("span", "shutdown" if self._is_stopping else "queue_full", len(rows) - room)
                # A copy: a view of what is taken would keep the memory of what is not.
                rows = Rows(process, anchor, memoryview(data[: room * ROW_BYTES]))
            if not len(rows):
                return
            if not self._waiting:
                self._waiting_since_s = time.monotonic()
            self._queue.append(rows)
            self._waiting += len(rows)
            self._changed.notify_all()

    def _due_in_s(self, now_s: float) -> float:
        if self._ready or self._waiting >= self._batch:
            return 0.0
        return self._waiting_since_s + self._delay_s - now_s if self._waiting else math.inf

    def _backlog(self) -> int:
        return self._waiting + len(self._ready)

    def _drop_backlog(self) -> None:
        with self._changed:
            left = self._backlog()
            self._queue.clear()
            self._ready, self._waiting = [], 0
        if left:
            self._ledger.dropped("span", "shutdown", left)
            logger.warning("%d spans were dropped because the agent ended before they could be exported", left)

    def _take(self) -> Sequence[ReadableSpan] | None:
        if not self._ready:
            with self._changed:
                chunks = self._next_rows()
            spans = [span for rows in chunks for span in self._spans_of(rows)]
            with self._changed:
                self._ready = spans
                self._waiting -= sum(map(len, chunks))
        return self._ready or None

    def _next_rows(self) -> list[Rows]:
        chunks: list[Rows] = []
        wanted = self._batch
        while wanted > 0 and self._queue:
            rows = self._queue.popleft()
            if len(rows) > wanted:
                rows, rest = rows.split(wanted)
                self._queue.appendleft(rest)
            chunks.append(rows)
            wanted -= len(rows)
        self._waiting_since_s = time.monotonic()
        return chunks

    def _spans_of(self, rows: Rows) -> list[ReadableSpan]:
        process = rows.process
        resource = self._registry.resource(process)
        try:
            expanded = self._expand(rows.data, process.endpoints, process.labels, rows.anchor)
            spans = [readable_span(span, resource) for span in expanded]
        except Exception:  # rows that cannot be read must not hold up those behind them
            logger.exception("%d spans of process %s cannot be read", len(rows), process.link_id)
            self._ledger.dropped("span", "unreadable", len(rows))
            return []
        read = sum(1 + _own_links(span.kind == "PRODUCER", span.links) for span in expanded)
        if read < len(rows):
            self._ledger.dropped("span", "unreadable", len(rows) - read)
        return [span for made, span in zip(expanded, spans, strict=True) if self._recent.add(made.span_id)]

    def _settle(self, batch: Sequence[ReadableSpan], outcome: Outcome) -> None:
        with self._changed:
            if self._ready is not batch or outcome.verdict == "retry":
                return
            self._ready = []
        if outcome.verdict == "taken":
            self._ledger.exported("span", _rows_in(batch) - outcome.rejected)
            if outcome.rejected:
                self._ledger.dropped("span", outcome.reason, outcome.rejected)
        else:
            self._ledger.dropped("span", outcome.reason, _rows_in(batch))


def _rows_in(spans: Sequence[ReadableSpan]) -> int:
    """From how many rows spans were made: what is counted, here as in the processes that recorded them."""
    return sum(1 + _own_links(span.kind is SpanKind.PRODUCER, span.links) for span in spans)


def _own_links(is_publish: bool, links: Sequence[object]) -> int:
    """How many links of a span had rows of their own; what others link to is their parent."""
    return len(links) if is_publish else 0


class RecentIds:
    """The last so many ids: after a reconnection the server sends again what it still has."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ids: dict[str, None] = {}

    def add(self, span_id: str) -> bool:
        """Remember an id; tells whether it is new."""
        if span_id in self._ids:
            return False
        self._ids[span_id] = None
        if len(self._ids) > self._limit:
            del self._ids[next(iter(self._ids))]
        return True
