"""Messages that begin traces: their ids are calculated by whoever asks for them, at either end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ezmsg.core.errors import MessageNotSerializable
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProfilingTraceControl, TraceSpan
from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.pubclient import Publisher
from ezmsg.core.remotes import Remotes

Spans = dict[str, list[TraceSpan]]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> ProfileRegistry:
    """A recorder for the test alone, which traces everything."""
    monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")
    return ProfileRegistry()


@pytest.fixture(params=["local", "shm", "tcp"])
def way(request: pytest.FixtureRequest) -> str:
    """How messages go to subscribers of this process."""
    return request.param


@pytest.fixture
async def publisher(way: str, context: GraphContext, registry: ProfileRegistry) -> Publisher:
    """On A."""
    return await context.publisher(
        "A", profiles=registry, allow_local=way == "local", force_tcp=way == "tcp", num_buffers=2
    )


def spans_of(registry: ProfileRegistry) -> Spans:
    found: Spans = {}
    for span in registry.trace_batch(10_000).spans:
        found.setdefault(span.name, []).append(span)
    return found


@pytest.mark.parametrize("obj", ["text", np.zeros(50_000)], ids=["small", "large"])
async def test_each_is_a_publish_and_its_processing(
    context: GraphContext, registry: ProfileRegistry, publisher: Publisher, way: str, obj: object
) -> None:
    subscriber = await context.subscriber("A", profiles=registry)
    for _ in range(100):
        await publisher.broadcast(obj)
        async with subscriber.recv_zero_copy():
            pass
    spans = spans_of(registry)
    publishes, processes = spans.pop("publish A"), spans.pop("process A")
    assert not spans
    assert len({span.trace_id for span in publishes}) == len(publishes) == len(processes) == 100
    assert len({span.span_id for span in (*publishes, *processes)}) == 200
    for number, (published, processed) in enumerate(zip(publishes, processes, strict=True)):
        assert published.parent_span_id is None
        assert (processed.trace_id, processed.parent_span_id) == (published.trace_id, published.span_id)
        assert processed.links == [(published.trace_id, published.span_id)]
        assert published.attributes["ezmsg.fanout"] == 1
        assert published.attributes["messaging.message.id"] == str(number)
        assert processed.attributes["messaging.message.id"] == str(number)
        assert published.start_unix_ns <= published.end_unix_ns
        assert published.start_unix_ns <= processed.start_unix_ns <= processed.end_unix_ns
        assert 0 < float(processed.attributes["ezmsg.message.age"]) < 60
        if way == "local":
            assert published.end_unix_ns <= processed.start_unix_ns
        else:
            assert float(published.attributes["ezmsg.serialize.time"]) > 0
            assert float(published.attributes["messaging.message.body.size"]) > 0
    snapshot = registry.snapshot()
    assert (snapshot.recorded["span"], snapshot.recorded["row"], snapshot.dropped) == (200, 200, {})
    (of_publisher, of_edge) = snapshot.edges
    assert [of_publisher.histograms[name].count for name in ("publish", "interval")] == [100, 99]
    serialized = of_publisher.histograms.get("serialize")
    assert (0 if serialized is None else serialized.count) == (0 if way == "local" else 100)
    assert [of_edge.histograms[name].count for name in ("age", "transport", "queue", "process")] == [100] * 4


async def test_what_happens_within_one_joins_its_trace(
    context: GraphContext, registry: ProfileRegistry, publisher: Publisher
) -> None:
    subscriber = await context.subscriber("A", profiles=registry)
    onward = await context.publisher("B", profiles=registry)
    last = await context.subscriber("B", profiles=registry)
    for number in range(3):
        await publisher.broadcast(number)
        async with subscriber.recv_zero_copy():
            with subscriber.profile("work"):
                await onward.broadcast(number)
        async with last.recv_zero_copy():
            pass
    spans = spans_of(registry)
    for chain in zip(*(spans[name] for name in ("publish A", "process A", "publish B", "process B")), strict=True):
        assert len({span.trace_id for span in chain}) == 1
        assert [span.parent_span_id for span in chain] == [None, *(span.span_id for span in chain[:-1])]
    assert [span.parent_span_id for span in spans["work"]] == [span.span_id for span in spans["process A"]]


async def test_several_subscribers_of_a_channel_have_spans_of_their_own_also_when_some_come_and_go(
    context: GraphContext, registry: ProfileRegistry, publisher: Publisher
) -> None:
    first = await context.subscriber("A", profiles=registry)
    await publisher.broadcast(0)
    second = await context.subscriber("A", profiles=registry)
    await publisher.broadcast(1)
    for subscriber, numbers in ((first, [0, 1]), (second, [1])):
        assert [await subscriber.recv() for _ in numbers] == numbers
    first.close()
    await first.wait_closed()
    await publisher.broadcast(2)
    assert await second.recv() == 2
    spans = spans_of(registry)
    publishes, processes = spans["publish A"], spans["process A"]
    assert len({span.span_id for span in (*publishes, *processes)}) == 3 + 4
    parents = {span.span_id: span for span in publishes}
    handled = sorted(
        (span.attributes["messaging.message.id"], parents[span.parent_span_id or ""].attributes["messaging.message.id"])
        for span in processes
    )
    assert handled == [(number, number) for number in ("0", "1", "1", "2")]


@pytest.mark.parametrize("way", ["shm", "tcp"])  # what is handed over cannot fail
async def test_one_that_waited_failed_or_is_selected_as_well_keeps_its_trace_apart(
    context: GraphContext, registry: ProfileRegistry, publisher: Publisher
) -> None:
    subscriber = await context.subscriber("A", profiles=registry)
    await publisher.broadcast(0)
    with pytest.raises(MessageNotSerializable):
        await publisher.broadcast(lambda: None)
    await publisher.broadcast(1)
    waiting = asyncio.create_task(publisher.broadcast(2))
    await asyncio.sleep(0)
    assert not waiting.done()
    for _ in range(2):
        async with subscriber.recv_zero_copy():
            pass
    await waiting
    registry.set_trace_control(ProfilingTraceControl(enabled=True))
    await publisher.broadcast(3)
    with pytest.raises(KeyError):
        async with subscriber.recv_zero_copy():
            raise KeyError
    async with subscriber.recv_zero_copy():
        pass
    spans = spans_of(registry)
    publishes, processes = spans["publish A"], spans["process A"]
    assert [span.error for span in publishes].count("MessageNotSerializable") == 1
    assert len({span.trace_id for span in publishes}) == 5
    blamed = [span.attributes for span in publishes if "ezmsg.backpressure.blame" in span.attributes]
    assert [(of["messaging.message.id"], of["ezmsg.backpressure.blame"]) for of in blamed] == [("2", "A")]
    sent = {span.span_id: span for span in publishes if span.error is None}
    assert [sent[span.parent_span_id or ""].trace_id for span in processes] == [span.trace_id for span in processes]
    assert [span.error for span in processes] == [None, None, "KeyError", None]


@pytest.mark.parametrize(
    "change",
    [
        lambda registry: registry.set_trace_control(ProfilingTraceControl(enabled=True)),
        lambda registry: registry.recorder.set_throttle(3),
    ],
    ids=["selected", "thinned"],
)
async def test_one_that_leaves_just_before_something_else_is_to_be_recorded_is_still_of_its_trace(
    context: GraphContext,
    registry: ProfileRegistry,
    publisher: Publisher,
    change: Callable[[ProfileRegistry], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subscriber = await context.subscriber("A", profiles=registry)
    send = Remotes.send

    def send_before_a_change(self: Remotes, *message: Any) -> None:
        send(self, *message)
        change(registry)  # as the thread of the telemetry does, while a system call is made

    monkeypatch.setattr(Remotes, "send", send_before_a_change)
    await publisher.broadcast(0)
    async with subscriber.recv_zero_copy():
        pass
    spans = spans_of(registry)
    (published,), (processed,) = spans["publish A"], spans["process A"]
    assert (processed.trace_id, processed.parent_span_id) == (published.trace_id, published.span_id)


@pytest.mark.parametrize("is_shared", [False, True], ids=["alone", "shared"])
@pytest.mark.parametrize("number", [-(1 << 63), -1, (1 << 63) - 1])
async def test_whatever_number_a_peer_gives_its_messages_they_are_recorded_and_released(
    context: GraphContext, registry: ProfileRegistry, publisher: Publisher, number: int, is_shared: bool
) -> None:
    subscribers = [await context.subscriber("A", profiles=registry) for _ in range(1 + is_shared)]
    publisher._next_id, publisher._slot = number, number % publisher.num_buffers  # on the wire, 0 to 2^64 - 1
    await publisher.broadcast(0)
    for subscriber in subscribers:
        async with subscriber.recv_zero_copy():
            pass
    await asyncio.wait_for(publisher.sync(), 40)
    spans = spans_of(registry)
    (published,) = spans["publish A"]
    assert [(span.trace_id, span.parent_span_id) for span in spans["process A"]] == len(subscribers) * [
        (published.trace_id, published.span_id)
    ]


@pytest.mark.parametrize("way", ["shm", "tcp"])
@pytest.mark.parametrize("is_traced", [True, False], ids=["traced", "plain"])
@pytest.mark.parametrize("at_s", [math.nan, math.inf, -math.inf, 1e300, -1e300, -4e9, 1e15])
async def test_whatever_a_peer_says_of_times_does_not_keep_the_recorder_from_reading(
    context: GraphContext,
    registry: ProfileRegistry,
    publisher: Publisher,
    at_s: float,
    is_traced: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send = Remotes.send

    def send_with_times(self: Remotes, message_id: int, origin_s: float, publish_s: float, *others: Any) -> None:
        wrong = [(at_s, publish_s), (origin_s, at_s), (at_s, at_s)][message_id % 3]
        send(self, message_id, *wrong, *others)

    monkeypatch.setattr(Remotes, "send", send_with_times)
    if not is_traced:
        registry.set_trace_sampling(0.0)
    subscriber = await context.subscriber("A", profiles=registry)
    for number in range(6):
        await publisher.broadcast(number)
        async with subscriber.recv_zero_copy():
            pass
    assert len(spans_of(registry).get("process A", ())) == (6 if is_traced else 0)
    snapshot = registry.snapshot()
    assert (snapshot.recorded["row"], snapshot.dropped) == (12, {})
    (of_edge,) = [edge for edge in snapshot.edges if "process" in edge.histograms]
    counts = {name: histogram.count for name, histogram in of_edge.histograms.items()}
    assert (counts["queue"], counts["process"]) == (6, 6)
    if not math.isnan(at_s):  # as a whole number that is 0 on some machines
        assert (counts["age"], counts["transport"]) == (2, 2)
