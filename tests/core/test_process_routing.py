"""Requests to processes: every one is answered, whatever its owner, its requester or the server does."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from ezmsg.core import graphcontext
from ezmsg.core.control import ControlClient, asking
from ezmsg.core.errors import ConfigError, ConnectionLost, RequestTimeout
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProcessControlErrorCode as Code
from ezmsg.core.graphmeta import (
    ProcessControlOperation,
    ProcessControlRequest,
    ProcessControlResponse,
    ProcessPing,
    ProcessProfilingSnapshot,
)
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.server.books.requests import MODEST
from ezmsg.core.wire import records as r
from ezmsg.core.wire.limits import ROUTED_PER_CLIENT
from tests.core.conftest import StartProcess

LONG_S = 60.0
MANY = 100
LARGE = 40 << 20


@pytest.fixture
async def owner(server: GraphServer) -> AsyncIterator[ProcessControlClient]:
    owner = ProcessControlClient(server.address)
    await owner.register(["UNIT"])
    yield owner
    await owner.close()


@pytest.fixture
async def bare(server: GraphServer) -> AsyncIterator[ProcessControlClient]:
    """A process without units."""
    bare = ProcessControlClient(server.address)
    await bare.connect()
    yield bare
    await bare.close()


@pytest.fixture
async def another(server: GraphServer) -> AsyncIterator[GraphContext]:
    async with GraphContext(server.address) as another:
        yield another


class Stuck:
    """A handler that answers when told, and knows what became of each request."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.started = self.cancelled = self.ended = 0
        self._changed = asyncio.Condition()

    async def __call__(self, request: ProcessControlRequest) -> ProcessControlResponse:
        await self._count(started=1)
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            await self._count(cancelled=1)
            raise
        await self._count(ended=1)
        return ProcessControlResponse(request.request_id, True, payload=request.payload)

    async def _count(self, **changes: int) -> None:
        async with self._changed:
            for name, change in changes.items():
                setattr(self, name, getattr(self, name) + change)
            self._changed.notify_all()

    async def until(self, **expected: int) -> None:
        async with asyncio.timeout(40), self._changed:
            await self._changed.wait_for(lambda: all(getattr(self, name) >= count for name, count in expected.items()))


def ask_stuck(
    context: GraphContext, count: int, unit: str = "UNIT", timeout: float = LONG_S
) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(context.process_request(unit, "STUCK", timeout=timeout)) for _ in range(count)]


async def answered(*asked: asyncio.Task[ProcessControlResponse]) -> list[ProcessControlResponse]:
    async with asyncio.timeout(40):
        return await asyncio.gather(*asked)


def echo(request: ProcessControlRequest) -> ProcessControlResponse:
    return ProcessControlResponse(request.request_id, True, payload=request.payload)


async def later(request: ProcessControlRequest) -> ProcessControlResponse:
    await asyncio.sleep(0)
    return echo(request)


# -- requests and payloads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [echo, later, lambda request: later(request)])
async def test_plain_and_async_handlers_answer(
    context: GraphContext, owner: ProcessControlClient, handler: Callable[[ProcessControlRequest], Any]
) -> None:
    owner.set_request_handler(handler)
    response = await context.process_request("UNIT", "ECHO", payload=b"\x80not a pickle")
    assert (response.ok, response.payload, response.error, response.error_code) == (
        True,
        b"\x80not a pickle",
        None,
        None,
    )
    assert response.process_id == owner.process_id


async def test_a_handler_gets_operations_as_strings_and_the_id_of_the_request(
    context: GraphContext, owner: ProcessControlClient
) -> None:
    seen: list[ProcessControlRequest] = []

    def handler(request: ProcessControlRequest) -> ProcessControlResponse:
        seen.append(request)
        return echo(request)

    owner.set_request_handler(handler)
    first = await context.process_request("UNIT", ProcessControlOperation.UPDATE_SETTING_FIELD)
    second = await context.process_request("UNIT", "ECHO")
    assert [request.operation for request in seen] == ["UPDATE_SETTING_FIELD", "ECHO"]
    assert all(type(request.operation) is str for request in seen)
    assert [request.unit_address for request in seen] == ["UNIT", "UNIT"]
    assert [request.request_id for request in seen] == [first.request_id, second.request_id]


