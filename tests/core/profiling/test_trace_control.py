from uuid import uuid4

import pytest

from ezmsg.core.errors import InvalidTraceControl
from ezmsg.core.graphmeta import ProfilingTraceControl, ProfilingTraceSample
from ezmsg.core.profiling import PublisherMetrics
from ezmsg.core.recorder.rows import GENERATIONS
from tests.core.profiling.recording import LOCAL, TCP, begin_trace, publish, receive, told


def test_without_a_trace_there_are_no_samples(registry, publisher, edge):
    publish(publisher, 0)
    receive(edge, 0)
    assert not registry.trace_enabled()
    assert registry.trace_batch().samples == []


def test_the_compatible_methods_make_the_samples_of_3_9(clock, registry, publisher, subscriber):
    begin_trace(registry)
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
    begin_trace(registry)
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
    begin_trace(registry, 3)
    assert [subscriber.begin_message(LOCAL) for _ in range(9)] == [False, False, True] * 3
    for _ in range(9):
        publisher.record_publish(0)
    assert [sample.sample_seq for sample in registry.trace_batch().samples] == [2, 5, 8]


def test_a_delta_is_taken_between_consecutive_messages_whatever_the_sampling(registry, publisher):
    begin_trace(registry, 4)
    for number in range(12):
        publish(publisher, number, number * 1000)
    assert told(registry.trace_batch()) == [("publish_delta_ns", 1000.0, seq) for seq in (3, 7, 11)]


def test_a_delta_knows_the_message_before_the_trace_began(registry, publisher):
    publish(publisher, 0, 1000)
    begin_trace(registry)
    publish(publisher, 1, 1700)
    assert told(registry.trace_batch()) == [("publish_delta_ns", 700.0, 1)]


def test_backpressure_follows_the_decision_of_its_message(registry, publisher):
    begin_trace(registry, 2, metrics=["backpressure_wait_ns"])
    for number in range(4):
        publisher.record_backpressure_wait(10 + number)
        publisher.record_publish(0)
    assert told(registry.trace_batch()) == [("backpressure_wait_ns", 11.0, 1), ("backpressure_wait_ns", 13.0, 3)]


def test_user_spans_and_lease_share_one_decision(registry, edge):
    begin_trace(registry, 2)
    for number in range(4):
        edge.user_span(number, 0, 5, "a", None)
        edge.user_span(number, 5, 9, None, None)
        receive(edge, number, end=10)
    seen = {(sample.metric, sample.topic, sample.sample_seq) for sample in registry.trace_batch().samples}
    assert {seq for _, _, seq in seen} == {1, 3}
    assert {("user_span_ns", "IN:a", 1), ("user_span_ns", "IN", 1), ("lease_time_ns", "IN", 1)} <= seen


def test_messages_of_several_publishers_are_decided_apart(registry, subscriber):
    one, two = subscriber.edge(uuid4(), "A", LOCAL), subscriber.edge(uuid4(), "B", LOCAL)
    begin_trace(registry, 2)
    assert [one.selects(7), two.selects(7), one.selects(7), two.selects(7)] == [False, True, False, True]


def test_overlapping_leases_keep_their_decisions(registry, edge):
    begin_trace(registry, 2, metrics=["lease_time_ns"])
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
    begin_trace(registry, **filters)
    publisher.record_publish(0)
    subscriber.record_receive(LOCAL, 5)
    assert {sample.metric for sample in registry.trace_batch().samples} == metrics


def test_endpoint_ids_select_endpoints(registry, publisher):
    other = registry.register_publisher(uuid4(), "OUT", 8)
    begin_trace(registry, publisher_endpoint_ids=[other.endpoint_id])
    publisher.record_publish(0)
    other.record_publish(0)
    assert [sample.endpoint_id for sample in registry.trace_batch().samples] == [other.endpoint_id]


