"""What a GraphServer that succeeds a lost one knows, and what everybody makes of it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import pytest

from ezmsg.core import processclient
from ezmsg.core.control import ControlClient
from ezmsg.core.errors import ConnectionLost, UnitAlreadyOwned
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import Edge, ProfilingStreamControl, ProfilingTraceControl, TopologyChangedEvent
from ezmsg.core.graphserver import GraphServer, GraphService
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.profiling import PROFILES
from ezmsg.core.pubclient import Publisher
from ezmsg.core.server import core
from ezmsg.core.subclient import Subscriber
from ezmsg.core.wire import records as r
from ezmsg.core.wire.limits import EVENT_WINDOW
from tests.core import metadatamaking
from tests.core.control.scriptedserver import ScriptedServer
from tests.core.mortalserver import Successors
from tests.core.relaying import Relay
from tests.core.test_hostile_control import Hostile

PATIENCE_S = 40.0


@pytest.fixture
def servers() -> Iterator[Successors]:
    servers = Successors()
    yield servers
    servers.close()


@pytest.fixture
async def relay(servers: Successors) -> AsyncIterator[Relay]:
    """The way to the server of somebody who may be late."""
    relay = Relay(servers.address)
    await relay.open()
    yield relay
    await relay.end()


@pytest.fixture
async def context(servers: Successors) -> AsyncIterator[GraphContext]:
    async with GraphContext(servers.address) as context:
        yield context


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.001)


async def restart(servers: Successors, *contexts: GraphContext) -> None:
    """Lose the server, let these sessions notice, and start the next."""
    servers.server.die()
    await until(lambda: not any(context._session is not None and context._session.is_up for context in contexts))
    servers.start()


def settled(servers: Successors) -> bool:
    """Whether the server knows its graph, and has told so."""
    return not any("settle" in str(task) for task in asyncio.all_tasks(servers.server._loop))


async def received(subscriber: Subscriber, count: int) -> list[Any]:
    async with asyncio.timeout(PATIENCE_S):
        return [await subscriber.recv() for _ in range(count)]


# -- who claims what somebody else has by now -------------------------------------------------------------------------


async def test_units_that_another_process_claimed_meanwhile_are_lost_and_that_is_told(
    servers: Successors, context: GraphContext, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    late, early = ProcessControlClient(relay.address), ProcessControlClient(servers.address)
    await late.register(["U", "V"])
    await late.report_settings_update("U", 1)
    await late.report_settings_update("V", 2)
    await relay.close()
    await restart(servers, context)
    await early.register(["U"])
    await early.report_settings_update("U", 3)
    await relay.open()
    async with asyncio.timeout(PATIENCE_S):
        while len(await context.settings_snapshot()) < 2:
            await asyncio.sleep(0.001)
    processes = (await context.snapshot()).processes
    assert {early.client_id: ["U"], late.client_id: ["V"]} == {key: entry.units for key, entry in processes.items()}
    assert {key: value.repr_value for key, value in (await context.settings_snapshot()).items()} == {"U": "3", "V": "2"}
    assert "lost units to other processes: {'U': " in caplog.text
    with pytest.raises(RuntimeError, match="PROCESS_SETTINGS_UPDATE"):
        await late.report_settings_update("U", 4)
    assert (await context.process_stats(process_id=late.client_id)).owned_units == ["V"]
    # It does not claim it again, and may have it again.
    await early.close()
    await restart(servers, context)
    await until(lambda: late._control is not None and late._control.is_up)
    await late.update_ownership(added_units=["U"])
    with pytest.raises(UnitAlreadyOwned):
        await early.register(["U"])
    await early.close()
    await late.close()


async def test_settings_that_were_reported_while_there_was_no_server_are_told_to_the_next(
    servers: Successors, context: GraphContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = ProcessControlClient(servers.address)
    await process.register(["U"])
    await process.report_settings_update("U", 1)
    servers.server.die()
    await until(lambda: process._control is not None and not process._control.is_up)
    monkeypatch.setattr(processclient, "COMMAND_TIMEOUT_S", 0.1)
    for unit in ("U", "OTHER"):
        with pytest.raises(RuntimeError, match=r"PROCESS_SETTINGS_UPDATE: .* is not back"):
            await process.report_settings_update(unit, 2)
    monkeypatch.undo()
    servers.start()
    await until(lambda: process._control is not None and process._control.is_up)
    settings = await context.settings_snapshot()
    assert {address: value.repr_value for address, value in settings.items()} == {"U": "2"}
    await process.close()


async def test_metadata_and_edges_that_do_not_fit_any_more_are_lost_and_that_is_told(
    servers: Successors, context: GraphContext, relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    async with GraphContext(relay.address) as late:
        await late.connect("A", "B")
        await late.connect("B", "C")
        await late.register_metadata(metadatamaking.graph("ROOT/U"))
        await relay.close()
        await restart(servers, context, late)
        await context.connect("C", "B")
        await context.register_metadata(metadatamaking.graph("ROOT/U"))
        await relay.open()
        for _ in range(2):
            await until(lambda: all(c._session is not None and c._session.is_up for c in (late, context)))
            snapshot = await late.snapshot()
            mine, other = (snapshot.sessions[str(c._session_id)] for c in (late, context))
            assert mine.edges == [Edge("A", "B")]
            assert (mine.metadata, other.metadata is None) == (None, False)
            await restart(servers, context, late)  # it is the same again
        assert (
            "lost edges that would now close a cycle (or are more than the server takes): [('B', 'C')]" in caplog.text
        )
        assert "lost its metadata: " in caplog.text
        await late.disconnect("B", "C")


async def test_an_edge_that_is_reverted_before_its_maker_has_the_answer_does_not_come_back(
    servers: Successors, context: GraphContext
) -> None:
    applied = asyncio.Event()

    async def apply(record: r.Record) -> r.Record:
        await applied.wait()
        return r.Done()

    slow = Hostile()
    slow.answer = apply
    client = await ControlClient.connect(servers.address, slow, name="slow subscriber")
    await client.request(r.OpenSubscriber(str(uuid4()), "B", 1, "boot"))
    await context.publisher("A")
    connecting = asyncio.create_task(context.connect("A", "B"))
    await until(lambda: slow.asked)
    reverting = asyncio.create_task(context.revert())
    await until(lambda: len(slow.asked) == 3)  # of the edge, the end of the publisher, and the end of the edge
    applied.set()
    await asyncio.gather(connecting, reverting)
    await client.close()
    await restart(servers, context)
    assert (await context.snapshot()).graph == {}


async def test_a_session_that_is_reverted_while_it_comes_back_is_reverted_at_the_server() -> None:
    host = ScriptedServer()
    opened = asyncio.Event()

    async def open_later(record: r.Record) -> r.Record:
        await opened.wait()
        return r.SessionOpened("", "epoch")

    host.answer = lambda record: r.SessionOpened("", "") if isinstance(record, r.OpenSession) else r.Done()
    await host.up()
    async with GraphContext(host.address) as context:
        await context.connect("A", "B")
        host.answer = lambda record: open_later(record) if isinstance(record, r.OpenSession) else r.Done()
        await host.restart()
        asked = [await asyncio.wait_for(host.asked.get(), PATIENCE_S) for _ in range(3)]
        assert asked[-1].edges == [("A", "B")]
        await context.revert()
        opened.set()
        assert isinstance(await asyncio.wait_for(host.asked.get(), PATIENCE_S), r.RevertSession)
        await until(lambda: context._session is not None and context._session.is_up)
    await host.close()


# -- who is late ------------------------------------------------------------------------------------------------------


@pytest.fixture
def over(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Set when the time is over that a successor waits for who may come back."""
    over = threading.Event()
    settle = core.GraphCore._settle

    async def settle_when_it_is_over(graph: core.GraphCore) -> None:
        await asyncio.to_thread(over.wait, PATIENCE_S)
        await settle(graph)

    monkeypatch.setattr(core, "RETURN_S", 0.0)
    monkeypatch.setattr(core.GraphCore, "_settle", settle_when_it_is_over)
    yield over
    over.set()


