"""A stream of events and what its server is told: where it was, and what it took."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from ezmsg.core.control.eventstream import event_stream
from ezmsg.core.wire.records import EventAck, OpenEventStream, Record, StreamOpened, TopologyEvent
from tests.core.control.scriptedserver import ScriptedServer

PATIENCE_S = 40.0


@pytest.fixture
async def host() -> AsyncIterator[ScriptedServer]:
    host = ScriptedServer()
    host.answer = lambda record: StreamOpened("one")
    await host.up()
    yield host
    await host.close()


async def told(queue: asyncio.Queue[Record]) -> Record:
    return await asyncio.wait_for(queue.get(), PATIENCE_S)


def send(host: ScriptedServer, *seqs: int) -> None:
    for seq in seqs:
        host.connections[-1].notify(TopologyEvent(seq=seq, timestamp=1.0, event_type="GRAPH_CHANGED"))


async def test_what_was_taken_while_there_was_no_server_is_acknowledged_to_the_next(
    host: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    stream = event_stream(host.address, "topology", 7, TopologyEvent, lambda event, gap: (event.seq, gap))
    async with aclosing(stream), asyncio.timeout(PATIENCE_S):
        first = asyncio.create_task(anext(stream))
        assert await told(host.asked) == OpenEventStream("topology", 7)
        send(host, 8, 9, 10)
        assert await first == (8, "")
        await host.down()
        while f"lost the GraphServer at {host.address}" not in caplog.text:
            await asyncio.sleep(0.001)
        assert await anext(stream) == (9, "")
        assert await anext(stream) == (10, "")
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        await host.up()
        assert await told(host.asked) == OpenEventStream("topology", 10, "one", unacknowledged=3)
        # Or it would wait for what the server may not send.
        assert await told(host.told) == EventAck(3)
        send(host, 11)
        assert await waiting == (11, "")


async def test_another_server_is_told_in_the_first_event_from_it(host: ScriptedServer) -> None:
    stream = event_stream(host.address, "topology", 0, TopologyEvent, lambda event, gap: (event.seq, gap))
    async with aclosing(stream), asyncio.timeout(PATIENCE_S):
        first = asyncio.create_task(anext(stream))
        await told(host.asked)
        send(host, 1, 2)
        assert await first == (1, "")
        host.answer = lambda record: StreamOpened("two")
        await host.restart()
        assert (await told(host.asked)).epoch == "one"  # type: ignore[attr-defined]
        send(host, 1, 2)
        assert await anext(stream) == (2, "")
        seq, gap = await anext(stream)
        assert (seq, "was lost; another one is there, which counts anew" in gap) == (1, True)
        assert await anext(stream) == (2, "")
