"""The agent against real receivers, over both protocols: what arrives, and what happens when they misbehave."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from examples.otlp_receiver import HttpReceiver, Receiver
from ezmsg.core.wire.records import GraphState
from ezmsg.otel.agent import AgentCore
from ezmsg.otel.semconv import CHANNEL_KIND, DESTINATION, SCHEMA_URL, SUBSCRIPTION
from ezmsg.otel.settings import SignalSettings
from tests.otel.feeds import (
    ANCHOR,
    EDGE,
    MS,
    PUBLISHER,
    STARTED_NS,
    counters,
    first,
    histogram,
    settings,
    span_ids,
    span_rows,
    telemetry,
)

# Against hanging; far less than what would be waited for.
STOP_LIMIT_S = 40.0
FEED_LIMIT_S = 40.0
PATIENCE_S = 40.0

AgentFor = Callable[..., AgentCore]


@pytest.fixture
def agent_for() -> Iterator[AgentFor]:
    """Makes and starts agents for a receiver, and stops them in the end."""
    made: list[AgentCore] = []

    def make(receiver: Receiver, **more: Any) -> AgentCore:
        agent = AgentCore(settings(receiver.protocol, receiver.endpoint, **more))
        agent.start()
        made.append(agent)
        return agent

    yield make
    for agent in made:
        agent.stop()


def dropped(agent: AgentCore) -> dict[str, int]:
    return {reason: count for (_, reason), count in agent.totals.dropped.items() if count}


def timed(action: Callable[[], Any]) -> float:
    started_s = time.monotonic()
    action()
    return time.monotonic() - started_s


def wait_until(is_so: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    """For what no event tells; looks often."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so() and time.monotonic() < deadline_s:
        time.sleep(0.005)
    return is_so()


# -- what arrives -----------------------------------------------------------------------------------------------


def test_every_span_arrives_once_with_its_ids_and_its_process(receiver: Receiver, agent_for: AgentFor) -> None:
    agent = agent_for(receiver)
    agent.feed(first("a", "process-a", spans=span_rows(1300)))
    agent.feed(first("b", "process-b", spans=span_rows(700, 5001, index=2)))
    agent.feed(telemetry(1, "a", "process-a", spans=span_rows(100, 9001)))
    assert agent.drain(PATIENCE_S)
    seen = receiver.store.spans
    assert Counter(span.span_id for span in seen) == Counter(span_ids(1300) + span_ids(700, 5001) + span_ids(100, 9001))
    publishing = [span for span in seen if span.span.name == "publish ROOT/SOURCE/OUT"]
    processing = [span for span in seen if span.span.name == "process ROOT/SOURCE/OUT"]
    assert {span.resource["service.instance.id"] for span in publishing} == {"process-a"}
    assert {span.resource["service.instance.id"] for span in processing} == {"process-b"}
    assert (len(publishing), len(processing)) == (1400, 700)
    assert agent.totals.exported["span"] == 2100


def test_a_span_is_what_the_native_api_shows(receiver: Receiver, agent_for: AgentFor) -> None:
    agent = agent_for(receiver)
    agent.feed(first(spans=span_rows(1, 7, index=2)))
    assert agent.drain(PATIENCE_S)
    (seen,) = receiver.store.spans
    assert (seen.trace_id, seen.parent_span_id) == (f"{0xABC:016x}{7:016x}", "00000000ffff0000")
    assert seen.span.end_time_unix_nano - seen.span.start_time_unix_nano == MS
    assert seen.span.start_time_unix_nano == STARTED_NS + 30
    assert (seen.scope, seen.resource["service.name"]) == ("ezmsg.core", "ROOT")
    assert seen.attributes[DESTINATION] == "ROOT/SOURCE/OUT"
    assert seen.attributes[SUBSCRIPTION] == "ROOT/SINK/IN"
    assert seen.attributes[CHANNEL_KIND] == "shm"
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in seen.span.links] == [
        (seen.trace_id, seen.parent_span_id)
    ]


