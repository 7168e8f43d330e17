"""Spans of the way between a publish and its processing."""

from __future__ import annotations

from uuid import uuid4

import pytest

from ezmsg.core.errors import ConfigError
from ezmsg.core.graphmeta import ProfileChannelType, TraceSpan
from ezmsg.core.profiling import EdgeMetrics, ProfileRegistry
from ezmsg.core.recorder.pieces import ROWS_AT_ONCE
from tests.core.profiling.recording import publish, receive

NAMES = ["deliver OUT", "process OUT", "queue OUT"]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> ProfileRegistry:
    monkeypatch.setenv("EZMSG_TRACE_DETAIL", "detailed")
    return ProfileRegistry()


def edge(registry: ProfileRegistry, *, foreign: bool = False) -> EdgeMetrics:
    subscriber = registry.register_subscriber(uuid4(), "IN")
    return subscriber.edge(uuid4(), "OUT", ProfileChannelType.SHM, foreign=foreign)


def spans(registry: ProfileRegistry) -> dict[str, TraceSpan]:
    found = registry.trace_batch(1000).spans
    assert len({span.span_id for span in found}) == len(found)
    return {span.name: span for span in found}


def test_delivery_and_queue_are_spans_beside_the_processing(registry: ProfileRegistry) -> None:
    receive(edge(registry), 4, published=100, channel=130, start=170, end=200, trace=(1, 3, 2))
    found = spans(registry)
    assert sorted(found) == NAMES
    shift = registry.anchor.unix_ns - registry.anchor.mono_ns
    times = {name: (span.start_unix_ns - shift, span.end_unix_ns - shift) for name, span in found.items()}
    assert times == {"deliver OUT": (100, 130), "queue OUT": (130, 170), "process OUT": (170, 200)}
    for name in ("deliver OUT", "queue OUT"):
        assert (found[name].kind, found[name].parent_span_id) == ("INTERNAL", f"{2:016x}")
        assert found[name].trace_id == found["process OUT"].trace_id
        assert found[name].attributes == {
            "messaging.system": "ezmsg",
            "messaging.destination.name": "OUT",
            "messaging.destination.subscription.name": "IN",
            "ezmsg.channel.kind": "shm",
            "ezmsg.clock.source": "same_host",
        }


def test_the_clock_of_another_host_is_named(registry: ProfileRegistry) -> None:
    receive(edge(registry, foreign=True), 4, published=100, channel=130, start=170, end=200, trace=(1, 3, 2))
    found = spans(registry)
    assert found["deliver OUT"].attributes["ezmsg.clock.source"] == "other_host"
    assert found["queue OUT"].attributes["ezmsg.clock.source"] == "same_host"


def test_what_runs_backwards_is_not_shown_and_an_error_is_that_of_the_processing(registry: ProfileRegistry) -> None:
    receive(edge(registry), 4, published=100, channel=90, start=170, end=200, trace=(1, 3, 2), error="KeyError")
    found = spans(registry)
    assert sorted(found) == NAMES[1:]
    assert (found["process OUT"].error, found["queue OUT"].error) == ("KeyError", None)


def test_they_are_counted_like_other_spans(registry: ProfileRegistry) -> None:
    publish(registry.register_publisher(uuid4(), "OUT", 8), 0, trace=(1, 2, 0))
    receive(edge(registry), 0, trace=(1, 3, 2))
    assert len(spans(registry)) == registry.snapshot().recorded["span"] == 4


def test_they_do_not_come_between_a_span_and_its_links(registry: ProfileRegistry) -> None:
    publisher = registry.register_publisher(uuid4(), "OUT", 8)
    receive(edge(registry), 4, published=100, channel=130, start=170, end=200, trace=(1, 3, 2))
    # Rows are looked at some at once; after a pair, the links of some message would be the first of them.
    for number in range(ROWS_AT_ONCE):
        publish(publisher, number, number, trace=(1, 10 + number, 0), links=[(bytes(16), 7)])
    published = [span for span in registry.trace_batch(1 << 20).spans if span.name == "publish OUT"]
    assert len(published) == ROWS_AT_ONCE
    assert all(len(span.links) == 1 for span in published)


def test_without_being_asked_for_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = ProfileRegistry()
    receive(edge(registry), 4, trace=(1, 3, 2))
    assert list(spans(registry)) == ["process OUT"]
    monkeypatch.setenv("EZMSG_TRACE_DETAIL", "much")
    with pytest.raises(ConfigError, match="EZMSG_TRACE_DETAIL"):
        assert ProfileRegistry().recorder
