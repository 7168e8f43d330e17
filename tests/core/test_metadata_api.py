"""Metadata of sessions, from outside: it comes back as it was, and goes with its session, however that ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ezmsg.core.errors import ComponentAddressCollision, SessionClosed
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import GraphMetadata, UnitMetadata
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.processclient import ProcessControlClient
from tests.core.metadatamaking import component, every_kind, graph
from tests.core.workerprocess import Worker

WORKER = Path(__file__).with_name("controlworker.py")
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def worker(server: GraphServer) -> AsyncIterator[Worker]:
    """A process with a session and units."""
    command = [sys.executable, "-W", "error", str(WORKER), str(server.address)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    worker = Worker(
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    )
    worker.ready = await worker.line()
    yield worker
    await worker.end()


async def metadata_of(context: GraphContext, of: GraphContext | None = None) -> GraphMetadata | None:
    return (await context.snapshot()).sessions[str((of or context)._session_id)].metadata


async def test_every_kind_of_metadata_comes_back_equal_and_of_the_same_class(
    server: GraphServer, context: GraphContext
) -> None:
    metadata = every_kind()
    assert await metadata_of(context) is None
    await context.register_metadata(metadata)
    async with GraphContext(server.address) as other:
        returned = await metadata_of(other, context)
        assert await metadata_of(other) is None
    assert returned == metadata
    for address, original in metadata.components.items():
        assert type(returned.components[address]) is type(original)
        assert type(returned.components[address].initial_settings) is tuple


async def test_values_that_cannot_travel_are_reduced_and_not_refused(context: GraphContext) -> None:
    unit = component("U", UnitMetadata)
    unit.initial_settings = (None, {"call": len, "set": {1}})
    await context.register_metadata(GraphMetadata(1, None, {"U": unit}))
    returned = await metadata_of(context)
    assert returned is not None
    assert returned.components["U"].initial_settings == (None, {"call": repr(len), "set": [1]})


async def test_a_field_of_the_wrong_type_is_refused_and_the_session_goes_on(context: GraphContext) -> None:
    with pytest.raises(TypeError, match="GraphMetadata cannot be sent"):
        await context.register_metadata(GraphMetadata("one", None, {}))  # type: ignore[arg-type]
    await context.register_metadata(graph("U"))


async def test_registering_again_replaces_and_a_collision_names_all_addresses_and_changes_nothing(
    server: GraphServer, context: GraphContext
) -> None:
    await context.register_metadata(graph("SYS/OLD"))
    await context.register_metadata(graph("SYS/UNIT_COLLIDE", "SYS/A", "SYS/FREE"))
    async with GraphContext(server.address) as other:
        mine = graph("SYS/OLD")
        await other.register_metadata(mine)
        with pytest.raises(RuntimeError) as refusal:
            await other.register_metadata(graph("SYS/UNIT_COLLIDE", "SYS/NEW", "SYS/A"))
        assert "component address collision(s): SYS/A, SYS/UNIT_COLLIDE" in str(refusal.value)
        assert isinstance(refusal.value, ComponentAddressCollision)
        assert refusal.value.addresses == ["SYS/A", "SYS/UNIT_COLLIDE"]
        assert await metadata_of(other) == mine
        assert set(await other.settings_snapshot()) == {"SYS/A", "SYS/FREE", "SYS/OLD", "SYS/UNIT_COLLIDE"}


@pytest.mark.parametrize("end", ["exit", "revert", "close_session"])
async def test_metadata_edges_and_settings_are_gone_when_the_end_of_a_session_returns(
    server: GraphServer, context: GraphContext, end: str
) -> None:
    async with GraphContext(server.address) as other:
        await other.connect("A", "B")
        await other.register_metadata(graph("U"))
        session = str(other._session_id)
        if end == "revert":
            await other.revert()
            assert (await context.snapshot()).sessions[session].metadata is None
        elif end == "close_session":
            await other._close_session()
            assert session not in (await context.snapshot()).sessions
        if end != "exit":
            assert (await context.snapshot()).graph == {}
            assert await context.settings_snapshot() == {}
    snapshot = await context.snapshot()
    assert (snapshot.graph, session in snapshot.sessions) == ({}, False)
    assert await context.settings_snapshot() == {}
    await context.register_metadata(graph("U"))


async def test_a_reverted_session_can_register_again(context: GraphContext) -> None:
    await context.register_metadata(graph("U"))
    await context.revert()
    await context.register_metadata(graph("U"))
    assert await metadata_of(context) == graph("U")


async def test_a_killed_process_takes_its_session_and_its_units_along(context: GraphContext, worker: Worker) -> None:
    _, session, client_id = worker.ready.split()
    snapshot = await context.snapshot()
    assert snapshot.sessions[session].metadata == graph("BOTH", "META")
    assert snapshot.graph == {"KILLED": ["BEHIND"], "BEHIND": []}
    assert set(await context.settings_snapshot()) == {"BOTH", "META", "MINE"}
    topology = context.subscribe_topology_events()
    seen: set[str] = set()
    await worker.kill()
    async with asyncio.timeout(40):
        while not {f"GRAPH_CHANGED {session} end", f"PROCESS_CHANGED {client_id} end"} <= seen:
            event = await anext(topology)
            what = f"{event.event_type.value} {event.source_session_id or event.source_process_id}"
            # The first tells of the edge (or the units), the second of their end.
            seen.add(f"{what} end" if what in seen else what)
    await topology.aclose()
    snapshot = await context.snapshot()
    assert list(snapshot.sessions) == [str(context._session_id)]
    assert (snapshot.graph, snapshot.processes) == ({}, {})
    assert await context.settings_snapshot() == {}


async def test_calls_without_a_session_say_so(server: GraphServer) -> None:
    context = GraphContext(server.address)
    calls = [
        context.register_metadata(graph("U")),
        context.settings_snapshot(),
        context.settings_events(),
        context.settings_input_topic("U"),
        context.update_settings("U", 1, input_topic="T"),
        context.update_setting("U", "gain", 1),
    ]
    for call in calls:
        with pytest.raises(SessionClosed, match="session is not active"):
            await call


async def test_a_snapshot_taken_while_everything_changes_fits_together(
    server: GraphServer, context: GraphContext
) -> None:
    async def visit(number: int) -> None:
        async with GraphContext(server.address) as visitor:
            await asyncio.gather(visitor.connect(f"A{number}", "B"), visitor.register_metadata(graph(f"U{number}")))
        process = ProcessControlClient(server.address)
        await process.register([f"U{number}"])
        await process.close()

    visits = asyncio.gather(*(visit(number) for number in range(10)))
    while not visits.done():
        snapshot = await context.snapshot()
        owners = {owner for owned in snapshot.edge_owners.values() for owner in owned}
        assert owners <= snapshot.sessions.keys()
        for edge, owned in snapshot.edge_owners.items():
            assert edge.to_topic in snapshot.graph[edge.from_topic]
            assert all(edge in snapshot.sessions[owner].edges for owner in owned)
        assert sum(map(len, snapshot.graph.values())) == len(snapshot.edge_owners)
    await visits


async def test_metadata_larger_than_any_frame_is_read_in_parts(server: GraphServer, context: GraphContext) -> None:
    large = bytes(15 << 20)
    async with contextlib.AsyncExitStack() as stack:
        others = [await stack.enter_async_context(GraphContext(server.address)) for _ in range(5)]
        for number, other in enumerate(others):
            metadata = graph(f"UNIT{number}")
            metadata.components[f"UNIT{number}"].initial_settings = (large, {"number": number})
            await other.register_metadata(metadata)
        snapshot = await context.snapshot()
        for number, other in enumerate(others):
            returned = snapshot.sessions[str(other._session_id)].metadata
            assert returned is not None
            assert returned.components[f"UNIT{number}"].initial_settings == (large, {"number": number})
