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
