import numpy as np
import pytest

from ezmsg.core.graphmeta import ProfileChannelType, ProfilingTraceSample
from ezmsg.core.recorder.expand import expand_samples, expand_spans
from ezmsg.core.recorder.rows import ERROR, FOREIGN, SELECTED, USER_SPAN
from ezmsg.core.recorder.samples import sample_rows, span_rows
from ezmsg.core.wire.records import ClockAnchor, EndpointRecord
from tests.core.recorder.rowmaking import link, pairs, process, publish, sampled, user_span

PUBLISHER, SUBSCRIBER = "0b0e6a0e-0000-4000-8000-000000000001", "0b0e6a0e-0000-4000-8000-000000000002"
ENDPOINTS = {
    1: EndpointRecord(1, "OUT", "", f"OUT:{PUBLISHER}", PUBLISHER, 3, 32, "SYS/SOURCE", "run"),
    2: EndpointRecord(2, "OUT", "IN", f"IN:{SUBSCRIBER}", PUBLISHER, 1),
}
LABELS = {0: "", 5: "fft", 6: "ValueError", 7: "SLOW"}
ANCHOR = ClockAnchor("boot", mono_ns=1000, unix_ns=1_700_000_000_000_000_000)
EPOCH = ANCHOR.unix_ns - ANCHOR.mono_ns
TRACE = "0123456789abcdeffedcba9876543210"


def spans_of(*rows):
    given = pairs(*rows)
    made = span_rows(given, np.empty((2 * len(given), given.shape[1]), dtype=np.int64))
    assert made is not None
    return expand_spans(made.tobytes(), ENDPOINTS, LABELS, ANCHOR)


def test_a_publish_becomes_a_producer_span():
    row = publish(1, 7, 2000, 5000, wait=1500, serialize=250, size=64)
    [span] = spans_of(sampled(row, 0xA1, 0xB2, fanout=3, blame=7))
    assert (span.trace_id, span.span_id, span.parent_span_id) == (TRACE, "00000000000000a1", "00000000000000b2")
    assert (span.name, span.kind, span.links, span.error) == ("publish OUT", "PRODUCER", [], None)
    assert (span.start_unix_ns, span.end_unix_ns) == (EPOCH + 2000, EPOCH + 5000)
    assert span.attributes == {
        "messaging.system": "ezmsg",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "messaging.destination.name": "OUT",
        "messaging.message.id": "7",
        "messaging.client.id": PUBLISHER,
        "messaging.message.body.size": 64,
        "ezmsg.fanout": 3,
        "ezmsg.backpressure.wait": pytest.approx(1.5e-6),
        "ezmsg.backpressure.blame": "SLOW",
        "ezmsg.serialize.time": pytest.approx(2.5e-7),
        "ezmsg.unit.address": "SYS/SOURCE",
        "ezmsg.task.name": "run",
    }


def test_a_root_has_no_parent():
    [span] = spans_of(sampled(publish(1, 7, 2000), 0xA1))
    assert span.parent_span_id is None


def test_a_publish_has_a_link_to_whatever_else_it_follows_from():
    other = 0xABC
    first, second = spans_of(
        sampled(publish(1, 7, 2000), 0xA1),
        link(1, 7, 0xA1, 0xC1),
        link(1, 7, 0xA1, 0xC2, trace_id=other),
        sampled(publish(1, 8, 3000), 0xA2),
        link(1, 7, 0xA1, 0xC3),
    )
    assert first.links == [(TRACE, f"{0xC1:016x}"), (f"{other:032x}", f"{0xC2:016x}")]
    assert second.links == []


def test_what_did_not_happen_is_no_attribute():
    [span] = spans_of(sampled(publish(1, 7, 2000), 0xA1))
    assert not {"ezmsg.backpressure.wait", "ezmsg.serialize.time", "messaging.message.body.size"} & set(span.attributes)


