"""The senders: the SDK's exporters, made from settings and watched."""

from __future__ import annotations

import sys
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricsData
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExportResult

from ezmsg.otel.outcome import Outcome, Sender
from ezmsg.otel.settings import SignalSettings
from ezmsg.otel.spanencoder import ObjectEncoder, RequestEncoder, SpanEncoder
from ezmsg.otel.watch import NotTaken, Watch

Batch_contra = TypeVar("Batch_contra", contravariant=True)
SpanRoute = tuple[Sender[Any], SpanEncoder[Any]]

MAX_POINTS = 4000
"""Data points in one request: with 160 buckets each they stay below the 4 MiB a gRPC receiver takes."""


class Exporter(Protocol[Batch_contra]):
    """What the SDK's exporters have in common."""

    def export(self, batch: Batch_contra, /) -> Enum:
        """Send; answers SUCCESS or FAILURE."""
        ...

    def shutdown(self) -> None:
        """Send no more."""
        ...


class ExporterSender(Generic[Batch_contra]):
    """A `Sender` over one exporter of the SDK."""

    def __init__(self, target: str, exporter: Exporter[Batch_contra], watch: Watch) -> None:
        self.target = target
        self._exporter = exporter
        self._watch = watch

    def send(self, batch: Batch_contra) -> Outcome:
        """Export once, and tell what became of it."""
        self._watch.begin()
        try:
            return self._watch.end(succeeded=self._exporter.export(batch).name == "SUCCESS")
        except NotTaken:
            return self._watch.end(succeeded=False)

    def close(self) -> None:
        """Shut the exporter down; a gRPC call is cancelled, an HTTP request runs into its timeout."""
        self._exporter.shutdown()


def span_route(settings: SignalSettings) -> SpanRoute | None:
    """The sender of spans with the encoder that works for it, None when spans are not exported."""
    if settings.exporter == "console":
        return ExporterSender("the console", _ConsoleSpans(out=sys.stdout), Watch()), ObjectEncoder()
    if settings.otlp is None:
        return None
    watch, otlp = Watch(), settings.otlp
    exporter: Exporter[Any]
    # What is not needed is not loaded: an agent shall be there soon.
    if otlp.protocol == "grpc":
        from ezmsg.otel.overgrpc import GrpcSpans

        exporter = GrpcSpans(otlp, watch)
    else:
        from ezmsg.otel.overhttp import HttpSpans

        exporter = HttpSpans(otlp, watch)
    return ExporterSender(otlp.target, exporter, watch), RequestEncoder()


def metric_sender(settings: SignalSettings) -> Sender[MetricsData] | None:
    """The sender of metrics, None when metrics are not exported."""
    if settings.exporter == "console":
        return ExporterSender("the console", ConsoleMetricExporter(out=sys.stdout), Watch())
    if settings.otlp is None:
        return None
    watch, otlp = Watch(), settings.otlp
    exporter: Exporter[MetricsData]
    if otlp.protocol == "grpc":
        from ezmsg.otel.overgrpc import GrpcMetrics

        exporter = GrpcMetrics(otlp, watch, MAX_POINTS)
    else:
        from ezmsg.otel.overhttp import http_metrics

        exporter = http_metrics(otlp, watch, MAX_POINTS)
    return ExporterSender(otlp.target, exporter, watch)


class _ConsoleSpans(ConsoleSpanExporter):
    """Prints the objects of a `SpanBatch`."""

    def export(self, spans: Any) -> SpanExportResult:
        return super().export(spans.spans)
