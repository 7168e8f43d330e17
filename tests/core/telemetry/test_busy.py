from uuid import uuid4

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.telemetry.collect import Collector
from tests.core.telemetry.serving import GRAPH

MS = 1_000_000


def test_a_task_was_busy_as_long_as_it_was_whatever_became_of_messages_and_how_many_are_recorded(
    registry: ProfileRegistry,
) -> None:
    collector = Collector(registry, GRAPH)
    subscriber = registry.register_subscriber(uuid4(), "IN", graph_address=GRAPH, unit="UNIT", task="work")
    edge = subscriber.edge(uuid4(), "OUT", ProfileChannelType.SHM)
    busy_ms = told_ms = 0
    for throttle, of_each_ms in ((0, 2), (3, 4), (1, 1), (0, 8)):
        registry.recorder.set_throttle(throttle)
        for number in range(64):
            end_s = 1.0 + of_each_ms / 1000
            edge.processed(number, 0.5, 0.5, 0.5, 1.0, end_s, 0, None, None if number % 5 else "ValueError")
            busy_ms += of_each_ms
        batch = collector.collect()
        assert batch is not None
        (counters,) = (counters for counters in batch.counters if counters.index == edge.index)
        assert told_ms <= counters.values["busy_ns"] / MS
        told_ms = counters.values["busy_ns"] / MS
        assert abs(told_ms - busy_ms) < 0.001 * busy_ms
    assert registry.recorder.thinned() > 0


def test_who_is_no_task_is_not_busy(registry: ProfileRegistry) -> None:
    collector = Collector(registry, GRAPH)
    edge = registry.register_subscriber(uuid4(), "IN", graph_address=GRAPH).edge(uuid4(), "OUT", ProfileChannelType.SHM)
    edge.processed(0, 0.5, 0.5, 0.5, 1.0, 1.1, 0, None)
    batch = collector.collect()
    assert batch is not None
    assert all("busy_ns" not in counters.values for counters in batch.counters)
