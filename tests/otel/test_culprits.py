"""Who causes waiting in the end, of the whole graph."""

from __future__ import annotations

import msgspec
import pytest

from ezmsg.core.wire.records import ProcessTelemetry
from ezmsg.otel.collector import Collector
from ezmsg.otel.culprits import Culprits
from ezmsg.otel.ledger import Ledger
from ezmsg.otel.registry import Registry
from ezmsg.otel.resource import ResourceFactory
from ezmsg.otel.state import Process
from tests.otel.feeds import EDGE, PUBLISHER, STARTED_NS, counters, histogram, telemetry

S = 1_000_000_000


def process(link_id: str) -> Process:
    return Process(link_id, telemetry(0, link_id).anchor)


def chain(filtering_ns: int, seq: int = 0) -> tuple[ProcessTelemetry, ProcessTelemetry]:
    """SOURCE waited for FILTER, which waited for SINK all the time it held a message."""
    source = msgspec.structs.replace(PUBLISHER, topic="SOURCE")
    into = msgspec.structs.replace(EDGE, topic="SOURCE", subscription="FILTER")
    out = msgspec.structs.replace(PUBLISHER, index=3, topic="FILTERED")
    waited = {"blame_ns:SINK": filtering_ns, "chain_ns:FILTER\0SINK": filtering_ns}
    return (
        telemetry(seq, "a", endpoints=[source], counters=[counters(1, **{"blame_ns:FILTER": filtering_ns})]),
        telemetry(
            seq,
            "b",
            endpoints=[into, out],
            counters=[counters(3, **waited)],
            histograms=[histogram(2, "process", [filtering_ns * 1000 // S])],  # of 1 ms each
        ),
    )


def test_blame_goes_through_processes_to_its_end() -> None:
    culprits, first, second = Culprits(), process("a"), process("b")
    for state, record in zip((first, second), chain(2 * S), strict=True):
        state.apply(record)
    assert culprits.look([first, second]) == {"SINK": 4 * S}


def test_sums_grow_by_what_happened_since_the_last_look() -> None:
    culprits, first, second = Culprits(), process("a"), process("b")
    for seq, seconds in enumerate((2, 3)):
        for state, record in zip((first, second), chain(seconds * S, seq), strict=True):
            state.apply(record)
        assert culprits.look([first, second]) == {"SINK": 2 * seconds * S}
    assert culprits.look([first, second]) == {"SINK": 6 * S}
    # Processes that ended are forgotten, and what they suffered is not.
    assert culprits.look([]) == {"SINK": 6 * S}


def test_who_waited_may_be_known_after_why() -> None:
    culprits, first, second = Culprits(), process("a"), process("b")
    to_first, to_second = chain(2 * S)
    second.apply(to_second)
    assert culprits.look([first, second]) == {"SINK": 2 * S}
    first.apply(to_first)
    assert culprits.look([first, second]) == {"SINK": 4 * S}


def test_of_a_stall_that_lasts_the_culprit_is_told_all_the_time_and_when_it_is_over() -> None:
    culprits, state = Culprits(), process("a")
    source, onward = (msgspec.structs.replace(PUBLISHER, index=number, topic=f"P{number}") for number in (1, 3))
    edge = msgspec.structs.replace(EDGE, subscription="FILTER")
    for seq in range(4):
        waited_ns = (1 + min(seq, 2)) * S
        is_on = seq < 3
        of_edge = {"consumed": 1 - is_on} | ({"holding_ns": waited_ns} if is_on else {})
        told = [
            counters(1, **{"blame_ns:FILTER": waited_ns}),
            counters(2, **of_edge),
            counters(3, **{"blame_ns:SINK": waited_ns, "chain_ns:FILTER\0SINK": waited_ns}),
        ]
        ended = [] if is_on else [histogram(2, "process", [3000])]  # of 1 ms each: it was held for 3 s
        endpoints = [source, edge, onward] if seq == 0 else []
        state.apply(telemetry(seq, "a", endpoints=endpoints, counters=told, histograms=ended))
        assert culprits.look([state]) == {"SINK": 2 * waited_ns}


def test_it_is_a_metric_of_the_graph() -> None:
    registry = Registry(ResourceFactory())
    for record in chain(2 * S):
        registry.apply(record)
    collection = Collector(registry, Ledger(), dict, STARTED_NS).collect(STARTED_NS + S)
    *processes, own = collection.data.resource_metrics
    (metric,) = [metric for metric in own.scope_metrics[0].metrics if metric.name == "ezmsg.graph.backpressure.culprit"]
    (point,) = metric.data.data_points
    assert (point.attributes, point.value) == ({"messaging.destination.subscription.name": "SINK"}, pytest.approx(4))
    assert metric.data.is_monotonic
    names = {metric.name for of_process in processes for metric in of_process.scope_metrics[0].metrics}
    assert "ezmsg.graph.backpressure.culprit" not in names


def test_who_is_back_and_tells_all_it_suffered_before_is_not_counted_twice() -> None:
    culprits, state = Culprits(), process("a")
    waits = {"endpoints": [PUBLISHER], "counters": [counters(1, **{"blame_ns:SINK": 2 * S})]}
    state.apply(telemetry(0, "a", **waits))
    assert culprits.look([state]) == {"SINK": 2 * S}
    assert culprits.look([]) == {"SINK": 2 * S}
    again = process("a")
    again.apply(telemetry(0, "a", **waits))
    assert culprits.look([again]) == {"SINK": 2 * S}
