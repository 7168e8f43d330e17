import pickle
from uuid import UUID, uuid4

import pytest

from ezmsg.core import profiling
from ezmsg.core.graphmeta import ProfileChannelType
from tests.core.profiling.recording import LOCAL, SECOND, SHM, TCP, UNKNOWN, begin_trace, publish, receive, wait


def test_a_snapshot_shows_totals_and_gauges(registry, publisher, subscriber, edge):
    publish(publisher, 0, size=100, inflight=1)
    publish(publisher, 1, size=50, inflight=2)
    receive(edge, 0, size=100)
    snapshot = registry.snapshot()
    shown = snapshot.publishers[f"OUT:{publisher.id}"]
    assert (shown.topic, shown.messages_published_total, shown.inflight_messages_current) == ("OUT", 2, 2)
    assert shown.num_buffers == 8
    received = snapshot.subscribers[f"IN:{subscriber.id}"]
    assert (received.topic, received.messages_received_total, received.channel_kind_last) == ("IN", 1, SHM)


def test_bytes_are_counted_for_every_channel_that_they_cross_and_serializations_once(registry, publisher):
    ways = ((TCP, {TCP: 1}, 100), (SHM, {SHM: 2, TCP: 1}, 50), (TCP, {TCP: 3}, 10), (UNKNOWN, {}, 0))
    for number, (way, channels, size) in enumerate(ways):
        publisher.goes_by(way, channels)
        publish(publisher, number, serialize=7 if size else 0, size=size)
    (of_publisher,) = registry.snapshot().edges
    counters = of_publisher.counters
    assert (counters["bytes_by:tcp"], counters["bytes_by:shm"], counters["bytes"]) == (180, 100, 160)
    serialized = of_publisher.histograms["serialize"]
    assert (serialized.count, serialized.sum, serialized.max) == (3, pytest.approx(21e-9), 7e-9)


def test_before_its_first_message_a_subscriber_does_not_know_its_channel(registry, subscriber):
    assert registry.snapshot().subscribers[subscriber.endpoint_id].channel_kind_last is ProfileChannelType.UNKNOWN


def test_a_subscriber_counts_the_messages_of_all_its_edges(registry, subscriber, edge):
    other = subscriber.edge(uuid4(), "OTHER", TCP)
    receive(edge, 0)
    receive(other, 0)
    subscriber.record_receive(LOCAL)
    other.close()
    shown = registry.snapshot().subscribers[subscriber.endpoint_id]
    assert (shown.messages_received_total, shown.channel_kind_last) == (3, LOCAL)


def test_the_first_snapshot_has_an_empty_window(registry, publisher, clock):
    clock.now = 5 * SECOND
    publish(publisher, 0)
    snapshot = registry.snapshot()
    shown = snapshot.publishers[publisher.endpoint_id]
    assert snapshot.window_seconds == 0.0
    assert (shown.messages_published_window, shown.publish_rate_hz_window) == (0, 0.0)
    assert snapshot.timestamp == shown.timestamp == 5e9


def test_a_later_snapshot_tells_what_happened_since(registry, publisher, edge, clock):
    registry.snapshot()  # at time 0, which is a time like any other
    for number in range(4):
        publish(publisher, number)
    receive(edge, 0)
    clock.now = 2 * SECOND
    snapshot = registry.snapshot()
    shown = snapshot.publishers[publisher.endpoint_id]
    assert snapshot.window_seconds == 2.0
    assert (shown.messages_published_window, shown.publish_rate_hz_window) == (4, 2.0)
    assert next(iter(snapshot.subscribers.values())).messages_received_window == 1


def test_snapshot_readers_do_not_share_a_window(registry, publisher, clock):
    registry.snapshot("one")
    registry.snapshot("two")
    publish(publisher, 0)
    clock.now = SECOND
    assert registry.snapshot("one").publishers[publisher.endpoint_id].messages_published_window == 1
    clock.now = 2 * SECOND
    late = registry.snapshot("two")
    assert (late.window_seconds, late.publishers[publisher.endpoint_id].messages_published_window) == (2.0, 1)


def test_setting_the_process_id_forgets_the_windows(registry, publisher, clock):
    registry.snapshot()
    process_id = uuid4()
    registry.set_process_id(process_id)
    clock.now = SECOND
    snapshot = registry.snapshot()
    assert (snapshot.process_id, snapshot.window_seconds) == (process_id, 0.0)
    assert list(snapshot.publishers) == [publisher.endpoint_id]


def test_before_any_process_id_it_is_zero(registry):
    assert registry.snapshot().process_id == registry.trace_batch().process_id == UUID(int=0)


