import os
import pickle
import threading
from collections.abc import Callable, Iterator
from uuid import UUID, uuid4

import pytest

from ezmsg.core import profiling
from ezmsg.core.graphmeta import (
    ProcessProfilingTraceBatch,
    ProfileChannelType,
    ProfilingTraceControl,
    ProfilingTraceSample,
)
from ezmsg.core.profiling import EdgeMetrics, ProfileRegistry, PublisherMetrics, SubscriberMetrics
from ezmsg.core.recorder import ids, tracecontrol
from ezmsg.core.recorder.recorder import Recorder
from ezmsg.core.wire.records import ClockAnchor

LOCAL, SHM, TCP = ProfileChannelType.LOCAL, ProfileChannelType.SHM, ProfileChannelType.TCP
SECOND = 1_000_000_000


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(profiling, "PROFILE_TIME", made)
    return made


@pytest.fixture
def registry() -> ProfileRegistry:
    return ProfileRegistry()


@pytest.fixture
def publisher(registry: ProfileRegistry) -> PublisherMetrics:
    return registry.register_publisher(uuid4(), "OUT", 8)


@pytest.fixture
def subscriber(registry: ProfileRegistry) -> SubscriberMetrics:
    return registry.register_subscriber(uuid4(), "IN")


@pytest.fixture
def edge(subscriber: SubscriberMetrics) -> EdgeMetrics:
    return subscriber.edge(uuid4(), "OUT", SHM)


def publish(
    metrics: PublisherMetrics,
    number: int,
    start: int = 0,
    *,
    end: int | None = None,
    wait: int = 0,
    serialize: int = 0,
    size: int = 0,
    inflight: int = 1,
    trace: tuple[int, int, int] | None = None,
) -> None:
    end = start if end is None else end
    metrics.published(number, start, start, end, wait, serialize, size, inflight, 1, trace)


def receive(
    metrics: EdgeMetrics,
    number: int,
    *,
    origin: int = 0,
    published: int = 0,
    channel: int = 0,
    start: int = 0,
    end: int = 0,
    size: int = 0,
    trace: tuple[int, int, int] | None = None,
    error: str | None = None,
) -> None:
    metrics.processed(number, origin, published, channel, start, end, size, trace, error)


def trace(registry: ProfileRegistry, sample_mod: int = 1, **filters: object) -> None:
    registry.set_trace_control(ProfilingTraceControl(True, sample_mod, **filters))  # type: ignore[arg-type]


def told(batch: ProcessProfilingTraceBatch) -> list[tuple[str, float, int | None]]:
    return [(sample.metric, sample.value, sample.sample_seq) for sample in batch.samples]


# -- totals -----------------------------------------------------------------------------------------------------------


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
    trace(registry)
    assert not profiling.PROFILES.trace_enabled()


def test_a_snapshot_travels(registry, publisher, edge):
    publish(publisher, 0)
    receive(edge, 0)
    snapshot = registry.snapshot()
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot


# -- histograms -------------------------------------------------------------------------------------------------------


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
    publisher.blame("SLOW", 40)
    publish(publisher, 0, wait=40)
    publisher.blame("SLOW", 2)
    publish(publisher, 1, wait=2)
    assert registry.snapshot().edges[0].counters["blame_ns:SLOW"] == 42


# -- native traces ----------------------------------------------------------------------------------------------------


def test_without_a_trace_there_are_no_samples(registry, publisher, edge):
    publish(publisher, 0)
    receive(edge, 0)
    assert not registry.trace_enabled()
    assert registry.trace_batch().samples == []


def test_the_compatible_methods_make_the_samples_of_3_9(clock, registry, publisher, subscriber):
    trace(registry)
    clock.now = 100
    publisher.record_publish(1)
    clock.now = 350
    publisher.record_backpressure_wait(25)
    publisher.record_publish(2, msg_seq=1)
    clock.now = 400
    assert subscriber.begin_message(TCP) is True
    subscriber.record_user_span(7, "fft", 1, sampled=True)
    clock.now = 500
    subscriber.record_lease_time(TCP, 60, 1, sampled=True)
    pub_id, sub_id = publisher.endpoint_id, subscriber.endpoint_id
    assert registry.trace_batch().samples == [
        ProfilingTraceSample(100.0, pub_id, "OUT", "publish_delta_ns", 0.0, None, 0),
        ProfilingTraceSample(350.0, pub_id, "OUT", "backpressure_wait_ns", 25.0, None, 1),
        ProfilingTraceSample(350.0, pub_id, "OUT", "publish_delta_ns", 250.0, None, 1),
        ProfilingTraceSample(400.0, sub_id, "IN:fft", "user_span_ns", 7.0, TCP, 1),
        ProfilingTraceSample(500.0, sub_id, "IN", "lease_time_ns", 60.0, TCP, 1),
    ]


