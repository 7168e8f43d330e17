"""The GraphServer is killed: messages go on, and at the next one at its address everybody is back with all they own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ezmsg.core.errors import ConnectionLost, ServerUnreachable
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import GraphSnapshot, ProfilingStreamControl
from ezmsg.core.graphserver import GraphService
from ezmsg.core.net.address import Address
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.pubclient import Publisher
from ezmsg.core.server.journal import journal_path
from ezmsg.core.subclient import Subscriber
from tests.core import metadatamaking
from tests.core.conftest import StartProcess
from tests.core.workerprocess import Worker
from tests.ports import KeptPort

# Everybody is back within 2 s on a machine that is not busy; here others run, too.
BACK_S = 40.0
NURSERY = Path(__file__).with_name("servernursery.py")
LOSS_WORKER = Path(__file__).with_name("lossworker.py")


class Restartable:
    """A GraphServer in a process of its own that can be killed, and started again at its address."""

    def __init__(self, address: str, nursery: Worker) -> None:
        self.address = address
        self._nursery = nursery
        self.pid = 0

    async def start(self) -> None:
        await self._nursery.tell("start")
        self.pid = int((await self._nursery.line()).removeprefix("ready "))

    async def kill(self) -> None:
        await self._order("kill")

    async def ended(self) -> None:
        """Wait for its end."""
        await self._order("wait")

    async def _order(self, order: str) -> None:
        await self._nursery.tell(order)
        assert await self._nursery.line() == "ended"

    async def restart(self) -> None:
        await self.kill()
        await self.start()


@pytest.fixture
async def graph(start_process: StartProcess) -> AsyncIterator[Restartable]:
    with KeptPort() as port:
        address = str(port.address)
        graph = Restartable(address, await start_process(address, program=NURSERY))
        await graph.start()
        yield graph
        journal_path(port.address).unlink(missing_ok=True)


async def until(context: GraphContext, holds: Callable[[GraphSnapshot], Any]) -> GraphSnapshot:
    async with asyncio.timeout(BACK_S):
        while not holds(snapshot := await context.snapshot()):
            await asyncio.sleep(0.01)
        return snapshot


async def numbers(subscriber: Subscriber, count: int) -> list[int]:
    async with asyncio.timeout(BACK_S):
        return [await subscriber.recv() for _ in range(count)]


async def test_a_session_is_back_with_its_edges_and_metadata(graph: Restartable) -> None:
    async with GraphContext(graph.address) as context:
        await context.connect("A", "B")
        await context.connect("B", "C")
        await context.disconnect("B", "C")
        metadata = metadatamaking.graph("ROOT/U")
        await context.register_metadata(metadata)
        before = await context.snapshot()
        settings = await context.settings_snapshot()
        await graph.restart()
        assert await context.snapshot() == before
        assert await context.settings_snapshot() == settings
        await context.revert()
        await graph.restart()
        session = (await context.snapshot()).sessions[str(context._session_id)]
        assert session.edges == []
        assert session.metadata is None


async def test_a_process_is_back_under_its_id_with_its_units_and_settings(graph: Restartable) -> None:
    process = ProcessControlClient(graph.address)
    await process.register(["U", "V"])
    await process.report_settings_update("U", {"gain": 1})
    await process.report_settings_update("U", {"gain": 2})
    await process.report_settings_update("V", {"gain": 3})
    await process.update_ownership(removed_units=["V"])
    async with GraphContext(graph.address) as context:
        before = await context.snapshot()
        await graph.restart()
        snapshot = await until(context, lambda snapshot: snapshot.processes)
        assert snapshot.processes == before.processes
        async with asyncio.timeout(BACK_S):
            while "U" not in (settings := await context.settings_snapshot()):
                await asyncio.sleep(0.01)
        assert settings.keys() == {"U"}
        assert settings["U"].structured_value == {"gain": 2}
        assert (await context.process_ping("U")).process_id == process.client_id
    await process.close()


async def test_messages_flow_while_there_is_no_server_and_after_it_is_back(graph: Restartable) -> None:
    async with GraphContext(graph.address) as context:
        await context.connect("A", "B")
        publisher = await context.publisher("A")
        subscriber = await context.subscriber("B")
        await graph.kill()
        for number in range(100):
            await publisher.broadcast(number)
            assert await numbers(subscriber, 1) == [number]
        await graph.start()
        late = await context.subscriber("B")
        async with asyncio.timeout(BACK_S):
            while not late._subscriptions:
                await asyncio.sleep(0.01)
        await publisher.broadcast(100)
        assert await numbers(subscriber, 1) == [100]
        assert await numbers(late, 1) == [100]


async def test_an_established_edge_stays_until_the_server_knows_its_graph(graph: Restartable) -> None:
    """The session that owns the edge comes back last; meanwhile nothing is taken away."""
    owner = GraphContext(graph.address)
    await owner.__aenter__()
    await owner.connect("A", "B")
    publisher = await Publisher.create("A", graph.address)
    subscriber = await Subscriber.create("B", graph.address)
    await graph.kill()
    await owner._close_session()  # it will not come back
    await graph.start()
    async with GraphContext(graph.address) as context:
        await until(context, lambda snapshot: True)
        channel = next(iter(subscriber._subscriptions.values()))
        await publisher.broadcast(1)
        assert await numbers(subscriber, 1) == [1]
        # Then it is.
        async with asyncio.timeout(BACK_S):
            while subscriber._subscriptions:
                await asyncio.sleep(0.01)
        assert channel.channel.publisher_id == publisher.publisher_id
    for client in (publisher, subscriber):
        client.close()
        await client.wait_closed()
    await owner.__aexit__(None, None, None)


async def test_an_explicit_disconnect_holds_at_once_also_at_a_server_that_does_not_know_its_graph_yet(
    graph: Restartable,
) -> None:
    async with GraphContext(graph.address) as context:
        await context.connect("A", "B")
        publisher = await context.publisher("A")
        subscriber = await context.subscriber("B")
        await graph.restart()
        await context.snapshot()
        async with asyncio.timeout(BACK_S):
            while not subscriber._control.is_up:
                await asyncio.sleep(0.01)
        await context.disconnect("A", "B")
        assert not subscriber._subscriptions
        await publisher.broadcast(1)
        await asyncio.wait_for(publisher.sync(), 40)


async def test_persistent_edges_come_back_from_the_journal(graph: Restartable) -> None:
    service = GraphService(graph.address)
    for edge in (("A", "B"), ("B", "C"), ("X", "Y")):
        await service.connect(*edge)
    await service.disconnect("X", "Y")
    await graph.restart()
    dag = await service.dag()
    assert dag.edge_owners == {("A", "B"): {"persistent"}, ("B", "C"): {"persistent"}}


async def test_an_orderly_end_leaves_no_journal_and_nobody_looking_for_a_server(
    graph: Restartable, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "ezmsg")
    path = journal_path(Address.from_string(graph.address))
    service = GraphService(graph.address)
    await service.connect("A", "B")
    assert path.exists()
    async with GraphContext(graph.address) as context:
        await service.shutdown()
        await graph.ended()
        assert not path.exists()
        async with asyncio.timeout(BACK_S):
            while context._session.is_up:
                await asyncio.sleep(0.01)
        with pytest.raises(ConnectionLost, match="the GraphServer stops"):
            await context.snapshot()
        assert any("ended: messages go on" in message for message in caplog.messages)
        await graph.start()
        assert (await service.dag()).edge_owners == {}
        with pytest.raises(ConnectionLost, match="the GraphServer stops"):
            await context.snapshot()


async def test_what_is_asked_while_there_is_no_server_waits_as_long_as_its_time_limit_says(graph: Restartable) -> None:
    async with GraphContext(graph.address) as context:
        assert context.is_connected
        await graph.kill()
        async with asyncio.timeout(BACK_S):
            while context.is_connected:
                await asyncio.sleep(0.01)
        with pytest.raises(ConnectionLost, match=r"is not back after 1\.1 s"):
            await context.process_request("U", "ECHO", timeout=0.1)
        with pytest.raises(ServerUnreachable):
            await context.publisher("T")
        waiting = asyncio.create_task(context.connect("A", "B"))
        await graph.start()
        await asyncio.wait_for(waiting, BACK_S)
        assert context.is_connected
        assert "A" in (await context.snapshot()).graph
    assert not context.is_connected


async def test_a_context_is_left_at_once_while_there_is_no_server(graph: Restartable) -> None:
    async with GraphContext(graph.address) as context:
        await context.connect("A", "B")
        process = ProcessControlClient(graph.address)
        await process.register(["U"])
        await context.subscriber("B")
        await context.publisher("A")
        await graph.kill()
    await process.close()


async def test_a_stream_of_events_goes_on_at_the_next_server_and_tells_the_gap(graph: Restartable) -> None:
    async with GraphContext(graph.address) as context:
        stream = context.subscribe_topology_events()
        await context.connect("A", "B")
        first = await asyncio.wait_for(anext(stream), BACK_S)
        assert (first.seq, first.gap) == (1, "")
        await graph.restart()
        # The session comes back with its edge.
        back = await asyncio.wait_for(anext(stream), BACK_S)
        assert (back.seq, back.changed_topics) == (1, ["B"])
        assert "was lost" in back.gap
        await context.connect("B", "C")
        after = await asyncio.wait_for(anext(stream), BACK_S)
        assert (after.seq, after.changed_topics, after.gap) == (2, ["C"], "")
        assert stream.ended == ""
        await GraphService(graph.address).shutdown()
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(stream), BACK_S)
        assert stream.ended == "the GraphServer stops"


async def test_a_profiling_stream_goes_on_at_the_next_server_and_tells_the_gap(graph: Restartable) -> None:
    async with GraphContext(graph.address) as context:
        process = ProcessControlClient(graph.address)
        await process.connect()
        stream = context.subscribe_profiling_trace(ProfilingStreamControl(interval=0.01, include_empty_batches=True))
        batch = await asyncio.wait_for(anext(stream), BACK_S)
        assert batch.gap == ""
        await graph.restart()
        async with asyncio.timeout(BACK_S):
            while not batch.gap:
                batch = await anext(stream)
            while process.client_id not in batch.batches:
                batch = await anext(stream)
        await stream.aclose()
        await process.close()


@pytest.mark.timeout(300)  # on a busy machine each of the twenty may need seconds
async def test_restarting_it_twenty_times_under_load_loses_no_message_and_leaks_nothing(
    graph: Restartable, start_process: StartProcess
) -> None:
    receiver = await start_process("receive", graph.address, "shm", "tcp", program=LOSS_WORKER)
    senders = {way: await start_process("send", graph.address, way, way, program=LOSS_WORKER) for way in ("shm", "tcp")}
    workers = [*senders.values(), receiver]
    held: list[list[dict[str, int]]] = []
    async with GraphContext(graph.address) as context:
        before = await until(context, lambda snapshot: len(snapshot.processes) == 3)
        assert before.graph == {"shm": [], "shm/IN": ["shm"], "tcp": [], "tcp/IN": ["tcp"]}
        for _ in range(20):
            await graph.kill()
            async with asyncio.timeout(BACK_S):
                while context._session.is_up:
                    await asyncio.sleep(0.001)
            await graph.start()
            after = await until(context, lambda snapshot: snapshot == before)
            assert len(after.edge_owners) == 2
            for worker in workers:
                await worker.tell("held?")
            held.append([json.loads(await worker.line()) for worker in workers])
    sent: dict[str, int] = {}
    for worker in senders.values():
        await worker.tell("stop")
        sent |= json.loads(await worker.line())
    await receiver.tell("stop")
    assert json.loads(await receiver.line()) == sent
    assert min(sent.values()) > 200
    # One of anything more for each of them would be ten more; a few may be on their way back when they are counted.
    for each in range(3):
        for what in ("descriptors", "threads", "tasks"):
            counts = [holding[each][what] for holding in held]
            assert min(counts[10:]) < max(counts[:10]) + 5, (what, counts)
        assert held[-1][each]["megabytes"] <= held[4][each]["megabytes"] + 8