async def test_a_publisher_that_is_back_after_the_window_loses_no_message(
    servers: Successors, context: GraphContext, relay: Relay, over: threading.Event
) -> None:
    await context.connect("A", "B")
    publisher = await Publisher.create("A", relay.address, allow_local=False)
    subscriber = await context.subscriber("B")
    await relay.close()
    servers.server.die()
    await until(lambda: context._session is not None and not context._session.is_up and not subscriber._control.is_up)
    servers.start()
    await publisher.broadcast(1)
    await until(lambda: context._session is not None and context._session.is_up and subscriber._control.is_up)
    over.set()
    await until(lambda: settled(servers))
    await context.snapshot()
    await publisher.broadcast(2)
    await relay.open()
    await until(lambda: publisher._control.is_up)
    await publisher.broadcast(3)
    assert await received(subscriber, 3) == [1, 2, 3]
    publisher.close()
    await publisher.wait_closed()
    await until(lambda: not subscriber._subscriptions)


@pytest.mark.parametrize("is_claimed", [True, False])
async def test_a_subscriber_that_is_back_after_the_window_loses_only_what_nobody_claimed(
    servers: Successors,
    context: GraphContext,
    relay: Relay,
    over: threading.Event,
    is_claimed: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await context.connect("A", "B")
    publisher = await context.publisher("A", allow_local=False)
    subscriber = await Subscriber.create("B", relay.address)
    await relay.close()
    servers.server.die()
    if not is_claimed:
        await context._close_session()
    await until(lambda: not publisher._control.is_up and (context._session is None or not context._session.is_up))
    servers.start()
    await until(lambda: publisher._control.is_up)
    if is_claimed:
        await until(lambda: context._session is not None and context._session.is_up)
    over.set()
    await until(lambda: settled(servers))
    await publisher.broadcast(1)
    await relay.open()
    if is_claimed:
        await until(lambda: subscriber._control.is_up)
        assert await received(subscriber, 1) == [1]
    else:
        await until(lambda: not subscriber._subscriptions)
        await until(lambda: "lost A: nobody told the GraphServer that is there now of a way from it" in caplog.text)
    subscriber.close()
    await subscriber.wait_closed()


async def test_pausing_and_resuming_reach_publishers_that_are_not_back_yet(
    servers: Successors, context: GraphContext, relay: Relay, over: threading.Event
) -> None:
    publisher = await Publisher.create("A", relay.address)
    await context.pause()
    assert not publisher.running
    await relay.close()
    await until(lambda: not publisher._control.is_up)
    await restart(servers, context)
    resuming = asyncio.create_task(context.resume())
    await context.snapshot()
    await relay.open()
    await until(lambda: publisher._control.is_up)
    over.set()
    await resuming
    assert publisher.running
    publisher.close()
    await publisher.wait_closed()


# -- streams ----------------------------------------------------------------------------------------------------------


async def some(stream: Any, count: int) -> list[TopologyChangedEvent]:
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(stream) for _ in range(count)]


