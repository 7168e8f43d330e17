"""Watching the SDK's OTLP exporters, so that we learn what became of a batch.

An exporter answers success or failure only. It takes a redirect for a success, does not read how many items
a receiver rejected, and retries on its own while its caller waits. A watched HTTP session or gRPC stub mends
all three; retrying is the pipelines' business (`pipeline.py`), which know when to stop.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import grpc
import requests
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from requests import PreparedRequest, Response
from urllib3.exceptions import ReadTimeoutError

from ezmsg.otel.outcome import TAKEN, Outcome
from ezmsg.otel.settings import OtlpSettings, Signal

OtlpResponse = ExportTraceServiceResponse | ExportMetricsServiceResponse

_RETRYABLE_STATUS = frozenset({429, 502, 503, 504})
# As OTLP has it, but for DEADLINE_EXCEEDED: the receiver may have the batch, and would get it twice.
_RETRYABLE_CODES = frozenset({"UNAVAILABLE", "ABORTED", "CANCELLED", "OUT_OF_RANGE", "DATA_LOSS"})
_RETRY_INFO = "google.rpc.retryinfo-bin"
# Listing a code that is no error turns the exporter's own retries off.
NO_RETRIES = (grpc.StatusCode.OK,)


class NotTaken(Exception):
    """Raised in place of the answer: the exporter gives up at once, without retrying."""


class Watch:
    """Collects what became of the requests of one batch."""

    def __init__(self) -> None:
        self._outcome: Outcome | None = None

    @property
    def has_failed(self) -> bool:
        """Whether a request of this batch was not taken, so that those behind it need not be tried."""
        return self._outcome is not None and self._outcome.verdict != "taken"

    def begin(self) -> None:
        """Forget the batch before."""
        self._outcome = None

    def note(self, outcome: Outcome) -> None:
        """One more request of this batch ended."""
        self._outcome = self._outcome.then(outcome) if self._outcome else outcome

    def end(self, succeeded: bool) -> Outcome:
        """The fate of the batch; what the exporter says counts where nothing was seen."""
        seen = self._outcome or (TAKEN if succeeded else Outcome("lost", "failed", "the exporter refused it"))
        if not succeeded and seen.verdict == "taken":
            return Outcome("lost", "failed", "the exporter refused it")
        return seen


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
        self._watch.note(_of_response(response))
        return response


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
        return _of_response(answer)
    if response.status_code in _RETRYABLE_STATUS:
        return Outcome(
            "retry", "unavailable", status, retry_after_s=seconds_of(response.headers.get("retry-after", ""))
        )
    if 300 <= response.status_code < 400:
        location = response.headers.get("location", "nowhere")
        return Outcome("lost", "rejected", f"{status} to {location}: redirects are not followed")
    return Outcome("lost", "rejected", status)


def _of_response(response: OtlpResponse) -> Outcome:
    partial = response.partial_success
    if isinstance(response, ExportTraceServiceResponse):
        rejected = response.partial_success.rejected_spans
    else:
        rejected = response.partial_success.rejected_data_points
    return Outcome("taken", "rejected", partial.error_message, rejected) if rejected else TAKEN


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


def seconds_of(retry_after: str) -> float:
    """A `Retry-After` header in seconds from now: it is a number of seconds or a date; 0 for anything else."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(int(retry_after)))
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return 0.0