def test_the_compatible_methods_count(registry, publisher, subscriber):
    publisher.record_publish(3)
    publisher.sample_inflight(2)
    subscriber.record_receive(TCP, 50)
    snapshot = registry.snapshot()
    shown = snapshot.publishers[publisher.endpoint_id]
    assert (shown.messages_published_total, shown.inflight_messages_current) == (1, 2)
    assert snapshot.subscribers[subscriber.endpoint_id].messages_received_total == 1


def test_the_hot_path_makes_the_samples_of_3_9_and_the_new_ones(registry, publisher, edge):
    trace(registry)
    publish(publisher, 0, 100, end=110)
    publish(publisher, 1, 300, end=390, wait=60, serialize=20)
    receive(edge, 1, origin=300, published=380, channel=400, start=450, end=700)
    assert told(registry.trace_batch()) == [
        ("publish_delta_ns", 0.0, 0),
        ("publish_delta_ns", 200.0, 1),
        ("backpressure_wait_ns", 60.0, 1),
        ("serialize_ns", 20.0, 1),
        ("lease_time_ns", 250.0, 1),
        ("transport_ns", 20.0, 1),
        ("queue_wait_ns", 50.0, 1),
        ("age_ns", 150.0, 1),
    ]


def test_every_third_message_is_sampled_from_the_third(registry, publisher, subscriber):
    trace(registry, 3)
    assert [subscriber.begin_message(LOCAL) for _ in range(9)] == [False, False, True] * 3
    for _ in range(9):
        publisher.record_publish(0)
    assert [sample.sample_seq for sample in registry.trace_batch().samples] == [2, 5, 8]


def test_a_delta_is_taken_between_consecutive_messages_whatever_the_sampling(registry, publisher):
    trace(registry, 4)
    for number in range(12):
        publish(publisher, number, number * 1000)
    assert told(registry.trace_batch()) == [("publish_delta_ns", 1000.0, seq) for seq in (3, 7, 11)]


def test_a_delta_knows_the_message_before_the_trace_began(registry, publisher):
    publish(publisher, 0, 1000)
    trace(registry)
    publish(publisher, 1, 1700)
    assert told(registry.trace_batch()) == [("publish_delta_ns", 700.0, 1)]


def test_backpressure_follows_the_decision_of_its_message(registry, publisher):
    trace(registry, 2, metrics=["backpressure_wait_ns"])
    for number in range(4):
        publisher.record_backpressure_wait(10 + number)
        publisher.record_publish(0)
    assert told(registry.trace_batch()) == [("backpressure_wait_ns", 11.0, 1), ("backpressure_wait_ns", 13.0, 3)]


def test_user_spans_and_lease_share_one_decision(registry, edge):
    trace(registry, 2)
    for number in range(4):
        edge.user_span(number, 0, 5, "a", None)
        edge.user_span(number, 5, 9, None, None)
        receive(edge, number, end=10)
    seen = {(sample.metric, sample.topic, sample.sample_seq) for sample in registry.trace_batch().samples}
    assert {seq for _, _, seq in seen} == {1, 3}
    assert {("user_span_ns", "IN:a", 1), ("user_span_ns", "IN", 1), ("lease_time_ns", "IN", 1)} <= seen


def test_messages_of_several_publishers_are_decided_apart(registry, subscriber):
    one, two = subscriber.edge(uuid4(), "A", LOCAL), subscriber.edge(uuid4(), "B", LOCAL)
    trace(registry, 2)
    assert [one.selects(7), two.selects(7), one.selects(7), two.selects(7)] == [False, True, False, True]


def test_overlapping_leases_keep_their_decisions(registry, edge):
    trace(registry, 2, metrics=["lease_time_ns"])
    first, second = edge.selects(0), edge.selects(1)
    receive(edge, 1)
    receive(edge, 0)
    assert (first, second) == (False, True)
    assert [sample.sample_seq for sample in registry.trace_batch().samples] == [1]


