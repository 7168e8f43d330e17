"""What the agent knows of the graph: the last values every process delivered.

One `Process` for each of them, without locks: `registry.py` holds all and hands out copies. Bounded whatever
a process does: endpoints that were closed are merged by what they were.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from ezmsg.core.recorder.merging import Histogram
from ezmsg.core.recorder.past import is_past
from ezmsg.core.wire.records import (
    ClockAnchor,
    EndpointRecord,
    HistogramState,
    OpenTelemetry,
    ProcessTelemetry,
)
from ezmsg.otel.semconv import fed_by

if TYPE_CHECKING:
    from ezmsg.otel.resource import ProcessResource

Exemplar = tuple[int, int, str, str]
"""Value in ns, monotonic time in ns, trace id and span id in hex."""
HistogramKey = tuple[int, str, str]
"""Index of the endpoint, name, label."""
AnyHistogram = HistogramState | Histogram

MAX_CLOSED = 1000
"""Closed endpoints kept as they are, for what may still refer to them."""
MAX_MERGED = 2000
"""Different (topic, subscription, channel kind) into which older closed endpoints are merged."""
REST_PUBLISHER, REST_EDGE = -1, -2
"""Indices of the endpoints that stand for all closed ones beyond `MAX_MERGED`."""
REST = frozenset({REST_PUBLISHER, REST_EDGE})

_LEVELS = frozenset(
    name
    for specs in (fed_by("publisher"), fed_by("edge"), fed_by("scope"))
    for name, spec in specs.items()
    if spec.kind in {"updowncounter", "gauge"}
)


@dataclass(slots=True)
class Process:
    """Last values of one process, and who it is. Changed by one thread; see `copy` for readers."""

    link_id: str
    anchor: ClockAnchor
    hello: OpenTelemetry | None = None
    process_id: str = ""
    endpoints: dict[int, EndpointRecord] = field(default_factory=dict[int, EndpointRecord])
    labels: dict[int, str] = field(default_factory=dict[int, str])
    counters: dict[int, dict[str, int]] = field(default_factory=dict[int, dict[str, int]])
    histograms: dict[HistogramKey, AnyHistogram] = field(default_factory=dict[HistogramKey, AnyHistogram])
    exemplars: dict[HistogramKey, list[Exemplar]] = field(default_factory=dict[HistogramKey, list[Exemplar]])
    recorded: dict[str, int] = field(default_factory=dict[str, int])
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    server_dropped: dict[str, int] = field(default_factory=dict[str, int])
    is_gone: bool = False
    resource: ProcessResource | None = None
    _dropped_before: dict[str, int] = field(default_factory=dict[str, int])
    _knows_past: bool = False
    _past: set[int] = field(default_factory=set[int])
    _closed: dict[int, None] = field(default_factory=dict[int, None])
    _merged: dict[tuple[str, str, int], int] = field(default_factory=dict[tuple[str, str, int], int])

    def apply(self, record: ProcessTelemetry) -> None:
        """Take over what changed."""
        batch = record.batch
        self.anchor = record.anchor
        self.hello = record.hello or self.hello
        self.process_id = batch.process_id or self.process_id
        if self._knows_past:
            self._past.update(endpoint.index for endpoint in batch.endpoints if is_past(endpoint))
        for endpoint in batch.endpoints:
            if endpoint.index in self._past:
                continue
            self.endpoints[endpoint.index] = endpoint
            if endpoint.num_buffers:
                self.counters.setdefault(endpoint.index, {})["num_buffers"] = endpoint.num_buffers
        self.labels.update(batch.labels)
        for counters in batch.counters:
            if counters.index in self._past:
                continue
            values = self.counters.setdefault(counters.index, {})
            # It is told as long as a message is handled; that it is over, by leaving it out.
            values.pop("holding_ns", None)
            values.update(counters.values)
        for histogram in batch.histograms:
            if histogram.index in self._past:
                continue
            key = (histogram.index, histogram.name, histogram.label)
            self.histograms[key] = histogram
            if histogram.exemplars:
                self.exemplars[key] = slowest_and_latest([*self.exemplars.get(key, ()), *histogram.exemplars])
        self.recorded.update(batch.recorded)
        self.dropped.update(batch.dropped)
        before = self._dropped_before
        self.server_dropped.update((what, count + before.get(what, 0)) for what, count in record.server_dropped.items())
        for index in batch.closed:
            self._close(index)
        if record.gone or batch.final:
            self.end()

    def server_replaced(self) -> None:
        """The server that tells of it from now on counts from 0 what is lost there, and was not told what closed."""
        self._dropped_before = self.server_dropped.copy()
        self._knows_past = True

    def follow(self, other: Process) -> None:
        """The same process is back after its goodbye, and tells what it counted before; `other` is what it was."""
        self.resource = other.resource
        self.server_dropped = other.server_dropped.copy()
        self._dropped_before = other.server_dropped.copy()

    def remains(self) -> Process:
        """What `follow` asks of this, and no more."""
        return Process(
            self.link_id,
            self.anchor,
            process_id=self.process_id,
            server_dropped=self.server_dropped.copy(),
            resource=self.resource,
        )

    def end(self) -> None:
        """The process ended: what it counted stays, its levels are 0."""
        self.is_gone = True
        for index in self.counters:
            self._zero_levels(index)

    def copy(self) -> Process:
        """The same values for a reader of another thread."""
        return replace(
            self,
            endpoints=self.endpoints.copy(),
            counters={index: values.copy() for index, values in self.counters.items()},
            histograms=self.histograms.copy(),
            exemplars=self.exemplars.copy(),
            recorded=self.recorded.copy(),
            dropped=self.dropped.copy(),
            server_dropped=self.server_dropped.copy(),
        )

    def _close(self, index: int) -> None:
        if index not in self.endpoints:
            return
        self._zero_levels(index)
        self._closed[index] = None
        if len(self._closed) > MAX_CLOSED:
            oldest = next(iter(self._closed))
            del self._closed[oldest]
            self._merge_away(oldest)

    def _zero_levels(self, index: int) -> None:
        values = self.counters.get(index, {})
        values.update((name, 0) for name in values if name.partition(":")[0] in _LEVELS)

    def _merge_away(self, index: int) -> None:
        """Forget a closed endpoint, but not what it counted: sums may never fall."""
        endpoint = self.endpoints.pop(index)
        into = self._merged_into(endpoint)
        totals = self.counters.setdefault(into, {})
        for name, value in self.counters.pop(index, {}).items():
            totals[name] = totals.get(name, 0) + value
        for key in [key for key in self.histograms if key[0] == index]:
            # A new object, because readers may hold the old one.
            merged = Histogram()
            for part in (self.histograms.get((into, *key[1:])), self.histograms.pop(key)):
                if part is not None:
                    merged.merge(part)
            self.histograms[into, *key[1:]] = merged
            self.exemplars.pop(key, None)

    def _merged_into(self, endpoint: EndpointRecord) -> int:
        identity = (endpoint.topic, endpoint.subscription, endpoint.channel_kind)
        if identity not in self._merged and len(self._merged) < MAX_MERGED:
            self._merged[identity] = min(REST) - 1 - len(self._merged)
        into = self._merged.get(identity, REST_EDGE if endpoint.subscription else REST_PUBLISHER)
        if into not in self.endpoints:
            self.endpoints[into] = msgspec.structs.replace(endpoint, index=into)
        return into


def slowest_and_latest(exemplars: Iterable[Exemplar]) -> list[Exemplar]:
    """At most two exemplars of a series: the slowest, and the most recent of the others."""
    slowest, *others = sorted(exemplars, reverse=True)
    return [slowest, max(others, key=lambda exemplar: exemplar[1])] if others else [slowest]
