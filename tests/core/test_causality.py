"""What follows from what: traces, parents, links and origins, in every way in which one message leads to another."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

import ezmsg.core as ez
from ezmsg.core import config
from ezmsg.core.currentmessage import INPUTS, current_message
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProfilingStreamControl, ProfilingTraceControl, TraceSpan
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.lease import Lease
from ezmsg.core.profiling import PROFILES, ProfileRegistry
from ezmsg.core.pubclient import Publisher
from ezmsg.core.subclient import Subscriber
from tests.core.workerprocess import Worker

TRANSPORTS: dict[str, dict[str, Any]] = {"local": {}, "shm": {"allow_local": False}, "tcp": {"force_tcp": True}}
LARGE = np.zeros(20_000)
"""Goes through shared memory, where there is some."""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> ProfileRegistry:
    """A recorder for the test alone, which traces every message of a source."""
    monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")
    return ProfileRegistry()


class Graph:
    """Publishers and subscribers of one process, and the spans they leave."""

    def __init__(self, context: GraphContext, registry: ProfileRegistry, options: dict[str, Any]) -> None:
        self._context, self._registry, self._options = context, registry, options

    async def publisher(self, topic: str, **options: Any) -> Publisher:
        return await self._context.publisher(topic, profiles=self._registry, **self._options, **options)

    async def subscriber(self, topic: str, **options: Any) -> Subscriber:
        return await self._context.subscriber(topic, profiles=self._registry, **options)

    def spans(self) -> Spans:
        return Spans(self._registry.trace_batch(100_000).spans)

    def trace_only(self, *messages: bool) -> Callable[[Publisher, Any], Awaitable[None]]:
        """A way to publish, of whose messages only some begin a trace."""
        left = list(messages)

        async def publish(publisher: Publisher, obj: Any) -> None:
            self._registry.set_trace_sampling(0, ratio=float(left.pop(0)))
            await publisher.broadcast(obj)

        return publish


class Spans:
    """Spans by what they are and the number of their message."""

    def __init__(self, spans: list[TraceSpan]) -> None:
        self.all = spans

    def one(self, name: str, message: int = 0) -> TraceSpan:
        (span,) = self.named(name, message)
        return span

    def named(self, name: str, message: int = 0) -> list[TraceSpan]:
        return [
            span for span in self.all if span.name == name and span.attributes["messaging.message.id"] == str(message)
        ]


def origin_ns(process: TraceSpan) -> int:
    """When the chain of a message began."""
    age = process.attributes["ezmsg.message.age"]
    assert isinstance(age, float)
    return process.start_unix_ns - round(age * 1e9)


def link_to(span: TraceSpan) -> tuple[str, str]:
    return span.trace_id, span.span_id


def follows(child: TraceSpan, parent: TraceSpan) -> bool:
    return (child.trace_id, child.parent_span_id) == link_to(parent)


def is_root(span: TraceSpan) -> bool:
    return span.parent_span_id is None and not span.links


@pytest.fixture(params=TRANSPORTS)
def everywhere(request: pytest.FixtureRequest, context: GraphContext, registry: ProfileRegistry) -> Graph:
    """A graph over each transport."""
    return Graph(context, registry, TRANSPORTS[request.param])


@pytest.fixture
def graph(context: GraphContext, registry: ProfileRegistry) -> Graph:
    """A graph over one of them, which knows as well where messages go."""
    return Graph(context, registry, {})


# -- chains -----------------------------------------------------------------------------------------------------------


async def relay(subscriber: Subscriber, publisher: Publisher) -> None:
    async with subscriber.recv_zero_copy() as message:
        await publisher.broadcast(message)


async def take(subscriber: Subscriber) -> None:
    async with subscriber.recv_zero_copy():
        pass


@pytest.mark.parametrize("message", ["small", LARGE], ids=["small", "large"])
async def test_a_trace_and_the_origin_go_through_all_hops(everywhere: Graph, message: Any) -> None:
    topics = ["A", "B", "C", "D"]
    subscribers = [await everywhere.subscriber(topic) for topic in topics]
    source, *publishers = [await everywhere.publisher(topic) for topic in topics]
    for _ in range(2):
        await source.broadcast(message)
        for subscriber, publisher in zip(subscribers, publishers, strict=False):
            await relay(subscriber, publisher)
        await take(subscribers[-1])
    spans = everywhere.spans()
    for number in range(2):
        chain = [spans.one(f"{kind} {topic}", number) for topic in topics for kind in ("publish", "process")]
        assert is_root(chain[0])
        for parent, child in pairwise(chain):
            assert follows(child, parent)
        for process in chain[1::2]:
            assert origin_ns(process) == pytest.approx(chain[0].start_unix_ns, abs=2)
            assert process.links == [(process.trace_id, process.parent_span_id)]
    assert spans.one("publish A", 0).trace_id != spans.one("publish A", 1).trace_id


async def test_the_origin_goes_through_all_hops_also_of_messages_without_a_trace(everywhere: Graph) -> None:
    publish = everywhere.trace_only(False)
    everywhere._registry.set_trace_control(ProfilingTraceControl(True))
    topics = ["A", "B", "C"]
    subscribers = [await everywhere.subscriber(topic) for topic in topics]
    source, *publishers = [await everywhere.publisher(topic) for topic in topics]
    await publish(source, 0)
    for subscriber, publisher in zip(subscribers, publishers, strict=False):
        await relay(subscriber, publisher)
    await subscribers[-1].recv()
    origins = sampled_origins(everywhere._registry)
    assert [topic for topic, _ in origins] == topics
    assert max(origin for _, origin in origins) == pytest.approx(min(origin for _, origin in origins), abs=3)


def sampled_origins(registry: ProfileRegistry) -> list[tuple[str, float]]:
    """Origins by topic, in the order in which messages were let go, from the samples of a native trace."""
    values: dict[tuple[str, float], dict[str, float]] = {}
    for sample in registry.trace_batch(100_000).samples:
        values.setdefault((sample.topic, sample.timestamp), {})[sample.metric] = sample.value
    return [
        (topic, end - found["lease_time_ns"] - found["age_ns"])
        for (topic, end), found in values.items()
        if "age_ns" in found
    ]


async def test_one_message_that_goes_two_ways_is_one_trace_with_two_branches(everywhere: Graph) -> None:
    left, right = await everywhere.subscriber("A"), await everywhere.subscriber("A")
    source = await everywhere.publisher("A")
    outs = await everywhere.publisher("LEFT"), await everywhere.publisher("RIGHT")
    await source.broadcast(0)
    await asyncio.gather(relay(left, outs[0]), relay(right, outs[1]))
    spans = everywhere.spans()
    branches = spans.named("process A")
    assert all(follows(branch, spans.one("publish A")) for branch in branches)
    published = [spans.one("publish LEFT"), spans.one("publish RIGHT")]
    assert {span.parent_span_id for span in published} == {branch.span_id for branch in branches}
    assert {span.trace_id for span in published} == {spans.one("publish A").trace_id}
    assert not any(span.links for span in published)


async def test_messages_of_two_publishers_keep_their_traces_apart(everywhere: Graph) -> None:
    subscriber, out = await everywhere.subscriber("A"), await everywhere.publisher("OUT")
    for _ in range(2):
        source = await everywhere.publisher("A")
        await source.broadcast(0)
        await relay(subscriber, out)
    spans = everywhere.spans()
    first, second = spans.named("publish A")
    assert first.trace_id != second.trace_id
    for number, source_span in enumerate((first, second)):
        published = spans.one("publish OUT", number)
        assert published.trace_id == source_span.trace_id
        assert not published.links


# -- ways to publish while a message is handled -----------------------------------------------------------------------


async def by_await(out: Publisher) -> None:
    await out.broadcast(0)
    await asyncio.sleep(0)
    await out.broadcast(1)


async def by_generator(out: Publisher) -> None:
    async def outputs() -> AsyncIterator[int]:
        for number in range(2):
            yield number
            await asyncio.sleep(0)

    async for output in outputs():
        await out.broadcast(output)


async def by_gather(out: Publisher) -> None:
    await asyncio.gather(out.broadcast(0), out.broadcast(1))


async def by_tasks(out: Publisher) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(2):
            group.create_task(out.broadcast(number))


def from_thread(out: Publisher, loop: asyncio.AbstractEventLoop) -> None:
    for number in range(2):
        asyncio.run_coroutine_threadsafe(out.broadcast(number), loop).result(40)


async def by_to_thread(out: Publisher) -> None:
    await asyncio.to_thread(from_thread, out, asyncio.get_running_loop())


class ContextExecutor(ThreadPoolExecutor):
    """Runs calls in the context of whoever submits them."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(contextvars.copy_context().run, fn, *args, **kwargs)


