"""What other programs send to the collector: spans, and points with the time of a clock that is wrong."""

from __future__ import annotations

import os
import time
import urllib.request

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

SPANS_AT_ONCE = 5000


def send_old_points(endpoint: str) -> None:
    """Send a point that is older than what Prometheus takes."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="clock.is.wrong")
    metric.gauge.data_points.add(time_unix_nano=time.time_ns() - 24 * 3600 * 10**9, as_int=1)
    _post(f"{endpoint}/v1/metrics", request.SerializeToString())


def send_spans(endpoint: str, count: int) -> None:
    """Send spans that have nothing but a name."""
    now_ns = time.time_ns()
    while count > 0:
        request = ExportTraceServiceRequest()
        spans = request.resource_spans.add().scope_spans.add().spans
        for _ in range(min(count, SPANS_AT_ONCE)):
            spans.add(
                trace_id=os.urandom(16),
                span_id=os.urandom(8),
                name="planted",
                start_time_unix_nano=now_ns,
                end_time_unix_nano=now_ns + 1,
            )
        _post(f"{endpoint}/v1/traces", request.SerializeToString())
        count -= SPANS_AT_ONCE


def _post(url: str, body: bytes) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/x-protobuf"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()