@pytest.mark.parametrize(
    ("filters", "metrics"),
    [
        ({"publisher_topics": ["OUT"]}, {"publish_delta_ns", "lease_time_ns"}),
        ({"publisher_topics": ["ELSEWHERE"]}, {"lease_time_ns"}),
        ({"subscriber_topics": ["ELSEWHERE"]}, {"publish_delta_ns"}),
        ({"publisher_topics": [], "subscriber_topics": []}, {"publish_delta_ns", "lease_time_ns"}),
        ({"publisher_endpoint_ids": ["OUT:x"]}, {"lease_time_ns"}),
        ({"subscriber_endpoint_ids": ["IN:x"]}, {"publish_delta_ns"}),
        ({"metrics": ["publish_delta_ns"]}, {"publish_delta_ns"}),
        ({"metrics": ["lease_time_ns", "unheard_of"]}, {"lease_time_ns"}),
        ({"metrics": ["unheard_of"]}, set()),
    ],
)
def test_filters(registry, publisher, subscriber, filters, metrics):
    trace(registry, **filters)
    publisher.record_publish(0)
    subscriber.record_receive(LOCAL, 5)
    assert {sample.metric for sample in registry.trace_batch().samples} == metrics


def test_endpoint_ids_select_endpoints(registry, publisher):
    other = registry.register_publisher(uuid4(), "OUT", 8)
    trace(registry, publisher_endpoint_ids=[other.endpoint_id])
    publisher.record_publish(0)
    other.record_publish(0)
    assert [sample.endpoint_id for sample in registry.trace_batch().samples] == [other.endpoint_id]


def test_new_endpoints_take_part_in_the_trace(registry):
    trace(registry)
    registry.register_publisher(uuid4(), "LATE", 8).record_publish(0)
    late = registry.register_subscriber(uuid4(), "LATE")
    receive(late.edge(uuid4(), "LATE", LOCAL), 0)
    assert {sample.topic for sample in registry.trace_batch().samples} == {"LATE"}


def test_a_trace_works_at_level_off_for_what_it_selects(registry, publisher):
    registry.set_level("off")
    trace(registry, 2)
    assert publisher.timed
    for number in range(4):
        publish(publisher, number, number * 10)
    assert [seq for _, _, seq in told(registry.trace_batch())] == [1, 3]
    assert registry.snapshot().recorded["row"] == 2


def test_the_control_may_change_after_it_was_set(registry, publisher):
    control = ProfilingTraceControl(True, publisher_topics=["OUT"])
    registry.set_trace_control(control)
    control.publisher_topics = ["ELSEWHERE"]
    registry.register_publisher(uuid4(), "OUT", 8).record_publish(0)
    assert len(registry.trace_batch().samples) == 1


# -- reading traces ---------------------------------------------------------------------------------------------------


def test_a_reader_gets_each_sample_once(registry, publisher):
    trace(registry)
    for number in range(5):
        publish(publisher, number, number)
    assert [seq for *_, seq in told(registry.trace_batch(2))] == [0, 1]
    assert [seq for *_, seq in told(registry.trace_batch(2))] == [2, 3]
    publish(publisher, 5, 5)
    assert [seq for *_, seq in told(registry.trace_batch())] == [4, 5]
    assert registry.trace_batch().samples == []


def test_reading_takes_nothing_from_another_reader(registry, publisher):
    trace(registry)
    publish(publisher, 0, trace=(1, 2, 0))
    first, second = registry.trace_batch(reader="one"), registry.trace_batch(reader="two")
    assert first.samples == second.samples
    assert len(first.samples) == 1
    assert first.spans == second.spans
    assert len(first.spans) == 1


def test_a_reader_that_comes_late_begins_with_the_oldest_sample(registry, publisher):
    trace(registry)
    publish(publisher, 0, 0)
    registry.trace_batch(reader="early")
    publish(publisher, 1, 1)
    assert [seq for *_, seq in told(registry.trace_batch(reader="late"))] == [0, 1]


def test_setting_a_trace_empties_every_reader(registry, publisher):
    trace(registry)
    publish(publisher, 0)
    registry.trace_batch(reader="one")
    publish(publisher, 1, 1)
    trace(registry)
    publish(publisher, 2, 2)
    for reader in ("one", "two"):
        assert [seq for *_, seq in told(registry.trace_batch(reader=reader))] == [2]


