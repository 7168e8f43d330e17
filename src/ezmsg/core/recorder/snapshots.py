"""Totals of a process, and what changed since a reader looked last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ezmsg.core.graphmeta import EdgeProfile, ProcessProfile, PublisherProfileSnapshot, SubscriberProfileSnapshot
from ezmsg.core.recorder.endpoints import Endpoint
from ezmsg.core.recorder.histograms import histogram_value
from ezmsg.core.recorder.processscope import LOOP_LAG
from ezmsg.core.recorder.publisher import PublisherMetrics
from ezmsg.core.recorder.recorder import Recorder
from ezmsg.core.recorder.rows import CHANNELS, PROCESS_INDEX, SEPARATOR
from ezmsg.core.recorder.subscriber import SubscriberMetrics

READERS: Final = 64
"""Readers remembered; the one idle longest is forgotten, and would start anew."""


@dataclass(slots=True)
class Window:
    """What one reader saw last; `time_ns` is None before its first look."""

    time_ns: int | None = None
    totals: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(slots=True)
class Totals:
    """All endpoints, as one reader sees them now."""

    window_s: float
    publishers: dict[str, PublisherProfileSnapshot]
    subscribers: dict[str, SubscriberProfileSnapshot]


class Windows:
    """When each reader looked, and what it saw."""

    def __init__(self) -> None:
        """Nobody has looked."""
        self._windows: dict[str, Window] = {}

    def forget(self, reader: str) -> None:
        """A reader is gone."""
        self._windows.pop(reader, None)

    def look(self, reader: str, recorder: Recorder, now_ns: int) -> Totals:
        """Totals, and what changed in this reader's window, which ends now."""
        with recorder.lock:
            publishers, subscribers = list(recorder.publishers.values()), list(recorder.subscribers.values())
        window = self._windows.pop(reader, None) or Window()
        if len(self._windows) >= READERS:
            del self._windows[next(iter(self._windows))]
        self._windows[reader] = window
        then_ns, before = window.time_ns, window.totals
        window_s = 0.0 if then_ns is None else (now_ns - then_ns) / 1e9
        totals: dict[str, int] = {}

        def changed(endpoint_id: str, total: int) -> int:
            totals[endpoint_id] = total
            return 0 if then_ns is None else total - before.get(endpoint_id, 0)

        seen = Totals(
            window_s,
            {metrics.endpoint_id: _publisher(metrics, changed, window_s, now_ns) for metrics in publishers},
            {metrics.endpoint_id: _subscriber(metrics, changed, now_ns) for metrics in subscribers},
        )
        window.time_ns, window.totals = now_ns, totals
        return seen


def edge_profiles(recorder: Recorder) -> list[EdgeProfile]:
    """What was measured of every open publisher and edge. Hold `recorder.reading`."""
    with recorder.lock:
        endpoints = list(recorder.endpoints.open.values())
    return [_edge(recorder, endpoint) for endpoint in endpoints]


def process_profile(recorder: Recorder) -> ProcessProfile:
    """What was measured of the process itself. Hold `recorder.reading`."""
    values = recorder.process.counters(with_system=True)
    series = recorder.digest.aggregator.series
    lags = [found for found in series.of(PROCESS_INDEX) if found.name == LOOP_LAG]
    errors: dict[tuple[str, str, str], int] = {}
    for label, count in _labelled(values, "task_errors").items():
        unit, task, error = label.split(SEPARATOR)
        errors[unit, task, error] = count
    return ProcessProfile(
        cpu_user_seconds=values["cpu_user_ns"] / 1e9,
        cpu_system_seconds=values["cpu_system_ns"] / 1e9,
        threads=values["threads"],
        memory_bytes=values.get("memory_bytes"),
        descriptors=values.get("descriptors"),
        gc_collections={int(number): count for number, count in _labelled(values, "gc_collections").items()},
        loop_lag={lag.label: histogram_value(series.histograms.state(lag)) for lag in lags},
        overhead={signal: ppm / 1e6 for signal, ppm in _labelled(values, "overhead_ppm").items()},
        task_errors=errors,
        unlogged=_labelled(values, "unlogged"),
    )


def _labelled(values: dict[str, int], name: str) -> dict[str, int]:
    prefix = f"{name}:"
    return {full.removeprefix(prefix): value for full, value in values.items() if full.startswith(prefix)}


def _edge(recorder: Recorder, endpoint: Endpoint) -> EdgeProfile:
    record, counters, aggregator = endpoint.record, endpoint.counters(), recorder.digest.aggregator
    if record.subscription:
        counters["clock_anomalies"] = sum(aggregator.anomalies(endpoint.index))
    table, series = aggregator.series.histograms, aggregator.series.of(endpoint.index)
    histograms = {
        f"{one.name}:{one.label}" if one.label else one.name: histogram_value(table.state(one))
        for one in series
        if one.name != "serialize"
    }
    if ways := [one for one in series if one.name == "serialize"]:
        histograms["serialize"] = table.sum_of(ways)
    return EdgeProfile(
        topic=record.topic,
        subscription=record.subscription or None,
        endpoint_id=record.endpoint_id,
        channel_kind=CHANNELS[record.channel_kind],
        counters=counters,
        histograms=histograms,
    )


def _publisher(
    metrics: PublisherMetrics, changed: Callable[[str, int], int], window_s: float, now_ns: int
) -> PublisherProfileSnapshot:
    total = metrics.sent
    window = changed(metrics.endpoint_id, total)
    return PublisherProfileSnapshot(
        endpoint_id=metrics.endpoint_id,
        topic=metrics.topic,
        messages_published_total=total,
        messages_published_window=window,
        publish_rate_hz_window=window / window_s if window_s > 0 else 0.0,
        inflight_messages_current=metrics.inflight,
        num_buffers=metrics.num_buffers,
        timestamp=float(now_ns),
    )


def _subscriber(
    metrics: SubscriberMetrics, changed: Callable[[str, int], int], now_ns: int
) -> SubscriberProfileSnapshot:
    total = metrics.total
    return SubscriberProfileSnapshot(
        endpoint_id=metrics.endpoint_id,
        topic=metrics.topic,
        messages_received_total=total,
        messages_received_window=changed(metrics.endpoint_id, total),
        channel_kind_last=CHANNELS[metrics.last_code],
        timestamp=float(now_ns),
    )
