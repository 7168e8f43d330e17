"""One process of the soak: the server, one that stays, one that is killed, or a slow reader of events.

Led by lines on standard input, answers with lines of JSON; ends when its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import sys
from typing import Any

import numpy as np

from ezmsg.core.errors import EzmsgError
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import (
    DynamicSettingsMetadata,
    GraphMetadata,
    ProcessControlRequest,
    ProcessControlResponse,
    UnitMetadata,
)
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.processclient import ProcessControlClient

PERIOD_S = 0.4
AGE = 150
"""Publishers and subscribers that come and go before it begins: the server keeps the last values of 250."""
BURST = 100
"""Messages one behind the other at first: more than slots, so that the memory of a publisher is as large as it gets."""
DRAIN_TIMEOUT_S = 20.0
CHURN_TOPICS = 50
SMALL, LARGE = np.zeros(128), np.zeros(32_768)

Address = tuple[str, int]


def say(what: Any) -> None:
    print(json.dumps(what), flush=True)


class Orders:
    """The lines this process is led by."""

    async def open(self) -> Orders:
        self._reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(self._reader), sys.stdin)
        return self

    async def next(self) -> str:
        """The next line; "" at the end."""
        return (await self._reader.readline()).decode().strip()

    def close(self) -> None:
        self._transport.close()


# -- the server -------------------------------------------------------------------------------------------------------


async def serve(orders: Orders, options: argparse.Namespace) -> None:
    server = GraphServer()
    server.start(("127.0.0.1", 0))
    say(list(server.address))
    await orders.next()
    server.stop()


# -- one that stays ---------------------------------------------------------------------------------------------------


class Flow:
    """Messages of one stable edge, numbered by their publisher: all must arrive, once and in order."""

    def __init__(self) -> None:
        self.received = self.lost = self.repeated = 0

    def take(self, number: int) -> None:
        if number < self.received:
            self.repeated += 1
            return
        self.lost += number - self.received
        self.received = number + 1


class Stable:
    """Publishes on its topics, receives those of another process, and opens and closes sessions meanwhile."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.address: Address = tuple(options.address)
        self.number, self.aging = options.number, options.age
        self.own = range(options.number, options.topics, options.stable)
        neighbour = (options.number + 1) % options.stable
        self.flows = {topic: Flow() for topic in range(neighbour, options.topics, options.stable)}
        self.published = dict.fromkeys(self.own, 0)
        self.is_over = self.is_quiet = False
        self.sessions = 0
        self.failures: list[str] = []

    async def publish(self, publisher: Any, topic: int) -> None:
        payload = LARGE if topic % 10 == 0 else SMALL
        for _ in range(BURST):
            await publisher.broadcast((self.published[topic], payload))
            self.published[topic] += 1
        await asyncio.sleep(random.random() * PERIOD_S)
        while not self.is_over:
            await publisher.broadcast((self.published[topic], payload))
            self.published[topic] += 1
            await asyncio.sleep(PERIOD_S)

    async def receive(self, subscriber: Any, topic: int) -> None:
        while True:
            async with subscriber.recv_zero_copy() as (number, _):
                self.flows[topic].take(number)

    async def churn(self) -> None:
        """One session after the other, each with edges, metadata and messages of its own."""
        while not self.is_quiet:
            try:
                await self.session()
            except Exception as error:
                self.failures.append(f"session {self.sessions} of {self.number}: {error!r}")
            self.sessions += 1
            await asyncio.sleep(random.uniform(0.5, 1.5))

    async def session(self) -> None:
        name = f"SESSION{self.number}"
        async with GraphContext(self.address) as context, asyncio.timeout(DRAIN_TIMEOUT_S):
            await context.register_metadata(metadata(name))
            subscriber = await context.subscriber(f"{name}/IN")
            publisher = await context.publisher(f"{name}/OUT")
            for number in range(5):
                await context.connect(f"{name}/OUT" if not number else f"{name}/{number}", f"{name}/IN")
            for number in range(10):
                await publisher.broadcast(number)
                assert await subscriber.recv() == number
            assert await context.settings_input_topic(name) == f"{name}/INPUT_SETTINGS"
            await context.snapshot()
            if random.random() < 0.3:
                await context.revert()

    async def age(self, context: GraphContext) -> None:
        for _ in range(self.aging):
            ends = [await context.subscriber(f"AGE{self.number}"), await context.publisher(f"AGE{self.number}")]
            # As many as those of a session get: their histograms take as much room.
            for number in range(10):
                await ends[1].broadcast(number)
                assert await ends[0].recv() == number
            for end in ends:
                end.close()
                await end.wait_closed()

    async def report(self, process: ProcessControlClient) -> None:
        for gain in range(1 << 30):
            await process.report_settings_update(f"STABLE{self.number}", {"gain": gain})
            await asyncio.sleep(1.0)

    async def run(self, orders: Orders) -> None:
        process = ProcessControlClient(self.address)
        process.set_request_handler(echo)
        await process.register([f"STABLE{self.number}"])
        async with GraphContext(self.address) as context:
            await self.age(context)
            tasks: list[asyncio.Task[Any]] = []
            for topic in self.flows:
                subscriber = await context.subscriber(f"IN{topic}")
                await context.connect(f"OUT{topic}", f"IN{topic}")
                tasks.append(asyncio.create_task(self.receive(subscriber, topic)))
            tasks.append(asyncio.create_task(hear(await context.subscriber(f"CHURN{self.number}"))))
            publishers = [(await context.publisher(f"OUT{topic}"), topic) for topic in self.own]
            say("ready")
            await orders.next()
            publishing = [asyncio.create_task(self.publish(*pair)) for pair in publishers]
            tasks.append(asyncio.create_task(self.report(process)))
            await orders.next()
            churning = asyncio.create_task(self.churn())
            await orders.next()
            self.is_quiet = True
            await churning
            say("quiet")
            await orders.next()
            self.is_over = True
            await asyncio.gather(*publishing)
            say(self.published)
            expected = {int(topic): count for topic, count in json.loads(await orders.next()).items()}
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_TIMEOUT_S):
                    while any(flow.received < expected[topic] for topic, flow in self.flows.items()):
                        await asyncio.sleep(0.05)
            for topic, flow in self.flows.items():
                flow.lost += expected[topic] - flow.received
            failed = [task for task in tasks if task.done()]
            say(
                {
                    "received": sum(flow.received for flow in self.flows.values()),
                    "lost": sum(flow.lost for flow in self.flows.values()),
                    "repeated": sum(flow.repeated for flow in self.flows.values()),
                    "sessions": self.sessions,
                    "failures": self.failures + [repr(task.exception()) for task in failed],
                }
            )
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        await process.close()
        say("idle")
        await orders.next()


