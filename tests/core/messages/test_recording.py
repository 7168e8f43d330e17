"""What is recorded of messages that are handed over directly: by whoever lets go of them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from ezmsg.core.errors import MessageNotSerializable, PublisherClosed
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProfileChannelType, ProfilingTraceControl, ProfilingTraceSample, TraceSpan
from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.pubclient import Publisher
from ezmsg.core.subclient import Subscriber
from ezmsg.util.messages.axisarray import AxisArray
from tests.core.conftest import StartProcess


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> ProfileRegistry:
    """A recorder for the test alone, without head sampling."""
    monkeypatch.setenv("EZMSG_TRACE_RATE", "0")
    return ProfileRegistry()


async def pair(context: GraphContext, registry: ProfileRegistry) -> tuple[Publisher, Subscriber]:
    """A publisher and its only subscriber, of one loop."""
    publisher = await context.publisher("A", profiles=registry)
    return publisher, await context.subscriber("A", profiles=registry)


async def test_a_trace_selects_no_message_that_was_published_before_it_and_received_after(
    context: GraphContext, registry: ProfileRegistry
) -> None:
    publisher, subscriber = await pair(context, registry)
    for number in range(5):
        await publisher.broadcast(number)
    registry.set_trace_control(ProfilingTraceControl(enabled=True))
    await subscriber.recv()
    await publisher.broadcast(5)
    for _ in range(5):
        await subscriber.recv()
    (sample,) = (sample for sample in registry.trace_batch().samples if sample.metric == "publish_delta_ns")
    assert sample.sample_seq == 5
    assert sample.value >= 0
    (of_publisher, _) = registry.snapshot().edges
    assert of_publisher.histograms["publish"].count == 6


@pytest.mark.parametrize("level", ["off", "metrics"])
async def test_a_trace_of_all_messages_has_every_sample_of_what_is_handed_over(
    context: GraphContext, registry: ProfileRegistry, level: str
) -> None:
    registry.set_level(level)
    registry.recorder._ring_rows = 64  # rows go round, at every offset
    publisher, subscriber = await pair(context, registry)
    registry.set_trace_control(ProfilingTraceControl(enabled=True))
    samples: list[ProfilingTraceSample] = []
    for number in range(100):
        await publisher.broadcast(number)
        with suppress(KeyError):
            async with subscriber.recv_zero_copy():
                if number % 7 == 6:
                    raise KeyError
                with subscriber.profile("work"):
                    pass
        if number % 5 == 4:
            samples += registry.trace_batch(1000).samples
    of_each = ("publish_delta_ns", "lease_time_ns", "transport_ns", "queue_wait_ns", "age_ns")
    assert Counter(sample.metric for sample in samples) == dict.fromkeys(of_each, 100) | {"user_span_ns": 86}
    for metric in of_each:
        found = [sample for sample in samples if sample.metric == metric]
        assert [sample.sample_seq for sample in found] == list(range(100))
        assert all(sample.value >= 0 for sample in found)
    assert {sample.value for sample in samples if sample.metric == "transport_ns"} == {0}
    snapshot = registry.snapshot()
    assert snapshot.recorded["sample"] == len(samples)
    assert snapshot.dropped == {}
    (of_publisher, of_edge) = snapshot.edges
    assert of_publisher.histograms["publish"].count == of_edge.counters["consumed"] == 100
    assert of_publisher.histograms["interval"].count == 99


@pytest.mark.parametrize(("kind", "how"), [("SHM", {"allow_local": False}), ("TCP", {"force_tcp": True})])
async def test_as_many_bytes_are_received_as_are_sent_whatever_the_message_and_the_way(
    context: GraphContext, registry: ProfileRegistry, kind: str, how: dict[str, bool]
) -> None:
    publisher = await context.publisher("A", profiles=registry, **how)
    subscriber = await context.subscriber("A", profiles=registry)
    frozen = np.zeros(10_000)
    frozen.flags.writeable = False
    messages = [
        *(np.zeros(count, np.uint8) for count in (0, 7, 16, 4096, 4097, 1_000_000)),
        *(size * kind for size in (0, 5, 13, 4096, 100_000) for kind in ("s", b"b")),
        *(None, {"a": 1}, {"a": np.zeros(3), "b": np.zeros(5000)}, AxisArray(np.zeros((4, 2)), ["time", "ch"])),
        *(AxisArray(np.zeros((4000, 2)), ["time", "ch"]), frozen, np.asfortranarray(np.zeros((70, 90)))),
    ]
    for ratio in (0.0, 1.0):
        registry.set_trace_sampling(0.0, ratio)
        for message in messages:
            await publisher.broadcast(message)
            await subscriber.recv()
            (of_publisher, of_edge) = registry.snapshot().edges
            assert of_edge.counters["bytes"] == of_publisher.counters["bytes"], type(message)
    assert of_edge.channel_kind is ProfileChannelType[kind]
    assert of_publisher.counters[f"bytes_by:{kind.lower()}"] == of_publisher.counters["bytes"] > 2_000_000


async def test_what_is_handed_over_by_reference_has_no_bytes_also_where_others_get_them(
    context: GraphContext, registry: ProfileRegistry, start_process: StartProcess
) -> None:
    publisher = await context.publisher("A", profiles=registry)
    subscriber = await context.subscriber("A", profiles=registry)
    await start_process("subscribe", context.graph_address, "A", program=Path(__file__).with_name("worker.py"))
    await publisher.broadcast(np.zeros(10))
    await subscriber.recv()
    (of_publisher, of_edge) = registry.snapshot().edges
    assert (of_publisher.counters["bytes_by:shm"], of_edge.counters["bytes"]) == (80, 0)


@pytest.mark.parametrize("how", [{}, {"allow_local": False}, {"force_tcp": True}], ids=["local", "shm", "tcp"])
async def test_whatever_the_level_and_the_thinning_counters_are_exact_and_what_is_left_out_is_even_and_told(
    context: GraphContext, registry: ProfileRegistry, how: dict[str, bool]
) -> None:
    publisher = await context.publisher("A", profiles=registry, **how)
    subscriber = await context.subscriber("A", profiles=registry)
    for level, throttle in (("off", 0), ("metrics", 0), ("metrics", 2), ("off", 2), ("trace", 3), ("trace", 0)):
        registry.set_level(level)
        registry.recorder.set_throttle(throttle)
        for _ in range(16):
            await publisher.broadcast(bytes(100))
            async with subscriber.recv_zero_copy():
                pass
    snapshot = registry.snapshot()
    of_publisher, of_edge = snapshot.edges
    assert (of_publisher.counters["sent"], of_edge.counters["consumed"]) == (96, 96)
    assert of_publisher.counters["bytes"] == (9600 if how else 0)
    assert of_edge.counters["bytes"] == of_publisher.counters["bytes"]
    left_out = 16 - 16 // 4 + 16 - 16 // 8
    assert snapshot.dropped == {"row:thinned": 2 * left_out}
    assert of_publisher.histograms["publish"].count == of_edge.histograms["process"].count == 64 - left_out


@pytest.mark.parametrize("how", [{"allow_local": False}, {"force_tcp": True}])
async def test_a_broadcast_that_fails_is_a_failed_span_of_its_trace_and_no_message(
    context: GraphContext, registry: ProfileRegistry, how: dict[str, bool]
) -> None:
    publisher, subscriber = await pair(context, registry)
    onward = await context.publisher("B", profiles=registry, **how)
    await context.subscriber("B", profiles=registry)
    registry.set_trace_sampling(0.0, 1.0)
    await publisher.broadcast(0)
    async with subscriber.recv_zero_copy():
        for message in (0, lambda: None, 1):
            with suppress(MessageNotSerializable):
                await onward.broadcast(message)
    spans = by_name(registry)
    (processed,) = spans["process A"]
    first, failed, second = spans["publish B"]
    assert [span.error for span in (first, failed, second)] == [None, "MessageNotSerializable", None]
    assert [span.attributes["messaging.message.id"] for span in (first, second)] == ["0", "1"]
    assert (failed.trace_id, failed.parent_span_id) == (processed.trace_id, processed.span_id)
    assert failed.start_unix_ns <= failed.end_unix_ns
    (of_publisher,) = (edge for edge in registry.snapshot().edges if (edge.topic, edge.subscription) == ("B", None))
    assert of_publisher.counters["sent"] == of_publisher.histograms["publish"].count == 2
    assert of_publisher.histograms["interval"].count == 1


@pytest.mark.parametrize("what", ["cancelled", "closed"])
async def test_a_broadcast_that_gives_up_waiting_is_a_failed_span_with_its_wait(
    context: GraphContext, registry: ProfileRegistry, what: str
) -> None:
    publisher = await context.publisher("A", num_buffers=1, profiles=registry)
    subscriber = await context.subscriber("A", profiles=registry)
    source, sink = await context.publisher("S", profiles=registry), await context.subscriber("S", profiles=registry)
    registry.set_trace_sampling(0.0, 1.0)
    await source.broadcast(0)
    await publisher.broadcast(0)
    async with sink.recv_zero_copy():
        waits, stands_behind = (asyncio.create_task(publisher.broadcast(number)) for number in (1, 2))
        async with asyncio.timeout(40):
            while not registry.snapshot().edges[0].counters["backpressure_ns"]:
                await asyncio.sleep(0)
        registry.trace_batch(1000)
        if what == "cancelled":
            waits.cancel()
            stands_behind.cancel()
        else:
            publisher.close()
        error = asyncio.CancelledError if what == "cancelled" else PublisherClosed
        for broadcast in (waits, stands_behind):
            with pytest.raises(error):
                await broadcast
    with suppress(PublisherClosed):
        if what == "closed":
            await publisher.broadcast(3)  # did not wait, and is told nothing of
    await subscriber.recv()
    spans = by_name(registry)
    first, second = (span for span in spans["publish A"] if span.error is not None)
    assert first.error == second.error == error.__qualname__
    (processed,) = spans["process S"]
    assert {(span.trace_id, span.parent_span_id) for span in (first, second)} == {
        (processed.trace_id, processed.span_id)
    }
    assert 0 < first.attributes["ezmsg.backpressure.wait"] <= (first.end_unix_ns - first.start_unix_ns) / 1e9
    assert first.attributes["ezmsg.backpressure.blame"] == "A"
    assert "ezmsg.backpressure.wait" not in second.attributes
    assert registry.snapshot().dropped == {}


async def test_a_broadcast_that_gives_up_waiting_may_be_the_root_of_a_trace(
    context: GraphContext, registry: ProfileRegistry
) -> None:
    publisher = await context.publisher("A", start_paused=True, profiles=registry)
    registry.set_trace_sampling(0.0, 1.0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(publisher.broadcast(0), 0.01)
    (span,) = by_name(registry)["publish A"]
    assert (span.error, span.parent_span_id) == ("CancelledError", None)
    assert registry.snapshot().edges[0].counters["sent"] == 0


@pytest.mark.parametrize("what", ["closed", "unrouted"])
async def test_a_message_that_is_held_when_nothing_more_is_heard_is_recorded_with_its_edge(
    context: GraphContext, registry: ProfileRegistry, what: str
) -> None:
    publisher = await context.publisher("A", profiles=registry)
    subscriber = await context.subscriber("B", profiles=registry)
    await context.connect("A", "B")
    registry.set_trace_sampling(0.0, 1.0)
    await publisher.broadcast(0)
    async with subscriber.recv_zero_copy():
        if what == "closed":
            subscriber.close()
        else:
            await context.disconnect("A", "B")
        for _ in range(3):
            registry.snapshot()
        with subscriber.profile("late"):
            pass
    spans = by_name(registry)
    assert [span.attributes["messaging.destination.subscription.name"] for span in spans["process A"]] == ["B"]
    assert "late" in spans
    assert registry.snapshot().dropped == {}
    assert [edge.subscription for edge in registry.snapshot().edges] == [None]


def by_name(registry: ProfileRegistry) -> dict[str, list[TraceSpan]]:
    found: dict[str, list[TraceSpan]] = {}
    for span in registry.trace_batch(10_000).spans:
        found.setdefault(span.name, []).append(span)
    return found


async def test_a_traced_message_that_fails_keeps_its_ids(context: GraphContext, registry: ProfileRegistry) -> None:
    publisher, subscriber = await pair(context, registry)
    registry.set_trace_sampling(0.0, 1.0)
    await publisher.broadcast(0)
    with pytest.raises(KeyError):
        async with subscriber.recv_zero_copy():
            raise KeyError
    spans = by_name(registry)
    (published,), (processed,) = spans["publish A"], spans["process A"]
    assert processed.error == "KeyError"
    assert (processed.trace_id, processed.parent_span_id) == (published.trace_id, published.span_id)


@pytest.mark.parametrize("who", ["publisher", "subscriber"])
async def test_of_traced_messages_left_unread_the_publishes_are_spans(
    context: GraphContext, registry: ProfileRegistry, who: str
) -> None:
    publisher, subscriber = await pair(context, registry)
    registry.set_trace_sampling(0.0, 1.0)
    for number in range(3):
        await publisher.broadcast(number)
    (publisher if who == "publisher" else subscriber).close()
    spans = by_name(registry)
    assert [span.attributes["messaging.message.id"] for span in spans["publish A"]] == ["0", "1", "2"]
    snapshot = registry.snapshot()
    assert (snapshot.recorded["span"], snapshot.dropped) == (3, {})


async def test_a_message_that_is_held_when_its_publisher_closes_is_a_whole_trace(
    context: GraphContext, registry: ProfileRegistry
) -> None:
    publisher, subscriber = await pair(context, registry)
    registry.set_trace_sampling(0.0, 1.0)
    await publisher.broadcast(0)
    async with subscriber.recv_zero_copy():
        publisher.close()
        await publisher.wait_closed()
        registry.snapshot()
    spans = by_name(registry)
    (published,), (processed,) = spans["publish A"], spans["process A"]
    assert (processed.trace_id, processed.parent_span_id) == (published.trace_id, published.span_id)
    assert registry.snapshot().dropped == {}


async def test_a_subscriber_that_records_nothing_leaves_the_publish_to_its_publisher(
    context: GraphContext, registry: ProfileRegistry
) -> None:
    publisher, subscriber = await pair(context, registry)
    registry.set_trace_sampling(0.0, 1.0)
    off = ProfilingTraceControl(enabled=True, metrics=[], level="off", publisher_topics=["other"])
    registry.set_trace_control(off)
    await publisher.broadcast(0)
    async with subscriber.recv_zero_copy():
        pass
    assert list(by_name(registry)) == ["publish A"]
    (of_publisher, of_edge) = registry.snapshot().edges
    assert of_publisher.histograms["publish"].count == 1
    assert "process" not in of_edge.histograms


async def test_what_was_published_is_told_before_it_is_received(
    context: GraphContext, registry: ProfileRegistry
) -> None:
    publisher, subscriber = await pair(context, registry)
    registry.set_trace_sampling(0.0, 1.0)
    await publisher.broadcast(0)
    await publisher.broadcast(1)
    async with subscriber.recv_zero_copy():
        told = by_name(registry)
        assert list(told) == ["publish A"]
        assert [span.attributes["messaging.message.id"] for span in told["publish A"]] == ["0", "1"]
    await subscriber.recv()
    left = by_name(registry)
    assert list(left) == ["process A"]
    for published, processed in zip(told["publish A"], left["process A"], strict=True):
        assert (processed.trace_id, processed.parent_span_id) == (published.trace_id, published.span_id)
        assert processed.attributes["ezmsg.transport.time"] == 0
        assert published.end_unix_ns <= processed.start_unix_ns


@pytest.mark.parametrize("seed", range(3))
async def test_whenever_one_reads_every_span_is_told_once(
    context: GraphContext, registry: ProfileRegistry, seed: int
) -> None:
    publisher, subscriber = await pair(context, registry)
    onward, last = (
        await context.publisher("B", profiles=registry),
        await context.subscriber("B", profiles=registry),
    )
    registry.set_trace_sampling(0.0, 1.0)
    chance = random.Random(seed)
    sent = received = passed_on = 0
    told: list[TraceSpan] = []
    for _ in range(300):
        step = chance.choice(("send", "send", "receive", "fail", "pass on", "own", "read", "drain"))
        if step == "send" and sent - received < 30:
            await publisher.broadcast(sent)
            sent += 1
        elif step == "read":
            told += registry.trace_batch(10_000).spans
        elif step == "drain":
            registry.snapshot()
        elif step != "send" and received < sent:
            received += 1
            if step == "own":
                await subscriber.recv()
                continue
            with suppress(KeyError):
                async with subscriber.recv_zero_copy():
                    if chance.random() < 0.3:
                        told += registry.trace_batch(10_000).spans
                    if step == "pass on" and passed_on < 20:
                        passed_on += 1
                        await onward.broadcast(received)
                    elif step == "fail":
                        raise KeyError
    for _ in range(passed_on // 2):
        async with last.recv_zero_copy():
            pass
    told += registry.trace_batch(10_000).spans
    subscriber.close()
    last.close()
    told += registry.trace_batch(10_000).spans
    assert Counter(span.name for span in told) == {
        "publish A": sent, "process A": received, "publish B": passed_on, "process B": passed_on // 2,
    }  # fmt: skip
    assert len({span.span_id for span in told}) == len(told)
    assert {span.trace_id for span in told} == {span.trace_id for span in told if span.name == "publish A"}
    snapshot = registry.snapshot()
    assert (snapshot.recorded["span"], snapshot.recorded["row"], snapshot.dropped) == (len(told), len(told), {})
    published = {
        edge.topic: (edge.histograms["publish"].count, edge.histograms["interval"].count)
        for edge in snapshot.edges
        if "publish" in edge.histograms
    }
    assert published == {"A": (sent, sent - 1), "B": (passed_on, passed_on - 1)}


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0])
async def test_every_interval_is_counted_whoever_records_the_messages_and_in_whatever_order(
    context: GraphContext, registry: ProfileRegistry, ratio: float
) -> None:
    """Messages that waited are recorded by their publisher, others when one of the workers lets go of them."""
    publisher = await context.publisher("A", profiles=registry, num_buffers=5)
    subscriber = await context.subscriber("A", profiles=registry)
    registry.set_trace_sampling(0.0, ratio)
    chance = random.Random(7)

    async def work() -> None:
        while True:
            async with subscriber.recv_zero_copy():
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)

    workers = [asyncio.create_task(work()) for _ in range(4)]
    for number in range(200):
        await publisher.broadcast(number)
        if chance.random() < 0.2:
            registry.snapshot()
    await publisher.sync()
    for worker in workers:
        worker.cancel()
    await asyncio.wait(workers)
    (of_publisher, _) = registry.snapshot().edges
    assert of_publisher.histograms["backpressure"].count > 10
    assert (of_publisher.histograms["publish"].count, of_publisher.histograms["interval"].count) == (200, 199)


async def test_every_interval_is_counted_when_a_trace_of_some_messages_begins_while_others_wait(
    context: GraphContext, registry: ProfileRegistry
) -> None:
    publisher, subscriber = await pair(context, registry)
    for number in range(4):
        await publisher.broadcast(number)
    registry.set_trace_control(ProfilingTraceControl(enabled=True, sample_mod=3))
    await publisher.broadcast(4)
    await subscriber.recv()
    registry.snapshot()
    for _ in range(1, 5):
        await subscriber.recv()
    (of_publisher, _) = registry.snapshot().edges
    assert (of_publisher.histograms["publish"].count, of_publisher.histograms["interval"].count) == (5, 4)


async def test_every_interval_is_counted_however_many_messages_were_told_before_they_are_received(
    context: GraphContext, registry: ProfileRegistry
) -> None:
    publisher = await context.publisher("A", profiles=registry, num_buffers=2000)
    subscriber = await context.subscriber("A", profiles=registry)
    registry.set_trace_sampling(0.0, 0.5)
    for number in range(1900):
        await publisher.broadcast(number)
    registry.snapshot()
    for _ in range(1900):
        async with subscriber.recv_zero_copy():
            pass
    (of_publisher, _) = registry.snapshot().edges
    assert (of_publisher.histograms["publish"].count, of_publisher.histograms["interval"].count) == (1900, 1899)


async def test_what_was_published_while_nothing_was_recorded_makes_no_long_interval(
    context: GraphContext, registry: ProfileRegistry
) -> None:
    publisher, _ = await pair(context, registry)
    await context.subscriber("A", profiles=registry)
    registry.set_trace_sampling(0.0, 1.0)
    for level in ("metrics", "off", "metrics"):
        registry.set_level(level)
        for number in range(3):
            await publisher.broadcast(number)
    (of_publisher, *_) = registry.snapshot().edges
    assert of_publisher.histograms["interval"].count == 4


async def test_a_broadcast_that_fails_follows_from_all_that_was_handled_before(
    context: GraphContext, registry: ProfileRegistry
) -> None:
    publisher, subscriber = await pair(context, registry)
    onward = await context.publisher("B", profiles=registry, allow_local=False)
    await context.subscriber("B", profiles=registry)
    registry.set_trace_sampling(0.0, 1.0)
    for number in range(3):
        await publisher.broadcast(number)
        async with subscriber.recv_zero_copy():
            if number == 2:
                with pytest.raises(MessageNotSerializable):
                    await onward.broadcast(lambda: None)
    spans = by_name(registry)
    (failed,) = spans["publish B"]
    *before, last = spans["process A"]
    assert failed.parent_span_id == last.span_id
    assert sorted(failed.links) == sorted((span.trace_id, span.span_id) for span in before)
    snapshot = registry.snapshot()
    assert (snapshot.recorded["span"], snapshot.dropped) == (7, {})


async def test_a_message_that_outlives_its_publisher_keeps_its_ids_whoever_took_it(
    context: GraphContext, registry: ProfileRegistry
) -> None:
    publisher, subscriber = await pair(context, registry)
    await publisher.broadcast("one")
    await asyncio.create_task(subscriber.recv())  # from now on nobody asks for the ids of what is handled
    registry.set_trace_sampling(0.0, 1.0)
    await publisher.broadcast("two")
    async with subscriber.recv_zero_copy():
        publisher.close()
    spans = by_name(registry)
    (published,), (processed,) = spans["publish A"], spans["process A"]
    assert int(processed.span_id, 16)
    assert (processed.trace_id, processed.parent_span_id) == (published.trace_id, published.span_id)


async def test_messages_of_several_workers_are_told_however_they_and_their_publisher_end(
    context: GraphContext, registry: ProfileRegistry
) -> None:
    publisher, subscriber = await pair(context, registry)
    registry.set_trace_sampling(0.0, 1.0)
    entered: asyncio.Queue[None] = asyncio.Queue()
    leave = [asyncio.Event() for _ in range(3)]

    async def work(number: int) -> None:
        async with subscriber.recv_zero_copy():
            entered.put_nowait(None)
            await leave[number].wait()

    workers = [asyncio.create_task(work(number)) for number in range(3)]
    for number in range(3):
        await publisher.broadcast(number)
        await entered.get()
    told = by_name(registry)["publish A"]
    assert [span.attributes["messaging.message.id"] for span in told] == ["0", "1", "2"]
    leave[2].set()
    await workers[2]
    publisher.close()
    registry.snapshot()
    for number in (0, 1):
        leave[number].set()
        await workers[number]
    left = by_name(registry)
    assert list(left) == ["process A"]
    assert {span.parent_span_id for span in left["process A"]} == {span.span_id for span in told}
    snapshot = registry.snapshot()
    assert (snapshot.recorded["span"], snapshot.recorded["row"], snapshot.dropped) == (6, 6, {})


async def test_a_publish_is_told_once_though_its_subscriber_closes_before_the_message_is_let_go(
    context: GraphContext, registry: ProfileRegistry
) -> None:
    publisher, subscriber = await pair(context, registry)
    registry.set_trace_sampling(0.0, 1.0)
    await publisher.broadcast(0)
    async with subscriber.recv_zero_copy():
        told = by_name(registry)["publish A"]
        registry.set_trace_sampling(0.0, 0.0)
        subscriber.close()
        for number in range(publisher.num_buffers + 1):
            await publisher.broadcast(number)
        registry.snapshot()
    assert len(told) == 1
    assert told[0].span_id not in {span.span_id for span in by_name(registry)["publish A"]}


async def test_each_recorder_has_what_its_own_endpoints_did(context: GraphContext, registry: ProfileRegistry) -> None:
    another = ProfileRegistry()
    await context.publisher("C", profiles=another)
    publisher = await context.publisher("A", profiles=registry)
    subscriber = await context.subscriber("A", profiles=another)
    for number in range(3):
        await publisher.broadcast(number)
        await subscriber.recv()
    (of_publisher,), (of_other, of_edge) = registry.snapshot().edges, another.snapshot().edges
    assert of_publisher.histograms["publish"].count == of_edge.histograms["process"].count == 3
    assert not of_other.histograms
