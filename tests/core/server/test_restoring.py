"""What becomes of a session that takes the server many turns to open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from ezmsg.core.control import ControlClient
from ezmsg.core.errors import EzmsgError
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.net.guard import Guard
from ezmsg.core.server import core, restoring
from ezmsg.core.server.journal import Journal
from ezmsg.core.wire import records as r
from ezmsg.core.wire.frames import REQUEST, encode_frame
from tests.core.test_hostile_control import Hostile, raw

PATIENCE_S = 40.0
EDGES = [("A", "B"), *((f"X{number:04}", f"Y{number:04}") for number in range(500))]


@pytest.fixture(autouse=True)
def _slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """One edge in each turn of the server's loop."""
    monkeypatch.setattr(restoring, "SLICE_S", -1.0)


@contextlib.asynccontextmanager
async def peer(server: GraphServer) -> AsyncIterator[ControlClient]:
    client = await ControlClient.connect(server.address, Hostile(), name="peer")
    try:
        yield client
    finally:
        await client.close()


async def edges(context: GraphContext) -> list[tuple[str, str, list[str]]]:
    graph = await context._active().request(r.GetGraph(), r.GraphEdges)
    return graph.edges


async def until_begun(context: GraphContext) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await edges(context):
            await asyncio.sleep(0)


async def test_one_that_is_back_in_the_middle_of_it_is_opened_and_all_is_told(
    server: GraphServer, context: GraphContext
) -> None:
    publisher, subscriber = await context.publisher("A"), await context.subscriber("B")
    opening = r.OpenSession(str(uuid4()), "token", EDGES)
    async with peer(server) as lost, peer(server) as back:
        first = lost.connection.request_nowait(opening)
        await until_begun(context)
        assert await back.request(opening, r.SessionOpened, PATIENCE_S)
        assert len(await edges(context)) == len(EDGES)
        await publisher.broadcast("news")
        assert await asyncio.wait_for(subscriber.recv(), PATIENCE_S) == "news"
        with contextlib.suppress(EzmsgError):  # mostly
            await first


async def test_what_it_asks_next_comes_after_it(server: GraphServer, context: GraphContext) -> None:
    asked = (r.OpenSession(edges=EDGES), r.Connect("C", "D"))
    async with raw(server) as client:  # both at once
        frames = [encode_frame(*r.encode_record(record), n, REQUEST) for n, record in enumerate(asked, start=1)]
        await client.send_bytes(b"".join(frames))
        await client.replies(2)
        assert len(await edges(context)) == len(EDGES) + 1


@pytest.mark.parametrize("ending", [r.RevertSession(), r.CloseSession()])
async def test_nothing_is_left_of_one_that_ends_in_the_middle_of_it(
    server: GraphServer, context: GraphContext, ending: r.Record
) -> None:
    async with peer(server) as client:
        opened = client.connection.request_nowait(r.OpenSession(edges=EDGES))
        await client.request(ending, r.Done, PATIENCE_S)
        with contextlib.suppress(EzmsgError):
            await opened
        assert await edges(context) == []


async def test_it_goes_on_though_nobody_waits_for_it_any_more(server: GraphServer, context: GraphContext) -> None:
    async with peer(server) as client:
        opened = client.connection.request_nowait(r.OpenSession(edges=EDGES), revocable=True)
        await until_begun(context)
        opened.cancel()
        async with asyncio.timeout(PATIENCE_S):
            while len(await edges(context)) < len(EDGES):
                await asyncio.sleep(0)


async def test_an_edge_of_it_that_somebody_else_makes_meanwhile_carries(
    server: GraphServer, context: GraphContext
) -> None:
    publisher, subscriber = await context.publisher("A"), await context.subscriber("B")
    async with peer(server) as client:
        opened = client.connection.request_nowait(r.OpenSession(edges=EDGES))
        await until_begun(context)
        await context.connect("A", "B")
        await publisher.broadcast("news")
        assert await asyncio.wait_for(subscriber.recv(), PATIENCE_S) == "news"
        opened.cancel()


async def test_a_successor_that_is_about_to_open_some_does_not_know_its_graph_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core, "RETURN_S", 0.0)
    graph = core.GraphCore(asyncio.Event(), Guard(()), Journal())
    is_open = asyncio.Event()

    async def restore() -> None:
        await is_open.wait()

    graph.succeed()
    restoring = graph.restore(restore())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not graph.settled.is_set()
    is_open.set()
    async with asyncio.timeout(PATIENCE_S):
        await graph.settled.wait()
    assert restoring.done()
    await graph.close()
