from msgspec import structs

from ezmsg.core.recorder import past as module
from ezmsg.core.recorder.past import OTHERS, LastValues, Past, Pasts
from ezmsg.core.wire.records import CounterState, EndpointRecord, TelemetryBatch, decode_record, encode_record
from tests.otel.feeds import EDGE, PUBLISHER, histogram


def last(endpoint: EndpointRecord, index: int, counts: list[int], **counters: int) -> LastValues:
    states = [histogram(index, "publish", counts)] if counts else []
    return LastValues(structs.replace(endpoint, index=index), counters, states)


def test_endpoints_that_were_the_same_are_added_up_without_their_levels() -> None:
    past = Past()
    past.add(last(PUBLISHER, 1, [1, 2], sent=3, inflight=2))
    past.add(last(PUBLISHER, 7, [4], sent=5, num_buffers=32))
    past.add(last(EDGE, 8, [], consumed=6))
    publisher, edge = past.values()
    endpoint = publisher.endpoint
    assert (endpoint.index, endpoint.topic, endpoint.unit) == (1, PUBLISHER.topic, "ROOT/SOURCE")
    assert publisher.counters == {"sent": 8}
    assert [(state.index, state.count, state.counts) for state in publisher.histograms] == [(1, 7, [5, 2])]
    assert edge.counters == {"consumed": 6}


def test_ever_new_ones_are_bounded_and_nothing_of_them_is_lost(monkeypatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 3)
    past = Past()
    for index in range(1, 50):
        past.add(last(structs.replace(PUBLISHER, topic=f"T{index}"), index, [1], sent=1))
        past.add(last(structs.replace(EDGE, topic=f"T{index}"), 1000 + index, [], consumed=1))
    values = past.values()
    assert len(values) == 3 + 2
    assert sum(one.counters.get("sent", 0) for one in values) == 49
    assert sum(one.counters.get("consumed", 0) for one in values) == 49
    assert {(one.endpoint.topic, one.endpoint.subscription) for one in values} >= {(OTHERS, ""), (OTHERS, OTHERS)}


def test_a_record_of_it_can_always_be_sent() -> None:
    past = Past()
    for holder in range(300):
        past.add(last(PUBLISHER, 1, [1], **{f"blame_ns:{holder}": 1}))
    [one] = past.values()
    assert sum(one.counters.values()) == 300
    record = TelemetryBatch(0, "", 0, counters=[CounterState(1, one.counters)])
    assert decode_record(*encode_record(record)) == record


def test_graphs_and_clients_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(module, "GRAPHS", 2)
    monkeypatch.setattr(module, "CLIENTS", 2)
    pasts = Pasts(lambda: 9)
    first = pasts.link_id("g0")
    assert pasts.link_id("g0") == first
    for number in range(3):
        pasts.of(f"g{number}", "client").add(last(PUBLISHER, 1, [], sent=1))
        pasts.of("g2", f"client {number}").add(last(PUBLISHER, 1, [], sent=1))
    assert [one.endpoint.index for one in pasts.of("g2", "client 2").values()] == [9]
    assert pasts.of("g2", "client 0").values() == []
    assert pasts.link_id("g0") != first
