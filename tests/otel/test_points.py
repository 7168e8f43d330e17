"""Data points: adding up, the limit of attribute sets, what the encoders need."""

from __future__ import annotations

import numpy as np
import pytest
from opentelemetry.sdk.metrics.export import AggregationTemporality, ExponentialHistogram, Gauge, Sum

from ezmsg.otel import points as module
from ezmsg.otel import semconv
from ezmsg.otel.points import OVERFLOW_SET, Admission, Points, count_points
from ezmsg.otel.semconv import MetricSpec
from tests.otel.feeds import ANCHOR, MS, histogram

SENT = semconv.fed_by("publisher")["sent"]
WAITED = semconv.fed_by("publisher")["backpressure_ns"]
INFLIGHT = semconv.fed_by("publisher")["inflight"]
AGE = semconv.fed_by("histogram")["age"]
T = (("messaging.destination.name", "T"),)


def only_point(points: Points, kind: type) -> object:
    (metric,) = points.metrics(1, 2, ANCHOR)
    assert isinstance(metric.data, kind)
    (point,) = metric.data.data_points
    return point


def test_values_of_the_same_attributes_are_added_up() -> None:
    points = Points(Admission())
    points.add(SENT, T, 3)
    points.add(SENT, T, 4)
    point = only_point(points, Sum)
    assert (point.value, point.attributes) == (7, dict(T))
    assert (point.start_time_unix_nano, point.time_unix_nano) == (1, 2)


def test_values_that_a_data_point_cannot_hold_become_the_most_it_can() -> None:
    points = Points(Admission())
    points.add(SENT, T, 1 << 63)
    points.add(SENT, T, 1 << 63)
    points.add(INFLIGHT, T, -(1 << 64))
    most = (1 << 63) - 1
    assert [metric.data.data_points[0].value for metric in points.metrics(1, 2)] == [most, -most]


def test_nanoseconds_become_seconds() -> None:
    points = Points(Admission())
    points.add(WAITED, T, 1_500_000_000)
    assert only_point(points, Sum).value == 1.5


@pytest.mark.parametrize(("spec", "is_monotonic"), [(SENT, True), (INFLIGHT, False)])
def test_counters_are_monotonic_and_levels_are_not(spec: MetricSpec, is_monotonic: bool) -> None:
    points = Points(Admission())
    points.add(spec, T, 1)
    (metric,) = points.metrics(1, 2)
    assert isinstance(metric.data, Sum)
    assert metric.data.is_monotonic is is_monotonic
    assert metric.data.aggregation_temporality == AggregationTemporality.CUMULATIVE


def test_a_gauge_is_a_gauge() -> None:
    points = Points(Admission())
    points.add(semconv.EDGE_INFO, T, 1)
    assert only_point(points, Gauge).value == 1


def test_histograms_of_the_same_attributes_are_merged() -> None:
    points = Points(Admission())
    points.merge(AGE, T, histogram(1, "age", [1, 2]))
    points.merge(AGE, T, histogram(2, "age", [4], scale=2, offset=-40))
    point = only_point(points, ExponentialHistogram)
    assert (point.count, point.scale, point.positive.offset, point.positive.bucket_counts) == (7, 2, -40, [7])
    assert (point.sum, point.min, point.max) == (0.007, 0.001, 0.001)
    assert type(point.positive.bucket_counts) is list


def test_exemplars_are_dated_by_the_anchor_and_carry_ids_only() -> None:
    points = Points(Admission())
    points.merge(AGE, T, histogram(1, "age", [1]), [(2 * MS, ANCHOR.mono_ns + 5, "ab", "cd")])
    points.merge(AGE, T, histogram(1, "age", [1]), [(MS, -ANCHOR.unix_ns, "ab", "cd")])
    exemplar, before_1970 = only_point(points, ExponentialHistogram).exemplars
    assert before_1970.time_unix_nano == 0
    assert (exemplar.value, exemplar.time_unix_nano) == (0.002, ANCHOR.unix_ns + 5)
    assert (exemplar.trace_id, exemplar.span_id, exemplar.filtered_attributes) == (0xAB, 0xCD, {})


def test_a_series_has_at_most_two_exemplars() -> None:
    points = Points(Admission())
    for number in range(5):
        points.merge(AGE, T, histogram(1, "age", [1]), [(number, number, "ab", f"{number + 1:x}")])
    assert [found.span_id for found in only_point(points, ExponentialHistogram).exemplars] == [5, 4]


def test_integers_of_numpy_become_integers_of_python() -> None:
    points = Points(Admission())
    points.add(SENT, T, np.int64(3))  # type: ignore[arg-type]
    assert type(only_point(points, Sum).value) is int


def test_attribute_sets_beyond_the_limit_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SERIES", 4)
    admission = Admission()
    for _ in range(2):
        points = Points(admission)
        for number in range(10):
            points.add(SENT, ((semconv.DESTINATION, f"topic {number}"),), 1)
        (metric,) = points.metrics(1, 2)
        values = {tuple(point.attributes.items()): point.value for point in metric.data.data_points}
        assert len(values) == 4
        assert values[OVERFLOW_SET] == 7
    assert admission.overflowed == 14


def test_a_series_once_admitted_stays_whatever_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SERIES", 3)
    admission = Admission()
    early = [((semconv.DESTINATION, name),) for name in ("a", "b")]
    late = ((semconv.DESTINATION, "c"),)
    assert [admission.admit("m", attributes) for attributes in early] == early
    assert admission.admit("m", late) == OVERFLOW_SET
    assert admission.admit("m", early[1]) == early[1]
    assert admission.admit("another", late) == late


def test_points_are_counted() -> None:
    points = Points(Admission())
    points.add(SENT, T, 1)
    points.add(SENT, (), 1)
    points.merge(AGE, T, histogram(1, "age", [1]))
    assert count_points(points.metrics(1, 2)) == 3