async def by_executor(out: Publisher) -> None:
    loop = asyncio.get_running_loop()
    with ContextExecutor(1) as executor:
        await loop.run_in_executor(executor, from_thread, out, loop)


@pytest.mark.parametrize("way", [by_await, by_generator, by_gather, by_tasks, by_to_thread, by_executor])
async def test_what_is_published_while_a_message_is_handled_follows_from_it(
    graph: Graph, way: Callable[[Publisher], Awaitable[None]]
) -> None:
    subscriber, source = await graph.subscriber("A"), await graph.publisher("A")
    sink, out = await graph.subscriber("OUT"), await graph.publisher("OUT")
    await source.broadcast(0)
    async with subscriber.recv_zero_copy():
        await way(out)
    for _ in range(2):
        await sink.recv()
    spans = graph.spans()
    for number in range(2):
        published = spans.one("publish OUT", number)
        assert follows(published, spans.one("process A"))
        assert not published.links
        assert origin_ns(spans.one("process OUT", number)) == pytest.approx(origin_ns(spans.one("process A")), abs=2)


async def test_a_plain_executor_does_not_know_what_its_calls_follow_from(graph: Graph) -> None:
    subscriber, source, out = await graph.subscriber("A"), await graph.publisher("A"), await graph.publisher("OUT")
    await source.broadcast(0)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as executor:
        async with subscriber.recv_zero_copy():
            await loop.run_in_executor(executor, from_thread, out, loop)
    assert is_root(graph.spans().one("publish OUT"))