def test_new_endpoints_take_part_in_the_trace(registry):
    begin_trace(registry)
    registry.register_publisher(uuid4(), "LATE", 8).record_publish(0)
    late = registry.register_subscriber(uuid4(), "LATE")
    receive(late.edge(uuid4(), "LATE", LOCAL), 0)
    assert {sample.topic for sample in registry.trace_batch().samples} == {"LATE"}


def test_a_trace_works_at_level_off_for_what_it_selects(registry, publisher):
    registry.set_level("off")
    begin_trace(registry, 2)
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


def begun(publisher: PublisherMetrics, times: int = 4) -> int:
    """How many of so many messages, a moment after one another, begin a trace."""
    return sum(now / 1e6 >= publisher.next_root_s and publisher.begin_root(now / 1e6) for now in range(1, times + 1))


def test_a_control_changes_the_traces_of_what_it_selects_for_its_time(registry, monkeypatch):
    time_s = [100.0]
    monkeypatch.setattr("ezmsg.core.recorder.tracecontrol.time.monotonic", lambda: time_s[0])
    registry.set_trace_sampling(0.0)
    one = registry.register_publisher(uuid4(), "ONE", 8)
    other = registry.register_publisher(uuid4(), "OTHER", 8)
    begin_trace(registry, publisher_topics=["ONE"], metrics=[], trace_ratio=1.0, ttl_seconds=5.0)
    late = registry.register_publisher(uuid4(), "ONE", 8)
    assert [begun(publisher) for publisher in (one, other, late)] == [4, 0, 4]
    begin_trace(registry, metrics=[], trace_rate=1000.0, ttl_seconds=5.0)
    assert [begun(publisher) for publisher in (one, other)] == [1, 1]
    time_s[0] += 5.0
    registry.trace_enabled()
    assert [begun(publisher) for publisher in (one, other, late)] == [0, 0, 0]


def test_a_control_of_traces_alone_leaves_samples_alone(registry):
    publisher = registry.register_publisher(uuid4(), "OUT", 8)
    begin_trace(registry)
    publish(publisher, 0)
    begin_trace(registry, metrics=[], trace_ratio=1.0, ttl_seconds=0.0)
    assert registry.trace_enabled()
    publish(publisher, 1)
    assert len(registry.trace_batch().samples) == 2


def test_a_control_changes_the_level_of_what_it_selects(registry):
    subscriber = registry.register_subscriber(uuid4(), "IN")
    edges = [subscriber.edge(uuid4(), "OUT", LOCAL)]
    publisher = registry.register_publisher(uuid4(), "OUT", 8)
    begin_trace(registry, metrics=[], level="off", subscriber_topics=["IN"], publisher_topics=["ELSEWHERE"])
    edges.append(subscriber.edge(uuid4(), "OUT", LOCAL))
    assert ([edge.timed for edge in edges], publisher.timed) == ([False, False], True)
    registry.set_level("off")
    begin_trace(registry, metrics=[], level="metrics", publisher_topics=["OUT"], subscriber_topics=["ELSEWHERE"])
    assert ([edge.timed for edge in edges], publisher.timed, begun(publisher)) == ([False, False], True, 1)
    registry.set_trace_control(ProfilingTraceControl(enabled=False))
    assert (publisher.timed, begun(publisher)) == (False, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("trace_rate", -1), ("trace_rate", "1"), ("trace_ratio", 1.5), ("trace_ratio", True), ("level", "loud")],
)
def test_what_cannot_be_done_is_refused_and_nothing_changed(registry, field, value):
    begin_trace(registry)
    with pytest.raises(InvalidTraceControl, match=field):
        begin_trace(registry, **{field: value})
    assert registry.trace_enabled()


def test_samples_of_a_trace_of_long_ago_are_not_taken_for_those_of_this_one(registry, publisher):
    begin_trace(registry)
    publish(publisher, 0)
    for _ in range(GENERATIONS - 1):
        registry.set_trace_control(ProfilingTraceControl(enabled=False))
    begin_trace(registry)
    publish(publisher, 1)
    batch = registry.trace_batch()
    assert [sample.sample_seq for sample in batch.samples] == [1]
    assert batch.dropped == {"sample:cleared": 1}
