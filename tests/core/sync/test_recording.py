"""The synchronous API is measured as the asynchronous one is."""

from __future__ import annotations

import pytest

from ezmsg.core.graphmeta import TraceSpan
from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.sync import SyncContext


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> ProfileRegistry:
    """A recorder for the test alone, that traces every message."""
    monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")
    return ProfileRegistry()


def spans_of(registry: ProfileRegistry) -> dict[str, TraceSpan]:
    return {span.name: span for span in registry.trace_batch(reader="test").spans}


def test_messages_a_callback_receives_are_counted_and_timed(context: SyncContext, registry: ProfileRegistry) -> None:
    context.create_subscription("A", lambda _message: None, profiles=registry)
    publisher = context.publisher("A", profiles=registry)
    for number in range(5):
        publisher.publish(number)
        assert context.spin_once(timeout=40)
    publisher.sync(timeout=40)
    snapshot = registry.snapshot()
    [sent] = snapshot.publishers.values()
    [received] = snapshot.subscribers.values()
    assert (sent.messages_published_total, received.messages_received_total) == (5, 5)
    assert sum(edge.histograms["process"].count for edge in snapshot.edges if "process" in edge.histograms) == 5


def test_what_a_callback_publishes_belongs_to_the_trace_of_its_message(
    context: SyncContext, registry: ProfileRegistry
) -> None:
    further = context.publisher("B", profiles=registry)
    context.create_subscription("A", lambda message: further.publish(message + 1), profiles=registry)
    last = context.subscriber("B", profiles=registry)
    context.publisher("A", profiles=registry).publish(1)
    assert context.spin_once(timeout=40)
    assert last.recv(timeout=40) == 2
    context.sync(timeout=40)
    spans = spans_of(registry)
    assert len({span.trace_id for span in spans.values()}) == 1
    assert spans["process A"].parent_span_id == spans["publish A"].span_id
    assert spans["publish B"].parent_span_id == spans["process A"].span_id
    assert spans["process B"].parent_span_id == spans["publish B"].span_id


def test_what_is_published_after_a_callback_begins_a_trace_of_its_own(
    context: SyncContext, registry: ProfileRegistry
) -> None:
    context.create_subscription("A", lambda _message: None, profiles=registry)
    context.publisher("A", profiles=registry).publish(1)
    assert context.spin_once(timeout=40)
    context.publisher("B", profiles=registry).publish(2)
    context.sync(timeout=40)
    spans = spans_of(registry)
    assert spans["publish B"].parent_span_id is None
    assert spans["publish B"].trace_id != spans["publish A"].trace_id


@pytest.mark.parametrize("zero_copy", [False, True])
def test_what_a_thread_publishes_belongs_to_the_message_it_received(
    context: SyncContext, registry: ProfileRegistry, zero_copy: bool
) -> None:
    subscriber = context.subscriber("A", profiles=registry)
    context.publisher("A", profiles=registry).publish(1)
    further = context.publisher("B", profiles=registry)
    if zero_copy:
        with subscriber.recv_zero_copy(timeout=40) as message:
            further.publish(message)
    else:
        further.publish(subscriber.recv(timeout=40))
    context.sync(timeout=40)
    spans = spans_of(registry)
    assert spans["publish B"].parent_span_id == spans["process A"].span_id


def test_a_callback_that_fails_is_recorded_as_a_failed_processing(
    context: SyncContext, registry: ProfileRegistry
) -> None:
    def fail(_message: int) -> None:
        raise LookupError("nothing there")

    context.create_subscription("A", fail, profiles=registry)
    context.publisher("A", profiles=registry).publish(1)
    assert context.spin_once(timeout=40)
    context.sync(timeout=40)
    assert spans_of(registry)["process A"].error == "LookupError"
