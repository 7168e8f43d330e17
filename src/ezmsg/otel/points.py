"""Data points of one resource, collected by metric and attribute set, then made into metrics of the SDK."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Metric,
    NumberDataPoint,
    Sum,
)

from ezmsg.core.recorder.merging import Histogram
from ezmsg.core.wire.records import ClockAnchor
from ezmsg.otel.semconv import OVERFLOW, MetricSpec
from ezmsg.otel.state import AnyHistogram, slowest_and_latest
from ezmsg.otel.state import Exemplar as RawExemplar

AttributeSet = tuple[tuple[str, str | int], ...]

MAX_SERIES = 2000
"""Attribute sets of one metric and resource, with the one that stands for all others."""
OVERFLOW_SET: AttributeSet = ((OVERFLOW, True),)
MOST = (1 << 63) - 1
"""What a data point can hold."""

_NOTHING = Buckets(0, [])
_CUMULATIVE = AggregationTemporality.CUMULATIVE


class Admission:
    """Which attribute sets of which metric have a series of their own; once admitted, always admitted."""

    def __init__(self) -> None:
        self._sets: dict[str, set[AttributeSet]] = {}
        self.overflowed = 0

    def admit(self, metric: str, attributes: AttributeSet) -> AttributeSet:
        """The set itself, or the overflow set when there are too many."""
        known = self._sets.setdefault(metric, set())
        if attributes in known:
            return attributes
        if len(known) < MAX_SERIES - 1:
            known.add(attributes)
            return attributes
        self.overflowed += 1
        return OVERFLOW_SET


class Points:
    """Points of one resource at one moment. Values of equal attribute sets are added up."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._specs: dict[str, MetricSpec] = {}
        self._numbers: dict[str, dict[AttributeSet, int]] = {}
        self._histograms: dict[str, dict[AttributeSet, Histogram]] = {}
        self._exemplars: dict[tuple[str, AttributeSet], list[RawExemplar]] = {}

    @property
    def overflowed(self) -> int:
        """How often an attribute set was one too many."""
        return self._admission.overflowed

    def add(self, spec: MetricSpec, attributes: AttributeSet, value: int) -> None:
        """Add a value of a counter, a level or a gauge."""
        values = self._numbers.setdefault(self._metric(spec), {})
        key = self._admission.admit(spec.name, attributes)
        # Values may come from numpy, and the encoder would take its integers for doubles.
        values[key] = min(max(-MOST, values.get(key, 0) + int(value)), MOST)

    def merge(
        self, spec: MetricSpec, attributes: AttributeSet, value: AnyHistogram, exemplars: Iterable[RawExemplar] = ()
    ) -> None:
        """Merge a histogram into the one of its attribute set."""
        histograms = self._histograms.setdefault(self._metric(spec), {})
        key = self._admission.admit(spec.name, attributes)
        histograms.setdefault(key, Histogram()).merge(value)
        self._exemplars.setdefault((spec.name, key), []).extend(exemplars)

    def metrics(self, start_ns: int, now_ns: int, anchor: ClockAnchor | None = None) -> list[Metric]:
        """Everything added so far, cumulative since `start_ns`; `anchor` dates the exemplars."""
        made: list[Metric] = []
        for name, values in self._numbers.items():
            spec = self._specs[name]
            points = [
                NumberDataPoint(dict(key), start_ns, now_ns, value if spec.per_unit == 1 else value / spec.per_unit)
                for key, value in values.items()
            ]
            data = Gauge(points) if spec.kind == "gauge" else Sum(points, _CUMULATIVE, spec.kind == "counter")
            made.append(Metric(name, spec.description, spec.unit, data))
        for name, histograms in self._histograms.items():
            spec = self._specs[name]
            data = ExponentialHistogram(
                [
                    _histogram_point(key, histogram, start_ns, now_ns, self._exemplars_of(name, key, anchor))
                    for key, histogram in histograms.items()
                ],
                _CUMULATIVE,
            )
            made.append(Metric(name, spec.description, spec.unit, data))
        return made

    def _metric(self, spec: MetricSpec) -> str:
        self._specs.setdefault(spec.name, spec)
        return spec.name

    def _exemplars_of(self, metric: str, key: AttributeSet, anchor: ClockAnchor | None) -> list[Exemplar]:
        found = self._exemplars.get((metric, key))
        if not found or anchor is None:
            return []
        offset_ns = anchor.unix_ns - anchor.mono_ns
        return [
            Exemplar({}, int(value_ns) / 1e9, max(0, int(mono_ns) + offset_ns), int(span_id, 16), int(trace_id, 16))
            for value_ns, mono_ns, trace_id, span_id in slowest_and_latest(found)
        ]


def _histogram_point(
    key: AttributeSet, histogram: Histogram, start_ns: int, now_ns: int, exemplars: list[Exemplar]
) -> ExponentialHistogramDataPoint:
    return ExponentialHistogramDataPoint(
        attributes=dict(key),
        start_time_unix_nano=start_ns,
        time_unix_nano=now_ns,
        count=histogram.count,
        sum=histogram.sum_ns / 1e9,
        scale=histogram.scale,
        zero_count=histogram.zero_count,
        positive=Buckets(histogram.offset, histogram.counts),
        negative=_NOTHING,
        flags=0,
        min=histogram.min_ns / 1e9,
        max=histogram.max_ns / 1e9,
        exemplars=exemplars,
    )


def count_points(metrics: Iterable[Metric]) -> int:
    """How many data points these metrics have."""
    return sum(len(metric.data.data_points) for metric in metrics)
