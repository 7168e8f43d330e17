"""The pipeline of spans: a bounded queue of rows, encoded when their turn comes.

Rows wait as they came (128 bytes each); as objects of the SDK they would take twenty times that. The bound is one of
rows, of which each link and each attribute of the user takes one. What is exported, dropped or settled is spans.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from ezmsg.core.wire.records import ClockAnchor
from ezmsg.otel.ledger import Ledger
from ezmsg.otel.outcome import Outcome, Sender
from ezmsg.otel.pipeline import Pipeline
from ezmsg.otel.settings import Settings
from ezmsg.otel.spanencoder import Payload, ResourceOf, SpanBatch, SpanEncoder
from ezmsg.otel.spanrows import RecentIds, SpanRows
from ezmsg.otel.state import Process

REMEMBERED_IDS: Final = 1 << 17
MAX_REQUEST_BYTES: Final = 3 << 20
"""A gRPC receiver takes 4 MiB, if it was not told otherwise."""


class SpanPipeline(Pipeline[SpanBatch[Payload]]):
    """Exports spans in batches, each span once."""

    def __init__(
        self,
        sender: Sender[SpanBatch[Payload]],
        encoder: SpanEncoder[Payload],
        resource_of: ResourceOf,
        ledger: Ledger,
        settings: Settings,
        settled: Callable[[str, int], None] = lambda link_id, count: None,
    ) -> None:
        """Make it; `settled` is told, by link, how many spans were exported or given up (not: left at the end)."""
        super().__init__("traces", sender, ledger)
        self._settled = settled
        self._encoder = encoder
        self._resource_of = resource_of
        self.limit = settings.span_queue
        self._batch = min(settings.span_batch, self.limit)
        self._delay_s = settings.span_delay_s
        self._queue: deque[SpanRows] = deque()
        # Rows, and how many spans they are; also those that are being encoded.
        self._waiting = self._waiting_spans = 0
        self._waiting_since_s = 0.0
        self._ready: SpanBatch[Payload] | None = None
        self._ready_rows = 0
        self._ready_from: Counter[str] = Counter()
        # How often what waited was dropped: what is being encoded then has been counted.
        self._drops = 0
        self._recent = RecentIds(REMEMBERED_IDS)

    @property
    def usage(self) -> int:
        """Rows of spans that wait for export."""
        with self._changed:
            return self._backlog()

    def offer(self, process: Process, anchor: ClockAnchor, data: bytes) -> None:
        """Queue rows; what has no room is dropped, and counted. Never waits. From one thread."""
        received = SpanRows.of(process, anchor, data)
        queued = self._queue_up(SpanRows(process, anchor, self._recent.new(received.rows)))
        if queued < (count := received.spans):
            self._settled(process.link_id, count - queued)

    def give_up(self) -> None:
        """Drop, and count, what waits and what is under way."""
        self._drop_backlog()

    def _queue_up(self, rows: SpanRows) -> int:
        """Queue as many spans as there is room for; returns how many."""
        with self._changed:
            room = 0 if self._is_stopping else max(0, self.limit - self._backlog())
            if len(rows) > room:
                # A copy: a view of what is taken would keep the memory of what is not.
                fitting = rows.up_to(room)
                reason = "shutdown" if self._is_stopping else "queue_full"
                self._ledger.dropped("span", reason, rows.spans - fitting.spans)
                rows = fitting
            if not len(rows):
                return 0
            if not self._waiting:
                self._waiting_since_s = time.monotonic()
            self._queue.append(rows)
            self._waiting += len(rows)
            self._waiting_spans += (spans := rows.spans)
            self._changed.notify_all()
            return spans

    def _due_in_s(self, now_s: float) -> float:
        if self._ready is not None or self._waiting >= self._batch:
            return 0.0
        return self._waiting_since_s + self._delay_s - now_s if self._waiting else math.inf

    def _backlog(self) -> int:
        return self._waiting + (0 if self._ready is None else self._ready_rows)

    def _drop_backlog(self) -> None:
        with self._changed:
            left = self._waiting_spans + (0 if self._ready is None else self._ready.count)
            self._queue.clear()
            self._ready, self._waiting, self._waiting_spans = None, 0, 0
            self._drops += 1
        if left:
            self._ledger.dropped("span", "shutdown", left)

    def _take(self) -> SpanBatch[Payload] | None:
        if self._ready is None:
            with self._changed:
                drops, chunks = self._drops, self._next_rows()
            batch = self._encoder.encode(chunks, self._resource_of)
            while batch.size > MAX_REQUEST_BYTES and self._batch > 1:
                with self._changed:
                    if self._drops != drops:
                        return None
                    self._batch //= 2
                    self._queue.extendleft(reversed(chunks))
                    chunks = self._next_rows()
                batch = self._encoder.encode(chunks, self._resource_of)
            ready_from: Counter[str] = Counter()
            for chunk in chunks:
                ready_from[chunk.process.link_id] += chunk.spans
            rows, spans = sum(map(len, chunks)), ready_from.total()
            with self._changed:
                if self._drops != drops:
                    return None
                self._ready, self._ready_rows = batch if batch.count else None, rows
                self._waiting -= rows
                self._waiting_spans -= spans
            if batch.count < spans:
                self._ledger.dropped("span", "unreadable", spans - batch.count)
            self._ready_from = ready_from
            if not batch.count:
                self._settle_ready()
        return self._ready

    def _settle_ready(self) -> None:
        for link_id, count in self._ready_from.items():
            self._settled(link_id, count)

    def _next_rows(self) -> list[SpanRows]:
        chunks: list[SpanRows] = []
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

    def _settle(self, batch: SpanBatch[Payload], outcome: Outcome) -> None:
        with self._changed:
            if self._ready is not batch or outcome.verdict == "retry":
                return
            self._ready = None
        if outcome.verdict == "taken":
            self._ledger.exported("span", batch.count - outcome.rejected)
            if outcome.rejected:
                self._ledger.dropped("span", outcome.reason, outcome.rejected)
        else:
            self._ledger.dropped("span", outcome.reason, batch.count)
        self._settle_ready()