def test_the_process_id_that_answers_can_be_named(registry):
    answering = uuid4()
    assert registry.snapshot(process_id=answering).process_id == answering
    assert registry.trace_batch(process_id=answering).process_id == answering


def test_a_reset_forgets_everything(registry, publisher, subscriber):
    registry.set_process_id(uuid4(), reset=True)
    snapshot = registry.snapshot()
    assert (snapshot.publishers, snapshot.subscribers, snapshot.recorded["row"]) == ({}, {}, 0)
    publish(publisher, 0)  # does no harm
    assert registry.snapshot().publishers == {}


def test_entries_vanish_when_an_endpoint_closes(registry, publisher, subscriber, edge):
    registry.unregister_publisher(publisher.id)
    registry.unregister_subscriber(subscriber.id)
    registry.unregister_publisher(uuid4())
    snapshot = registry.snapshot()
    assert (snapshot.publishers, snapshot.subscribers, snapshot.edges) == ({}, {}, [])


def test_a_registry_made_by_hand_is_isolated(registry, publisher):
    publish(publisher, 0)
    assert publisher.endpoint_id not in profiling.PROFILES.snapshot("isolated").publishers
    profiling.PROFILES.forget_reader("isolated")
    begin_trace(registry)
    assert not profiling.PROFILES.trace_enabled()


def test_a_snapshot_travels(registry, publisher, edge):
    publish(publisher, 0)
    receive(edge, 0)
    snapshot = registry.snapshot()
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot


def test_a_snapshot_shows_histograms_per_publisher_and_edge(registry, publisher, edge):
    for number in range(4):
        publish(publisher, number, 1000 * number, end=1000 * number + 10, wait=5, size=3)
        receive(edge, number, origin=0, published=10, channel=20, start=50, end=150, size=3)
    edge.dropped(2)
    of_publisher, of_edge = registry.snapshot().edges
    assert (of_publisher.topic, of_publisher.subscription) == ("OUT", None)
    assert of_publisher.counters["sent"] == 4
    assert of_publisher.counters["backpressure_ns"] == 20
    assert {name: value.count for name, value in of_publisher.histograms.items()} == {
        "publish": 4,
        "backpressure": 4,
        "interval": 3,
    }
    assert (of_edge.topic, of_edge.subscription, of_edge.channel_kind) == ("OUT", "IN", SHM)
    assert of_edge.counters == {"consumed": 4, "bytes": 12, "dropped": 2, "clock_anomalies": 0}
    assert {name: value.sum for name, value in of_edge.histograms.items()} == pytest.approx(
        {"age": 2e-7, "transport": 4e-8, "queue": 1.2e-7, "process": 4e-7}
    )


def test_a_quantile_is_right_to_within_a_bucket(registry, edge):
    for number in range(1, 1001):
        receive(edge, number, start=0, end=number * 1000)
    histogram = registry.snapshot().edges[0].histograms["process"]
    assert histogram.quantile(0.5) == pytest.approx(500e-6, rel=0.09)
    assert histogram.quantile(0.99) == pytest.approx(990e-6, rel=0.09)
    assert (histogram.min, histogram.max) == (1e-6, 1e-3)


def test_failures_are_counted_by_type(registry, edge):
    receive(edge, 0, end=5)
    receive(edge, 1, end=7, error="ValueError")
    [shown] = registry.snapshot().edges
    assert shown.counters["errors:ValueError"] == 1
    assert shown.histograms["process"].count == shown.histograms["process:ValueError"].count == 1


def test_error_types_beyond_a_limit_are_counted_together(registry, edge):
    for number in range(100):
        receive(edge, number, error=f"Error{number}")
    errors = {name: n for name, n in registry.snapshot().edges[0].counters.items() if name.startswith("errors:")}
    assert sum(errors.values()) == 100
    assert errors["errors:other"] == 68


def test_clock_anomalies_are_counted_and_no_nonsense_shown(registry, subscriber):
    foreign = subscriber.edge(uuid4(), "OUT", TCP, foreign=True)
    receive(foreign, 0, origin=9 * SECOND, published=8 * SECOND, channel=10, start=20, end=30)
    [shown] = registry.snapshot().edges
    assert shown.counters["clock_anomalies"] == 1
    assert set(shown.histograms) == {"queue", "process"}


def test_time_spent_waiting_is_blamed_on_who_held_the_slot(registry, publisher):
    wait(publisher, 40, "SLOW")
    publish(publisher, 0, wait=40)
    wait(publisher, 2, "SLOW")
    publish(publisher, 1, wait=2)
    assert registry.snapshot().edges[0].counters["blame_ns:SLOW"] == 42