async def test_built_in_operations_never_reach_the_handler_also_as_strings(
    context: GraphContext, owner: ProcessControlClient
) -> None:
    owner.set_request_handler(lambda request: pytest.fail(f"it got {request}"))  # type: ignore[arg-type,return-value]
    response = await context.process_request("UNIT", "PING")
    assert context.decode_process_payload(response, ProcessPing).pid == os.getpid()


async def test_a_handler_may_fill_in_the_process_id_and_refuse(
    context: GraphContext, owner: ProcessControlClient
) -> None:
    mine = uuid4()
    owner.set_request_handler(
        lambda request: ProcessControlResponse(
            request.request_id, False, b"why", "no such operation", Code.UNSUPPORTED_OPERATION, mine
        )
    )
    response = await context.process_request("UNIT", "UNKNOWN")
    assert response == ProcessControlResponse(
        response.request_id, False, b"why", "no such operation", Code.UNSUPPORTED_OPERATION, mine
    )
    with pytest.raises(RuntimeError, match=r"Process request failed \(UNSUPPORTED_OPERATION\): no such operation"):
        context.decode_process_payload(response)


async def test_payloads_are_bytes_or_one_object(context: GraphContext, owner: ProcessControlClient) -> None:
    seen: list[bytes | None] = []

    def handler(request: ProcessControlRequest) -> ProcessControlResponse:
        seen.append(request.payload)
        return echo(request)

    owner.set_request_handler(handler)
    ask = partial(context.process_request, "UNIT", "ECHO")
    with pytest.raises(ValueError, match="not both"):
        await ask(payload=b"x", payload_obj=1)
    with pytest.raises(TypeError, match="payload must be bytes"):
        await ask(payload="text")  # type: ignore[arg-type]
    assert seen == []
    assert (await ask(payload=b"")).payload is None
    assert (await ask(payload=memoryview(b"view"))).payload == b"view"  # type: ignore[arg-type]
    response = await ask(payload_obj={"a": [1]})
    assert seen == [None, b"view", pickle.dumps({"a": [1]})]
    assert context.decode_process_payload(response) == {"a": [1]}
    with pytest.raises(RuntimeError, match="holds dict, expected list"):
        context.decode_process_payload(response, list)


async def test_a_payload_that_is_missing_or_cannot_be_read_is_a_runtime_error(context: GraphContext) -> None:
    with pytest.raises(RuntimeError, match="has no payload"):
        context.decode_process_payload(ProcessControlResponse("id", True))
    with pytest.raises(RuntimeError, match="cannot be read"):
        context.decode_process_payload(ProcessControlResponse("id", True, b"garbage"))
    with pytest.raises(RuntimeError, match=r"Process request failed \(UNKNOWN\): odd"):
        context.decode_process_payload(ProcessControlResponse("id", False, error="odd"))


