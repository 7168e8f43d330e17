"""What the graph's state becomes as metrics, for each row of the table."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics.export import MetricsData

from ezmsg.core.wire.records import GraphState, ServerTelemetry
from ezmsg.otel import semconv
from ezmsg.otel.collector import Collector
from ezmsg.otel.ledger import Ledger
from ezmsg.otel.registry import Registry
from ezmsg.otel.resource import ResourceFactory
from ezmsg.otel.state import REST_EDGE
from tests.otel.feeds import EDGE, PUBLISHER, STARTED_NS, TCP, counters, first, hello, histogram, telemetry

NOW_NS = STARTED_NS + 5_000_000_000
OUT, IN = "ROOT/SOURCE/OUT", "ROOT/SINK/IN"
D, S, K = semconv.DESTINATION, semconv.SUBSCRIPTION, semconv.CHANNEL_KIND
PUBLISHING = {"messaging.system": "ezmsg", "messaging.operation.name": "publish"}
PROCESSING = {"messaging.system": "ezmsg", "messaging.operation.name": "process"}


@pytest.fixture
def registry() -> Registry:
    return Registry(ResourceFactory())


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def collector(registry: Registry, ledger: Ledger) -> Collector:
    return Collector(registry, ledger, lambda: {"traces": (7, 100)}, STARTED_NS)


def points(data: MetricsData, name: str) -> list[Any]:
    return [
        point
        for resource in data.resource_metrics
        for metric in resource.scope_metrics[0].metrics
        if metric.name == name
        for point in metric.data.data_points
    ]


def values(data: MetricsData, name: str) -> dict[tuple[Any, ...], float]:
    """Values (or counts) by attributes, in alphabetical order."""
    return {
        tuple(sorted(point.attributes.items())): getattr(point, "value", getattr(point, "count", None))
        for point in points(data, name)
    }


def key(attributes: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(sorted(attributes.items()))


TASK = {"ezmsg.unit.address": "ROOT/SINK", "ezmsg.task.name": "on_message"}


@pytest.mark.parametrize(
    ("counter", "metric", "attributes", "value"),
    [
        ((1, "sent", 5), "messaging.client.sent.messages", {D: OUT} | PUBLISHING, 5),
        ((2, "consumed", 5), "messaging.client.consumed.messages", {D: OUT, S: IN, K: "shm"} | PROCESSING, 5),
        ((1, "backpressure_ns", 2_500_000_000), "ezmsg.publisher.backpressure.time", {D: OUT}, 2.5),
        ((1, "blame_ns:B", 2_500_000_000), "ezmsg.publisher.backpressure.blame", {D: OUT, S: "B"}, 2.5),
        ((1, "inflight", 5), "ezmsg.publisher.message.inflight", {D: OUT}, 5),
        ((1, "num_buffers", 5), "ezmsg.publisher.buffer.limit", {D: OUT}, 5),
        ((1, "shm_reallocations", 5), "ezmsg.publisher.shm.reallocations", {D: OUT}, 5),
        ((1, "bytes_by:tcp", 5), "ezmsg.channel.io", {D: OUT, K: "tcp", "network.io.direction": "transmit"}, 5),
        ((2, "bytes", 5), "ezmsg.channel.io", {D: OUT, K: "shm", "network.io.direction": "receive"}, 5),
        (
            (2, "clock_anomalies:negative", 5),
            "ezmsg.channel.clock.anomalies",
            {K: "shm", "ezmsg.clock.reason": "negative"},
            5,
        ),
        ((2, "queue_depth", 5), "ezmsg.subscriber.queue.depth", {S: IN}, 5),
        ((2, "dropped", 5), "ezmsg.subscriber.dropped.messages", {D: OUT, S: IN}, 5),
        ((2, "busy_ns", 2_500_000_000), "ezmsg.task.busy.time", TASK, 2.5),
        (
            (2, "errors:ValueError", 5),
            "ezmsg.task.errors",
            {"ezmsg.unit.address": "ROOT/SINK", "ezmsg.task.name": "on_message", "error.type": "ValueError"},
            5,
        ),
    ],
)
def test_counters_become_sums(
    registry: Registry,
    collector: Collector,
    counter: tuple[int, str, int],
    metric: str,
    attributes: dict[str, Any],
    value: float,
) -> None:
    index, name, count = counter
    registry.apply(first(counters=[counters(index, **{name: count})]))
    assert values(collector.collect(NOW_NS).data, metric)[key(attributes)] == value


@pytest.mark.parametrize(
    ("index", "name", "label", "metric", "attributes"),
    [
        (1, "publish", "", "messaging.client.operation.duration", {D: OUT} | PUBLISHING),
        (2, "process", "", "messaging.process.duration", {D: OUT, S: IN} | PROCESSING),
        (
            2,
            "process",
            "KeyError",
            "messaging.process.duration",
            {D: OUT, S: IN, "error.type": "KeyError"} | PROCESSING,
        ),
        (1, "backpressure", "", "ezmsg.publisher.backpressure.duration", {D: OUT}),
        (1, "serialize", "tcp", "ezmsg.publisher.serialize.duration", {D: OUT, K: "tcp"}),
        (1, "interval", "", "ezmsg.publisher.interval", {D: OUT}),
        (2, "transport", "", "ezmsg.channel.transport.duration", {D: OUT, K: "shm"}),
        (2, "queue", "", "ezmsg.subscriber.queue.duration", {D: OUT, S: IN}),
        (2, "age", "", "ezmsg.message.age", {D: OUT, S: IN}),
        (
            2,
            "span",
            "filter",
            "ezmsg.task.span.duration",
            {
                "ezmsg.unit.address": "ROOT/SINK",
                "ezmsg.task.name": "on_message",
                "ezmsg.span.label": "filter",
            },
        ),
    ],
)
def test_histograms_become_exponential_histograms(
    registry: Registry,
    collector: Collector,
    index: int,
    name: str,
    label: str,
    metric: str,
    attributes: dict[str, Any],
) -> None:
    registry.apply(first(histograms=[histogram(index, name, [1, 0, 3], label=label)]))
    data = collector.collect(NOW_NS).data
    assert values(data, metric) == {key(attributes): 4}
    (point,) = points(data, metric)
    assert (point.positive.offset, point.positive.bucket_counts, point.scale) == (-80, [1, 0, 3], 3)
    assert (point.start_time_unix_nano, point.time_unix_nano) == (STARTED_NS, NOW_NS)


def test_edges_of_one_subscriber_tell_of_one_queue(registry: Registry, collector: Collector) -> None:
    second = msgspec.structs.replace(EDGE, index=3, topic="OTHER")
    another = msgspec.structs.replace(EDGE, index=4, endpoint_id="sub-2")
    depths = [counters(index, queue_depth=depth) for index, depth in ((2, 5), (3, 5), (4, 1))]
    registry.apply(first(endpoints=[PUBLISHER, EDGE, second, another], counters=depths))
    depth = "ezmsg.subscriber.queue.depth"
    assert values(collector.collect(NOW_NS).data, depth) == {key({S: IN}): 6}
    registry.apply(telemetry(1, closed=[3]))
    assert values(collector.collect(NOW_NS).data, depth) == {key({S: IN}): 6}
    registry.apply(telemetry(2, gone=True))
    assert values(collector.collect(NOW_NS).data, depth) == {key({S: IN}): 0}


@pytest.mark.parametrize(
    ("counter", "metric", "attributes", "value"),
    [
        ("cpu_user_ns", "process.cpu.time", {"cpu.mode": "user"}, 3e-9),
        ("cpu_system_ns", "process.cpu.time", {"cpu.mode": "system"}, 3e-9),
        ("memory_bytes", "process.memory.usage", {}, 3),
        ("threads", "process.thread.count", {}, 3),
        ("descriptors", "process.unix.file_descriptor.count", {}, 3),
        ("gc_collections:0", "cpython.gc.collections", {"cpython.gc.generation": 0}, 3),
        ("gc_collected:1", "cpython.gc.collected_objects", {"cpython.gc.generation": 1}, 3),
        ("gc_uncollectable:2", "cpython.gc.uncollectable_objects", {"cpython.gc.generation": 2}, 3),
        ("overhead_ppm:traces", "ezmsg.telemetry.overhead", {"ezmsg.telemetry.signal": "traces"}, 3e-6),
        ("unlogged:ROOT/LOG", "ezmsg.logger.dropped.messages", {"ezmsg.unit.address": "ROOT/LOG"}, 3),
        ("task_errors:ROOT/SINK\0on_message\0KeyError", "ezmsg.task.errors", TASK | {"error.type": "KeyError"}, 3),
    ],
)
def test_a_process_tells_of_itself(
    registry: Registry, collector: Collector, counter: str, metric: str, attributes: dict[str, Any], value: float
) -> None:
    registry.apply(first(counters=[counters(0, **{counter: 3})]))
    assert values(collector.collect(NOW_NS).data, metric) == {key(attributes): pytest.approx(value)}
    registry.apply(telemetry(1, gone=True))
    left = 0 if counter.partition(":")[0] in {"memory_bytes", "threads", "descriptors", "overhead_ppm"} else value
    assert values(collector.collect(NOW_NS).data, metric) == {key(attributes): pytest.approx(left)}


def test_the_lag_of_event_loops_is_told_by_name(registry: Registry, collector: Collector) -> None:
    registry.apply(first(histograms=[histogram(0, "loop_lag", [1, 2], label="main"), histogram(0, "novelty", [1])]))
    lag = values(collector.collect(NOW_NS).data, "ezmsg.event_loop.lag")
    assert lag == {key({"ezmsg.event_loop.name": "main"}): 3}


def test_the_server_tells_of_its_own_work_as_the_graph(registry: Registry, collector: Collector) -> None:
    registry.apply(first())
    states = [
        histogram(0, "graph_operation", [3], label="Connect\0"),
        histogram(0, "graph_operation", [1], label="Connect\0CYCLE"),
        histogram(0, "process_control", [2], label="PING\0TIMEOUT"),
        histogram(0, "novelty", [9]),
    ]
    registry.tell(ServerTelemetry(states, {"settings:ROOT/SINK\0SETTINGS_UPDATED": 4, "novelty:x": 1}))
    data = collector.collect(NOW_NS).data
    operation, error = "ezmsg.control.operation", "error.type"
    assert values(data, "ezmsg.graph.operation.duration") == {
        key({operation: "Connect"}): 3,
        key({operation: "Connect", error: "CYCLE"}): 1,
    }
    assert values(data, "ezmsg.process.control.duration") == {key({operation: "PING", error: "TIMEOUT"}): 2}
    updates = {"ezmsg.unit.address": "ROOT/SINK", "ezmsg.settings.event": "SETTINGS_UPDATED"}
    assert values(data, "ezmsg.settings.updates") == {key(updates): 4}
    own = {metric.name for metric in data.resource_metrics[-1].scope_metrics[0].metrics}
    assert {spec.name for spec in semconv.SERVER_METRICS} <= own


def test_every_metric_of_a_process_is_tried_above() -> None:
    tried = {parameter[1] for parameter in test_a_process_tells_of_itself.pytestmark[0].args[1]}
    assert {spec.name for spec in semconv.SCOPE_METRICS} == tried - {"ezmsg.task.errors"} | {"ezmsg.event_loop.lag"}


def test_every_metric_of_an_endpoint_is_tried_above() -> None:
    parameters = [
        *test_counters_become_sums.pytestmark[0].args[1],
        *test_histograms_become_exponential_histograms.pytestmark[0].args[1],
    ]
    tried = {part for parameter in parameters for part in parameter if isinstance(part, str)}
    assert {spec.name for spec in semconv.ENDPOINT_METRICS} <= tried


def test_endpoints_with_the_same_attributes_are_one_series(registry: Registry, collector: Collector) -> None:
    """Two subscriptions of one edge differ in ids only; two kinds of channel differ where K is an attribute."""
    twin = msgspec.structs.replace(EDGE, index=3, endpoint_id="sub-2")
    by_tcp = msgspec.structs.replace(EDGE, index=4, endpoint_id="sub-3", channel_kind=TCP)
    registry.apply(
        first(
            endpoints=[PUBLISHER, EDGE, twin, by_tcp],
            counters=[counters(index, consumed=10**index) for index in (2, 3, 4)],
            histograms=[histogram(index, "age", [index]) for index in (2, 3, 4)],
        )
    )
    data = collector.collect(NOW_NS).data
    edge = {D: OUT, S: IN} | PROCESSING
    assert values(data, "messaging.client.consumed.messages") == {
        key(edge | {K: "shm"}): 1_100,
        key(edge | {K: "tcp"}): 10_000,
    }
    assert values(data, "ezmsg.message.age") == {key({D: OUT, S: IN}): 9}


def test_two_processes_are_two_resources_with_the_same_series(registry: Registry, collector: Collector) -> None:
    registry.apply(first("a", "process-a", counters=[counters(1, sent=1)]))
    registry.apply(first("b", "process-b", counters=[counters(1, sent=2)]))
    data = collector.collect(NOW_NS).data
    assert [point.value for point in points(data, "messaging.client.sent.messages")] == [1, 2]
    ids = [resource.resource.attributes["service.instance.id"] for resource in data.resource_metrics]
    assert ids[:2] == ["process-a", "process-b"]
    assert len(encode_metrics(data).resource_metrics) == 3


def test_unknown_names_and_endpoints_are_left_out(registry: Registry, collector: Collector) -> None:
    registry.apply(
        first(
            counters=[counters(1, novelty=1), counters(77, sent=1)],
            histograms=[histogram(1, "novelty", [1]), histogram(77, "age", [1])],
        )
    )
    data = collector.collect(NOW_NS).data
    assert points(data, "messaging.client.sent.messages") == []
    assert points(data, "ezmsg.message.age") == []


def test_what_a_process_recorded_and_lost_is_told(registry: Registry, collector: Collector) -> None:
    registry.apply(first(recorded={"row": 100, "span": 20}, dropped={"row:ring": 3}, server_dropped={"span:reader": 2}))
    data = collector.collect(NOW_NS).data
    kind, reason = semconv.TELEMETRY_KIND, semconv.TELEMETRY_REASON
    assert values(data, "ezmsg.telemetry.recorded") == {key({kind: "row"}): 100, key({kind: "span"}): 20}
    dropped = values(data, "ezmsg.telemetry.dropped")
    assert dropped[key({kind: "row", reason: "ring"})] == 3
    assert dropped[key({kind: "span", reason: "reader"})] == 2


def test_the_agent_tells_about_itself(registry: Registry, ledger: Ledger, collector: Collector) -> None:
    registry.apply(first())
    ledger.exported("span", 40)
    ledger.dropped("span", "timeout", 2)
    ledger.took("traces", 3_000_000)
    data = collector.collect(NOW_NS).data
    kind, reason, signal = semconv.TELEMETRY_KIND, semconv.TELEMETRY_REASON, semconv.TELEMETRY_SIGNAL
    assert values(data, "ezmsg.telemetry.exported")[key({kind: "span"})] == 40
    assert values(data, "ezmsg.telemetry.dropped")[key({kind: "span", reason: "timeout"})] == 2
    assert values(data, "ezmsg.telemetry.export.duration") == {key({signal: "traces"}): 1}
    assert values(data, "ezmsg.telemetry.queue.usage") == {key({signal: "traces"}): 7}
    assert values(data, "ezmsg.telemetry.queue.limit") == {key({signal: "traces"}): 100}


def test_the_graph_is_told_as_nodes_edges_and_a_number(registry: Registry, collector: Collector) -> None:
    registry.apply(first(endpoints=[PUBLISHER], hello=hello(process_name="front", pid=1)))
    registry.apply(telemetry(0, "link-2", endpoints=[EDGE], hello=hello("link-2", process_name="back", pid=2)))
    registry.tell(GraphState([OUT, "ROOT/OUT", IN], [(OUT, "ROOT/OUT"), ("ROOT/OUT", IN)], ["lab:1", "lab:2"]))
    data = collector.collect(NOW_NS).data
    node, kind, process = semconv.NODE_ID, semconv.NODE_KIND, semconv.PROCESS_NAME
    assert values(data, "ezmsg.graph.process.count") == {(): 2}
    assert values(data, "ezmsg.graph.node.info") == {
        key({node: OUT, kind: "publisher", process: "front"}): 1,
        key({node: "ROOT/OUT", kind: "topic"}): 1,
        key({node: IN, kind: "subscriber", process: "back"}): 1,
    }
    assert values(data, "ezmsg.graph.edge.info") == {
        key({semconv.EDGE_SOURCE: OUT, semconv.EDGE_TARGET: "ROOT/OUT"}): 1,
        key({semconv.EDGE_SOURCE: "ROOT/OUT", semconv.EDGE_TARGET: IN}): 1,
    }


def test_an_edge_that_is_gone_is_0(registry: Registry, collector: Collector) -> None:
    edge = key({semconv.EDGE_SOURCE: OUT, semconv.EDGE_TARGET: IN})
    registry.apply(first(endpoints=[PUBLISHER]))
    registry.tell(GraphState([], [(OUT, IN)], []))
    assert values(collector.collect(NOW_NS).data, "ezmsg.graph.edge.info") == {edge: 1}
    registry.tell(GraphState([], [], []))
    assert values(collector.collect(NOW_NS).data, "ezmsg.graph.edge.info") == {edge: 0}


def test_processes_count_also_when_they_are_not_on_the_control_plane(registry: Registry, collector: Collector) -> None:
    for pid, link_id in enumerate(("a", "b", "c")):
        registry.apply(first(link_id, hello=hello(link_id, pid=pid)))
    registry.apply(telemetry(1, "c", gone=True))
    registry.tell(GraphState([], [], ["lab:1", "lab:17"]))
    assert values(collector.collect(NOW_NS).data, "ezmsg.graph.process.count") == {(): 3}


def test_ended_processes_are_named_so_that_they_can_be_forgotten(registry: Registry, collector: Collector) -> None:
    registry.apply(first("a"))
    registry.apply(first("b", gone=True))
    assert collector.collect(NOW_NS).ended == ["b"]


def test_endpoints_that_stand_for_many_are_the_overflow_series(registry: Registry, collector: Collector) -> None:
    rest = msgspec.structs.replace(EDGE, index=REST_EDGE)
    registry.apply(first(endpoints=[rest], counters=[counters(REST_EDGE, dropped=3)]))
    data = collector.collect(NOW_NS).data
    assert values(data, "ezmsg.subscriber.dropped.messages") == {key({"otel.metric.overflow": True}): 3}


def test_series_beyond_the_limit_are_counted_as_dropped(
    registry: Registry, ledger: Ledger, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ezmsg.otel.points.MAX_SERIES", 3)
    endpoints = [msgspec.structs.replace(PUBLISHER, index=i, topic=f"T{i}", num_buffers=0) for i in range(1, 6)]
    registry.apply(first(endpoints=endpoints, counters=[counters(i, sent=1) for i in range(1, 6)]))
    data = collector.collect(NOW_NS).data
    assert values(data, "messaging.client.sent.messages")[key({"otel.metric.overflow": True})] == 3
    assert ledger.totals().dropped["metric_point", "overflow"] == 3


def test_everything_can_be_encoded(registry: Registry, ledger: Ledger, collector: Collector) -> None:
    registry.apply(first(histograms=[histogram(1, "publish", [1], exemplars=[(5, 5, "ab", "cd")])]))
    registry.tell(GraphState([OUT], [], ["lab:1"]))
    ledger.took("traces", 0)
    collection = collector.collect(NOW_NS)
    sent = encode_metrics(collection.data)
    metrics = [metric for resource in sent.resource_metrics for metric in resource.scope_metrics[0].metrics]
    table = {spec.name: spec for spec in semconv.METRICS}
    assert {metric.name for metric in metrics} <= table.keys()
    assert all(
        (metric.unit, metric.description) == (table[metric.name].unit, table[metric.name].description)
        for metric in metrics
    )
    assert collection.points == sum(len(getattr(metric, metric.WhichOneof("data")).data_points) for metric in metrics)
