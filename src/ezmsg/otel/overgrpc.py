"""OTLP over gRPC: the SDK's exporters with a stub that watches what becomes of each call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from ezmsg.otel.outcome import Outcome
from ezmsg.otel.settings import OtlpSettings
from ezmsg.otel.watch import NotTaken, OtlpResponse, Watch, outcome_of

_COMPRESSION = {"none": grpc.Compression.NoCompression, "gzip": grpc.Compression.Gzip}
# As OTLP has it, but for DEADLINE_EXCEEDED: the receiver may have the batch, and would get it twice.
_RETRYABLE_CODES = frozenset({"UNAVAILABLE", "ABORTED", "CANCELLED", "OUT_OF_RANGE", "DATA_LOSS"})
_RETRY_INFO = "google.rpc.retryinfo-bin"
# Listing a code that is no error turns the exporter's own retries off.
_NO_RETRIES = (grpc.StatusCode.OK,)


def _channel_options(otlp: OtlpSettings) -> Any:  # annotated by the exporter for one string only
    return (("grpc.enable_http_proxy", 0),) if otlp.is_loopback else None


class GrpcSpans(GrpcSpanExporter):
    """Sends a `SpanRequest`, which is encoded already."""

    def __init__(self, otlp: OtlpSettings, watch: Watch) -> None:
        self._watch = watch
        super().__init__(
            endpoint=otlp.endpoint,
            timeout=otlp.timeout_s,
            compression=_COMPRESSION[otlp.compression],
            channel_options=_channel_options(otlp),
            retryable_error_codes=_NO_RETRIES,
        )

    def _translate_data(self, data: Any) -> Any:
        return data.spans

    def _count_data(self, data: Any) -> int:
        return data.count

    def _initialize_channel_and_stub(self) -> None:
        super()._initialize_channel_and_stub()
        self._client = WatchedStub(BytesStub(self._channel), self._watch)


class GrpcMetrics(GrpcMetricExporter):
    """Sends metrics; `max_points` data points go into one request."""

    def __init__(self, otlp: OtlpSettings, watch: Watch, max_points: int) -> None:
        self._watch = watch
        super().__init__(
            endpoint=otlp.endpoint,
            timeout=otlp.timeout_s,
            compression=_COMPRESSION[otlp.compression],
            channel_options=_channel_options(otlp),
            retryable_error_codes=_NO_RETRIES,
            max_export_batch_size=max_points,
        )

    def _initialize_channel_and_stub(self) -> None:
        super()._initialize_channel_and_stub()
        self._client = WatchedStub(self._client, self._watch)


class Stub(Protocol):
    """The one method the exporters call."""

    def Export(self, request: Any, metadata: Sequence[tuple[str, str]], timeout: float) -> OtlpResponse:
        """Send a request and wait for the answer."""
        ...


class BytesStub:
    """The stub of the trace service, for requests that are encoded already."""

    def __init__(self, channel: Any) -> None:
        self._call = channel.unary_unary(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            request_serializer=None,
            response_deserializer=ExportTraceServiceResponse.FromString,
        )

    def Export(self, request: bytes, metadata: Sequence[tuple[str, str]], timeout: float) -> OtlpResponse:
        """Send a request and wait for the answer."""
        return self._call(request, metadata=metadata, timeout=timeout)


class WatchedStub:
    """A gRPC stub that notes the fate of every call."""

    def __init__(self, stub: Stub, watch: Watch) -> None:
        self._stub = stub
        self._watch = watch

    def Export(self, request: Any, metadata: Sequence[tuple[str, str]], timeout: float) -> OtlpResponse:
        """Send a request and wait for the answer.

        Raises:
            RpcError: It was not taken.
            NotTaken: Another request of this batch was not; this one is not tried.
        """
        if self._watch.has_failed:
            raise NotTaken("an earlier part of the batch was not taken")
        try:
            response = self._stub.Export(request=request, metadata=metadata, timeout=timeout)
        except grpc.RpcError as error:
            self._watch.note(_of_rpc_error(error))
            raise
        self._watch.note(outcome_of(response))
        return response


def _of_rpc_error(error: Any) -> Outcome:
    code: str = error.code().name
    detail = f"{code}: {error.details()}"
    trailer: dict[str, bytes] = dict(error.trailing_metadata() or ())
    retry_info = trailer.get(_RETRY_INFO)
    # Exhausted for a moment, or for ever (the request is too large): only a receiver that says when means the first.
    if code in _RETRYABLE_CODES or (code == "RESOURCE_EXHAUSTED" and retry_info is not None):
        delay = RetryInfo.FromString(retry_info or b"").retry_delay
        return Outcome("retry", "unavailable", detail, retry_after_s=delay.seconds + delay.nanos / 1e9)
    return Outcome("lost", "timeout" if code == "DEADLINE_EXCEEDED" else "rejected", detail)