class Trap:
    """Makes a directory where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


async def test_payloads_are_opaque_to_the_server(
    context: GraphContext, owner: ProcessControlClient, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    owner.set_request_handler(echo)
    payload = pickle.dumps(Trap(made))
    for operation in ("CUSTOM", ProcessControlOperation.UPDATE_SETTING_FIELD):
        response = await context.process_request("UNIT", operation, payload=payload)
        assert response.payload == payload
    assert not made.exists()
    pickle.loads(payload)
    assert made.exists()


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), -1.0])
async def test_a_timeout_that_is_no_number_of_seconds_is_refused_on_both_sides(
    context: GraphContext, owner: ProcessControlClient, timeout: float
) -> None:
    with pytest.raises(ValueError, match="timeout must be seconds"):
        await context.process_ping("UNIT", timeout=timeout)
    client = await ControlClient.connect(context.graph_address, context, name="raw")
    with pytest.raises(ConfigError):
        await client.request(r.ProcessRequest("UNIT", "PING", None, timeout))
    await client.close()
    assert (await context.process_ping("UNIT")).process_id == owner.process_id


async def test_arguments_that_cannot_travel_leave_the_session_as_it_was(
    context: GraphContext, owner: ProcessControlClient
) -> None:
    for unit, operation in ((1, "ECHO"), ("UNIT", 2), ("UNIT", None)):
        with pytest.raises(TypeError, match="must be a string"):
            await context.process_request(unit, operation)  # type: ignore[arg-type]
    assert (await context.process_ping("UNIT")).process_id == owner.process_id


# -- every error code -----------------------------------------------------------------------------------------------


async def test_a_unit_nobody_owns_is_unroutable(context: GraphContext, owner: ProcessControlClient) -> None:
    response = await context.process_request("NOWHERE", "PING")
    assert (response.ok, response.error_code, response.process_id) == (False, Code.UNROUTABLE_UNIT, None)
    assert "No process owns unit" in (response.error or "")
    assert "NOWHERE" in (response.error or "")


async def test_a_short_timeout_is_honoured_and_the_late_answer_is_ignored(
    context: GraphContext, owner: ProcessControlClient
) -> None:
    stuck = Stuck()
    owner.set_request_handler(stuck)
    late = await context.process_request("UNIT", "SLOW", payload=b"late", timeout=0.05)
    assert (late.ok, late.error_code, late.process_id) == (False, Code.TIMEOUT, owner.process_id)
    assert "Timed out waiting for process response" in (late.error or "")
    await stuck.until(started=1)
    assert (stuck.started, stuck.cancelled) == (1, 0)
    stuck.release.set()
    response = await context.process_request("UNIT", "SLOW", payload=b"mine")
    assert (response.ok, response.payload) == (True, b"mine")
    await stuck.until(ended=2)


async def test_without_a_handler_custom_operations_are_unsupported(
    context: GraphContext, owner: ProcessControlClient
) -> None:
    for operation in ("CUSTOM", ProcessControlOperation.UPDATE_SETTING_FIELD):
        response = await context.process_request("UNIT", operation)
        assert response.error_code is Code.HANDLER_NOT_CONFIGURED
        name = operation if isinstance(operation, str) else operation.value
        assert response.error == f"Unsupported process control operation: {name}"
    owner.set_request_handler(echo)
    assert (await context.process_request("UNIT", "CUSTOM")).ok
    owner.set_request_handler(None)
    assert (await context.process_request("UNIT", "CUSTOM")).error_code is Code.HANDLER_NOT_CONFIGURED


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def fails(error: BaseException) -> Callable[[ProcessControlRequest], ProcessControlResponse]:
    def handler(request: ProcessControlRequest) -> ProcessControlResponse:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("gain must be positive"), "gain must be positive"),
        (StopIteration("odd"), "StopIteration"),
        (UnicodeError("\ud800"), ""),
        (Unspeakable(), "Unspeakable"),
        (asyncio.CancelledError(), "was cancelled"),
        (TimeoutError("its own"), "its own"),
        (ConnectionLost("a database"), "a database"),
    ],
)
async def test_a_handler_that_raises_is_a_handler_error_with_its_text(
    context: GraphContext, owner: ProcessControlClient, error: BaseException, text: str
) -> None:
    owner.set_request_handler(fails(error))
    response = await context.process_request("UNIT", "CUSTOM")
    assert (response.ok, response.error_code, response.process_id) == (False, Code.HANDLER_ERROR, owner.process_id)
    assert (response.error or "").startswith("process request handler failed: ")
    assert text in (response.error or "")
    assert (await context.process_ping("UNIT")).process_id == owner.process_id


@pytest.mark.parametrize(
    "wrong",
    [
        lambda request: None,
        lambda request: "text",
        lambda request: request,
        lambda request: ProcessControlResponse("another", True),
        lambda request: ProcessControlResponse(None, True),
        lambda request: ProcessControlResponse(request.request_id, "yes"),
        lambda request: ProcessControlResponse(request.request_id, True, payload="text"),
        lambda request: ProcessControlResponse(request.request_id, False, error=ValueError("x")),
        lambda request: ProcessControlResponse(request.request_id, False, error_code="HANDLER_ERROR"),
        lambda request: ProcessControlResponse(request.request_id, True, process_id="me"),
    ],
)
async def test_what_is_no_answer_to_the_request_is_invalid_and_ends_nothing(
    context: GraphContext, owner: ProcessControlClient, wrong: Callable[[ProcessControlRequest], Any]
) -> None:
    async def slowly(request: ProcessControlRequest) -> Any:
        return wrong(request)

    for handler in (wrong, slowly):
        owner.set_request_handler(handler)
        response = await context.process_request("UNIT", "CUSTOM")
        assert (response.ok, response.error_code) == (False, Code.INVALID_RESPONSE)
        assert response.process_id == owner.process_id
    owner.set_request_handler(echo)
    assert (await context.process_request("UNIT", "ECHO")).ok


async def test_a_request_that_cannot_be_written_is_a_failed_route(
    server: GraphServer, context: GraphContext, another: GraphContext, start_process: StartProcess
) -> None:
    worker = await start_process("own", server.address, "UNIT")
    await worker.halt()
    waiting = asyncio.create_task(context.process_request("UNIT", "ECHO", payload=bytes(LARGE), timeout=LONG_S))
    await asyncio.sleep(0)
    await context.process_request("NOWHERE", "PING", timeout=LONG_S)  # behind it: now it waits for the process
    async with asyncio.timeout(40):
        response = await another.process_request("UNIT", "ECHO", payload=bytes(LARGE), timeout=LONG_S)
    assert (response.ok, response.error_code) == (False, Code.ROUTE_WRITE_FAILED)
    assert response.process_id == UUID(worker.ready)
    assert (response.error or "").startswith("Failed to route request ECHO: ")
    worker.go_on()
    [first] = await answered(waiting)
    assert (first.ok, len(first.payload or b"")) == (True, LARGE)


async def test_large_answers_at_once_end_no_connection(
    server: GraphServer, context: GraphContext, owner: ProcessControlClient
) -> None:
    owner.set_request_handler(lambda request: ProcessControlResponse(request.request_id, True, payload=bytes(LARGE)))
    asked = [asyncio.create_task(context.process_request("UNIT", "LARGE", timeout=LONG_S)) for _ in range(3)]
    responses = await answered(*asked)
    assert any(response.ok for response in responses)
    for response in responses:
        assert response.ok or "do not fit behind" in (response.error or "")
    assert (await context.process_ping("UNIT")).process_id == owner.process_id


async def test_a_payload_larger_than_a_frame_is_a_failed_route(
    context: GraphContext, owner: ProcessControlClient
) -> None:
    response = await context.process_request("UNIT", "ECHO", payload=bytes((64 << 20) + 1))
    assert response.error_code is Code.ROUTE_WRITE_FAILED
    owner.set_request_handler(
        lambda request: ProcessControlResponse(request.request_id, True, payload=bytes((64 << 20) + 1))
    )
    response = await context.process_request("UNIT", "LARGE")
    assert response.error_code is Code.HANDLER_ERROR
    assert (await context.process_ping("UNIT")).process_id == owner.process_id


# -- by process id --------------------------------------------------------------------------------------------------


async def test_a_process_without_units_is_asked_by_its_id(
    context: GraphContext, owner: ProcessControlClient, bare: ProcessControlClient
) -> None:
    assert (await context.process_ping(process_id=bare.process_id)).process_id == bare.process_id
    assert (await context.process_stats(process_id=bare.process_id)).owned_units == []
    snapshot = await context.process_profiling_snapshot(process_id=bare.process_id)
    assert snapshot.process_id == bare.process_id
    bare.set_request_handler(lambda request: ProcessControlResponse(request.request_id, True, b"bare"))
    response = await context.process_request(None, "CUSTOM", process_id=bare.process_id)
    assert (response.payload, response.process_id) == (b"bare", bare.process_id)


async def test_with_a_process_id_the_unit_is_only_passed_on(
    context: GraphContext, owner: ProcessControlClient, bare: ProcessControlClient
) -> None:
    bare.set_request_handler(
        lambda request: ProcessControlResponse(request.request_id, True, request.unit_address.encode())
    )
    response = await context.process_request("UNIT", "CUSTOM", process_id=bare.process_id)
    assert (response.payload, response.process_id) == (b"UNIT", bare.process_id)


async def test_a_process_that_is_not_there_is_unroutable(context: GraphContext, bare: ProcessControlClient) -> None:
    gone = bare.process_id
    await bare.close()
    response = await context.process_request(None, "PING", process_id=gone)
    assert (response.error_code, response.process_id) == (Code.UNROUTABLE_UNIT, None)
    assert str(gone) in (response.error or "")
    with pytest.raises(ValueError, match="unit_address or a process_id"):
        await context.process_ping()


class RawProcess:
    """A process whose answers are made by hand."""

    def __init__(self, answer: Callable[[r.ProcessRequest], Any]) -> None:
        self._answer = answer
        self.process_id = uuid4()

    async def open(self, server: GraphServer) -> ControlClient:
        client = await ControlClient.connect(server.address, self, name="raw process")
        self.process_id = UUID((await client.request(r.OpenProcess(1, "host"), r.ProcessOpened)).client_id)
        return client

    def on_request(self, connection: object, record: r.Record) -> Any:
        assert isinstance(record, r.ProcessRequest)
        return self._answer(record)

    def on_notice(self, connection: object, record: r.Record) -> None:
        pass

    def on_closed(self, connection: object, error: Exception | None) -> None:
        pass


async def test_snapshots_of_all_processes_are_asked_for_at_once(server: GraphServer, context: GraphContext) -> None:
    count = 5
    all_asked, asked = asyncio.Event(), 0

    async def answer(request: r.ProcessRequest) -> r.Record:
        nonlocal asked
        asked += 1
        if asked == count:
            all_asked.set()
        await all_asked.wait()  # one after the other, this would never come
        snapshot = ProcessProfilingSnapshot(uuid4(), 1, "host", 0.0, 1.0, {}, {})
        return r.ProcessResponse(True, pickle.dumps(snapshot))

    processes = [RawProcess(answer) for _ in range(count)]
    clients = [await process.open(server) for process in processes]
    async with asyncio.timeout(40):
        snapshots = await context.profiling_snapshot_all(timeout_per_process=LONG_S)
    assert set(snapshots) == {process.process_id for process in processes}
    for client in clients:
        await client.close()


async def test_snapshots_of_all_leave_out_whoever_does_not_answer_well(
    server: GraphServer, context: GraphContext, bare: ProcessControlClient, start_process: StartProcess
) -> None:
    garbage = await RawProcess(lambda request: r.ProcessResponse(True, b"garbage")).open(server)
    worker = await start_process("own", server.address, "UNIT")
    await worker.halt()
    async with asyncio.timeout(40):
        while not (snapshots := await context.profiling_snapshot_all(timeout_per_process=0.2)):
            pass  # a busy machine took longer
    assert set(snapshots) == {bare.process_id}
    worker.go_on()
    async with asyncio.timeout(40):
        snapshots = await context.profiling_snapshot_all(timeout_per_process=LONG_S)
    assert set(snapshots) == {bare.process_id, UUID(worker.ready)}
    await garbage.close()


@pytest.mark.parametrize(
    "answer",
    [r.Done(), r.ProcessResponse(False, error_code="NO_SUCH_CODE"), r.ProcessResponse(True, process_id="no id")],
    ids=["record", "code", "id"],
)
async def test_a_process_that_answers_with_something_else_is_invalid(
    server: GraphServer, context: GraphContext, owner: ProcessControlClient, answer: r.Record
) -> None:
    process = RawProcess(lambda request: answer)
    client = await process.open(server)
    response = await context.process_request(None, "PING", process_id=process.process_id)
    assert (response.error_code, response.process_id) == (Code.INVALID_RESPONSE, process.process_id)
    assert list(await context.profiling_snapshot_all(timeout_per_process=LONG_S)) == [owner.process_id]
    await client.close()


# -- stuck handlers -------------------------------------------------------------------------------------------------


async def test_a_stuck_handler_holds_up_nobody(
    server: GraphServer, context: GraphContext, owner: ProcessControlClient, bare: ProcessControlClient
) -> None:
    stuck = Stuck()
    owner.set_request_handler(stuck)
    bare.set_request_handler(echo)
    asked = ask_stuck(context, MANY)
    await stuck.until(started=MANY)
    async with asyncio.timeout(40):
        for _ in range(10):
            assert (await context.process_ping("UNIT", timeout=LONG_S)).process_id == owner.process_id
            assert (await context.process_stats(process_id=bare.process_id, timeout=LONG_S)).owned_units == []
            assert (await context.process_request(None, "ECHO", process_id=bare.process_id, timeout=LONG_S)).ok
            assert len(await context.profiling_snapshot_all(timeout_per_process=LONG_S)) == 2
        await context.connect("A", "B")
        await owner.update_ownership(["MORE"])
    assert not any(task.done() for task in asked)
    stuck.release.set()
    assert all(response.ok for response in await answered(*asked))


async def test_more_requests_than_a_process_may_have_are_refused_and_pings_are_not(
    context: GraphContext, another: GraphContext, owner: ProcessControlClient
) -> None:
    stuck = Stuck()
    owner.set_request_handler(stuck)
    asked = ask_stuck(context, ROUTED_PER_CLIENT)
    await stuck.until(started=ROUTED_PER_CLIENT)
    asked += ask_stuck(another, MODEST)
    await stuck.until(started=ROUTED_PER_CLIENT + MODEST)
    for refused in (1, 2):
        response = await another.process_request("UNIT", "STUCK", timeout=LONG_S)
        assert (response.ok, response.error_code) == (False, Code.TOO_MANY_REQUESTS)
        assert response.process_id == owner.process_id
        assert f"{ROUTED_PER_CLIENT} requests of process {owner.process_id}" in (response.error or "")
        assert f"{refused} were refused" in (response.error or "")
    assert (await another.process_ping("UNIT")).process_id == owner.process_id
    assert (await context.process_ping("UNIT")).process_id == owner.process_id
    stuck.release.set()
    await answered(*asked)
    assert (await another.process_request("UNIT", "STUCK")).ok


async def test_more_requests_than_a_requester_may_have_are_refused_and_others_go_on(
    context: GraphContext, another: GraphContext, owner: ProcessControlClient, bare: ProcessControlClient
) -> None:
    stuck = Stuck()
    owner.set_request_handler(stuck)
    bare.set_request_handler(echo)
    asked = ask_stuck(context, ROUTED_PER_CLIENT)
    await stuck.until(started=ROUTED_PER_CLIENT)
    response = await context.process_request(None, "ECHO", process_id=bare.process_id)
    assert response.error_code is Code.TOO_MANY_REQUESTS
    assert (await another.process_request(None, "ECHO", process_id=bare.process_id)).ok
    assert len((await context.snapshot()).processes) == 2
    stuck.release.set()
    await answered(*asked)


async def test_what_timed_out_counts_until_its_handler_ends(context: GraphContext, owner: ProcessControlClient) -> None:
    stuck = Stuck()
    owner.set_request_handler(stuck)
    asked = ask_stuck(context, ROUTED_PER_CLIENT, timeout=0.05)
    assert {response.error_code for response in await answered(*asked)} == {Code.TIMEOUT}
    await stuck.until(started=ROUTED_PER_CLIENT)
    more = ask_stuck(context, MODEST)
    await stuck.until(started=ROUTED_PER_CLIENT + MODEST)
    assert (await context.process_request("UNIT", "STUCK")).error_code is Code.TOO_MANY_REQUESTS
    stuck.release.set()
    await answered(*more)
    await stuck.until(ended=ROUTED_PER_CLIENT)
    await context.process_ping("UNIT")  # behind the late answers
    assert (await context.process_request("UNIT", "STUCK")).ok


# -- whoever dies ---------------------------------------------------------------------------------------------------


async def test_a_killed_process_disconnects_every_requester_at_once(
    server: GraphServer, context: GraphContext, another: GraphContext, start_process: StartProcess
) -> None:
    worker = await start_process("own", server.address, "UNIT")
    asked = ask_stuck(context, 10) + ask_stuck(another, 10)
    for _ in asked:
        assert await worker.line() == "stuck"
    await worker.kill()
    for response in await answered(*asked):
        assert (response.ok, response.error_code) == (False, Code.PROCESS_DISCONNECTED)
        assert response.error == "Owning process disconnected before response"
        assert response.process_id == UUID(worker.ready)
    assert (await context.process_request("UNIT", "STUCK")).error_code is Code.UNROUTABLE_UNIT


async def test_a_killed_requester_leaves_nothing_at_server_and_owner(
    server: GraphServer, context: GraphContext, owner: ProcessControlClient, start_process: StartProcess
) -> None:
    stuck = Stuck()
    owner.set_request_handler(stuck)
    worker = await start_process("ask", server.address, "UNIT", ROUTED_PER_CLIENT)
    await stuck.until(started=ROUTED_PER_CLIENT)
    mine = ask_stuck(context, MODEST)
    await stuck.until(started=ROUTED_PER_CLIENT + MODEST)
    assert (await context.process_request("UNIT", "STUCK")).error_code is Code.TOO_MANY_REQUESTS
    for task in mine:
        task.cancel()
    await stuck.until(cancelled=MODEST)
    await worker.kill()
    await stuck.until(cancelled=MODEST + ROUTED_PER_CLIENT)
    await context.process_ping("UNIT")  # behind what the owner still said
    asked = ask_stuck(context, ROUTED_PER_CLIENT)
    await stuck.until(started=MODEST + 2 * ROUTED_PER_CLIENT)
    stuck.release.set()
    assert all(response.ok for response in await answered(*asked))


async def test_a_cancelled_request_cancels_its_handler_and_no_other(
    context: GraphContext, owner: ProcessControlClient
) -> None:
    stuck = Stuck()
    owner.set_request_handler(stuck)
    first, second = ask_stuck(context, 2)
    await stuck.until(started=2)
    first.cancel()
    await stuck.until(cancelled=1)
    stuck.release.set()
    [response] = await answered(second)
    assert response.ok
    assert (stuck.cancelled, stuck.ended) == (1, 1)
    assert first.cancelled()


async def test_a_requester_that_leaves_ends_what_timed_out(
    server: GraphServer, context: GraphContext, owner: ProcessControlClient
) -> None:
    stuck = Stuck()
    owner.set_request_handler(stuck)
    async with GraphContext(server.address) as leaving:
        response = await leaving.process_request("UNIT", "STUCK", timeout=0.05)
        assert response.error_code is Code.TIMEOUT
        await stuck.until(started=1)
        assert stuck.cancelled == 0
    await stuck.until(cancelled=1)
    assert (await context.process_ping("UNIT")).process_id == owner.process_id


async def test_leaving_the_context_ends_its_own_requests_by_name(
    server: GraphServer, owner: ProcessControlClient
) -> None:
    stuck = Stuck()
    owner.set_request_handler(stuck)
    async with GraphContext(server.address) as leaving:
        asked = ask_stuck(leaving, 3)
        await stuck.until(started=3)
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(result, ConnectionLost) for result in results)
    await stuck.until(cancelled=3)


async def test_the_end_of_the_server_ends_requests_and_handlers(
    server: GraphServer, context: GraphContext, owner: ProcessControlClient
) -> None:
    stuck = Stuck()
    owner.set_request_handler(stuck)
    asked = ask_stuck(context, 3)
    await stuck.until(started=3)
    await asyncio.to_thread(server.stop)
    async with asyncio.timeout(40):
        results = await asyncio.gather(*asked, return_exceptions=True)
    assert all(
        isinstance(result, ConnectionLost) or result.error_code is Code.PROCESS_DISCONNECTED  # type: ignore[union-attr]
        for result in results
    )
    await stuck.until(cancelled=3)


# -- whoever stands still -------------------------------------------------------------------------------------------


async def test_a_process_that_stands_still_times_out_and_others_answer(
    server: GraphServer, context: GraphContext, bare: ProcessControlClient, start_process: StartProcess
) -> None:
    worker = await start_process("own", server.address, "UNIT")
    await worker.halt()
    response = await context.process_request("UNIT", "PING", timeout=0.05)
    assert (response.error_code, response.process_id) == (Code.TIMEOUT, UUID(worker.ready))
    assert (await context.process_ping(process_id=bare.process_id)).process_id == bare.process_id
    worker.go_on()
    assert (await context.process_ping("UNIT", timeout=LONG_S)).process_id == UUID(worker.ready)


async def test_requests_to_a_server_that_stands_still_end_by_name(
    start_process: StartProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SERVER_TIMEOUT_S", 0.05)
    worker = await start_process("serve")
    async with GraphContext(worker.ready) as context:
        process = ProcessControlClient(worker.ready)
        await process.register(["UNIT"])
        await worker.halt()
        monkeypatch.setattr(graphcontext, "GRAPH_TIMEOUT_S", 0.05)
        monkeypatch.setattr(asking, "GRAPH_TIMEOUT_S", 0.05)
        monkeypatch.setenv("EZMSG_SUBSCRIBER_UPDATE_TIMEOUT_SEC", "0")
        async with asyncio.timeout(40):
            response = await context.process_request("UNIT", "PING", timeout=0.05)
            assert (response.ok, response.error_code) == (False, Code.TIMEOUT)
            assert f"the GraphServer at {worker.ready} does not answer" in (response.error or "")
            with pytest.raises(RuntimeError, match="TIMEOUT"):
                await context.process_stats("UNIT", timeout=0.05)
            for request in (
                context.profiling_snapshot_all(timeout_per_process=0.05),
                context.snapshot(),
                context.connect("A", "B"),
                context.disconnect("A", "B"),
                context.sync(timeout=0.05),
            ):
                with pytest.raises(RequestTimeout):
                    await request
        worker.go_on()
        monkeypatch.undo()
        assert (await context.process_ping("UNIT", timeout=LONG_S)).process_id == process.process_id
        await process.close()
