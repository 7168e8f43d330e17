import copy
import pickle
from dataclasses import asdict
from uuid import uuid4

import pytest

from ezmsg.core.graphmeta import ProfilingTraceControl
from ezmsg.core.recorder import tracecontrol
from ezmsg.core.wire.records import ClockAnchor
from tests.core.profiling.recording import SHM, begin_trace, ids, publish, receive, told, wait


def test_a_reader_gets_each_sample_once(registry, publisher):
    begin_trace(registry)
    for number in range(5):
        publish(publisher, number, number)
    assert [seq for *_, seq in told(registry.trace_batch(2))] == [0, 1]
    assert [seq for *_, seq in told(registry.trace_batch(2))] == [2, 3]
    publish(publisher, 5, 5)
    assert [seq for *_, seq in told(registry.trace_batch())] == [4, 5]
    assert registry.trace_batch().samples == []


def test_reading_takes_nothing_from_another_reader(registry, publisher):
    begin_trace(registry)
    publish(publisher, 0, trace=(1, 2, 0))
    first, second = registry.trace_batch(reader="one"), registry.trace_batch(reader="two")
    assert first.samples == second.samples
    assert len(first.samples) == 1
    assert first.spans == second.spans
    assert len(first.spans) == 1


def test_a_reader_that_comes_late_begins_with_the_oldest_sample(registry, publisher):
    begin_trace(registry)
    publish(publisher, 0, 0)
    registry.trace_batch(reader="early")
    publish(publisher, 1, 1)
    assert [seq for *_, seq in told(registry.trace_batch(reader="late"))] == [0, 1]


def test_setting_a_trace_empties_every_reader(registry, publisher):
    begin_trace(registry)
    publish(publisher, 0)
    registry.trace_batch(reader="one")
    publish(publisher, 1, 1)
    begin_trace(registry)
    publish(publisher, 2, 2)
    for reader in ("one", "two"):
        assert [seq for *_, seq in told(registry.trace_batch(reader=reader))] == [2]


def test_disabling_a_trace_empties_it(registry, publisher):
    begin_trace(registry)
    publish(publisher, 0)
    registry.set_trace_control(ProfilingTraceControl(False))
    assert not registry.trace_enabled()
    assert registry.trace_batch().samples == []


def test_a_trace_ends_when_its_time_is_over(registry, publisher, monkeypatch):
    now = 100.0
    monkeypatch.setattr(tracecontrol.time, "monotonic", lambda: now)
    begin_trace(registry, ttl_seconds=5.0)
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
    begin_trace(registry, metrics=["publish_delta_ns", "lease_time_ns"])
    for number in range(3):
        publish(publisher, number, number * 10)
    for number in range(3):
        receive(edge, number, end=number * 10 + 5)
    assert [sample.metric[:5] for sample in registry.trace_batch(4).samples] == ["publi", "lease", "publi", "lease"]


def test_the_last_samples_of_an_endpoint_outlive_it(registry, publisher, subscriber, edge):
    begin_trace(registry)
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


def test_spans_of_sampled_messages_need_no_trace_control(registry, publisher, edge):
    publish(publisher, 0, 1000, end=2000, trace=(0xABC, 0x1, 0))
    edge.user_span(0, 2500, 2600, "fft", ids((0xABC, 0x3, 0x2)))
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
    begin_trace(registry)
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
    wait(publisher, 40, "SLOW")
    publish(publisher, 0, wait=40, trace=(1, 2, 0))
    publish(publisher, 1, wait=40, trace=(1, 3, 0))
    first, second = registry.trace_batch().spans
    assert first.attributes["ezmsg.backpressure.blame"] == "SLOW"
    assert "ezmsg.backpressure.blame" not in second.attributes


def test_a_batch_is_the_same_whether_its_lists_were_asked_for_before_or_not(registry, publisher, edge):
    begin_trace(registry)
    publish(publisher, 0, 10, trace=(1, 2, 0))
    receive(edge, 0, end=30, trace=(1, 3, 2))
    one, other = registry.trace_batch(reader="one"), registry.trace_batch(reader="other")
    other.timestamp = one.timestamp
    untouched = pickle.dumps(other)
    assert len(one.samples) > len(one.spans) > 0
    assert one.samples is one.samples
    assert pickle.loads(untouched) == pickle.loads(pickle.dumps(one)) == copy.deepcopy(other) == one
    assert asdict(pickle.loads(untouched)) == asdict(one)
    one.samples.append(one.samples[0])
    assert one != other
    assert not hasattr(other, "sample")


def test_rows_of_endpoints_that_are_gone_are_explained_when_they_are_asked_for(registry, publisher):
    begin_trace(registry)
    publish(publisher, 0, 10, trace=(1, 2, 0))
    batch = registry.trace_batch()
    registry.unregister_publisher(publisher.id)
    registry.set_process_id(uuid4(), reset=True)
    (sample,) = batch.samples
    assert sample.endpoint_id == publisher.endpoint_id
    assert [span.name for span in batch.spans] == ["publish OUT"]


def test_what_a_subscriber_receives_of_several_publishers_is_read_in_its_order(registry, subscriber):
    edges = [subscriber.edge(uuid4(), f"OUT{n}", SHM) for n in range(2)]
    begin_trace(registry, metrics=["lease_time_ns"])
    for number in range(20):
        receive(edges[number % 2], number, start=number, end=number + 1)
    found = [seq for _ in range(10) for *_, seq in told(registry.trace_batch(2))]
    assert found == list(range(20))


def test_samples_and_spans_of_the_user_are_read_in_the_order_they_were_recorded(registry, edge):
    begin_trace(registry, metrics=["lease_time_ns", "user_span_ns"])
    for number in range(10):
        edge.user_span(number, 10 * number, 10 * number + 4, "u", None)
        receive(edge, number, start=10 * number, end=10 * number + 5)
    found = [seq for _ in range(20) for *_, seq in told(registry.trace_batch(1))]
    assert found == [number for number in range(10) for _ in range(2)]


@pytest.mark.parametrize("is_read", [False, True])
@pytest.mark.parametrize("name", ["samples", "spans"])
def test_what_is_deleted_of_a_batch_is_gone_and_the_rest_there(registry, publisher, name: str, is_read: bool):
    registry.set_trace_control(ProfilingTraceControl(enabled=True))
    publish(publisher, 0, trace=(1, 2, 0))
    batch = registry.trace_batch()
    if is_read:
        assert getattr(batch, name)
    delattr(batch, name)
    assert not hasattr(batch, name)
    assert len(batch.spans if name == "samples" else batch.samples) == 1
    with pytest.raises(AttributeError):
        delattr(batch, name)