async def test_a_slow_reader_of_a_stream_of_four_servers_is_told_what_it_missed(
    servers: Successors, context: GraphContext
) -> None:
    stream = context.subscribe_topology_events()
    async with aclosing(stream):
        await context.connect("A", "B")
        events = await some(stream, 1)
        for number in range(3):
            for _ in range(50):
                await context.connect("X", "Y")
                await context.disconnect("X", "Y")
            # The reader does not read: what was not on its way to it is lost with the server.
            await restart(servers, context)
            await context.connect("A", f"{number}")
        last = ""
        while last != "2":
            events += await some(stream, 1)
            last = events[-1].changed_topics[-1]
        gaps = [index for index, event in enumerate(events) if event.gap]
        # Where its window was full, a server came and went that could tell it nothing.
        assert 1 <= len(gaps) <= 3
        assert {events[index].seq for index in gaps} == {1}
        assert gaps[0] <= EVENT_WINDOW + 1
        for before, after in itertools.pairwise(events):
            assert after.gap or (after.seq == before.seq + 1 + after.missed and not after.missed)
        # All that was kept for it is there: the window goes on over all connections.
        for _ in range(2 * EVENT_WINDOW):
            await context.connect("X", "Y")
            await context.disconnect("X", "Y")
        more = await some(stream, 4 * EVENT_WINDOW)
        assert [event.seq for event in more] == [events[-1].seq + 1 + n for n in range(4 * EVENT_WINDOW)]


