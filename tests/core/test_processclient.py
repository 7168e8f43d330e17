"""Processes on the control plane: ownership, routed requests, built-in and custom operations."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from ezmsg.core.errors import UnitAlreadyOwned
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import (
    ProcessControlErrorCode,
    ProcessControlOperation,
    ProcessControlRequest,
    ProcessControlResponse,
    ProfilingTraceControl,
    SnapshotProcess,
)
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.processclient import ProcessControlClient


@pytest.fixture
async def process(server: GraphServer) -> AsyncIterator[ProcessControlClient]:
    process = ProcessControlClient(server.address)
    await process.register(["UNIT"])
    yield process
    await process.close()


def test_the_process_id_is_not_there_before_connect() -> None:
    with pytest.raises(RuntimeError, match="Process control connection is not active"):
        _ = ProcessControlClient().process_id


async def test_close_is_idempotent_also_before_connect(server: GraphServer) -> None:
    process = ProcessControlClient(server.address)
    await process.close()
    await process.connect()
    await process.connect()
    assert isinstance(process.client_id, UUID)
    await process.close()
    await process.close()


async def test_a_connected_process_shows_before_it_registers_and_is_gone_when_closed(
    server: GraphServer, context: GraphContext
) -> None:
    process = ProcessControlClient(server.address)
    await process.connect()
    assert (await context.snapshot()).processes == {
        process.process_id: SnapshotProcess(process.process_id, None, None, [])
    }
    await process.register(["B", "A"])
    [entry] = (await context.snapshot()).processes.values()
    assert (entry.pid, entry.units) == (os.getpid(), ["A", "B"])
    await process.update_ownership(added_units=["C"], removed_units=["A"])
    [entry] = (await context.snapshot()).processes.values()
    assert entry.units == ["B", "C"]
    await process.close()
    assert (await context.snapshot()).processes == {}


async def test_units_of_another_process_are_refused_and_the_refused_client_can_go_on(
    server: GraphServer, process: ProcessControlClient
) -> None:
    other = ProcessControlClient(server.address)
    with pytest.raises(UnitAlreadyOwned, match="PROCESS_REGISTER") as refusal:
        await other.register(["UNIT", "MINE"])
    assert refusal.value.conflicts == {"UNIT": str(process.process_id)}
    with pytest.raises(RuntimeError, match="Process control command failed: PROCESS_UPDATE_OWNERSHIP"):
        await other.update_ownership(["UNIT"])
    await other.register(["MINE"])
    await other.close()


async def test_ping_and_stats_come_from_the_owner(context: GraphContext, process: ProcessControlClient) -> None:
    ping = await context.process_ping("UNIT")
    assert (ping.process_id, ping.pid) == (process.process_id, os.getpid())
    assert ping.timestamp > 1.7e9
    stats = await context.process_stats("UNIT")
    assert stats.owned_units == ["UNIT"]


async def test_a_unit_nobody_owns_is_unroutable(context: GraphContext) -> None:
    response = await context.process_request("NOWHERE", ProcessControlOperation.PING)
    assert not response.ok
    assert response.error_code is ProcessControlErrorCode.UNROUTABLE_UNIT
    assert "No process owns unit" in (response.error or "")
    assert response.process_id is None
    with pytest.raises(RuntimeError, match=r"Process request failed \(UNROUTABLE_UNIT\)"):
        await context.process_ping("NOWHERE")


async def test_a_custom_operation_carries_opaque_bytes_both_ways(
    context: GraphContext, process: ProcessControlClient
) -> None:
    seen: list[ProcessControlRequest] = []

    async def handler(request: ProcessControlRequest) -> ProcessControlResponse:
        seen.append(request)
        return ProcessControlResponse(request.request_id, True, payload=request.payload)

    process.set_request_handler(handler)
    response = await context.process_request("UNIT", "ECHO", payload=b"\x00anything")
    assert response.ok
    assert response.payload == b"\x00anything"
    assert response.process_id == process.process_id
    assert (seen[0].operation, seen[0].unit_address) == ("ECHO", "UNIT")
    response = await context.process_request("UNIT", "ECHO", payload_obj={"a": 1})
    assert context.decode_process_payload(response, dict) == {"a": 1}
    await context.process_request("UNIT", "ECHO", payload=b"")
    assert seen[-1].payload is None
    with pytest.raises(ValueError, match="not both"):
        await context.process_request("UNIT", "ECHO", payload=b"x", payload_obj=1)


async def test_each_failure_of_a_handler_has_its_code(context: GraphContext, process: ProcessControlClient) -> None:
    async def code() -> ProcessControlErrorCode | None:
        return (await context.process_request("UNIT", "CUSTOM")).error_code

    assert await code() is ProcessControlErrorCode.HANDLER_NOT_CONFIGURED
    process.set_request_handler(lambda request: 1 / 0)  # type: ignore[arg-type,return-value]
    assert await code() is ProcessControlErrorCode.HANDLER_ERROR
    process.set_request_handler(lambda request: "nonsense")  # type: ignore[arg-type,return-value]
    assert await code() is ProcessControlErrorCode.INVALID_RESPONSE
    process.set_request_handler(lambda request: ProcessControlResponse("another", True))
    assert await code() is ProcessControlErrorCode.INVALID_RESPONSE


async def test_a_slow_handler_times_out_and_holds_up_nobody(
    context: GraphContext, process: ProcessControlClient
) -> None:
    release = asyncio.Event()

    async def handler(request: ProcessControlRequest) -> ProcessControlResponse:
        await release.wait()
        return ProcessControlResponse(request.request_id, True)

    process.set_request_handler(handler)
    slow = [asyncio.create_task(context.process_request("UNIT", "SLOW", timeout=60)) for _ in range(50)]
    for _ in range(10):
        await context.process_ping("UNIT")
    response = await context.process_request("UNIT", "SLOW", timeout=0.05)
    assert response.error_code is ProcessControlErrorCode.TIMEOUT
    assert "Timed out waiting for process response" in (response.error or "")
    assert response.process_id == process.process_id
    release.set()
    assert all(answer.ok for answer in await asyncio.gather(*slow))


async def test_closing_with_requests_pending_tells_each_requester_at_once(
    server: GraphServer, context: GraphContext
) -> None:
    process = ProcessControlClient(server.address)
    await process.register(["UNIT"])
    started = asyncio.Semaphore(0)

    async def handler(request: ProcessControlRequest) -> ProcessControlResponse:
        started.release()
        await asyncio.Event().wait()
        raise AssertionError("never")

    process.set_request_handler(handler)
    pending = [asyncio.create_task(context.process_request("UNIT", "NEVER", timeout=60)) for _ in range(5)]
    for _ in pending:
        await started.acquire()
    await asyncio.wait_for(process.close(), 40)
    for response in await asyncio.wait_for(asyncio.gather(*pending), 40):
        assert response.error_code is ProcessControlErrorCode.PROCESS_DISCONNECTED


async def test_a_profiling_snapshot_counts_what_ended_before_it_was_asked_for(
    context: GraphContext, process: ProcessControlClient
) -> None:
    publisher = await context.publisher("T")
    subscriber = await context.subscriber("T")
    for number in range(7):
        await publisher.broadcast(number)
        await subscriber.recv()
    snapshot = await context.process_profiling_snapshot("UNIT")
    assert snapshot.process_id == process.process_id
    [published] = snapshot.publishers.values()
    [received] = snapshot.subscribers.values()
    assert published.messages_published_total == 7
    assert received.messages_received_total == 7
    assert snapshot.window_seconds == 0.0
    assert (await context.process_profiling_snapshot("UNIT")).window_seconds > 0


async def test_snapshots_of_all_processes_include_one_without_units(
    server: GraphServer, context: GraphContext, process: ProcessControlClient
) -> None:
    bare = ProcessControlClient(server.address)
    await bare.connect()
    snapshots = await context.profiling_snapshot_all()
    assert set(snapshots) == {process.process_id, bare.process_id}
    await bare.close()


async def test_a_trace_is_switched_on_and_its_samples_are_read(
    context: GraphContext, process: ProcessControlClient
) -> None:
    publisher = await context.publisher("T")
    subscriber = await context.subscriber("T")
    response = await context.process_set_profiling_trace("UNIT", ProfilingTraceControl(enabled=True))
    assert response.ok
    for number in range(5):
        await publisher.broadcast(number)
        await subscriber.recv()
    batch = await context.process_profiling_trace_batch("UNIT", max_samples=1000)
    assert batch.process_id == process.process_id
    leases = [sample for sample in batch.samples if sample.metric == "lease_time_ns"]
    assert [sample.sample_seq for sample in leases] == [0, 1, 2, 3, 4]
    deltas = [sample for sample in batch.samples if sample.metric == "publish_delta_ns"]
    assert len(deltas) == 5
    await context.process_set_profiling_trace("UNIT", ProfilingTraceControl(enabled=False))


async def test_a_bad_trace_control_is_refused(context: GraphContext, process: ProcessControlClient) -> None:
    for payload in (None, b"garbage", pickle.dumps("text")):
        response = await context.process_request("UNIT", ProcessControlOperation.SET_PROFILING_TRACE, payload=payload)
        assert response.error_code is ProcessControlErrorCode.INVALID_RESPONSE