def test_disabling_a_trace_empties_it(registry, publisher):
    trace(registry)
    publish(publisher, 0)
    registry.set_trace_control(ProfilingTraceControl(False))
    assert not registry.trace_enabled()
    assert registry.trace_batch().samples == []


def test_a_trace_ends_when_its_time_is_over(registry, publisher, monkeypatch):
    now = 100.0
    monkeypatch.setattr(tracecontrol.time, "monotonic", lambda: now)
    trace(registry, ttl_seconds=5.0)
    publish(publisher, 0)
    now = 104.9
    assert registry.trace_enabled()
    now = 105.0
    publish(publisher, 1)
    assert registry.trace_batch().samples == []
    assert not registry.trace_enabled()
    publish(publisher, 2)
    assert registry.trace_batch().samples == []


def test_samples_of_all_endpoints_are_merged_by_time(registry, publisher, edge):
    trace(registry, metrics=["publish_delta_ns", "lease_time_ns"])
    for number in range(3):
        publish(publisher, number, number * 10)
    for number in range(3):
        receive(edge, number, end=number * 10 + 5)
    assert [sample.metric[:5] for sample in registry.trace_batch(4).samples] == ["publi", "lease", "publi", "lease"]


def test_the_last_samples_of_an_endpoint_outlive_it(registry, publisher, subscriber, edge):
    trace(registry)
    publish(publisher, 0, trace=(1, 2, 0))
    receive(edge, 0, trace=(1, 3, 2))
    registry.unregister_publisher(publisher.id)
    registry.unregister_subscriber(subscriber.id)
    registry.snapshot()
    batch = registry.trace_batch()
    assert {sample.endpoint_id for sample in batch.samples} == {publisher.endpoint_id, subscriber.endpoint_id}
    assert [span.name for span in batch.spans] == ["publish OUT", "process OUT"]


def test_a_lease_that_outlives_its_subscriber_is_counted_as_lost(registry, subscriber, edge):
    registry.unregister_subscriber(subscriber.id)
    registry.snapshot()
    receive(edge, 0, trace=(1, 3, 2))
    snapshot = registry.snapshot()
    assert snapshot.dropped == {"row:unknown_endpoint": 1, "span:unknown_endpoint": 1}
    assert registry.trace_batch().spans == []


# -- spans ------------------------------------------------------------------------------------------------------------


def test_spans_of_sampled_messages_need_no_trace_control(registry, publisher, edge):
    publish(publisher, 0, 1000, end=2000, trace=(0xABC, 0x1, 0))
    edge.user_span(0, 2500, 2600, "fft", (0xABC, 0x3, 0x2))
    receive(edge, 0, channel=2000, start=2100, end=3000, trace=(0xABC, 0x2, 0x1))
    publish(publisher, 1, 3000)
    spans = registry.trace_batch().spans
    assert [
        (span.name, int(span.span_id, 16), span.parent_span_id and int(span.parent_span_id, 16)) for span in spans
    ] == [
        ("publish OUT", 1, None),
        ("fft", 3, 2),
        ("process OUT", 2, 1),
    ]
    assert {span.trace_id for span in spans} == {f"{0xABC:032x}"}


def test_a_sample_of_a_sampled_message_has_its_ids(registry, publisher):
    trace(registry)
    publish(publisher, 0, trace=(0xABC, 0x1, 0))
    batch = registry.trace_batch()
    assert (batch.samples[0].trace_id, batch.samples[0].span_id) == (batch.spans[0].trace_id, batch.spans[0].span_id)


def test_times_have_a_wall_anchor(registry, publisher):
    registry.set_anchor(ClockAnchor("boot", 1000, 1_700_000_000_000_000_000))
    publish(publisher, 0, 5000, end=6000, trace=(1, 2, 0))
    batch = registry.trace_batch()
    assert (batch.anchor_mono_ns, batch.anchor_unix_ns, batch.boot_id) == (1000, 1_700_000_000_000_000_000, "boot")
    assert batch.spans[0].start_unix_ns == 1_700_000_000_000_004_000


def test_without_a_server_the_process_anchors_its_times_itself(registry):
    batch, again = registry.trace_batch(), registry.trace_batch()
    assert batch.anchor_unix_ns > 0
    assert (batch.anchor_mono_ns, batch.anchor_unix_ns) == (again.anchor_mono_ns, again.anchor_unix_ns)


