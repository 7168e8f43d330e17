"""OTLP over HTTP: the SDK's exporters with a session that watches what becomes of each request."""

from __future__ import annotations

import contextlib
import os
import time
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.sdk.trace.export import SpanExportResult
from requests import PreparedRequest, Response
from urllib3.exceptions import ReadTimeoutError

from ezmsg.otel.outcome import TAKEN, Outcome
from ezmsg.otel.settings import OtlpSettings, Signal
from ezmsg.otel.watch import NotTaken, Watch, outcome_of

_COMPRESSION = {"none": Compression.NoCompression, "gzip": Compression.Gzip, "deflate": Compression.Deflate}
_RETRYABLE_STATUS = frozenset({429, 502, 503, 504})


class HttpSpans(HttpSpanExporter):
    """Sends a `SpanRequest`, which is encoded already."""

    def __init__(self, otlp: OtlpSettings, watch: Watch) -> None:
        super().__init__(
            endpoint=otlp.endpoint,
            timeout=otlp.timeout_s,
            compression=_COMPRESSION[otlp.compression],
            session=_session("traces", otlp, watch),
        )

    def export(self, spans: Any) -> SpanExportResult:
        """Send."""
        return SpanExportResult.SUCCESS if self._client.export(spans.spans).success else SpanExportResult.FAILURE


def http_metrics(otlp: OtlpSettings, watch: Watch, max_points: int) -> HttpMetricExporter:
    """An exporter of metrics; `max_points` data points go into one request."""
    return HttpMetricExporter(
        endpoint=otlp.endpoint,
        timeout=otlp.timeout_s,
        compression=_COMPRESSION[otlp.compression],
        session=_session("metrics", otlp, watch),
        max_export_batch_size=max_points,
    )


def _session(signal: Signal, otlp: OtlpSettings, watch: Watch) -> WatchedSession | None:
    prefix = "OTEL_PYTHON_EXPORTER_OTLP_HTTP"
    providers = (f"{prefix}_CREDENTIAL_PROVIDER", f"{prefix}_{signal.upper()}_CREDENTIAL_PROVIDER")
    # A session the user's plug-in makes knows how to authenticate; ours does not, so it goes unwatched.
    return None if any(map(os.environ.get, providers)) else WatchedSession(signal, otlp, watch)


class WatchedSession(requests.Session):
    """An HTTP session that notes the fate of every request, and asks no proxy for a receiver on this host."""

    def __init__(self, signal: Signal, otlp: OtlpSettings, watch: Watch) -> None:
        super().__init__()
        self._signal: Signal = signal
        self._is_loopback = otlp.is_loopback
        self._watch = watch

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        """As in the base class, but what is not taken raises.

        Raises:
            NotTaken: There was no answer, or another one than 2xx.
        """
        if self._is_loopback:
            kwargs["proxies"] = {}
        if self.verify is not True:
            # Else REQUESTS_CA_BUNDLE would win over OTEL_EXPORTER_OTLP_CERTIFICATE.
            kwargs["verify"] = self.verify
        response, outcome = self._try(request, kwargs)
        self._watch.note(outcome)
        if response is not None and outcome.verdict == "taken":
            return response
        # This error ends in a log record, which must not hold the response (and so its connection) in a traceback,
        # nor the error beneath (and so its pool) as a cause.
        del response
        raise NotTaken(outcome.detail)

    def _try(self, request: PreparedRequest, kwargs: dict[str, Any]) -> tuple[Response | None, Outcome]:
        try:
            response = super().send(request, **kwargs)
        except OSError as error:  # a RequestException, or a certificate that cannot be read
            return None, _of_http_error(error)
        return response, _of_http_response(self._signal, response)


def _of_http_error(error: OSError) -> Outcome:
    cause = error.args[0] if error.args else None
    # A read that timed out is not tried again: the receiver may well have the batch, and would get it twice.
    if isinstance(error, requests.ReadTimeout) or isinstance(cause, ReadTimeoutError):
        return Outcome("lost", "timeout", "no answer in time")
    if isinstance(error, (requests.ConnectionError, requests.Timeout)):
        return Outcome("retry", "unreachable", str(getattr(cause, "reason", error)))
    return Outcome("lost", "failed", str(error))


def _of_http_response(signal: Signal, response: Response) -> Outcome:
    status = f"HTTP {response.status_code} {response.reason}"
    if 200 <= response.status_code < 300:
        try:
            answer = ExportTraceServiceResponse() if signal == "traces" else ExportMetricsServiceResponse()
            answer.ParseFromString(response.content)
        except DecodeError:
            return TAKEN
        return outcome_of(answer)
    if response.status_code in _RETRYABLE_STATUS:
        return Outcome(
            "retry", "unavailable", status, retry_after_s=seconds_of(response.headers.get("retry-after", ""))
        )
    if 300 <= response.status_code < 400:
        location = response.headers.get("location", "nowhere")
        return Outcome("lost", "rejected", f"{status} to {location}: redirects are not followed")
    return Outcome("lost", "rejected", status)


def seconds_of(retry_after: str) -> float:
    """A `Retry-After` header in seconds from now: it is a number of seconds or a date; 0 for anything else."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(int(retry_after)))
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return 0.0
