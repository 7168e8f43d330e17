"""The receiver of the examples by itself; `tests/otel` uses it with the real exporters."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from examples.otlp_receiver import HttpReceiver
from tests.ports import KeptPort


@pytest.fixture
def receiver() -> Iterator[HttpReceiver]:
    with KeptPort() as kept, HttpReceiver(port=kept.address.port) as receiver:
        yield receiver


def post(receiver: HttpReceiver, path: str, body: bytes) -> bytes:
    request = urllib.request.Request(receiver.endpoint + path, body, {"X-Tenant": "lab"})
    with urllib.request.urlopen(request) as response:
        return response.read()


def traces() -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    of_resource.resource.attributes.add(key="service.name").value.string_value = "lab"
    spans = of_resource.scope_spans.add().spans
    spans.add(trace_id=b"a" * 16, span_id=b"2" * 8, name="process T", start_time_unix_nano=2)
    spans.add(trace_id=b"a" * 16, span_id=b"1" * 8, name="publish T", start_time_unix_nano=1)
    return request


def metrics() -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    made = request.resource_metrics.add().scope_metrics.add().metrics
    for topic, value in (("A", 3), ("B", 4)):
        point = made.add(name="sent").sum.data_points.add(as_int=value)
        point.attributes.add(key="messaging.topic").value.string_value = topic
    made.add(name="age").exponential_histogram.data_points.add(count=9)
    return request


def test_spans_are_kept_by_trace_in_order_of_time(receiver: HttpReceiver) -> None:
    answer = post(receiver, "/v1/traces", traces().SerializeToString())
    assert ExportTraceServiceResponse.FromString(answer) == ExportTraceServiceResponse()
    ((trace_id, spans),) = receiver.store.traces().items()
    assert trace_id == (b"a" * 16).hex()
    assert [span.span.name for span in spans] == ["publish T", "process T"]
    assert receiver.store.service_names() == {"lab"}
    assert receiver.store.arrived[0].headers["x-tenant"] == "lab"


def test_points_are_found_by_metric_and_attributes(receiver: HttpReceiver) -> None:
    post(receiver, "/v1/metrics", metrics().SerializeToString())
    store = receiver.store
    assert store.metric_names() == {"sent", "age"}
    assert [point.value for point in store.points("sent")] == [3, 4]
    assert [point.value for point in store.points("sent", messaging__topic="B")] == [4]
    assert [point.value for point in store.points("age")] == [9]
    assert "metrics: 2 names, 3 data points" in store.summary()


def test_what_was_taken_is_not_kept(receiver: HttpReceiver) -> None:
    post(receiver, "/v1/metrics", metrics().SerializeToString())
    assert receiver.store.take().metric_names() == {"sent", "age"}
    assert receiver.store.arrived == []


def test_another_path_is_not_found(receiver: HttpReceiver) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        post(receiver, "/v1/logs", b"")


def test_it_listens_again_on_the_same_port(receiver: HttpReceiver) -> None:
    port = receiver.port
    receiver.stop()
    with pytest.raises(urllib.error.URLError):
        post(receiver, "/v1/traces", b"")
    receiver.start()
    assert receiver.port == port
    post(receiver, "/v1/traces", b"")


def test_stopping_lets_go_who_waits_in_a_black_hole(receiver: HttpReceiver) -> None:
    receiver.behave("black_hole")
    failures: list[Exception] = []

    def ask() -> None:
        try:
            post(receiver, "/v1/traces", b"")
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert receiver.wait_for_requests(1)
    receiver.stop()
    thread.join()
    assert len(failures) == 1
    receiver.start()
