"""Spans and histograms for providers, of the SDK and others."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    InMemoryMetricReader,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracerProvider, ProxyTracerProvider

from ezmsg.core.graphmeta import TraceSpan
from ezmsg.core.telemetry.expand import expand_spans
from ezmsg.otel.points import Admission, Points
from ezmsg.otel.providers import NO_PROVIDER, HistogramExporter, ProviderSender, Readers, TraceSpanEncoder
from ezmsg.otel.semconv import ENDPOINT_METRICS, SCOPE_NAME
from ezmsg.otel.spanencoder import SpanBatch
from ezmsg.otel.spanrows import SpanRows
from ezmsg.otel.state import Process
from tests.otel.feeds import ANCHOR, EDGE, PUBLISHER, first, histogram, linked_rows, span_rows

MINE = Resource({"service.name": "mine"})


def spans(*, index: int = 2) -> list[TraceSpan]:
    return expand_spans(span_rows(3, index=index), {1: PUBLISHER, 2: EDGE}, {}, ANCHOR)


def batch(made: list[TraceSpan]) -> SpanBatch[list[TraceSpan]]:
    return SpanBatch(made, len(made))


def set_tracer_provider(monkeypatch: pytest.MonkeyPatch, provider: trace.TracerProvider) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    made = TracerProvider(resource=MINE, shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(exporter))
    return made


def test_spans_reach_the_processors_of_the_provider_with_their_ids(
    monkeypatch: pytest.MonkeyPatch, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    set_tracer_provider(monkeypatch, provider)
    assert ProviderSender(lambda: None).send(batch(spans())).verdict == "taken"
    finished = exporter.get_finished_spans()
    assert [f"{span.context.span_id:016x}" for span in finished if span.context] == [span.span_id for span in spans()]
    assert {span.resource.attributes["service.name"] for span in finished} == {"mine"}
    assert [(span.start_time, span.end_time) for span in finished] == [
        (span.start_unix_ns, span.end_unix_ns) for span in spans()
    ]


def test_spans_wait_until_the_program_has_set_a_provider(
    monkeypatch: pytest.MonkeyPatch, provider: TracerProvider
) -> None:
    found: list[bool] = []
    sender = ProviderSender(lambda: found.append(True))
    set_tracer_provider(monkeypatch, ProxyTracerProvider())
    assert (sender.look(), sender.send(batch(spans())), found) == (False, NO_PROVIDER, [])
    set_tracer_provider(monkeypatch, provider)
    assert [sender.send(batch(spans())).verdict for _ in range(2)] == ["taken", "taken"]
    assert found == [True]


class OtherProvider(trace.TracerProvider):
    """A provider of which only the API is known."""

    def __init__(self, inner: TracerProvider) -> None:
        self._inner = inner

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return self._inner.get_tracer(*args, **kwargs)


def test_another_provider_gets_spans_of_the_same_trace_and_time(
    monkeypatch: pytest.MonkeyPatch, provider: TracerProvider, exporter: InMemorySpanExporter
) -> None:
    set_tracer_provider(monkeypatch, OtherProvider(provider))
    failed, root = replace(spans()[0], error="ValueError"), replace(spans(index=1)[0], parent_span_id=None)
    assert ProviderSender(lambda: None).send(batch([failed, root])).verdict == "taken"
    made: Sequence[ReadableSpan] = exporter.get_finished_spans()
    for span, seen in zip((failed, root), made, strict=True):
        assert seen.context is not None
        assert f"{seen.context.trace_id:032x}" == span.trace_id
        assert (seen.name, seen.start_time, seen.end_time) == (span.name, span.start_unix_ns, span.end_unix_ns)
        assert seen.kind.name == span.kind
    assert made[0].parent is not None
    assert f"{made[0].parent.span_id:016x}" == failed.parent_span_id
    assert (made[0].status.status_code.name, (made[0].attributes or {})["error.type"]) == ("ERROR", "ValueError")
    assert len(made[0].links) == 1


def test_a_provider_that_does_nothing_takes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    set_tracer_provider(monkeypatch, NoOpTracerProvider())
    assert ProviderSender(lambda: None).send(batch(spans())).verdict == "taken"


def test_links_count_with_their_span() -> None:
    of = Process("link-1", ANCHOR)
    of.apply(first())
    made = TraceSpanEncoder().encode([SpanRows.of(of, ANCHOR, linked_rows(2) + span_rows(3, 10, index=2))], resource)
    assert ([len(span.links) for span in made.spans], made.count) == ([2, 1, 1, 1], 4)


def resource(of: Process) -> Any:
    raise AssertionError("the provider has one")


# -- histograms -------------------------------------------------------------------------------------------------------


class KeepingExporter(MetricExporter):
    def __init__(self) -> None:
        super().__init__()
        self.exported: list[MetricsData] = []
        self.calls: list[str] = []

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        self.exported.append(metrics_data)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        self.calls.append("force_flush")
        return True

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        self.calls.append("shutdown")


def histograms() -> list[Any]:
    points = Points(Admission())
    spec = next(spec for spec in ENDPOINT_METRICS if spec.name == "ezmsg.message.age")
    points.merge(spec, (), histogram(2, "age", [1, 2]))
    return points.metrics(1, 2)


@pytest.mark.parametrize("scope", [SCOPE_NAME, "another"])
def test_histograms_join_what_a_reader_exports(monkeypatch: pytest.MonkeyPatch, scope: str) -> None:
    exporter = KeepingExporter()
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=float("inf"))
    provider = MeterProvider([reader], resource=MINE, shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    readers = Readers(histograms)
    provider.get_meter(scope).create_counter("clicks").add(1)
    for _ in range(2):
        readers.equip()
        reader.collect()
    for data in exporter.exported:
        (of_resource,) = data.resource_metrics
        names = [metric.name for of_scope in of_resource.scope_metrics for metric in of_scope.metrics]
        assert sorted(names) == ["clicks", "ezmsg.message.age"]
        assert of_resource.resource.attributes["service.name"] == "mine"
        assert len(of_resource.scope_metrics) == (1 if scope == SCOPE_NAME else 2)
    provider.force_flush()
    provider.shutdown()
    assert exporter.calls == ["force_flush", "shutdown"]


def test_a_reader_without_an_exporter_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    caplog.set_level(logging.WARNING, "ezmsg.otel")
    readers = Readers(histograms)
    readers.equip()
    readers.equip()
    assert [record.getMessage() for record in caplog.records] == [
        "InMemoryMetricReader gets counters and gauges, but no histograms"
    ]


def test_an_export_of_nothing_stays_one() -> None:
    exporter = KeepingExporter()
    HistogramExporter(exporter, histograms).export(MetricsData([]))
    assert exporter.exported == [MetricsData([])]
