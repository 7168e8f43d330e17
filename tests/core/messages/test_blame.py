"""Who is blamed when a publisher waits."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import BackpressureReport
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.pubclient import Publisher
from ezmsg.core.subclient import Subscriber

# Of the planted culprits, so many must be named first.
NAMED = 0.95


@contextlib.asynccontextmanager
async def running(*work: Awaitable[None]) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(task) for task in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def take(subscriber: Subscriber, hold: Callable[[], Awaitable[object]] | None = None) -> None:
    while True:
        async with subscriber.recv_zero_copy():
            if hold is not None:
                await hold()


def counters(publisher: Publisher) -> dict[str, int]:
    found = publisher._metrics.counters()
    return {name: value for name, value in found.items() if name.partition(":")[0].endswith("_ns")}


@pytest.mark.parametrize("way", ["local", "shm", "tcp"])
async def test_of_two_subscribers_in_one_process_the_slow_one_is_blamed_for_all(
    context: GraphContext, way: str
) -> None:
    options = {"local": {}, "shm": {"allow_local": False}, "tcp": {"force_tcp": True, "allow_local": False}}
    await context.connect("A", "FAST")
    await context.connect("A", "SLOW")
    publisher = await context.publisher("A", num_buffers=2, **options[way])
    fast, slow = await context.subscriber("FAST"), await context.subscriber("SLOW")
    async with running(take(fast), take(slow, lambda: asyncio.sleep(0.001))):
        for number in range(20):
            await publisher.broadcast(number)
    found = counters(publisher)
    waited_ns = found.pop("backpressure_ns")
    assert waited_ns > 0
    assert found.keys() <= {"blame_ns:SLOW", "blame_ns:FAST"}
    assert sum(found.values()) == waited_ns
    assert found["blame_ns:SLOW"] > 0.9 * waited_ns


async def test_time_that_a_broadcast_waited_in_vain_is_blamed_on_who_still_holds_the_slot(
    context: GraphContext,
) -> None:
    publisher = await context.publisher("T", num_buffers=1)
    subscriber = await context.subscriber("T")
    await publisher.broadcast(1)
    async with subscriber.recv_zero_copy():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await publisher.broadcast(2)
    found = counters(publisher)
    assert found["blame_ns:T"] == found["backpressure_ns"] > 0


async def test_a_subscriber_that_leaves_is_blamed_for_what_it_held(context: GraphContext) -> None:
    publisher = await context.publisher("T", num_buffers=1)
    subscriber = await context.subscriber("T")
    await publisher.broadcast(1)
    waiting = asyncio.create_task(publisher.broadcast(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    subscriber.close()
    await waiting
    found = counters(publisher)
    assert found["blame_ns:T"] == found["backpressure_ns"] > 0


class Node:
    """A unit: hands on what it gets, after its work."""

    def __init__(self, name: str, subscriber: Subscriber, publisher: Publisher) -> None:
        self.name, self.subscriber, self.publisher = name, subscriber, publisher
        self.work_s = 0.0

    async def run(self) -> None:
        while True:
            async with self.subscriber.recv_zero_copy() as number:
                if self.work_s:
                    await asyncio.sleep(self.work_s)
                await self.publisher.broadcast(number)


async def grow(context: GraphContext, prefix: str, chance: random.Random) -> list[Node]:
    """A random graph: each node hears one of those before it, now and then two; the first is the source."""
    nodes: list[Node] = []
    for index in range(chance.randint(4, 8)):
        name = f"{prefix}{index}"
        parents = chance.sample(nodes, min(len(nodes), 2 if chance.random() < 0.2 else 1))
        for parent in parents:
            await context.connect(f"{parent.name}.OUT", f"{name}.IN")
        publisher = await context.publisher(f"{name}.OUT", num_buffers=chance.choice([1, 2, 4]))
        nodes.append(Node(name, await context.subscriber(f"{name}.IN"), publisher))
    return nodes


async def feed(context: GraphContext, node: Node) -> None:
    publisher = await context.publisher(f"{node.name}.IN", num_buffers=2)
    while True:
        await publisher.broadcast(0)


async def diagnose(context: GraphContext, seed: int) -> tuple[str, BackpressureReport]:
    chance = random.Random(seed)
    nodes = await grow(context, f"G{seed}.", chance)
    culprit = chance.choice(nodes[1:])
    culprit.work_s = 0.003
    async with running(feed(context, nodes[0]), *(node.run() for node in nodes)):
        found = await context.backpressure_report(0.2)
        await context.revert()
    return f"{culprit.name}.IN", found


async def test_a_slow_unit_planted_in_random_graphs_is_named(context: GraphContext) -> None:
    process = ProcessControlClient(context.graph_address)
    await process.connect()
    named = 0
    for seed in range(50):
        culprit, found = await diagnose(context, seed)
        named += found.culprits[0].subscription == culprit
        waited_s = sum(wait.wait_seconds for wait in found.waits)
        assert sum(other.wait_seconds for other in found.culprits) == pytest.approx(waited_s, rel=0.02)
    assert named >= NAMED * 50
    await process.close()
