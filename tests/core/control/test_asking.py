"""Nobody waits without end for a server that stands still."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ezmsg.core import control
from ezmsg.core.control import asking
from ezmsg.core.errors import RequestTimeout
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer, GraphService
from ezmsg.core.server import peers
from ezmsg.core.wire.records import Done, GetServerStatus, Shutdown
from tests.core.conftest import StartProcess


async def test_a_session_does_not_wait_for_a_server_that_was_stopped(
    start_process: StartProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ALIVE_INTERVAL_S", 0.05)
    monkeypatch.setattr(asking, "GRAPH_TIMEOUT_S", 0.2)
    monkeypatch.setattr("ezmsg.core.graphcontext.FLOW_TIMEOUT_S", 0.2)
    monkeypatch.setattr("ezmsg.core.graphcontext.CLOSE_TIMEOUT_S", 0.1)
    worker = await start_process("serve")
    async with GraphContext(worker.ready) as context:
        await worker.halt()
        for call, name in ((context.sync(), "Sync"), (context.pause(), "Pause"), (context.resume(), "Resume")):
            with pytest.raises(RequestTimeout, match=f"did not answer {name} within 0.2 s"):
                await call


async def test_the_service_does_not_wait_for_a_server_that_was_stopped(
    start_process: StartProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "DIAL_TIMEOUT_S", 0.1)
    worker = await start_process("serve")
    await worker.halt()
    service = GraphService(worker.ready)
    for call in (service.sync(), service.pause(), service.dag(), service.status(), service.shutdown()):
        with pytest.raises(TimeoutError):
            await call


async def test_a_sync_without_limit_goes_on_as_long_as_the_server_lives(
    server: GraphServer, context: GraphContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ALIVE_INTERVAL_S", 0.01)
    asked: list[object] = []
    answer = peers.HANDLERS[GetServerStatus]

    def counted(*request: Any) -> Any:
        asked.append(request)
        return answer(*request)

    monkeypatch.setitem(peers.HANDLERS, GetServerStatus, counted)
    subscriber = await context.subscriber("A")
    publisher = await context.publisher("A")
    await publisher.broadcast(1)
    syncing = asyncio.create_task(context.sync())
    async with asyncio.timeout(40):
        while len(asked) < 3:
            await asyncio.sleep(0.01)
    assert not syncing.done()
    await subscriber.recv()
    await syncing


async def test_a_sync_with_a_limit_ends_with_it(server: GraphServer, context: GraphContext) -> None:
    await context.subscriber("A")
    await (await context.publisher("A")).broadcast(1)
    for call in (context.sync(0.05), GraphService(server.address).sync(0.05)):
        with pytest.raises(TimeoutError):
            await call


async def test_an_end_that_does_not_come_is_an_error(server: GraphServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "SHUTDOWN_TIMEOUT_S", 0.05)
    monkeypatch.setitem(peers.HANDLERS, Shutdown, lambda *_: Done())
    with pytest.raises(RequestTimeout, match="did not answer Shutdown"):
        await GraphService(server.address).shutdown()