async def test_a_task_begun_while_a_message_is_handled_belongs_to_it_for_good(graph: Graph) -> None:
    subscriber, source, out = await graph.subscriber("A"), await graph.publisher("A"), await graph.publisher("OUT")
    go_on = asyncio.Event()

    async def later() -> None:
        await go_on.wait()
        await out.broadcast(0)

    for _ in range(2):
        await source.broadcast(0)
    async with subscriber.recv_zero_copy():
        task = asyncio.create_task(later())
    async with subscriber.recv_zero_copy():
        go_on.set()
        await task
    spans = graph.spans()
    published = spans.one("publish OUT")
    assert follows(published, spans.one("process A", 0))
    assert not published.links


async def test_what_is_published_outside_of_any_message_begins_a_chain(graph: Graph) -> None:
    subscriber, source, out = await graph.subscriber("A"), await graph.publisher("A"), await graph.publisher("OUT")
    await source.broadcast(0)
    async with subscriber.recv_zero_copy():
        pass
    await out.broadcast(0)
    assert is_root(graph.spans().one("publish OUT"))


async def test_after_a_plain_receive_a_task_publishes_for_the_message_it_received_last(graph: Graph) -> None:
    subscriber, source, out = await graph.subscriber("A"), await graph.publisher("A"), await graph.publisher("OUT")
    other = asyncio.create_task(asyncio.sleep(0))
    for number in range(2):
        await source.broadcast(number)
    for _ in range(2):
        await subscriber.recv()
        await out.broadcast(0)
        await out.broadcast(0)
    await other
    spans = graph.spans()
    for number in range(4):
        published = spans.one("publish OUT", number)
        assert follows(published, spans.one("process A", number // 2))
        assert not published.links


async def test_a_task_that_receives_for_ever_does_not_remember_it_all(graph: Graph) -> None:
    subscriber, source = await graph.subscriber("A"), await graph.publisher("A")
    for _ in range(10 * INPUTS):
        await source.broadcast(0)
        await subscriber.recv()
    gc.collect()
    assert sum(isinstance(found, Lease) for found in gc.get_objects()) <= INPUTS


async def test_what_one_task_received_does_not_concern_another(graph: Graph) -> None:
    subscriber, source, out = await graph.subscriber("A"), await graph.publisher("A"), await graph.publisher("OUT")
    received = asyncio.Event()

    async def receive() -> None:
        await subscriber.recv()
        received.set()

    async def publish() -> None:
        await received.wait()
        await out.broadcast(0)

    tasks = [asyncio.create_task(publish()), asyncio.create_task(receive())]
    await source.broadcast(0)
    await asyncio.gather(*tasks)
    assert is_root(graph.spans().one("publish OUT"))


# -- several messages lead to one -------------------------------------------------------------------------------------


async def window(subscriber: Subscriber, size: int, publisher: Publisher) -> None:
    """Publish while the last of so many messages is handled."""
    for number in range(size):
        async with subscriber.recv_zero_copy():
            if number == size - 1:
                await publisher.broadcast(number)


async def received_window(subscriber: Subscriber, size: int, publisher: Publisher) -> None:
    """Publish after so many messages were received."""
    for _ in range(size):
        await subscriber.recv()
    await publisher.broadcast(0)


Window = Callable[[Subscriber, int, Publisher], Awaitable[None]]
windows = pytest.mark.parametrize("gather", [window, received_window])


@windows
async def test_a_window_follows_from_its_last_message_and_links_the_others(everywhere: Graph, gather: Window) -> None:
    subscriber, source = await everywhere.subscriber("A"), await everywhere.publisher("A")
    sink, out = await everywhere.subscriber("OUT"), await everywhere.publisher("OUT")
    for _ in range(8):
        await source.broadcast(0)
    for _ in range(2):
        await gather(subscriber, 4, out)
        await take(sink)
    spans = everywhere.spans()
    for number in range(2):
        *others, last = [spans.one("process A", 4 * number + n) for n in range(4)]
        published = spans.one("publish OUT", number)
        assert follows(published, last)
        assert published.links == [link_to(other) for other in others]
        if gather is window:  # what is received is not measured while something is published
            assert last.links == [(last.trace_id, last.parent_span_id), *published.links]
        for other in others:
            assert other.links == [(other.trace_id, other.parent_span_id)]
        assert origin_ns(spans.one("process OUT", number)) == pytest.approx(origin_ns(others[0]), abs=2)


@windows
async def test_a_window_is_as_old_as_its_oldest_message_also_without_a_trace(graph: Graph, gather: Window) -> None:
    graph._registry.set_trace_sampling(0)
    graph._registry.set_trace_control(ProfilingTraceControl(True))
    subscriber, source = await graph.subscriber("A"), await graph.publisher("A")
    sink, out = await graph.subscriber("OUT"), await graph.publisher("OUT")
    for _ in range(4):
        await source.broadcast(0)
    await gather(subscriber, 4, out)
    await take(sink)
    *inputs, output = [origin for _, origin in sampled_origins(graph._registry)]
    assert output == pytest.approx(min(inputs), abs=3)


@windows
async def test_a_window_joins_the_trace_of_the_last_of_its_messages_that_has_one(graph: Graph, gather: Window) -> None:
    publish = graph.trace_only(True, False, True, False)
    subscriber, source, out = await graph.subscriber("A"), await graph.publisher("A"), await graph.publisher("OUT")
    for _ in range(4):
        await publish(source, 0)
    await gather(subscriber, 4, out)
    spans = graph.spans()
    published = spans.one("publish OUT")
    assert follows(published, spans.one("process A", 2))
    assert published.links == [link_to(spans.one("process A", 0))]
    assert len(spans.all) == 5


@windows
async def test_a_window_may_be_as_long_as_a_span_may_have_links(graph: Graph, gather: Window) -> None:
    subscriber, source = await graph.subscriber("A"), await graph.publisher("A", num_buffers=2 * INPUTS)
    sink, out = await graph.subscriber("OUT"), await graph.publisher("OUT")
    for _ in range(INPUTS + 1):
        await source.broadcast(0)
    await gather(subscriber, INPUTS + 1, out)
    await take(sink)
    spans = graph.spans()
    assert spans.one("publish OUT").links == [link_to(spans.one("process A", number)) for number in range(INPUTS)]
    oldest = origin_ns(spans.one("process A", 0))
    assert origin_ns(spans.one("process OUT")) == pytest.approx(oldest, abs=2)


@windows
async def test_who_takes_many_messages_without_publishing_looks_for_one_of_them(graph: Graph, gather: Window) -> None:
    subscriber, source = await graph.subscriber("A"), await graph.publisher("A", num_buffers=2 * INPUTS)
    sink, out = await graph.subscriber("OUT"), await graph.publisher("OUT")
    for size in (INPUTS + 2, 2):
        for _ in range(size):
            await source.broadcast(0)
        await gather(subscriber, size, out)
        await take(sink)
    spans = graph.spans()
    last = spans.one("process A", INPUTS + 1)
    published = spans.one("publish OUT", 0)
    assert follows(published, last)
    assert not published.links
    assert origin_ns(spans.one("process OUT", 0)) == pytest.approx(origin_ns(last), abs=2)
    assert spans.one("publish OUT", 1).links == [link_to(spans.one("process A", INPUTS + 2))]


async def test_every_output_of_a_window_has_all_its_inputs(graph: Graph) -> None:
    subscriber, source, out = await graph.subscriber("A"), await graph.publisher("A"), await graph.publisher("OUT")
    for _ in range(2):
        await source.broadcast(0)
    async with subscriber.recv_zero_copy():
        pass
    async with subscriber.recv_zero_copy():
        await by_generator(out)
    spans = graph.spans()
    for number in range(2):
        published = spans.one("publish OUT", number)
        assert follows(published, spans.one("process A", 1))
        assert published.links == [link_to(spans.one("process A", 0))]


async def test_messages_of_two_subscribers_received_by_one_task_meet_in_what_it_publishes(everywhere: Graph) -> None:
    left, right = await everywhere.subscriber("LEFT"), await everywhere.subscriber("RIGHT")
    to_left, to_right = await everywhere.publisher("LEFT"), await everywhere.publisher("RIGHT")
    sink, out = await everywhere.subscriber("OUT"), await everywhere.publisher("OUT")
    for _ in range(2):
        await to_left.broadcast(0)
        await to_right.broadcast(0)
        await left.recv()
        await right.recv()
        await out.broadcast(0)
        await take(sink)
    spans = everywhere.spans()
    for number in range(2):
        first, second = spans.one("process LEFT", number), spans.one("process RIGHT", number)
        published = spans.one("publish OUT", number)
        assert follows(published, second)
        assert published.links == [link_to(first)]
        assert origin_ns(spans.one("process OUT", number)) == pytest.approx(origin_ns(first), abs=2)


async def test_a_message_held_around_another_is_linked(graph: Graph) -> None:
    left, right = await graph.subscriber("LEFT"), await graph.subscriber("RIGHT")
    to_left, to_right, out = [await graph.publisher(topic) for topic in ("LEFT", "RIGHT", "OUT")]
    await to_left.broadcast(0)
    await to_right.broadcast(0)
    async with left.recv_zero_copy():
        async with right.recv_zero_copy():
            await out.broadcast(0)
        await out.broadcast(1)
    spans = graph.spans()
    assert follows(spans.one("publish OUT", 0), spans.one("process RIGHT"))
    assert spans.one("publish OUT", 0).links == [link_to(spans.one("process LEFT"))]
    assert follows(spans.one("publish OUT", 1), spans.one("process LEFT"))


async def test_tasks_that_share_a_subscriber_do_not_share_inputs(graph: Graph) -> None:
    subscriber, source, out = await graph.subscriber("A"), await graph.publisher("A"), await graph.publisher("OUT")
    for _ in range(2):
        await source.broadcast(0)

    async def only_look() -> None:
        async with subscriber.recv_zero_copy():
            pass

    await asyncio.create_task(only_look())
    await asyncio.create_task(relay(subscriber, out))
    spans = graph.spans()
    assert follows(spans.one("publish OUT"), spans.one("process A", 1))
    assert not spans.one("publish OUT").links


async def test_workers_that_handle_messages_at_the_same_time_answer_each_its_own(graph: Graph) -> None:
    subscriber, source, out = await graph.subscriber("A"), await graph.publisher("A"), await graph.publisher("OUT")
    count = 3
    everybody = asyncio.Barrier(count)

    async def work() -> None:
        for _ in range(2):
            async with subscriber.recv_zero_copy() as number:
                await everybody.wait()
                await out.broadcast(number)
                await everybody.wait()

    for number in range(2 * count):
        await source.broadcast(number)
    await asyncio.gather(*(work() for _ in range(count)))
    spans = graph.spans()
    answered = [span.parent_span_id for number in range(2 * count) for span in spans.named("publish OUT", number)]
    assert sorted(map(str, answered)) == sorted(spans.one("process A", number).span_id for number in range(2 * count))
    assert not any(span.links for span in spans.all if span.name == "publish OUT")


async def test_links_are_read_with_their_span_however_little_is_read_at_once(graph: Graph) -> None:
    subscriber, source, out = await graph.subscriber("A"), await graph.publisher("A"), await graph.publisher("OUT")
    for _ in range(6):
        await source.broadcast(0)
    for _ in range(2):
        await window(subscriber, 3, out)
    registry = graph._registry
    found: list[TraceSpan] = []
    while spans := registry.trace_batch(1, "slow").spans:
        found += spans
    assert len(found) == 14
    assert [len(span.links) for span in found if span.name == "publish OUT"] == [2, 2]
    assert found == registry.trace_batch(100_000, "fast").spans


# -- units ------------------------------------------------------------------------------------------------------------


class Source(ez.Unit):
    OUT = ez.OutputStream(int)

    @ez.publisher(OUT)
    async def run(self) -> AsyncIterator[Any]:
        for number in range(8):
            yield self.OUT, number
        raise ez.Complete


class InTwos(ez.Unit):
    """Publishes two messages for every fourth, and knows in every thread that it works on one."""

    IN = ez.InputStream(int)
    OUT = ez.OutputStream(int)

    @ez.subscriber(IN)
    @ez.publisher(OUT)
    async def gather(self, number: int) -> AsyncIterator[Any]:
        here = current_message.get()
        assert here is not None
        assert here is await asyncio.to_thread(current_message.get)
        assert here is await asyncio.get_running_loop().run_in_executor(None, current_message.get)
        if number % 4 == 3:
            yield self.OUT, number
            yield self.OUT, number


class Sink(ez.Unit):
    IN = ez.InputStream(int)
    left = 4

    @ez.subscriber(IN)
    async def count(self, number: int) -> None:
        self.left -= 1
        if not self.left:
            raise ez.NormalTermination


@pytest.mark.parametrize("leaky", [False, True], ids=["", "leaky"])
async def test_what_units_yield_follows_from_what_their_tasks_were_handed(leaky: bool) -> None:
    source, windows, sink = Source(), InTwos(), Sink()
    windows.IN.leaky, windows.IN.max_queue = leaky, 8
    connections = ((source.OUT, windows.IN), (windows.OUT, sink.IN))
    PROFILES.trace_batch(100_000, "units")
    PROFILES.set_trace_sampling(0, ratio=1)
    try:
        await asyncio.to_thread(ez.run, S=source, W=windows, T=sink, connections=connections, force_single_process=True)
    finally:
        PROFILES.set_trace_sampling(config.trace_rate_hz(), config.trace_ratio())
    spans = Spans(PROFILES.trace_batch(100_000, "units").spans)
    for number in range(4):
        *others, last = [spans.one("process S/OUT", 4 * (number // 2) + n) for n in range(4)]
        published = spans.one("publish W/OUT", number)
        assert follows(published, last)
        assert published.links == [link_to(other) for other in others]
        assert last.links == [(last.trace_id, last.parent_span_id), *published.links]
        assert follows(spans.one("process W/OUT", number), published)
        assert origin_ns(spans.one("process W/OUT", number)) == pytest.approx(origin_ns(others[0]), abs=2)


# -- several processes ------------------------------------------------------------------------------------------------

WORKER = Path(__file__).with_name("causalityworker.py")
StartWorker = Callable[..., Awaitable[Worker]]


@pytest.fixture
async def start_worker(server: GraphServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StartWorker]:
    """Starts processes that trace every message (see `causalityworker.py`), and ends them with the test."""
    monkeypatch.setenv("EZMSG_TRACE_RATIO", "1")
    workers: list[Worker] = []

    async def start(role: str, *args: object) -> Worker:
        command = [sys.executable, "-W", "error", str(WORKER), role, str(server.address), *map(str, args)]
        worker = Worker(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        workers.append(worker)
        assert await worker.line() == "ready"
        return worker

    yield start
    for worker in workers:
        await worker.end()


async def spans_of(context: GraphContext, count: int) -> Spans:
    """As many spans as the native stream is expected to deliver."""
    spans: list[TraceSpan] = []
    stream = context.subscribe_profiling_trace(ProfilingStreamControl(max_samples=10_000, include_spans=True))
    async with asyncio.timeout(40), contextlib.aclosing(stream):
        async for delivery in stream:
            spans += [span for batch in delivery.batches.values() for span in batch.spans]
            if len(spans) >= count:
                break
    return Spans(spans)


async def test_a_trace_goes_through_processes_parts_and_meets_again(
    context: GraphContext, start_worker: StartWorker
) -> None:
    messages = 3
    for role in ("b", "c", "join"):
        await start_worker(role)
    source = await start_worker("source")
    for _ in range(messages):
        await source.tell("go")
    # One publish and two leases of A, then a publish and a lease each of B and C, and the publish of D.
    spans = await spans_of(context, messages * 8)
    for number in range(messages):
        root = spans.one("publish A", number)
        assert is_root(root)
        entered = {span.span_id: span for span in spans.named("process A", number)}
        assert all(follows(span, root) for span in entered.values())
        ways = [spans.one(f"publish {topic}", number) for topic in ("B", "C")]
        assert {way.parent_span_id for way in ways} == entered.keys()
        left, right = (spans.one(f"process {topic}", number) for topic in ("B", "C"))
        assert follows(left, ways[0])
        assert follows(right, ways[1])
        joined = spans.one("publish D", number)
        assert follows(joined, right)
        assert joined.links == [link_to(left)]
        assert {span.trace_id for span in (*ways, left, right, joined)} == {root.trace_id}
        for process in (*entered.values(), left, right):
            assert origin_ns(process) == pytest.approx(root.start_unix_ns, abs=3)


async def test_nobody_knows_how_old_a_message_is_whose_chain_began_by_another_clock(
    graph: Graph, start_worker: StartWorker, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "boot_id"
    elsewhere.write_text(str(uuid4()))
    source = await start_worker("source", elsewhere)
    subscriber, out = await graph.subscriber("A"), await graph.publisher("OUT")
    sink = await graph.subscriber("OUT")
    await source.tell("go")
    await relay(subscriber, out)
    await take(sink)
    spans = graph.spans()
    assert follows(spans.one("process OUT"), spans.one("publish OUT"))
    assert follows(spans.one("publish OUT"), spans.one("process A"))
    for process in (spans.one("process A"), spans.one("process OUT")):
        assert "ezmsg.message.age" not in process.attributes
    assert "ezmsg.transport.time" in spans.one("process OUT").attributes
