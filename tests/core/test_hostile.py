"""Hostile connections beside a working graph: it loses no message, and the log stays readable."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.net import listener
from ezmsg.core.wire.limits import HANDSHAKE_TIMEOUT_S
from tests.hostile import KINDS, attack

ATTACKS = 2000
AT_ONCE = 200


@pytest.mark.timeout(300)
async def test_2000_hostile_connections_cost_a_working_graph_no_message(
    server: GraphServer, context: GraphContext, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "HANDSHAKE_TIMEOUT_S", HANDSHAKE_TIMEOUT_S)  # of users, who wait less than tests
    await context.connect("A", "B")
    subscriber = await context.subscriber("B")
    publisher = await context.publisher("A", allow_local=False)
    targets = [server.address, publisher._listener.address, publisher._listener.door]
    received: list[int] = []
    is_over = asyncio.Event()

    async def publish() -> int:
        for number in itertools.count():
            if is_over.is_set():
                return number
            await publisher.broadcast(number)
            await asyncio.sleep(0.001)
        raise AssertionError("unreachable")

    async def receive() -> None:
        while True:
            received.append(await subscriber.recv())

    publishing, receiving = asyncio.create_task(publish()), asyncio.create_task(receive())
    room = asyncio.Semaphore(AT_ONCE)

    async def one(kind: str, number: int) -> None:
        async with room:
            await attack(targets[number % len(targets)], kind)

    with caplog.at_level(logging.WARNING, "ezmsg"):
        kinds = itertools.cycle(KINDS)
        await asyncio.gather(*(one(next(kinds), number) for number in range(ATTACKS)))
        is_over.set()
        sent = await publishing
        await publisher.sync()

    receiving.cancel()
    assert received == list(range(sent))
    assert sent > 100
    # New peers are welcome at once.
    async with GraphContext(server.address) as late:
        await late.connect("X", "Y")
    # Every kind is told of, and none of them fills the log.
    text = caplog.text
    assert "handshake" in text
    assert len(caplog.records) < ATTACKS / 4