def metadata(address: str) -> GraphMetadata:
    dynamic = DynamicSettingsMetadata(True, f"{address}/INPUT_SETTINGS", "module.Settings")
    shown = {"gain": 1, "kind": "butter"}
    unit = UnitMetadata(
        address, address, "module.Unit", "module.Settings", (b"x" * 500, shown), dynamic, None, {}, [], None, []
    )
    return GraphMetadata(1, None, {address: unit})


def echo(request: ProcessControlRequest) -> ProcessControlResponse:
    return ProcessControlResponse(request.request_id, True, payload=request.payload)


# -- one that is killed -----------------------------------------------------------------------------------------------


async def churning(orders: Orders, options: argparse.Namespace) -> None:
    """Own a unit, connect, and publish as fast as it is told, until killed or told to end."""
    address: Address = tuple(options.address)
    process = ProcessControlClient(address)
    await process.register([f"CHURNING{options.number}"])
    async with GraphContext(address) as context:
        await context.register_metadata(metadata(f"CHURNING{options.number}"))
        topics = random.sample(range(CHURN_TOPICS), 5)
        publishers = [await context.publisher(f"CHURN{topic}") for topic in topics]
        subscriber = await context.subscriber(f"HEARS{options.number}")
        for topic in random.sample(range(CHURN_TOPICS), 5):
            await context.connect(f"CHURN{topic}", f"HEARS{options.number}")
        say("ready")
        # A task of its own: those who receive only between two broadcasts may all wait for each other.
        hearing = asyncio.create_task(hear(subscriber))
        end = asyncio.create_task(orders.next())
        while not end.done():
            for publisher in publishers:
                await publisher.broadcast(LARGE if random.random() < 0.1 else SMALL)
            await process.report_settings_update(f"CHURNING{options.number}", {"gain": random.random()})
            await asyncio.wait([end], timeout=PERIOD_S)
        hearing.cancel()
        await asyncio.wait([hearing])
    await process.close()


async def hear(subscriber: Any) -> None:
    """Receive whatever comes."""
    while True:
        await subscriber.recv()


# -- a slow reader ----------------------------------------------------------------------------------------------------


async def reader(orders: Orders, options: argparse.Namespace) -> None:
    """Read events, one every so many seconds, and see that none is missing that it was not told of."""
    context = GraphContext(tuple(options.address))
    streams = {"topology": context.subscribe_topology_events, "settings": context.subscribe_settings_events}
    stream = streams[options.kind]()
    end = asyncio.create_task(orders.next())
    read = missed = wrong = seq = 0

    async def go_on() -> None:
        nonlocal read, missed, wrong, seq
        async for event in stream:
            wrong += event.seq != seq + event.missed + 1
            seq, missed, read = event.seq, missed + event.missed, read + 1
            await asyncio.sleep(options.pause)

    reading = asyncio.create_task(go_on())
    say("ready")
    await asyncio.wait([end, reading], return_when=asyncio.FIRST_COMPLETED)
    failures = [repr(reading.exception())] if reading.done() else []
    reading.cancel()
    await asyncio.wait([reading])
    await stream.aclose()
    say({"read": read, "missed": missed, "wrong": wrong, "failures": failures})
    await orders.next()


# -- all of it --------------------------------------------------------------------------------------------------------


async def stable(orders: Orders, options: argparse.Namespace) -> None:
    await Stable(options).run(orders)


ROLES = {"serve": serve, "stable": stable, "churning": churning, "reader": reader}


async def main(options: argparse.Namespace) -> None:
    orders = await Orders().open()
    try:
        await ROLES[options.role](orders, options)
    except (EzmsgError, OSError):
        if options.role != "churning":
            raise  # that one may be killed at any moment, and its partners with it
    finally:
        orders.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("role", choices=list(ROLES))
    parser.add_argument("--host", default="")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--number", type=int, default=0)
    parser.add_argument("--stable", type=int, default=1)
    parser.add_argument("--topics", type=int, default=1)
    parser.add_argument("--age", type=int, default=AGE)
    parser.add_argument("--kind", default="topology")
    parser.add_argument("--pause", type=float, default=0.0)
    parsed = parser.parse_args()
    parsed.address = [parsed.host, parsed.port]
    random.seed(os.getpid())
    asyncio.run(main(parsed))
