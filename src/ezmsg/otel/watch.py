"""Watching the SDK's OTLP exporters, so that we learn what became of a batch.

An exporter answers success or failure only. It takes a redirect for a success, does not read how many items
a receiver rejected, and retries on its own while its caller waits. A watched HTTP session (`overhttp.py`) or gRPC stub
(`overgrpc.py`) mends all three; retrying is the pipelines' business (`pipeline.py`), which know when to stop.
"""

from __future__ import annotations

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from ezmsg.otel.outcome import TAKEN, Outcome

OtlpResponse = ExportTraceServiceResponse | ExportMetricsServiceResponse


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


def outcome_of(response: OtlpResponse) -> Outcome:
    """A receiver took a request, all of it or in part."""
    partial = response.partial_success
    if isinstance(response, ExportTraceServiceResponse):
        rejected = response.partial_success.rejected_spans
    else:
        rejected = response.partial_success.rejected_data_points
    return Outcome("taken", "rejected", partial.error_message, rejected) if rejected else TAKEN