async def test_what_waits_for_a_reader_is_bounded_however_often_its_server_is_lost(
    servers: Successors, context: GraphContext
) -> None:
    stream = context.subscribe_topology_events()
    async with aclosing(stream):
        await context.connect("A", "B")
        [first] = await some(stream, 1)
        reader: Any = stream._ending  # type: ignore[attr-defined]
        for _ in range(3):
            await restart(servers, context)
            for _ in range(EVENT_WINDOW):
                await context.connect("X", "Y")
                await context.disconnect("X", "Y")
            assert reader._events.qsize() <= EVENT_WINDOW
        assert first.seq == 1


@pytest.mark.parametrize("kind", ["topology", "settings"])
async def test_a_stream_that_only_loses_its_connection_has_no_gap_and_no_event_twice(
    servers: Successors, relay: Relay, kind: str
) -> None:
    process = ProcessControlClient(servers.address)
    await process.register(["U"])
    async with GraphContext(relay.address) as context, GraphContext(servers.address) as other:
        stream = context.subscribe_topology_events() if kind == "topology" else context.subscribe_settings_events()
        seqs: list[int] = []
        async with aclosing(stream), asyncio.timeout(PATIENCE_S):
            for number in range(1, 5):
                for value in range(EVENT_WINDOW):
                    if kind == "topology":
                        await (other.connect if value % 2 == 0 else other.disconnect)("X", "Y")
                    else:
                        await process.report_settings_update("U", value)
                while len(seqs) < number * EVENT_WINDOW - 10 * (number % 2):
                    event = await anext(stream)
                    assert (event.gap, event.missed) == ("", 0)
                    seqs.append(event.seq)
                    if len(seqs) % 50 == 0:
                        await relay.close()
                        await relay.open()
        assert seqs == list(range(1, len(seqs) + 1))
    await process.close()


@pytest.mark.parametrize("whose", ["stream", "process"])
async def test_a_profiling_stream_sees_each_sample_once_whoever_loses_the_connection(
    servers: Successors, relay: Relay, whose: str
) -> None:
    addresses = {"stream": relay.address, "process": servers.address}
    if whose == "process":
        addresses = {"stream": servers.address, "process": relay.address}
    process = ProcessControlClient(addresses["process"])
    await process.register(["U"])
    publisher = await Publisher.create("T", addresses["process"])
    subscriber = await Subscriber.create("T", addresses["process"])
    PROFILES.set_trace_control(ProfilingTraceControl(enabled=True, metrics=["lease_time_ns"]))
    control = ProfilingStreamControl(interval=0.01)
    seen: list[int] = []
    async with (
        GraphContext(addresses["stream"]) as context,
        aclosing(context.subscribe_profiling_trace(control)) as stream,
    ):
        for number in range(4):
            for _ in range(100):
                await publisher.broadcast(0)
                await received(subscriber, 1)
            last = 100 * (number + 1) - 1
            async with asyncio.timeout(PATIENCE_S):
                while last not in seen:
                    batch = await anext(stream)
                    assert batch.gap == ""
                    for each in batch.batches.values():
                        seen += [sample.sample_seq for sample in each.samples]
            await relay.close()
            await relay.open()
            await until(lambda: process._control is not None and process._control.is_up)
    assert seen == list(range(400))
    PROFILES.set_trace_control(ProfilingTraceControl(enabled=False))
    for client in (publisher, subscriber):
        client.close()
        await client.wait_closed()
    await process.close()


