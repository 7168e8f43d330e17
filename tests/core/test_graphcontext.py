"""A session: its edges, its clients, its snapshot, its end."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from ezmsg.core.dag import CyclicException
from ezmsg.core.errors import ConfigError, InvalidRecord, SessionClosed
from ezmsg.core.graphcontext import CLIENTS, GraphContext
from ezmsg.core.graphmeta import Edge
from ezmsg.core.graphserver import GraphServer, GraphService


async def test_edges_go_with_the_session_that_made_them(server: GraphServer) -> None:
    service = GraphService(server.address)
    async with GraphContext(server.address) as context:
        await context.connect("A", "B")
        assert (await service.dag()).nodes == {"A", "B"}
    assert (await service.dag()).nodes == set()


async def test_an_edge_of_two_owners_stays_until_the_last_leaves(server: GraphServer, context: GraphContext) -> None:
    async with GraphContext(server.address) as other:
        await context.connect("A", "B")
        await other.connect("A", "B")
        await context.disconnect("A", "B")
        assert (await context.snapshot()).graph == {"A": ["B"], "B": []}
    assert (await context.snapshot()).graph == {}


async def test_disconnecting_an_edge_of_somebody_else_or_of_nobody_changes_nothing(
    server: GraphServer, context: GraphContext
) -> None:
    await GraphService(server.address).connect("A", "B")
    await context.disconnect("A", "B")
    await context.disconnect("X", "Y")
    assert (await context.snapshot()).graph == {"A": ["B"], "B": []}


@pytest.mark.parametrize("edge", [("A", "A"), ("C", "A")])
async def test_a_cycle_raises_and_changes_nothing(context: GraphContext, edge: tuple[str, str]) -> None:
    await context.connect("A", "B")
    await context.connect("B", "C")
    before = await context.snapshot()
    with pytest.raises(CyclicException) as error:
        await context.connect(*edge)
    assert (error.value.from_topic, error.value.to_topic) == edge
    assert await context.snapshot() == before


@pytest.mark.parametrize("topic", [None, 5, b"A", "A" * 1025, "\ud800"])
async def test_what_cannot_be_a_topic_is_refused_before_anything_is_made(context: GraphContext, topic: str) -> None:
    for makes in (context.publisher(topic), context.subscriber(topic), context.connect(topic, "B")):
        with pytest.raises(ConfigError, match=r"topic=.* cannot be used: expected valid text of at most 1024"):
            await makes
    assert (await context.snapshot()).graph == {}


async def test_a_snapshot_shows_edges_owners_and_sessions(server: GraphServer, context: GraphContext) -> None:
    await context.connect("A", "C")
    await context.connect("A", "B")
    await GraphService(server.address).connect("A", "B")
    snapshot = await context.snapshot()
    session = str(context._session_id)
    assert snapshot.graph == {"A": ["B", "C"], "B": [], "C": []}
    assert snapshot.edge_owners == {Edge("A", "B"): ["persistent", session], Edge("A", "C"): [session]}
    assert snapshot.sessions[session].edges == [Edge("A", "B"), Edge("A", "C")]


async def test_revert_drops_what_the_session_made_and_leaves_it_open(context: GraphContext) -> None:
    await context.connect("A", "B")
    publisher = await context.publisher("A")
    await context.revert()
    assert not publisher.running
    assert (await context.snapshot()).graph == {}
    await context.connect("A", "B")


async def test_publishers_and_subscribers_that_were_closed_are_forgotten(context: GraphContext) -> None:
    kept = await context.publisher("KEPT"), await context.subscriber("KEPT")
    for _ in range(CLIENTS):
        ends = await context.publisher("T"), await context.subscriber("T")
        for end in ends:
            end.close()
            await end.wait_closed()
    assert f"clients={2 + 2 * CLIENTS}" not in repr(context)
    await kept[0].broadcast(1)
    assert await kept[1].recv() == 1
    await context.revert()
    assert "clients=0" in repr(context)


async def test_closing_the_session_alone_is_idempotent_and_leaving_afterwards_is_fine(server: GraphServer) -> None:
    async with GraphContext(server.address) as context:
        await context.connect("A", "B")
        await context._close_session()
        assert (await GraphService(server.address).dag()).nodes == set()
        await context._close_session()


async def test_calls_without_a_session_say_so(server: GraphServer) -> None:
    context = GraphContext(server.address)
    for call in (context.connect("A", "B"), context.snapshot(), context.pause(), context.process_ping("U")):
        with pytest.raises(SessionClosed, match="session is not active"):
            await call
    publisher = await context.publisher("A")
    await publisher.broadcast(1)
    await context.revert()


async def test_pause_resume_and_sync_reach_publishers_of_every_context(
    server: GraphServer, context: GraphContext
) -> None:
    async with GraphContext(server.address) as other:
        publishers = [await context.publisher("A"), await other.publisher("B")]
        await context.pause()
        assert [publisher.running for publisher in publishers] == [False, False]
        await other.resume()
        assert [publisher.running for publisher in publishers] == [True, True]
        await context.sync()
        assert [publisher.running for publisher in publishers] == [False, False]


async def test_many_sessions_connect_and_leave_at_once(server: GraphServer) -> None:
    async def visit(number: int) -> None:
        async with GraphContext(server.address) as context:
            await context.connect(f"A{number}", "B")
            subscriber = await context.subscriber("B")
            publisher = await context.publisher(f"A{number}")
            await publisher.broadcast(number)
            assert isinstance(await asyncio.wait_for(subscriber.recv(), 40), int)

    await asyncio.gather(*(visit(number) for number in range(20)))
    assert (await GraphService(server.address).dag()).nodes == set()


async def test_leaving_goes_quietly_when_the_server_is_gone() -> None:
    server = GraphServer()
    server.start("127.0.0.1:0")
    async with GraphContext(server.address) as context:
        await context.connect("A", "B")
        await context.publisher("A")
        await asyncio.to_thread(server.stop)


@pytest.mark.parametrize(
    ("make", "wrong"),
    [
        ("publisher", {"port": 1 << 20}),
        ("publisher", {"port": "http"}),
        ("publisher", {"num_buffers": 0}),
        ("publisher", {"num_buffers": "many"}),
        ("publisher", {"num_buffers": 1 << 40}),
        ("subscriber", {"leaky": True, "max_queue": 0}),
        ("subscriber", {"leaky": True, "max_queue": "long"}),
    ],
)
async def test_what_is_no_number_of_messages_or_port_is_refused_by_name(
    context: GraphContext, make: str, wrong: dict[str, Any]
) -> None:
    *_, (name, value) = wrong.items()
    with pytest.raises(ConfigError, match=f"{name}={value!r} cannot be used"):
        await getattr(context, make)("A", **wrong)


async def test_numbers_may_be_those_of_numpy(context: GraphContext) -> None:
    publisher = await context.publisher("A", num_buffers=np.int64(4), port=np.int32(0), buf_size=np.int64(1 << 12))
    subscriber = await context.subscriber("A", leaky=True, max_queue=np.int16(2))
    await publisher.broadcast(1)
    assert await subscriber.recv() == 1


async def test_a_number_that_no_record_can_carry_is_refused(context: GraphContext) -> None:
    with pytest.raises(InvalidRecord, match="GetSettingsEvents"):
        await context.settings_events(after_seq=1 << 70)
    assert await context.settings_events() == []
