"""What the server keeps of one process: its last values, and its newest span rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import numpy as np

from ezmsg.core.errors import ProtocolError
from ezmsg.core.recorder.calculated import Seeds, is_calculated, owners_in
from ezmsg.core.recorder.distinct import counted, distinct
from ezmsg.core.recorder.past import LastValues
from ezmsg.core.recorder.ring import Rows
from ezmsg.core.recorder.rowlog import RowArray
from ezmsg.core.recorder.rows import (
    CHANNEL_MASK,
    CHANNEL_SHIFT,
    CHANNELS,
    HOP,
    KIND_MASK,
    METRICS,
    PROCESS,
    PUBLISH,
    ROW_BYTES,
    ROW_WORDS,
    SAMPLE_ROW,
    SPAN_ROW,
)
from ezmsg.core.recorder.selected import owed_by
from ezmsg.core.recorder.spanlog import SpanLog
from ezmsg.core.recorder.unmadelog import Part
from ezmsg.core.server.books.closedendpoints import ClosedEndpoints
from ezmsg.core.wire.records import (
    ClockAnchor,
    EndpointRecord,
    HistogramState,
    OpenTelemetry,
    TelemetryBatch,
)

ENDPOINTS: Final = 16_384
HISTOGRAMS: Final = 4 * ENDPOINTS
LABELS: Final = 65_536
"""Most of each that one process may have here, whatever it tells; more is counted as lost."""

NO_GOODBYE: Final = "link:no_goodbye"
"""The end of a process that did not take its leave: what it recorded since its last batch is lost, and not counted."""

HistogramKey = tuple[str, str]
"""Name and label, of one endpoint."""


def span_rows(data: bytes) -> RowArray:
    """The span rows of a batch.

    Raises:
        ProtocolError: The bytes are no whole rows, or name what there is not.
    """
    rows = _rows(data, SPAN_ROW)
    _check(rows["meta"] >> CHANNEL_SHIFT & CHANNEL_MASK, len(CHANNELS), "kind of channel")
    return rows


def sample_rows(data: bytes) -> RowArray:
    """The sample rows of a batch.

    Raises:
        ProtocolError: The bytes are no whole rows, or name what there is not.
    """
    rows = _rows(data, SAMPLE_ROW)
    _check(rows["metric"], len(METRICS), "metric")
    _check(rows["channel"], len(CHANNELS), "kind of channel")
    return rows


def selected_rows(data: bytes) -> Rows:
    """The rows of a batch that samples are made of.

    Raises:
        ProtocolError: The bytes are no whole rows, or name what there is not.
    """
    rows = _ring_rows(data)
    _check(rows[:, 0] >> CHANNEL_SHIFT & CHANNEL_MASK, len(CHANNELS), "kind of channel")
    # A negative index would reach into the metric of the samples; what owes nothing would be kept without a bound.
    if len(rows) and ((rows[:, 0] < 0) | (owed_by(rows) == 0)).any():
        raise ProtocolError("a row owes no sample, or is of an endpoint with a negative index")
    return rows


def unmade_rows(data: bytes, seeds: Mapping[int, tuple[int, int, int, int]]) -> Part:
    """The rows of a batch that spans are made of.

    Raises:
        ProtocolError: The bytes are no whole rows, or such that no span can be made of.
    """
    rows = _ring_rows(data)
    for word in counted(rows[:, 0]):
        kind = word & (KIND_MASK | HOP)
        if word < 0 or kind not in (PUBLISH, PROCESS, PROCESS | HOP) or not is_calculated(word):
            raise ProtocolError("a row is of no message of a trace, or has ids of its own")
        _check_code(word >> CHANNEL_SHIFT & CHANNEL_MASK, len(CHANNELS), "kind of channel")
    owners = owners_in(rows)
    if unknown := owners - seeds.keys():
        raise ProtocolError(f"nothing is said of the ids of endpoint {min(unknown)}")
    return Part(rows, {index: Seeds(*seeds[index]) for index in owners})


def _ring_rows(data: bytes) -> Rows:
    if len(data) % ROW_BYTES:
        raise ProtocolError(f"{len(data)} bytes are no rows of {ROW_BYTES} bytes")
    return np.frombuffer(data, dtype=np.int64).reshape(-1, ROW_WORDS)


def _rows(data: bytes, dtype: np.dtype[np.void]) -> RowArray:
    if len(data) % dtype.itemsize:
        raise ProtocolError(f"{len(data)} bytes are no rows of {dtype.itemsize} bytes")
    return np.frombuffer(data, dtype=dtype)


def _check(codes: RowArray, count: int, what: str) -> None:
    # Once, here: readers look these up without asking.
    if len(codes):
        _check_code(int(codes.max()), count, what)


def _check_code(code: int, count: int, what: str) -> None:
    if code >= count:
        raise ProtocolError(f"there is no {what} {code}")


class TelemetryLink:
    """The telemetry of one process, as last delivered.

    Attributes:
        hello: Who it is.
        anchor: How its times become Unix time.
        connections: Open connections of this link: two for a moment when it reconnects.
        begin: Position of its first span: after all that the server knew before under its id.
        exported: Position in `spans` up to which exporters were sent them.
        endpoints: Those that are open.
        closed: Those that are not.
        lost: What was given up here, by `kind:reason`.
        is_end_told: Whether an exporter was told that it is gone.
    """

    def __init__(self, hello: OpenTelemetry, anchor: ClockAnchor, span_limit: int, begin: int = 0) -> None:
        self.hello, self.anchor = hello, anchor
        self.connections = 0
        self.spans = SpanLog(span_limit, begin)
        self.begin = self.exported = begin
        self.endpoints: dict[int, EndpointRecord] = {}
        self.closed = ClosedEndpoints()
        self.counters: dict[int, dict[str, int]] = {}
        self.histograms: dict[int, dict[HistogramKey, HistogramState]] = {}
        self.labels: dict[int, str] = {}
        self.recorded: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self.lost: Counter[str] = Counter()
        self.process_id = ""
        self.mono_ns = hello.mono_ns
        self.last_seq = -1
        self.is_final = self.is_end_told = False
        self._histograms = 0

    def losses(self) -> dict[str, int]:
        """What was given up here, and one item for the end without a goodbye of a process that was killed."""
        lost = {reason: count for reason, count in self.lost.items() if count}
        return lost | {NO_GOODBYE: 1} if self.is_gone and not self.is_final else lost

    @property
    def is_gone(self) -> bool:
        """Whether nothing more will come, unless the process reconnects."""
        return self.connections == 0

    def apply(self, batch: TelemetryBatch, spans: RowArray, unmade: Part) -> None:
        """Take over what changed; `spans` and `unmade` are the batch's, read."""
        self.last_seq, self.process_id, self.mono_ns = batch.seq, batch.process_id, batch.mono_ns
        self.is_final = batch.final
        for endpoint in batch.endpoints:
            if len(self.endpoints) >= ENDPOINTS and endpoint.index not in self.endpoints:
                self.lost["endpoint:limit"] += 1
                continue
            self.endpoints[endpoint.index] = endpoint
            self.closed.discard(endpoint.index)
        for counters in batch.counters:
            if len(self.counters) < ENDPOINTS or counters.index in self.counters:
                self.counters[counters.index] = counters.values
            else:
                self.lost["counters:limit"] += 1
        for histogram in batch.histograms:
            self._take(histogram)
        for code, label in batch.labels.items():
            if len(self.labels) < LABELS or code in self.labels:
                self.labels[code] = label
            else:
                self.lost["label:limit"] += 1
        self.recorded, self.dropped = batch.recorded or self.recorded, batch.dropped or self.dropped
        for index in batch.closed:
            self._close(index)
        if len(spans):
            self.spans.append(spans)
        self.spans.append_unmade(unmade)

    def explain(self, indices: RowArray) -> list[EndpointRecord]:
        """The endpoints that rows name."""
        known = (self.endpoints.get(index) or self.closed.record(index) for index in distinct(indices))
        return [endpoint for endpoint in known if endpoint is not None]

    def _take(self, histogram: HistogramState) -> None:
        known = self.histograms.get(histogram.index, {})
        key = (histogram.name, histogram.label)
        if key not in known:
            if self._histograms >= HISTOGRAMS:
                self.lost["histogram:limit"] += 1
                return
            self._histograms += 1
            self.histograms[histogram.index] = known
        known[key] = histogram

    def _close(self, index: int) -> None:
        endpoint = self.endpoints.pop(index, None)
        if endpoint is None:
            return
        histograms = list(self.histograms.pop(index, {}).values())
        self._histograms -= len(histograms)
        self.closed.add(LastValues(endpoint, self.counters.pop(index, {}), histograms))
