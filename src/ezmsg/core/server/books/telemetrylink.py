"""What the server keeps of one process: its last values, and its newest span rows."""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np

from ezmsg.core.errors import ProtocolError
from ezmsg.core.recorder.distinct import distinct
from ezmsg.core.recorder.rowlog import RowArray, RowLog
from ezmsg.core.recorder.rows import SAMPLE_ROW, SPAN_ROW, is_follower
from ezmsg.core.wire.records import (
    ClockAnchor,
    EndpointRecord,
    HistogramState,
    OpenTelemetry,
    TelemetryBatch,
)

CLOSED: Final = 1000
"""Closed endpoints whose last values are kept for an exporter still to come."""
RECORDS: Final = 8192
"""Endpoints remembered in all, to explain rows that were not read yet."""
ENDPOINTS: Final = 16_384
HISTOGRAMS: Final = 4 * ENDPOINTS
LABELS: Final = 65_536
"""Most of each that one process may have here, whatever it tells; more is counted as lost."""

NO_GOODBYE: Final = "link:no_goodbye"
"""The end of a process that did not take its leave: what it recorded since its last batch is lost, and not counted."""

HistogramKey = tuple[int, str, str]


def span_rows(data: bytes) -> RowArray:
    """The span rows of a batch.

    Raises:
        ProtocolError: The bytes are no whole rows.
    """
    return _rows(data, SPAN_ROW)


def sample_rows(data: bytes) -> RowArray:
    """The sample rows of a batch.

    Raises:
        ProtocolError: The bytes are no whole rows.
    """
    return _rows(data, SAMPLE_ROW)


def _rows(data: bytes, dtype: np.dtype[np.void]) -> RowArray:
    if len(data) % dtype.itemsize:
        raise ProtocolError(f"{len(data)} bytes are no rows of {dtype.itemsize} bytes")
    return np.frombuffer(data, dtype=dtype)


class TelemetryLink:
    """The telemetry of one process, as last delivered.

    Attributes:
        hello: Who it is.
        anchor: How its times become Unix time.
        connections: Open connections of this link: two for a moment when it reconnects.
        exported: Position in `spans` up to which exporters were sent rows.
        lost: What was given up here, by `kind:reason`.
    """

    def __init__(self, hello: OpenTelemetry, anchor: ClockAnchor, span_limit: int) -> None:
        self.hello, self.anchor = hello, anchor
        self.connections = 0
        self.spans = RowLog(SPAN_ROW, span_limit, is_follower)
        self.exported = 0
        self.endpoints: dict[int, EndpointRecord] = {}
        self.closed: dict[int, None] = {}
        self.counters: dict[int, dict[str, int]] = {}
        self.histograms: dict[HistogramKey, HistogramState] = {}
        self.labels: dict[int, str] = {}
        self.recorded: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self.lost: Counter[str] = Counter()
        self.process_id = ""
        self.mono_ns = hello.mono_ns
        self.last_seq = -1
        self.is_final = False
        self._records: dict[int, EndpointRecord] = {}

    def losses(self) -> dict[str, int]:
        """What was given up here, and one item for the end without a goodbye of a process that was killed."""
        lost = {reason: count for reason, count in self.lost.items() if count}
        return lost | {NO_GOODBYE: 1} if self.is_gone and not self.is_final else lost

    @property
    def is_gone(self) -> bool:
        """Whether nothing more will come, unless the process reconnects."""
        return self.connections == 0

    def apply(self, batch: TelemetryBatch) -> None:
        """Take over what changed.

        Raises:
            ProtocolError: Its columns are no whole rows; nothing was changed.
        """
        rows = span_rows(batch.spans)
        self.last_seq, self.process_id, self.mono_ns = batch.seq, batch.process_id, batch.mono_ns
        self.is_final = batch.final
        for endpoint in batch.endpoints:
            if len(self.endpoints) >= ENDPOINTS and endpoint.index not in self.endpoints:
                self.lost["endpoint:limit"] += 1
                continue
            self.endpoints[endpoint.index] = self._records[endpoint.index] = endpoint
            self.closed.pop(endpoint.index, None)
        while len(self._records) > RECORDS:
            del self._records[next(iter(self._records))]
        for counters in batch.counters:
            if len(self.counters) < ENDPOINTS or counters.index in self.counters:
                self.counters[counters.index] = counters.values
            else:
                self.lost["counters:limit"] += 1
        for histogram in batch.histograms:
            key = (histogram.index, histogram.name, histogram.label)
            if len(self.histograms) < HISTOGRAMS or key in self.histograms:
                self.histograms[key] = histogram
            else:
                self.lost["histogram:limit"] += 1
        for code, label in batch.labels.items():
            if len(self.labels) < LABELS or code in self.labels:
                self.labels[code] = label
            else:
                self.lost["label:limit"] += 1
        self.recorded, self.dropped = batch.recorded or self.recorded, batch.dropped or self.dropped
        for index in batch.closed:
            self._close(index)
        if len(rows):
            self.spans.append(rows)

    def explain(self, indices: RowArray) -> list[EndpointRecord]:
        """The endpoints that rows name."""
        return [self._records[index] for index in distinct(indices) if index in self._records]

    def _close(self, index: int) -> None:
        if index not in self.endpoints:
            return
        self.closed[index] = None
        if len(self.closed) <= CLOSED:
            return
        oldest = next(iter(self.closed))
        del self.closed[oldest], self.endpoints[oldest]
        self.counters.pop(oldest, None)
        for key in [key for key in self.histograms if key[0] == oldest]:
            del self.histograms[key]
