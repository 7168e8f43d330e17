"""The OpenTelemetry providers that the program of this process has set: spans and histograms are put into them.

The SDK has no door for a span that has ended, nor for a histogram that was made elsewhere. So spans go to the span
processor of the tracer provider, and histograms into what a metric reader is about to export. Where a provider is not
of the SDK, spans are started and ended anew (the trace keeps its id, spans do not), and histograms stay out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics.export import (
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricReader,
    MetricsData,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    ProxyTracerProvider,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

from ezmsg.core.graphmeta import TraceSpan
from ezmsg.otel.outcome import TAKEN, Outcome
from ezmsg.otel.semconv import ERROR_TYPE, SCHEMA_URL, SCOPE_NAME, SCOPE_VERSION
from ezmsg.otel.spanencoder import ResourceOf, SpanBatch, readable, trace_spans
from ezmsg.otel.spanrows import SpanRows
from ezmsg.otel.spans import SCOPE, UNKNOWN_ERROR, plain, readable_span

logger = logging.getLogger("ezmsg.otel")

NO_PROVIDER = Outcome("retry", "no_provider", "the program has set none")


# -- spans ------------------------------------------------------------------------------------------------------------


class TraceSpanEncoder:
    """Spans as the native API has them; what becomes of them depends on the provider."""

    def encode(self, chunks: Sequence[SpanRows], resource_of: ResourceOf) -> SpanBatch[list[TraceSpan]]:
        """The spans of all rows."""
        spans: list[TraceSpan] = []
        for chunk in chunks:
            with readable(chunk):
                spans += trace_spans(chunk).spans
        return SpanBatch(spans, len(spans))


class ProviderSender:
    """Gives spans to the global tracer provider, once the program has set one."""

    target = "the TracerProvider of this program"

    def __init__(self, on_found: Callable[[], object]) -> None:
        """Call `on_found` once, when a provider is first seen."""
        self._on_found: Callable[[], object] | None = on_found

    def look(self) -> bool:
        """Whether the program has set a provider."""
        if isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
            return False
        if (on_found := self._on_found) is not None:
            self._on_found = None
            on_found()
        return True

    def send(self, batch: SpanBatch[list[TraceSpan]]) -> Outcome:
        """Hand spans over; how far they come from there is for the program's span processors."""
        if not self.look():
            return NO_PROVIDER
        provider = trace.get_tracer_provider()
        if isinstance(provider, TracerProvider):
            processor, resource = provider._active_span_processor, provider.resource  # pyright: ignore[reportPrivateUsage]
            for span in batch.spans:
                processor.on_end(readable_span(span, resource))
        else:
            tracer = provider.get_tracer(SCOPE_NAME, SCOPE_VERSION, SCHEMA_URL)
            for span in batch.spans:
                _relive(tracer, span)
        return TAKEN

    def close(self) -> None:
        """The provider belongs to the program."""


def _relive(tracer: trace.Tracer, span: TraceSpan) -> None:
    """Start and end a span as it was; the trace keeps its id, the span gets another one."""
    attributes = {name: plain(value) for name, value in span.attributes.items()}
    if span.error is not None:
        attributes[ERROR_TYPE] = span.error or UNKNOWN_ERROR
    parent = _context(span.trace_id, span.parent_span_id or span.span_id)
    started = tracer.start_span(
        span.name,
        context=trace.set_span_in_context(NonRecordingSpan(parent)),
        kind=SpanKind[span.kind],
        attributes=attributes,
        links=[Link(_context(*link)) for link in span.links],
        start_time=span.start_unix_ns,
    )
    if span.error is not None:
        started.set_status(Status(StatusCode.ERROR))
    started.end(end_time=span.end_unix_ns)


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


# -- histograms -------------------------------------------------------------------------------------------------------

MetricSource = Callable[[], Iterable[Metric]]


class HistogramExporter(MetricExporter):
    """A metric exporter of the program, with our histograms among what it exports."""

    def __init__(self, exporter: MetricExporter, histograms: MetricSource) -> None:
        super().__init__()
        self._exporter: Any = exporter
        self._histograms = histograms

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Export, histograms included."""
        added = _with(metrics_data, list(self._histograms()))
        return self._exporter.export(added, timeout_millis=timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """As the program's exporter does."""
        return self._exporter.force_flush(timeout_millis=timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """As the program's exporter does."""
        self._exporter.shutdown(timeout_millis=timeout_millis, **kwargs)


class Readers:
    """The metric readers of the program, told of our histograms when they are first seen."""

    def __init__(self, histograms: MetricSource) -> None:
        self._histograms = histograms
        self._seen: list[MetricReader] = []

    def equip(self) -> None:
        """Look at the global meter provider; cheap once its readers are known."""
        for reader in _readers_of(metrics.get_meter_provider()):
            if reader in self._seen:
                continue
            self._seen.append(reader)
            if isinstance(reader, PeriodicExportingMetricReader):
                reader._exporter = HistogramExporter(reader._exporter, self._histograms)  # pyright: ignore[reportPrivateUsage]
            else:
                logger.warning("%s gets counters and gauges, but no histograms", type(reader).__name__)


def _readers_of(provider: Any) -> Sequence[MetricReader]:
    return getattr(provider, "_metric_readers", ())


def _with(data: MetricsData, more: list[Metric]) -> MetricsData:
    """The same data, with more metrics in our scope."""
    if not data.resource_metrics or not more:
        return data
    first, *others = data.resource_metrics
    scopes = list(first.scope_metrics)
    for at, scope in enumerate(scopes):
        if scope.scope.name == SCOPE_NAME:
            scopes[at] = replace(scope, metrics=[*scope.metrics, *more])
            break
    else:
        scopes.append(ScopeMetrics(SCOPE, more, SCHEMA_URL))
    return MetricsData([ResourceMetrics(first.resource, scopes, first.schema_url), *others])