def test_a_received_message_becomes_a_consumer_span_linked_to_its_publish():
    row = process(2, 7, origin=100, published=150, channel=180, start=250, end=1000)
    [span] = spans_of(sampled(row, 0xC3, 0xA1))
    assert (span.name, span.kind) == ("process OUT", "CONSUMER")
    assert (span.parent_span_id, span.links) == ("00000000000000a1", [(TRACE, "00000000000000a1")])
    assert (span.start_unix_ns, span.end_unix_ns) == (EPOCH + 250, EPOCH + 1000)
    assert span.attributes == {
        "messaging.system": "ezmsg",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "OUT",
        "messaging.destination.subscription.name": "IN",
        "messaging.message.id": "7",
        "messaging.client.id": SUBSCRIBER,
        "ezmsg.channel.kind": "shm",
        "ezmsg.queue.time": pytest.approx(7e-8),
        "ezmsg.transport.time": pytest.approx(3e-8),
        "ezmsg.message.age": pytest.approx(1.5e-7),
    }


def test_a_failure_names_its_error():
    [span] = spans_of(sampled(process(2, 7, flags=ERROR, label=6), 0xC3, 0xA1))
    assert span.error == "ValueError"


def test_times_that_cannot_be_compared_are_left_out():
    foreign = process(2, 7, origin=100, published=150, channel=180, start=250, end=1000, flags=FOREIGN)
    backwards = process(2, 8, origin=900, published=190, channel=180, start=170, end=1000)
    first, second = spans_of(sampled(foreign, 1, 2), sampled(backwards, 3, 4))
    times = {"ezmsg.queue.time", "ezmsg.transport.time", "ezmsg.message.age"}
    assert set(first.attributes) & times == {"ezmsg.queue.time"}
    assert not set(second.attributes) & times


def test_a_span_of_the_user_is_internal_and_named_by_its_label():
    [span] = spans_of(sampled(user_span(2, 300, 400, 5), 0xD4, 0xC3))
    assert (span.name, span.kind, span.parent_span_id) == ("fft", "INTERNAL", "00000000000000c3")
    assert span.attributes == {
        "messaging.system": "ezmsg",
        "ezmsg.span.label": "fft",
        "messaging.destination.name": "OUT",
        "messaging.destination.subscription.name": "IN",
    }


def test_ids_use_all_their_bits():
    largest = (1 << 128) - 1
    [span] = spans_of(sampled(publish(1, 0, 0), (1 << 64) - 1, (1 << 64) - 1, trace_id=largest))
    assert (span.trace_id, span.span_id, span.parent_span_id) == ("f" * 32, "f" * 16, "f" * 16)


def test_a_span_of_an_endpoint_nobody_remembers_is_still_a_span():
    [span] = spans_of(sampled(publish(99, 0, 0), 1))
    assert span.name == "publish unknown"


def samples_of(*rows):
    made = sample_rows(pairs(*rows), 0)
    assert made is not None
    return expand_samples(made.rows.tobytes(), ENDPOINTS, LABELS)


def test_a_sample_of_a_publisher_has_its_topic_and_no_channel():
    assert samples_of(sampled(publish(1, 7, 2000, 2100), 0, emit=1, flags=SELECTED, trace_id=0)) == [
        ProfilingTraceSample(2100.0, f"OUT:{PUBLISHER}", "OUT", "publish_delta_ns", 0.0, None, 7)
    ]


def test_a_sample_of_a_subscriber_has_its_topic_and_channel_and_the_ids_of_a_sampled_message():
    row = process(2, 7, start=250, end=1000)
    [sample] = samples_of(sampled(row, 0xC3, 0xA1, emit=1 << 3, flags=SELECTED))
    assert (sample.topic, sample.channel_kind) == ("IN", ProfileChannelType.SHM)
    assert (sample.trace_id, sample.span_id) == (TRACE, "00000000000000c3")


def test_a_label_extends_the_topic_of_a_user_span():
    rows = [sampled(user_span(2, 0, 9, code), 0, emit=1 << USER_SPAN, flags=SELECTED) for code in (0, 5)]
    assert [sample.topic for sample in samples_of(*rows)] == ["IN", "IN:fft"]


def test_a_message_without_number_has_none():
    row = process(2, -1, start=250, end=1000)
    [sample] = samples_of(sampled(row, 0, emit=1 << 3, flags=SELECTED))
    assert sample.sample_seq is None


def test_nothing_expands_to_nothing():
    assert expand_spans(b"", ENDPOINTS, LABELS, ANCHOR) == []
    assert expand_samples(b"", ENDPOINTS, LABELS) == []
