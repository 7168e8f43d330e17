"""Events of topology, from outside: what is told, to whom, and to readers of any pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import TopologyChangedEvent, TopologyEventType
from ezmsg.core.graphserver import GraphServer, GraphService
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.wire.limits import EVENT_QUEUE, EVENT_WINDOW
from tests.core.conftest import StartProcess

GRAPH, PROCESS = TopologyEventType.GRAPH_CHANGED, TopologyEventType.PROCESS_CHANGED
Events = AsyncGenerator[TopologyChangedEvent, None]


async def take(stream: AsyncGenerator[Any, None], count: int) -> list[Any]:
    async with asyncio.timeout(30):
        return [await anext(stream) for _ in range(count)]


async def history(context: GraphContext, count: int) -> list[TopologyChangedEvent]:
    """The first events, of which there are so many already."""
    stream = context.subscribe_topology_events()
    events = await take(stream, count)
    await stream.aclose()
    return events


async def test_a_stream_made_before_the_changes_and_read_after_them_tells_them_all(context: GraphContext) -> None:
    before = time.time()
    stream = context.subscribe_topology_events()
    await context.connect("A", "B")
    await context.connect("B", "C")
    await context.disconnect("A", "B")
    events = await take(stream, 3)
    assert [(event.seq, event.event_type, event.changed_topics) for event in events] == [
        (1, GRAPH, ["B"]),
        (2, GRAPH, ["C"]),
        (3, GRAPH, ["B"]),
    ]
    assert {event.source_session_id for event in events} == {str(context._session_id)}
    assert {(event.source_process_id, event.missed) for event in events} == {(None, 0)}
    assert all(before - 1 < event.timestamp < time.time() + 1 for event in events)
    later = asyncio.create_task(take(stream, 1))
    await context.connect("X", "Y")
    [event] = await later
    assert (event.seq, event.changed_topics) == (4, ["Y"])
    await stream.aclose()
    tail = context.subscribe_topology_events(after_seq=2)
    assert [event.seq for event in await take(tail, 2)] == [3, 4]
    await tail.aclose()


async def test_a_stream_that_is_never_read_never_connects(context: GraphContext) -> None:
    await context.subscribe_topology_events().aclose()


async def test_only_real_changes_of_the_graph_are_told(server: GraphServer, context: GraphContext) -> None:
    service = GraphService(server.address)
    await service.connect("A", "B")
    await context.connect("A", "B")
    await context.disconnect("X", "Y")
    await service.disconnect("A", "B")
    await context.disconnect("A", "B")
    await context.connect("LAST", "ONE")
    events = await history(context, 3)
    session = str(context._session_id)
    assert [(event.changed_topics, event.source_session_id) for event in events] == [
        (["B"], None),
        (["B"], session),
        (["ONE"], session),
    ]


@pytest.mark.parametrize("end", ["exit", "revert"])
async def test_a_session_that_drops_its_edges_is_told_once_with_all_topics(
    server: GraphServer, context: GraphContext, end: str
) -> None:
    await context.connect("A", "SHARED")
    async with GraphContext(server.address) as other:
        session = str(other._session_id)
        for edge in (("A", "Z"), ("A", "B"), ("C", "B"), ("A", "SHARED")):
            await other.connect(*edge)
        if end == "revert":
            await other.revert()
    await context.connect("LAST", "ONE")
    events = await history(context, 6)
    assert (events[4].changed_topics, events[4].source_session_id) == (["B", "Z"], session)
    assert events[5].changed_topics == ["ONE"]


async def test_processes_are_told_when_their_units_change_and_when_they_go(
    server: GraphServer, context: GraphContext
) -> None:
    process, other = ProcessControlClient(server.address), ProcessControlClient(server.address)
    await process.connect()
    await process.register(["A", "B"])
    await process.register(["B", "A", "A"])
    await process.update_ownership(added_units=["A"], removed_units=["C"])
    await process.update_ownership(removed_units=["A"])
    with pytest.raises(RuntimeError, match="PROCESS_REGISTER"):
        await other.register(["B"])
    first, second = process.client_id, other.client_id
    await process.close()
    await process.close()
    await other.close()
    await context.connect("LAST", "ONE")
    events = await history(context, 5)
    assert [(event.event_type, event.source_process_id) for event in events] == [
        (PROCESS, first),
        (PROCESS, first),
        (PROCESS, first),
        (PROCESS, second),
        (GRAPH, None),
    ]
    assert all(event.changed_topics == [] and event.source_session_id is None for event in events[:4])


async def test_a_stream_ends_silently_with_its_server() -> None:
    server = GraphServer()
    server.start("127.0.0.1:0")
    async with GraphContext(server.address) as context:
        await context.connect("A", "B")
        stream = context.subscribe_topology_events()
        await take(stream, 1)
        rest = asyncio.create_task(_all(stream))
        await asyncio.to_thread(server.stop)
        assert await asyncio.wait_for(rest, 40) == []
        assert stream.ended == "the GraphServer stops"


async def _all(stream: Events) -> list[TopologyChangedEvent]:
    return [event async for event in stream]


async def test_a_waiting_reader_can_be_cancelled_and_its_stream_closed(context: GraphContext) -> None:
    stream = context.subscribe_topology_events()
    waiting = asyncio.create_task(anext(stream))
    await context.connect("A", "B")
    await waiting
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await stream.aclose()
    await context.connect("B", "C")


async def test_the_history_has_a_limit_and_the_gap_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EZMSG_TOPOLOGY_EVENT_HISTORY_LIMIT", "3")
    server = GraphServer()
    server.start("127.0.0.1:0")
    async with GraphContext(server.address) as context:
        for number in range(5):
            await context.connect("A", f"B{number}")
        events = await history(context, 3)
        assert [(event.seq, event.missed) for event in events] == [(3, 2), (4, 0), (5, 0)]
    await asyncio.to_thread(server.stop)


async def test_readers_of_different_speeds_affect_neither_each_other_nor_the_server(
    server: GraphServer, context: GraphContext
) -> None:
    """Ten readers: each number is how many events a reader takes for every one hundred that happen."""
    total = EVENT_QUEUE + EVENT_WINDOW + 800
    rates = [0, 0, 1, 2, 5, 10, 50, 100, 100, 100]
    streams = [context.subscribe_topology_events() for _ in rates]
    seen: list[list[TopologyChangedEvent]] = [[] for _ in rates]
    await context.connect("A", "B")
    for got, stream in zip(seen, streams, strict=True):
        got += await take(stream, 1)
    made = 1
    while made < total:
        burst = min(100, total - made)
        for number in range(burst):
            await (context.disconnect if (made + number) % 2 else context.connect)("A", "B")
        made += burst
        for rate, got, stream in zip(rates, seen, streams, strict=True):
            got += await take(stream, min(rate, burst))
    async with asyncio.timeout(30):
        for got, stream in zip(seen, streams, strict=True):
            while got[-1].seq < total:
                got.append(await anext(stream))
    for got in seen:
        expected = 0
        for event in got:
            expected += event.missed + 1
            assert event.seq == expected
        assert expected == total
    missed = [sum(event.missed for event in got) for got in seen]
    assert missed[7:] == [0, 0, 0]
    assert missed[0] == missed[1] == total - EVENT_QUEUE - EVENT_WINDOW
    assert (await context.snapshot()).edge_owners.keys() == ({("A", "B")} if total % 2 else set())
    for stream in streams:
        await stream.aclose()


async def test_a_reader_that_stands_still_holds_up_nobody_and_goes_on_where_there_is_something_left(
    server: GraphServer, context: GraphContext, start_process: StartProcess
) -> None:
    total = EVENT_QUEUE + EVENT_WINDOW + 500
    await context.connect("A", "B")
    still, moving = [await start_process("watch", server.address, total) for _ in range(2)]
    await still.halt()
    for number in range(1, total):
        await (context.disconnect if number % 2 else context.connect)("A", "B")
    # It is told at its own pace, whatever the other does.
    came, missed = map(int, (await moving.line()).split())
    assert came + missed == total
    still.go_on()
    came, missed = map(int, (await still.line()).split())
    assert came + missed == total
    assert missed > 0