def test_a_histogram_arrives_with_buckets_sum_extremes_and_exemplars(receiver: Receiver, agent_for: AgentFor) -> None:
    agent = agent_for(receiver)
    exemplar = (3 * MS, ANCHOR.mono_ns + 9, "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    agent.feed(first(histograms=[histogram(2, "age", [2, 0, 5], exemplars=[exemplar])]))
    assert agent.drain(PATIENCE_S)
    (seen,) = receiver.store.points("ezmsg.message.age")
    point = seen.point
    assert (point.count, point.scale, point.zero_count) == (7, 3, 0)
    assert (point.positive.offset, list(point.positive.bucket_counts)) == (-80, [2, 0, 5])
    assert (point.sum, point.min, point.max) == (pytest.approx(0.007), 0.001, 0.001)
    assert point.start_time_unix_nano == STARTED_NS
    assert seen.metric.exponential_histogram.aggregation_temporality == 2
    assert seen.attributes == {DESTINATION: "ROOT/SOURCE/OUT", SUBSCRIPTION: "ROOT/SINK/IN"}
    (found,) = point.exemplars
    assert (found.as_double, found.time_unix_nano) == (0.003, STARTED_NS + 9)
    assert (found.trace_id.hex(), found.span_id.hex(), len(found.filtered_attributes)) == (*exemplar[2:], 0)


def test_counters_arrive_as_integers_and_cumulative(receiver: Receiver, agent_for: AgentFor) -> None:
    agent = agent_for(receiver)
    agent.feed(first())
    assert agent.drain(PATIENCE_S)
    agent.feed(telemetry(1, counters=[counters(1, sent=25)]))
    assert agent.drain(PATIENCE_S)
    seen = receiver.store.points("messaging.client.sent.messages")
    assert [(point.point.WhichOneof("value"), point.value) for point in seen] == [("as_int", 10), ("as_int", 25)]
    assert {point.point.start_time_unix_nano for point in seen} == {STARTED_NS}
    assert all(point.metric.sum.is_monotonic and point.metric.sum.aggregation_temporality == 2 for point in seen)


def test_schemas_and_scopes_are_told(receiver: Receiver, agent_for: AgentFor) -> None:
    agent = agent_for(receiver)
    agent.feed(first(spans=span_rows(1)))
    assert agent.drain(PATIENCE_S)
    for arrived in receiver.store.arrived:
        parts = arrived.request.resource_spans if arrived.signal == "traces" else arrived.request.resource_metrics
        for part in parts:
            (scope,) = part.scope_spans if arrived.signal == "traces" else part.scope_metrics
            assert (part.schema_url, scope.schema_url, scope.scope.name) == (SCHEMA_URL, SCHEMA_URL, "ezmsg.core")


def test_the_graph_arrives(receiver: Receiver, agent_for: AgentFor) -> None:
    agent = agent_for(receiver)
    agent.feed(first())
    agent.feed(GraphState(["A", "B"], [("A", "B")], ["lab:4711", "lab:2"]))
    assert agent.drain(PATIENCE_S)
    (edge,) = receiver.store.points("ezmsg.graph.edge.info")
    assert edge.attributes == {"ezmsg.graph.edge.source": "A", "ezmsg.graph.edge.target": "B"}
    assert {point.value for point in receiver.store.points("ezmsg.graph.process.count")} == {2}


def test_more_points_than_one_request_may_carry_arrive_in_several(
    receiver: Receiver, agent_for: AgentFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ezmsg.otel.otlp.MAX_POINTS", 3)
    agent = agent_for(receiver)
    agent.feed(first())
    assert agent.drain(PATIENCE_S)
    assert len(receiver.store.arrived) > 2
    assert agent.totals.exported["metric_point"] == len(receiver.store.points())


def test_a_process_that_ended_says_its_last_values_and_is_gone(receiver: Receiver, agent_for: AgentFor) -> None:
    agent = agent_for(receiver)
    agent.feed(first())
    agent.feed(telemetry(1, counters=[counters(1, sent=12, inflight=5)], final=True))
    assert agent.drain(PATIENCE_S)
    (inflight,) = receiver.store.points("ezmsg.publisher.message.inflight")
    (sent,) = receiver.store.points("messaging.client.sent.messages")
    assert (inflight.value, sent.value) == (0, 12)
    receiver.store.clear()
    assert agent.drain(PATIENCE_S)
    assert receiver.store.points("messaging.client.sent.messages") == []


def test_one_signal_may_be_off(http_receiver: HttpReceiver) -> None:
    both = settings(http_receiver.protocol, http_receiver.endpoint)
    agent = AgentCore(replace(both, traces=SignalSettings("traces", "none")))
    agent.start()
    agent.feed(first(spans=span_rows(5)))
    assert agent.stop()
    assert {arrived.signal for arrived in http_receiver.store.arrived} == {"metrics"}
    assert dropped(agent) == {"not_wanted": 5}


def test_metrics_and_spans_leave_without_being_asked(receiver: Receiver, agent_for: AgentFor) -> None:
    agent = agent_for(receiver, metric_interval_s=0.05, span_delay_s=0.05)
    agent.feed(first(spans=span_rows(3)))
    assert receiver.store.wait_for(lambda: len(receiver.store.spans) == 3)
    assert receiver.store.wait_for(lambda: len(receiver.store.points("messaging.client.sent.messages")) >= 2)


# -- when receivers misbehave -----------------------------------------------------------------------------------


@pytest.fixture(params=["down", "slow", "unavailable", "refusing", "busy", "black hole", "redirect"])
def trouble(request: pytest.FixtureRequest, receiver: Receiver) -> Iterator[Receiver]:
    """A receiver that misbehaves; well again in the end."""
    match request.param:
        case "down":
            receiver.stop()
        case "slow":
            receiver.behave("slow", seconds=10.0)
        case "unavailable":
            receiver.behave("status", status=503)
        case "refusing":
            receiver.behave("status", status=400, code="INVALID_ARGUMENT")
        case "busy":
            receiver.behave("status", status=429, code="RESOURCE_EXHAUSTED", retry_after="60")
        case "black hole":
            receiver.behave("black_hole")
        case _:
            receiver.behave("redirect")
    yield receiver
    if request.param == "down":
        receiver.start()
    receiver.behave("ok")


def test_feeding_never_waits_and_memory_is_bounded(trouble: Receiver, agent_for: AgentFor) -> None:
    agent = agent_for(trouble, span_queue=2000, span_delay_s=0.001, metric_interval_s=0.001, timeout_s=1.0)
    fed_s = 0.0
    for number in range(50):
        record = first() if number == 0 else telemetry(number, spans=span_rows(200, 200 * number))
        fed_s += timed(lambda record=record: agent.feed(record))
    assert fed_s < FEED_LIMIT_S
    totals = agent.totals
    accounted = totals.exported["span"] + sum(dropped(agent).values())
    assert 49 * 200 - 2000 <= accounted <= 49 * 200


def test_stopping_takes_two_seconds_at_most(trouble: Receiver, agent_for: AgentFor) -> None:
    agent = agent_for(trouble, span_delay_s=0.001, metric_interval_s=0.001, timeout_s=60.0)
    agent.feed(first(spans=span_rows(600)))
    assert wait_until(lambda: trouble.requests > 0 or agent.totals.durations != {})
    assert timed(agent.stop) < STOP_LIMIT_S
    trouble.behave("ok")  # lets a thread go that hangs
    assert agent.totals.exported["span"] + sum(dropped(agent).values()) == 600


def test_everything_is_accounted_for_in_the_end(trouble: Receiver, agent_for: AgentFor) -> None:
    agent = agent_for(trouble, span_queue=1000, timeout_s=0.2)
    agent.feed(first())
    for number in range(1, 11):
        agent.feed(telemetry(number, spans=span_rows(300, 300 * number)))
    agent.stop()
    assert agent.totals.exported["span"] + sum(dropped(agent).values()) == 3000


def test_cumulative_metrics_and_waiting_spans_recover_after_an_outage(
    receiver: Receiver, agent_for: AgentFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ezmsg.otel.breaker.LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr("ezmsg.otel.breaker.FIRST_WAIT_S", 0.05)
    agent = agent_for(receiver, span_queue=400, span_delay_s=0.01, metric_interval_s=0.05)
    agent.feed(first())
    assert receiver.store.wait_for(lambda: bool(receiver.store.points("messaging.client.sent.messages")))
    receiver.stop()
    agent.feed(telemetry(1, counters=[counters(1, sent=500)], spans=span_rows(300)))
    agent.feed(telemetry(2, counters=[counters(1, sent=900)], spans=span_rows(300, 301)))
    assert wait_until(lambda: len(agent.totals.durations) == 2)
    receiver.store.clear()
    receiver.start()
    assert receiver.store.wait_for(lambda: len(receiver.store.spans) == 400)
    assert receiver.store.wait_for(lambda: bool(lost_spans(receiver)))
    assert [span.span_id for span in receiver.store.spans] == span_ids(400)
    assert {point.value for point in receiver.store.points("messaging.client.sent.messages")} == {900}
    assert lost_spans(receiver)[-1] == 200


def lost_spans(receiver: Receiver) -> list[float]:
    found = receiver.store.points("ezmsg.telemetry.dropped", ezmsg__telemetry__reason="queue_full")
    return [point.value for point in found if point.value]


def test_a_slow_receiver_gets_nothing_twice(receiver: Receiver, agent_for: AgentFor) -> None:
    receiver.behave("slow", seconds=30.0)
    agent = agent_for(receiver, timeout_s=1.0)
    agent.feed(first(spans=span_rows(100)))
    agent.drain()
    assert wait_until(lambda: dropped(agent) == {"timeout": 100})
    receiver.behave("ok")
    agent.feed(telemetry(1, spans=span_rows(100, 101)))
    assert agent.drain(PATIENCE_S)
    assert Counter(span.span_id for span in receiver.store.spans) == Counter(span_ids(200))
    assert dropped(agent) == {"timeout": 100}


def test_what_a_receiver_rejects_is_told_to_the_receiver(receiver: Receiver, agent_for: AgentFor) -> None:
    receiver.behave("ok", rejected=3)
    agent = agent_for(receiver)
    agent.feed(first(spans=span_rows(10)))
    assert agent.drain(PATIENCE_S)
    rejected = receiver.store.points("ezmsg.telemetry.dropped", ezmsg__telemetry__reason="rejected")
    assert [point.value for point in rejected if point.attributes["ezmsg.telemetry.kind"] == "span"] == [3]
    assert receiver.store.points("ezmsg.telemetry.exported", ezmsg__telemetry__kind="span")[0].value == 7


def test_one_signal_goes_on_while_the_other_hangs(http_receiver: HttpReceiver, agent_for: AgentFor) -> None:
    with HttpReceiver() as hanging:
        hanging.behave("black_hole")
        chosen = settings("http/protobuf", http_receiver.endpoint, metric_interval_s=0.05)
        agent = AgentCore(replace(chosen, traces=settings("http/protobuf", hanging.endpoint).traces, span_batch=512))
        agent.start()
        agent.feed(first(spans=span_rows(512)))
        assert hanging.wait_for_requests(1)
        assert http_receiver.store.wait_for(lambda: len(http_receiver.store.arrived) >= 3)
        hanging.behave("ok")
        agent.stop()


def test_feeding_from_one_thread_while_others_export_loses_nothing(receiver: Receiver, agent_for: AgentFor) -> None:
    agent = agent_for(receiver, span_delay_s=0.001, metric_interval_s=0.001, span_queue=100_000)
    agent.feed(first())

    def feed() -> None:
        for number in range(1, 301):
            opened = [PUBLISHER, EDGE] if number % 10 == 0 else []
            agent.feed(telemetry(number, endpoints=opened, spans=span_rows(20, 20 * number)))

    feeder = threading.Thread(target=feed)
    feeder.start()
    feeder.join()
    assert agent.drain(PATIENCE_S)
    assert Counter(span.span_id for span in receiver.store.spans) == Counter(span_ids(6000, 20))
