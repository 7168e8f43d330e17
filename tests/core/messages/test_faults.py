"""Processes that are killed: the others go on, leases are released, the graph is right, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer
from tests.core.workerprocess import Worker

WORKER = Path(__file__).with_name("worker.py")


class Workers:
    """Starts workers and ends them with the test."""

    def __init__(self, address: str, *options: str) -> None:
        self._address = address
        self._options = options
        self._all: list[Worker] = []

    async def start(self, role: str, topic: str = "T") -> Worker:
        worker = Worker(
            subprocess.Popen(
                [sys.executable, str(WORKER), role, self._address, topic, *self._options],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        self._all.append(worker)
        worker.ready = await worker.line()
        assert worker.ready.startswith("ready")
        return worker

    async def end(self) -> None:
        for worker in self._all:
            await worker.end()


@pytest.fixture(params=["shm", "force_tcp"])
async def workers(server: GraphServer, request: pytest.FixtureRequest) -> AsyncIterator[Workers]:
    workers = Workers(str(server.address), request.param)
    yield workers
    await workers.end()


async def until_graph(context: GraphContext, topic: str, *, present: bool) -> None:
    """Wait until the graph does (not) know a topic; a process's end shows at once, not when its silence is noticed."""
    async with asyncio.timeout(40):
        while (topic in (await context.snapshot()).graph) is not present:
            await asyncio.sleep(0.01)


async def test_messages_flow_between_processes(context: GraphContext, workers: Workers) -> None:
    subscriber = await context.subscriber("T")
    worker = await workers.start("publish")
    for number in range(2000):
        async with asyncio.timeout(40), subscriber.recv_zero_copy() as message:
            assert message[0] == number
    subscriber.close()
    assert await worker.end() == 0


async def test_a_killed_publisher_leaves_its_subscriber_with_what_arrived_and_ready_for_the_next(
    context: GraphContext, workers: Workers
) -> None:
    subscriber = await context.subscriber("T")
    first = await workers.start("publish")
    for _ in range(100):
        await asyncio.wait_for(subscriber.recv(), 40)
    await first.kill()
    second = await workers.start("publish")
    async with asyncio.timeout(40):
        while (await subscriber.recv())[0] != 0:
            pass
        assert (await subscriber.recv())[0] == 1
    subscriber.close()
    assert await second.end() == 0


async def test_a_killed_subscriber_releases_what_it_held(context: GraphContext, workers: Workers) -> None:
    holder = await workers.start("hold")
    publisher = await context.publisher("T", num_buffers=2)
    await publisher.broadcast(np.zeros(10))
    await publisher.broadcast(np.zeros(10))
    assert await holder.line() == "holding"
    blocked = asyncio.create_task(publisher.broadcast(np.zeros(10)))
    await holder.kill()
    await asyncio.wait_for(blocked, 40)
    await asyncio.wait_for(publisher.sync(), 40)


async def test_a_killed_subscriber_does_not_disturb_another(context: GraphContext, workers: Workers) -> None:
    survivor = await context.subscriber("T")
    victim = await workers.start("subscribe")
    await workers.start("publish")
    await victim.line()
    received: list[int] = []

    async def receive(count: int) -> None:
        for _ in range(count):
            async with asyncio.timeout(40), survivor.recv_zero_copy() as message:
                received.append(int(message[0]))

    await receive(500)
    await victim.kill()
    await receive(2000)
    assert received == list(range(received[0], received[0] + 2500))
    survivor.close()


async def test_when_both_ends_are_killed_the_graph_forgets_both(context: GraphContext, workers: Workers) -> None:
    subscriber = await workers.start("subscribe")
    publisher = await workers.start("publish")
    await subscriber.line()
    await asyncio.gather(subscriber.kill(), publisher.kill())
    # Whoever comes next starts afresh.
    again = await context.subscriber("T")
    local = await context.publisher("T")
    await local.broadcast("fresh")
    assert await asyncio.wait_for(again.recv(), 40) == "fresh"


async def test_a_forked_child_that_lives_on_does_not_hide_the_death_of_its_parent(
    context: GraphContext, workers: Workers
) -> None:
    parent = await workers.start("idle")
    child = int(parent.ready.split()[1])
    try:
        await until_graph(context, "T/BEHIND", present=True)
        assert [process.units for process in (await context.snapshot()).processes.values()] == [["T/UNIT"]]
        await parent.kill()
        await until_graph(context, "T/BEHIND", present=False)
        async with asyncio.timeout(40):
            # Its connections are seen to be lost one after the other.
            while (snapshot := await context.snapshot()).processes:
                await asyncio.sleep(0.01)
        assert len(snapshot.sessions) == 1
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


async def test_messages_go_on_when_the_server_stops(
    server: GraphServer, context: GraphContext, workers: Workers
) -> None:
    subscriber = await context.subscriber("T")
    await workers.start("publish")
    for _ in range(100):
        await asyncio.wait_for(subscriber.recv(), 40)
    await asyncio.to_thread(server.stop)
    for _ in range(1000):
        await asyncio.wait_for(subscriber.recv(), 40)
    subscriber.close()
