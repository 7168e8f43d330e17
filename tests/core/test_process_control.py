"""Who is on the control plane, and who owns what."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from ezmsg.core import processclient
from ezmsg.core.errors import ServerUnreachable, UnitAlreadyOwned
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProcessControlErrorCode, ProcessControlRequest, ProcessControlResponse, SnapshotProcess
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.processclient import ProcessControlClient
from tests.core.conftest import StartProcess


@pytest.fixture
async def owner(server: GraphServer) -> AsyncIterator[ProcessControlClient]:
    owner = ProcessControlClient(server.address)
    await owner.register(["B", "A"])
    yield owner
    await owner.close()


@pytest.fixture
async def other(server: GraphServer) -> AsyncIterator[ProcessControlClient]:
    other = ProcessControlClient(server.address)
    await other.connect()
    yield other
    await other.close()


async def units(context: GraphContext) -> dict[UUID, list[str]]:
    return {key: process.units for key, process in (await context.snapshot()).processes.items()}


# -- registration ---------------------------------------------------------------------------------------------------


async def test_an_unregistered_process_is_in_the_snapshot_without_pid_host_and_units(
    context: GraphContext, other: ProcessControlClient
) -> None:
    snapshot = await context.snapshot()
    assert snapshot.processes == {other.process_id: SnapshotProcess(other.process_id, None, None, [])}


async def test_register_connects_by_itself_and_tells_pid_host_and_sorted_units(
    context: GraphContext, owner: ProcessControlClient
) -> None:
    [entry] = (await context.snapshot()).processes.values()
    assert entry == SnapshotProcess(owner.process_id, os.getpid(), socket.gethostname(), ["A", "B"])


async def test_register_replaces_and_counts_a_unit_once(context: GraphContext, owner: ProcessControlClient) -> None:
    await owner.register(["C", "B", "C"])
    assert await units(context) == {owner.process_id: ["B", "C"]}
    assert (await context.process_stats("B")).owned_units == ["B", "C"]


async def test_update_ownership_adds_and_removes_and_takes_nothing_at_all(
    context: GraphContext, owner: ProcessControlClient
) -> None:
    await owner.update_ownership(added_units=["C"], removed_units=["A", "UNKNOWN"])
    assert await units(context) == {owner.process_id: ["B", "C"]}
    await owner.update_ownership()
    assert await units(context) == {owner.process_id: ["B", "C"]}
    assert (await context.process_stats("B")).owned_units == ["B", "C"]


async def test_update_ownership_connects_by_itself(server: GraphServer, context: GraphContext) -> None:
    client = ProcessControlClient(server.address)
    await client.update_ownership(["X"])
    assert await units(context) == {client.process_id: ["X"]}
    await client.close()


# -- conflicts ------------------------------------------------------------------------------------------------------


async def test_a_conflict_at_register_names_unit_and_owner_and_changes_nothing(
    context: GraphContext, owner: ProcessControlClient, other: ProcessControlClient
) -> None:
    await other.register(["MINE"])
    with pytest.raises(RuntimeError, match="Process control command failed: PROCESS_REGISTER") as refusal:
        await other.register(["NEW", "A"])
    assert isinstance(refusal.value, UnitAlreadyOwned)
    assert refusal.value.conflicts == {"A": str(owner.process_id)}
    assert f"A (owned by process {owner.process_id})" in str(refusal.value)
    assert await units(context) == {owner.process_id: ["A", "B"], other.process_id: ["MINE"]}
    assert (await context.process_stats("MINE")).owned_units == ["MINE"]


async def test_a_conflict_at_update_names_unit_and_owner_and_changes_nothing(
    context: GraphContext, owner: ProcessControlClient, other: ProcessControlClient
) -> None:
    await other.register(["MINE"])
    with pytest.raises(RuntimeError, match="Process control command failed: PROCESS_UPDATE_OWNERSHIP") as refusal:
        await other.update_ownership(["NEW", "B"], ["MINE"])
    assert f"B (owned by process {owner.process_id})" in str(refusal.value)
    assert await units(context) == {owner.process_id: ["A", "B"], other.process_id: ["MINE"]}


async def test_a_refused_process_goes_on_and_gets_the_unit_once_it_is_given_up(
    context: GraphContext, owner: ProcessControlClient, other: ProcessControlClient
) -> None:
    with pytest.raises(UnitAlreadyOwned):
        await other.register(["A"])
    assert (await context.process_ping(process_id=other.process_id)).process_id == other.process_id
    await owner.update_ownership(removed_units=["A"])
    await other.update_ownership(["A"])
    assert (await context.process_ping("A")).process_id == other.process_id
    await owner.close()
    await other.register(["A", "B"])
    assert (await context.process_ping("B")).process_id == other.process_id


async def test_many_processes_that_want_one_unit_leave_one_owner(server: GraphServer, context: GraphContext) -> None:
    clients = [ProcessControlClient(server.address) for _ in range(10)]
    results = await asyncio.gather(*(client.register(["WANTED"]) for client in clients), return_exceptions=True)
    [winner] = [client for client, result in zip(clients, results, strict=True) if result is None]
    for result in results:
        assert result is None or str(winner.process_id) in str(result)
    assert (await context.process_ping("WANTED")).process_id == winner.process_id
    await asyncio.gather(*(client.close() for client in clients))


# -- the connection -------------------------------------------------------------------------------------------------


async def test_the_process_id_is_only_there_while_connected(server: GraphServer) -> None:
    client = ProcessControlClient(server.address)
    assert client.client_id is None
    with pytest.raises(RuntimeError, match="Process control connection is not active"):
        _ = client.process_id
    await client.connect()
    assert client.process_id == client.client_id
    await client.close()
    assert client.client_id is None
    with pytest.raises(RuntimeError, match="Process control connection is not active"):
        _ = client.process_id


async def test_connecting_is_idempotent_also_at_once(
    server: GraphServer, context: GraphContext, other: ProcessControlClient
) -> None:
    client_id = other.client_id
    await asyncio.gather(other.connect(), other.connect(), other.register(["X"]))
    assert other.client_id == client_id
    fresh = ProcessControlClient(server.address)
    await asyncio.gather(fresh.connect(), fresh.register(["Y"]), fresh.connect())
    assert await units(context) == {other.process_id: ["X"], fresh.process_id: ["Y"]}
    await asyncio.gather(fresh.close(), fresh.close())
    assert await units(context) == {other.process_id: ["X"]}


async def test_closing_while_it_connects_leaves_nothing_behind(server: GraphServer, context: GraphContext) -> None:
    client = ProcessControlClient(server.address)
    connecting = asyncio.create_task(client.connect())
    await asyncio.sleep(0)
    await client.close()
    await connecting
    assert (await context.snapshot()).processes == {}
    assert client.client_id is None


async def test_a_closed_process_may_come_back_as_another(
    server: GraphServer, context: GraphContext, other: ProcessControlClient
) -> None:
    before = other.process_id
    await other.register(["X"])
    await other.close()
    await other.close()
    assert await units(context) == {}
    await other.connect()
    assert other.process_id != before
    assert (await context.process_stats(process_id=other.process_id)).owned_units == []


async def test_without_a_server_it_is_a_connection_error(server: GraphServer) -> None:
    server.stop()
    with pytest.raises(ServerUnreachable):
        await ProcessControlClient(server.address).register(["X"])


async def test_commands_to_a_server_that_ended_fail_by_name(server: GraphServer, other: ProcessControlClient) -> None:
    server.stop()
    with pytest.raises(RuntimeError, match="Process control command failed: PROCESS_REGISTER"):
        await other.register(["X"])


async def test_a_server_that_does_not_answer_is_a_timeout_by_name(
    start_process: StartProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await start_process("serve")
    client = ProcessControlClient(worker.ready)
    await client.connect()
    await worker.halt()
    monkeypatch.setattr(processclient, "COMMAND_TIMEOUT_S", 0.05)
    with pytest.raises(RuntimeError, match=r"Timed out waiting .* PROCESS_REGISTER"):
        await client.register(["X"])
    await client.close()
    assert client.client_id is None


async def test_the_units_of_a_killed_process_are_free(
    server: GraphServer, context: GraphContext, other: ProcessControlClient, start_process: StartProcess
) -> None:
    worker = await start_process("own", server.address, "UNIT")
    pending = asyncio.create_task(context.process_request("UNIT", "STUCK", timeout=60))
    assert await worker.line() == "stuck"
    await worker.kill()
    async with asyncio.timeout(40):
        await pending  # that it is gone is known now
    await other.register(["UNIT"])
    assert await units(context) == {other.process_id: ["UNIT"]}


# -- closing with handlers at work ----------------------------------------------------------------------------------


async def test_close_cancels_handlers_and_does_not_wait_for_them(
    context: GraphContext, owner: ProcessControlClient
) -> None:
    started, cancelled, release, ended = (asyncio.Event() for _ in range(4))

    async def handler(request: ProcessControlRequest) -> ProcessControlResponse:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            await release.wait()
        ended.set()
        return ProcessControlResponse(request.request_id, True)

    owner.set_request_handler(handler)
    pending = asyncio.create_task(context.process_request("A", "STUBBORN", timeout=60))
    await started.wait()
    async with asyncio.timeout(40):
        await owner.close()
        response = await pending
    assert cancelled.is_set()
    assert not ended.is_set()
    assert response.error_code is ProcessControlErrorCode.PROCESS_DISCONNECTED
    assert response.error == "Owning process disconnected before response"
    release.set()
    async with asyncio.timeout(40):
        await ended.wait()


async def test_a_handler_may_close_its_own_process(context: GraphContext, owner: ProcessControlClient) -> None:
    async def handler(request: ProcessControlRequest) -> ProcessControlResponse:
        await owner.close()
        return ProcessControlResponse(request.request_id, True)

    owner.set_request_handler(handler)
    async with asyncio.timeout(40):
        response = await context.process_request("A", "STOP", timeout=60)
    assert response.error_code is ProcessControlErrorCode.PROCESS_DISCONNECTED
    assert (await context.process_request("A", "STOP")).error_code is ProcessControlErrorCode.UNROUTABLE_UNIT


async def test_requests_that_meet_a_closing_process_are_all_answered(
    server: GraphServer, context: GraphContext
) -> None:
    for _ in range(20):
        client = ProcessControlClient(server.address)
        await client.register(["SHORT"])
        asked = [asyncio.create_task(context.process_request("SHORT", "PING", timeout=60)) for _ in range(5)]
        closing = asyncio.create_task(client.close())
        asked += [asyncio.create_task(context.process_request("SHORT", "PING", timeout=60)) for _ in range(5)]
        async with asyncio.timeout(40):
            responses = await asyncio.gather(*asked)
            await closing
        assert {response.error_code for response in responses} <= {
            None,
            ProcessControlErrorCode.PROCESS_DISCONNECTED,
            ProcessControlErrorCode.UNROUTABLE_UNIT,
            ProcessControlErrorCode.ROUTE_WRITE_FAILED,
        }
