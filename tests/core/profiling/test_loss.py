from uuid import uuid4

import pytest

from ezmsg.core.graphmeta import ProcessProfilingTraceBatch
from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.recorder.recorder import Recorder
from ezmsg.core.recorder.ring import CROWDED, ROWS
from tests.core.profiling.recording import LOCAL, SECOND, begin_trace, ids, publish, receive, told


def test_counters_are_exact_at_level_off_and_nothing_else_is_recorded(registry, publisher, edge):
    registry.set_level("off")
    assert not publisher.timed
    assert not edge.timed
    for number in range(10):
        publish(publisher, number, size=5, wait=2, trace=(1, 2, 0))
        receive(edge, number, size=5, error="ValueError")
    snapshot = registry.snapshot()
    assert snapshot.recorded == {"row": 0, "span": 0, "sample": 0}
    of_publisher, of_edge = snapshot.edges
    assert of_publisher.histograms == of_edge.histograms == {}
    assert (of_publisher.counters["sent"], of_publisher.counters["bytes"]) == (10, 50)
    assert (of_edge.counters["consumed"], of_edge.counters["errors:ValueError"]) == (10, 10)


def test_the_level_comes_from_the_environment_and_changes_while_running(monkeypatch):
    monkeypatch.setenv("EZMSG_OTEL_LEVEL", "off")
    registry = ProfileRegistry()
    publisher = registry.register_publisher(uuid4(), "T", 1)
    publish(publisher, 0)
    registry.set_level("metrics")
    publish(publisher, 1)
    assert registry.snapshot().edges[0].histograms["publish"].count == 1


def test_a_level_nobody_knows_is_refused(registry):
    with pytest.raises(ValueError, match="off, metrics or trace"):
        registry.set_level("debug")


@pytest.fixture
def small(registry: ProfileRegistry) -> ProfileRegistry:
    registry._recorder = Recorder(ring_rows=64, sample_limit=10, span_limit=5)
    return registry


def test_an_overrun_ring_is_counted_and_counters_stay_exact(small):
    publisher = small.register_publisher(uuid4(), "OUT", 8)
    for number in range(1000):
        publish(publisher, number, number)
    snapshot = small.snapshot()
    kept = snapshot.edges[0].histograms["publish"].count
    assert snapshot.edges[0].counters["sent"] == snapshot.recorded["row"] == 1000
    assert snapshot.dropped == {"row:ring_overrun": 1000 - kept}