def test_the_blame_of_a_sampled_publish_is_in_its_span(registry, publisher):
    publisher.blame("SLOW", 40)
    publish(publisher, 0, wait=40, trace=(1, 2, 0))
    publish(publisher, 1, wait=40, trace=(1, 3, 0))
    first, second = registry.trace_batch().spans
    assert first.attributes["ezmsg.backpressure.blame"] == "SLOW"
    assert "ezmsg.backpressure.blame" not in second.attributes


# -- head sampling ----------------------------------------------------------------------------------------------------


def roots(metrics: PublisherMetrics, times: range) -> list[int]:
    found = []
    for number, time in enumerate(times):
        if metrics.sample_root(time):
            found.append(time)
        publish(metrics, number, time)
    return found


def test_the_first_message_begins_a_trace_and_then_one_a_second(publisher):
    assert roots(publisher, range(0, 3 * SECOND, SECOND // 10)) == [0, SECOND, 2 * SECOND]


def test_every_publisher_has_its_own_rate(registry, publisher):
    other = registry.register_publisher(uuid4(), "OTHER", 8)
    assert publisher.sample_root(0)
    assert other.sample_root(0)


def test_the_rate_changes_while_running(registry, publisher):
    registry.set_trace_sampling(10.0)
    assert len(roots(publisher, range(0, SECOND, SECOND // 100))) == 10
    registry.set_trace_sampling(0.0)
    assert not publisher.sample_root(5 * SECOND)


def test_a_ratio_replaces_the_rate(registry, publisher):
    registry.set_trace_sampling(1.0, ratio=1.0)
    assert len(roots(publisher, range(50))) == 50
    registry.set_trace_sampling(1.0, ratio=0.0)
    assert not publisher.sample_root(9 * SECOND)


def test_with_a_small_ratio_the_first_message_is_sampled_all_the_same(registry, publisher):
    registry.set_trace_sampling(1.0, ratio=1e-12)
    assert roots(publisher, range(20)) == [0]


def test_nothing_begins_a_trace_at_level_off(registry, publisher):
    registry.set_level("off")
    assert not publisher.sample_root(0)
    registry.set_level("metrics")
    assert publisher.sample_root(SECOND)


def test_rates_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("EZMSG_TRACE_RATE", "0")
    assert not ProfileRegistry().register_publisher(uuid4(), "T", 1).sample_root(0)
    monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")
    assert ProfileRegistry().register_publisher(uuid4(), "T", 1).sample_root(0)


def test_ids_are_random_and_fit_their_bits():
    assert 0 < profiling.new_trace_id() < 1 << 128
    assert 0 < profiling.new_span_id() < 1 << 64
    assert profiling.new_span_id() != profiling.new_span_id()


# -- levels and loss --------------------------------------------------------------------------------------------------


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
    registry.recorder = Recorder(ring_rows=64, sample_limit=10, span_limit=5)
    return registry


def test_an_overrun_ring_is_counted_and_counters_stay_exact(small):
    publisher = small.register_publisher(uuid4(), "OUT", 8)
    for number in range(1000):
        publish(publisher, number, number)
    snapshot = small.snapshot()
    kept = snapshot.edges[0].histograms["publish"].count
    assert snapshot.edges[0].counters["sent"] == snapshot.recorded["row"] == 1000
    assert snapshot.dropped == {"row:ring_overrun": 1000 - kept}


def test_recorded_is_delivered_plus_dropped_for_every_kind_and_reader(small):
    publisher = small.register_publisher(uuid4(), "OUT", 8)
    edge = small.register_subscriber(uuid4(), "IN").edge(publisher.id, "OUT", LOCAL)
    trace(small, 2)
    delivered = {reader: {"span": 0, "sample": 0} for reader in ("eager", "lazy", "late")}

    def read(reader: str, limit: int = 1000) -> ProcessProfilingTraceBatch:
        batch = small.trace_batch(limit, reader)
        delivered[reader]["span"] += len(batch.spans)
        delivered[reader]["sample"] += len(batch.samples)
        return batch

    for number in range(300):
        ids = (1, number + 1, 0) if number % 5 == 0 else None
        publish(publisher, number, number * 10, wait=number % 3, trace=ids)
        receive(edge, number, origin=0, start=number, end=number * 10 + 5, trace=ids)
        if number % 7 == 0:
            edge.user_span(number, 0, 1, "u", ids)
        if number % 50 == 0:
            read("eager", 3)
        if number == 150:
            trace(small, 3)
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


def test_samples_beyond_the_limit_of_an_endpoint_are_counted(small):
    publisher = small.register_publisher(uuid4(), "OUT", 8)
    trace(small)
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
    trace(registry, 2)
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


# -- threads, forks and graphs ----------------------------------------------------------------------------------------


def test_each_thread_has_a_ring_that_goes_with_it(registry):
    def work() -> None:
        metrics = registry.register_publisher(uuid4(), "OUT", 8)
        for number in range(10):
            publish(metrics, number)
        registry.unregister_publisher(metrics.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    registry.snapshot()
    assert registry.snapshot().recorded["row"] == 40
    assert registry.recorder.unread() == 0.0
    assert not registry.recorder._rings


def in_child(work: Callable[[], bool]) -> bool:
    """Whether `work` is true in a forked child."""
    pid = os.fork()
    if not pid:
        os._exit(0 if work() else 1)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_begins_anew(registry, publisher):
    trace(registry)
    publish(publisher, 0)
    with registry.recorder.lock, registry.recorder.reading:
        assert in_child(
            lambda: (
                not registry.snapshot().publishers
                and not registry.trace_enabled()
                and registry.register_publisher(uuid4(), "CHILD", 1) is not None
                and len(registry.snapshot().publishers) == 1
            )
        )
    assert list(registry.snapshot().publishers) == [publisher.endpoint_id]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_draws_ids_of_its_own():
    state = ids._random.getstate()
    assert in_child(lambda: ids._random.getstate() != state)
    assert ids._random.getstate() == state


@pytest.fixture
def calls(registry: ProfileRegistry) -> Iterator[list[tuple[str, bool]]]:
    made: list[tuple[str, bool]] = []
    registry.set_first_endpoint_hook(lambda graph, active: made.append((graph, active)))
    yield made
    registry.set_first_endpoint_hook(None)


def test_the_hook_hears_of_the_first_and_last_endpoint_of_a_graph(registry, calls):
    one, two, other = uuid4(), uuid4(), uuid4()
    registry.register_publisher(one, "A", 1, graph_address="g:1")
    registry.register_subscriber(two, "A", graph_address="g:1")
    registry.register_publisher(other, "B", 1, graph_address="h:2")
    registry.register_publisher(uuid4(), "C", 1)
    assert calls == [("g:1", True), ("h:2", True)]
    registry.unregister_publisher(one)
    registry.unregister_subscriber(two)
    registry.unregister_subscriber(two)
    assert calls[2:] == [("g:1", False)]
    registry.register_publisher(one, "A", 1, graph_address="g:1")
    assert calls[3:] == [("g:1", True)]


def test_a_hook_set_late_hears_of_graphs_known_already(registry):
    registry.register_publisher(uuid4(), "A", 1, graph_address="g:1")
    heard: list[tuple[str, bool]] = []
    registry.set_first_endpoint_hook(lambda graph, active: heard.append((graph, active)))
    assert heard == [("g:1", True)]


def test_endpoints_that_a_server_left_behind_are_not_its_successors(registry, calls):
    old = uuid4()
    registry.register_publisher(old, "A", 1, graph_address="g:1")
    registry.forget_graph("g:1")
    registry.register_publisher(uuid4(), "A", 1, graph_address="g:1")
    registry.unregister_publisher(old)
    assert calls == [("g:1", True), ("g:1", True)]
    assert registry.has_endpoints("g:1")


def test_the_latest_client_still_open_names_the_rows_of_its_graph(registry):
    first, second, elsewhere = uuid4(), uuid4(), uuid4()
    assert registry.client_of("g:1") is None
    registry.client_opened("g:1", first)
    registry.client_opened("g:1", second)
    registry.client_opened("h:2", elsewhere)
    assert registry.process_id == elsewhere
    assert registry.client_of("g:1") == second
    registry.client_closed("g:1", second)
    assert registry.client_of("g:1") == first
    registry.client_closed("g:1", first)
    assert registry.client_of("g:1") is None


def test_who_carries_telemetry_is_woken_by_traces_and_clients(registry):
    woken: list[None] = []
    registry.set_wake(lambda: woken.append(None))
    trace(registry)
    client = uuid4()
    registry.client_opened("g:1", client)
    registry.client_closed("g:1", client)
    assert len(woken) == 3


def test_the_current_message_is_nobodys_by_default():
    assert profiling.current_message.get() is None