async def test_profiling_works_again_at_the_next_server_under_the_same_ids(
    servers: Successors, context: GraphContext
) -> None:
    process = ProcessControlClient(servers.address)
    await process.register(["U"])
    publisher, subscriber = await context.publisher("T"), await context.subscriber("T")
    control = ProfilingStreamControl(interval=0.01)
    sent = 0
    async with aclosing(context.subscribe_profiling_trace(control)) as stream:
        for _ in range(3):
            control_ = ProfilingTraceControl(enabled=True, metrics=["lease_time_ns"])
            assert (await context.process_set_profiling_trace("U", control_)).ok
            await publisher.broadcast(0)
            await received(subscriber, 1)
            sent += 1
            snapshot = await context.process_profiling_snapshot("U")
            assert snapshot.process_id == process.client_id
            assert sum(each.messages_published_total for each in snapshot.publishers.values()) == sent
            assert (await context.process_profiling_trace_batch("U")).samples
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    batch = await anext(stream)
                    assert batch.batches.keys() == {process.client_id}
                    if batch.batches[process.client_id].samples[-1].sample_seq == sent - 1:
                        break
            await restart(servers, context)
            await context.snapshot()
            await until(lambda: process._control is not None and process._control.is_up)
    PROFILES.set_trace_control(ProfilingTraceControl(enabled=False))
    await process.close()


# -- an orderly end ---------------------------------------------------------------------------------------------------


async def test_a_server_that_is_stopped_from_a_coroutine_of_its_peers_is_not_looked_for(
    servers: Successors, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    process = ProcessControlClient(servers.address)
    await process.register(["U"])
    async with GraphContext(servers.address) as context:
        publisher, subscriber = await context.publisher("T"), await context.subscriber("T")
        events = context.subscribe_topology_events()
        profile = context.subscribe_profiling_trace(ProfilingStreamControl(interval=0.01, include_empty_batches=True))
        await asyncio.wait_for(anext(events), PATIENCE_S)
        await asyncio.wait_for(anext(profile), PATIENCE_S)
        servers.server.stop()
        # At once: nothing of the end was heard yet.
        for ask in (context.connect("A", "B"), context.snapshot(), process.register(["V"])):
            with pytest.raises((ConnectionLost, RuntimeError)):
                await ask
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(anext(events), PATIENCE_S)
        async with asyncio.timeout(PATIENCE_S):
            assert [batch.gap async for batch in profile if batch.gap] == []
        assert (events.ended, profile.ended) == ("the GraphServer stops",) * 2  # type: ignore[attr-defined]
        # The next one at this address is another graph.
        servers.start()
        assert not servers.server._journal.found
        with pytest.raises(ConnectionLost, match="the GraphServer stops"):
            await context.snapshot()
        await publisher.broadcast(1)
        assert await received(subscriber, 1) == [1]
        async with GraphContext(servers.address) as other:
            snapshot = await other.snapshot()
            assert (snapshot.graph, snapshot.processes, len(snapshot.sessions)) == ({}, {}, 1)
    await process.close()
    assert "looking for it" not in caplog.text


async def test_a_server_of_a_context_ends_in_order_with_it() -> None:
    service = GraphService()
    async with GraphContext(auto_start=True) as context:
        service = GraphService(context.graph_address)
        process = ProcessControlClient(context.graph_address)
        await process.register(["U"])
        stream = GraphContext(context.graph_address).subscribe_topology_events()
        await asyncio.wait_for(anext(stream), PATIENCE_S)
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(anext(stream), PATIENCE_S)
    with pytest.raises(RuntimeError, match="the GraphServer stops"):
        await process.register(["V"])
    await process.close()
    server = GraphServer()
    server.start(service.address)
    assert (await service.dag()).nodes == set()
    server.stop()