def test_a_writer_reads_its_ring_when_it_is_crowded_and_sooner_while_it_waits(registry, publisher):
    unread = registry.recorder.unread
    for number in range(ROWS // CROWDED // 2):
        publish(publisher, number)
    half = unread()
    registry.relieve(is_idle=True)
    assert unread() == half
    publish(publisher, ROWS)
    registry.relieve()
    assert unread() > half
    registry.relieve(is_idle=True)
    assert unread() == 0
    for number in range(ROWS // CROWDED + 1):
        publish(publisher, number)
    registry.relieve()
    assert unread() == 0


def test_recorded_is_delivered_plus_dropped_for_every_kind_and_reader(small):
    publisher = small.register_publisher(uuid4(), "OUT", 8)
    edge = small.register_subscriber(uuid4(), "IN").edge(publisher.id, "OUT", LOCAL)
    begin_trace(small, 2)
    delivered = {reader: {"span": 0, "sample": 0} for reader in ("eager", "lazy", "late")}

    def read(reader: str, limit: int = 1000) -> ProcessProfilingTraceBatch:
        batch = small.trace_batch(limit, reader)
        delivered[reader]["span"] += len(batch.spans)
        delivered[reader]["sample"] += len(batch.samples)
        return batch

    for number in range(300):
        trace = (1, number + 1, 0) if number % 5 == 0 else None
        publish(publisher, number, number * 10, wait=number % 3, trace=trace)
        receive(edge, number, origin=0, start=number, end=number * 10 + 5, trace=trace)
        if number % 7 == 0:
            edge.user_span(number, 0, 1, "u", ids(trace))
        if number % 50 == 0:
            read("eager", 3)
        if number == 150:
            begin_trace(small, 3)
    snapshot = small.snapshot()
    for reader, kinds in delivered.items():
        while (batch := read(reader)).samples or batch.spans:
            pass
        for kind, count in kinds.items():
            lost = sum(n for reason, n in batch.dropped.items() if reason.startswith(f"{kind}:"))
            assert count + lost == snapshot.recorded[kind], (reader, kind, batch.dropped)
    counted = sum(
        histogram.count
        for edge_profile in snapshot.edges
        for name, histogram in edge_profile.histograms.items()
        if name in {"publish", "process", "span:u"}
    )
    assert counted + snapshot.dropped["row:ring_overrun"] == snapshot.recorded["row"]


def test_samples_that_a_ring_overran_are_counted(small):
    publisher = small.register_publisher(uuid4(), "OUT", 8)
    edge = small.register_subscriber(uuid4(), "IN").edge(publisher.id, "OUT", LOCAL)
    begin_trace(small)
    delivered = 0
    for number in range(1000):
        publish(publisher, number, number, wait=number % 2)
        receive(edge, number, start=number, end=number)
        if number % 300 == 0:
            delivered += len(small.trace_batch().samples)
    batch = small.trace_batch()
    delivered += len(batch.samples)
    assert set(batch.dropped) == {"row:ring_overrun", "sample:ring_overrun", "sample:sample_store"}
    lost = sum(count for reason, count in batch.dropped.items() if reason.startswith("sample:"))
    assert delivered + lost == small.snapshot().recorded["sample"] == 1000 * 5 + 500


def test_a_span_counts_once_however_many_links_it_has(small):
    publisher = small.register_publisher(uuid4(), "OUT", 8)
    delivered = 0
    for number in range(30):
        publish(publisher, number, number, trace=(1, number + 1, 0), links=[(bytes(16), 7)] * (number % 4))
        if number % 3 == 0:
            delivered += len(small.trace_batch(1).spans)
    while spans := (batch := small.trace_batch(1)).spans:
        delivered += len(spans)
    lost = sum(count for reason, count in batch.dropped.items() if reason.startswith("span:"))
    assert lost > 0
    assert delivered + lost == small.snapshot().recorded["span"] == 30


def test_samples_beyond_the_limit_of_an_endpoint_are_counted(small):
    publisher = small.register_publisher(uuid4(), "OUT", 8)
    begin_trace(small)
    for number in range(25):
        publish(publisher, number, number)
    batch = small.trace_batch()
    assert [seq for *_, seq in told(batch)] == list(range(15, 25))
    assert batch.dropped == {"sample:sample_store": 15}


def test_spans_beyond_the_limit_are_counted(small):
    publisher = small.register_publisher(uuid4(), "OUT", 8)
    for number in range(8):
        publish(publisher, number, number, trace=(1, number + 1, 0))
    batch = small.trace_batch()
    assert len(batch.spans) == 5
    assert batch.dropped == {"span:span_store": 3}


def thin(registry: ProfileRegistry, mask: int) -> None:
    """As the budget does when rows come too fast."""
    registry.recorder.budget.mask = mask
    registry.set_level("metrics")


def test_thinned_rows_are_counted_and_intervals_stay_right(registry, publisher, edge):
    thin(registry, 3)
    for number in range(100):
        publish(publisher, number, number * 10)
        receive(edge, number)
    snapshot = registry.snapshot()
    of_publisher, of_edge = snapshot.edges
    assert of_publisher.counters["sent"] == of_edge.counters["consumed"] == 100
    assert of_publisher.histograms["publish"].count == of_edge.histograms["process"].count == 25
    assert snapshot.recorded["row"] == 200
    assert snapshot.dropped == {"row:thinned": 150}
    intervals = of_publisher.histograms["interval"]
    assert (intervals.count, intervals.min, intervals.max) == (25, 1e-8, 1e-8)


def test_sampled_and_selected_messages_are_never_thinned(registry, publisher):
    thin(registry, 1023)
    publish(publisher, 0, trace=(1, 2, 0))
    begin_trace(registry, 2)
    for number in range(1, 11):
        publish(publisher, number)
    batch = registry.trace_batch()
    assert (len(batch.spans), len(batch.samples)) == (1, 5)


def test_the_budget_thins_and_relents(registry, publisher):
    registry.set_row_budget(10)
    budget = registry.recorder.budget
    budget.note(0, 0)
    budget.note(40, SECOND)
    assert budget.mask == 3
