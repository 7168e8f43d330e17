"""The senders: the SDK's exporters, made from settings and watched."""

from __future__ import annotations

import os
import sys
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

import grpc
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression as HttpCompression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricsData
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExportResult

from ezmsg.otel.outcome import Outcome, Sender
from ezmsg.otel.settings import OtlpSettings, Signal, SignalSettings
from ezmsg.otel.spanencoder import ObjectEncoder, RequestEncoder, SpanEncoder
from ezmsg.otel.watch import NO_RETRIES, BytesStub, NotTaken, Watch, WatchedSession, WatchedStub

Batch_contra = TypeVar("Batch_contra", contravariant=True)
SpanRoute = tuple[Sender[Any], SpanEncoder[Any]]

MAX_POINTS = 4000
"""Data points in one request: with 160 buckets each they stay below the 4 MiB a gRPC receiver takes."""

_HTTP_COMPRESSION = {
    "none": HttpCompression.NoCompression,
    "gzip": HttpCompression.Gzip,
    "deflate": HttpCompression.Deflate,
}
_GRPC_COMPRESSION = {"none": grpc.Compression.NoCompression, "gzip": grpc.Compression.Gzip}


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
    exporter = _GrpcSpans(otlp, watch) if otlp.protocol == "grpc" else _HttpSpans(otlp, watch)
    return ExporterSender(otlp.target, exporter, watch), RequestEncoder()


def metric_sender(settings: SignalSettings) -> Sender[MetricsData] | None:
    """The sender of metrics, None when metrics are not exported."""
    if settings.exporter == "console":
        return ExporterSender("the console", ConsoleMetricExporter(out=sys.stdout), Watch())
    if settings.otlp is None:
        return None
    watch, otlp = Watch(), settings.otlp
    exporter = _GrpcMetrics(otlp, watch) if otlp.protocol == "grpc" else _http_metrics(otlp, watch)
    return ExporterSender(otlp.target, exporter, watch)


class _ConsoleSpans(ConsoleSpanExporter):
    """Prints the objects of a `SpanBatch`."""

    def export(self, spans: Any) -> SpanExportResult:
        return super().export(spans.spans)


class _HttpSpans(HttpSpanExporter):
    """Sends a `SpanRequest`, which is encoded already."""

    def __init__(self, otlp: OtlpSettings, watch: Watch) -> None:
        super().__init__(
            endpoint=otlp.endpoint,
            timeout=otlp.timeout_s,
            compression=_HTTP_COMPRESSION[otlp.compression],
            session=_session("traces", otlp, watch),
        )

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS if self._client.export(spans.spans).success else SpanExportResult.FAILURE


def _http_metrics(otlp: OtlpSettings, watch: Watch) -> HttpMetricExporter:
    return HttpMetricExporter(
        endpoint=otlp.endpoint,
        timeout=otlp.timeout_s,
        compression=_HTTP_COMPRESSION[otlp.compression],
        session=_session("metrics", otlp, watch),
        max_export_batch_size=MAX_POINTS,
    )


def _session(signal: Signal, otlp: OtlpSettings, watch: Watch) -> WatchedSession | None:
    prefix = "OTEL_PYTHON_EXPORTER_OTLP_HTTP"
    providers = (f"{prefix}_CREDENTIAL_PROVIDER", f"{prefix}_{signal.upper()}_CREDENTIAL_PROVIDER")
    # A session the user's plug-in makes knows how to authenticate; ours does not, so it goes unwatched.
    return None if any(map(os.environ.get, providers)) else WatchedSession(signal, otlp, watch)


def _channel_options(otlp: OtlpSettings) -> Any:  # annotated by the exporter for one string only
    return (("grpc.enable_http_proxy", 0),) if otlp.is_loopback else None


class _GrpcSpans(GrpcSpanExporter):
    """Sends a `SpanRequest`, which is encoded already."""

    def __init__(self, otlp: OtlpSettings, watch: Watch) -> None:
        self._watch = watch
        super().__init__(
            endpoint=otlp.endpoint,
            timeout=otlp.timeout_s,
            compression=_GRPC_COMPRESSION[otlp.compression],
            channel_options=_channel_options(otlp),
            retryable_error_codes=NO_RETRIES,
        )

    def _translate_data(self, data: Any) -> Any:
        return data.spans

    def _count_data(self, data: Any) -> int:
        return data.rows

    def _initialize_channel_and_stub(self) -> None:
        super()._initialize_channel_and_stub()
        self._client = WatchedStub(BytesStub(self._channel), self._watch)


class _GrpcMetrics(GrpcMetricExporter):
    def __init__(self, otlp: OtlpSettings, watch: Watch) -> None:
        self._watch = watch
        super().__init__(
            endpoint=otlp.endpoint,
            timeout=otlp.timeout_s,
            compression=_GRPC_COMPRESSION[otlp.compression],
            channel_options=_channel_options(otlp),
            retryable_error_codes=NO_RETRIES,
            max_export_batch_size=MAX_POINTS,
        )

    def _initialize_channel_and_stub(self) -> None:
        super()._initialize_channel_and_stub()
        self._client = WatchedStub(self._client, self._watch)
