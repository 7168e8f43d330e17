"""ProcessControlClient: makes a process known to the graph, with the units it owns, and answers requests to them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import pickle
import reprlib
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, cast
from uuid import UUID, uuid4

from ezmsg.core import config
from ezmsg.core.control import ControlClient
from ezmsg.core.control.link import ServerLink
from ezmsg.core.control.spans import OperationSpan, answering
from ezmsg.core.errors import (
    ConnectionLost,
    EzmsgError,
    RequestTimeout,
    ServerUnreachable,
    UnitAlreadyOwned,
    UnitNotOwned,
)
from ezmsg.core.graphmeta import (
    ProcessControlErrorCode,
    ProcessControlOperation,
    ProcessControlRequest,
    ProcessControlResponse,
    ProcessPing,
    ProcessStats,
)
from ezmsg.core.net.address import AddressType
from ezmsg.core.profiling import PROFILES, ProfileRegistry
from ezmsg.core.settingsmeta import settings_snapshot_value
from ezmsg.core.telemetry.operations import OPERATIONS, OperationFailed
from ezmsg.core.wire import records as r
from ezmsg.core.wire.metadata import SettingsValue, record_of

logger = logging.getLogger("ezmsg")

RequestHandler = Callable[[ProcessControlRequest], ProcessControlResponse | Awaitable[ProcessControlResponse]]

COMMAND_TIMEOUT_S = 5.0
# What a busy process may take to deliver what it measured, before it leaves.
FLUSH_TIMEOUT_S = 0.2

NOTHING = type(None)
RESPONSE_FIELDS: dict[str, tuple[type, ...]] = {
    "ok": (bool,),
    "payload": (bytes, bytearray, memoryview, NOTHING),
    "error": (str, NOTHING),
    "error_code": (ProcessControlErrorCode, NOTHING),
    "process_id": (UUID, NOTHING),
}


class ProcessControlClient:
    """One process on the control plane.

    When the server is lost (not when it ends in order) this client takes its place at the next server at its address,
    under the same id, with its units and their settings as it reported them last.

    Args:
        graph_address: Of the GraphServer; None for the default.
        profiles: The process's recorder, when not the default one.

    Attributes:
        client_id: How the graph knows this process; None before `connect`.
    """

    def __init__(self, graph_address: AddressType | None = None, *, profiles: ProfileRegistry | None = None) -> None:
        self._graph_address = graph_address
        self._profiles = profiles or PROFILES
        self._control: ServerLink | None = None
        self._connecting = asyncio.Lock()
        self._units: set[str] = set()
        # What the next server is told: whether this process registered, and the settings it reported last.
        self._is_registered = False
        self._reported: dict[str, r.ReportSettings] = {}
        self._handler: RequestHandler | None = None
        self._handling: set[asyncio.Task[r.Record]] = set()
        self._is_closing = False
        # Programs assign this to slow the push down; samples are pushed by the telemetry link, which has its own pace.
        self._trace_push_interval_s = config.trace_push_interval_s()
        self.client_id: UUID | None = None

    def __repr__(self) -> str:
        return f"<ProcessControlClient {self.client_id or 'not connected'} units={sorted(self._units)}>"

    @property
    def process_id(self) -> UUID:
        """How the graph knows this process.

        Raises:
            RuntimeError: The client is not connected.
        """
        if self.client_id is None:
            raise RuntimeError("Process control connection is not active: call `await client.connect()` first")
        return self.client_id

    def set_request_handler(self, handler: RequestHandler | None) -> None:
        """Answer operations that are not built in with `handler`, a plain or an async callable; None removes it.

        It runs in this client's event loop: what takes long belongs into an async handler, or a thread it awaits; while
        a plain one blocks the loop, nothing in it goes on. Any number may run at once. One that was not done in time
        goes on, its answer is ignored; it is cancelled when its requester takes the request back or is gone, and when
        this client closes.
        """
        self._handler = handler

    # -- the connection -----------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Make this process known; does nothing when it is.

        Raises:
            ServerUnreachable: No GraphServer answers.
        """
        await self._connected()

    async def _connected(self) -> ServerLink:
        async with self._connecting:
            if self._control is not None:
                return self._control
            control = await ServerLink.connect(self._graph_address, self, name="process")
            client_id = uuid4()
            self._control, self.client_id = control, client_id
            self._is_closing = False
            try:
                await control.introduce()
            except BaseException:
                self._control = self.client_id = None
                await control.abort()
                raise
            self._profiles.client_opened(str(control.address), client_id)
            return control

    async def introduce(self, client: ControlClient) -> None:
        """Make this process known at a server, with all it owns."""
        assert self._control is not None
        units = sorted(self._units) if self._is_registered else None
        opening = r.OpenProcess(os.getpid(), socket.gethostname(), str(self.client_id), self._control.token, units)
        opened = await client.request(opening, r.ProcessOpened, COMMAND_TIMEOUT_S)
        if opened.refused:
            logger.warning("%r lost units to other processes: %s", self, opened.refused)
            self._own(self._units - opened.refused.keys())
        for report in list(self._reported.values()):
            await client.request(report, timeout_s=COMMAND_TIMEOUT_S)

    def _own(self, units: set[str]) -> None:
        self._units, self._is_registered = units, True
        self._reported = {unit: report for unit, report in self._reported.items() if unit in units}

    async def close(self) -> None:
        """Leave the graph: when this returns, the server has dropped the units. Safe to call twice.

        Handlers that still run are cancelled, and not waited for; their requesters are told that the process
        disconnected.
        """
        await self._leave(is_told=True)

    async def abandon(self) -> None:
        """As `close`, for a graph that ends: nothing is told to it, and nothing waited for."""
        await self._leave(is_told=False)

    async def _leave(self, *, is_told: bool) -> None:
        async with self._connecting:
            control, self._control = self._control, None
            client_id, self.client_id = self.client_id, None
            if control is None or client_id is None:
                return
            self._is_closing = True
            self._units, self._is_registered, self._reported = set(), False, {}
            current = asyncio.current_task()
            for task in self._handling:
                if task is not current:
                    _cancel(task)
            if is_told and control.is_up:
                # While it still goes under our name: streams get it whole.
                await self._profiles.flushed(FLUSH_TIMEOUT_S)
            self._profiles.client_closed(str(control.address), client_id)
            # The server hangs up when it has dropped the process; one that does not answer is not waited for.
            await (control.close() if is_told else control.abort())

    async def register(self, units: Iterable[str]) -> None:
        """Own exactly these units.

        Raises:
            RuntimeError: Another process owns one of them (`UnitAlreadyOwned`), or the server did not answer.
        """
        wanted = sorted(set(units))
        await self._command(r.ProcessRegister(os.getpid(), socket.gethostname(), wanted), "PROCESS_REGISTER")
        self._own(set(wanted))

    async def update_ownership(
        self, added_units: Iterable[str] | None = None, removed_units: Iterable[str] | None = None
    ) -> None:
        """Claim and give up units.

        Raises:
            RuntimeError: Another process owns one of them (`UnitAlreadyOwned`), or the server did not answer.
        """
        added, removed = sorted(set(added_units or ())), sorted(set(removed_units or ()))
        await self._command(r.ProcessUpdateOwnership(added, removed), "PROCESS_UPDATE_OWNERSHIP")
        self._own((self._units - set(removed)) | set(added))

    async def report_settings_update(
        self, component_address: str, value: object, timestamp: float | None = None
    ) -> None:
        """Tell the graph what the settings of a unit of this process are now.

        Args:
            component_address: The unit.
            value: A SettingsSnapshotValue, or the settings themselves.
            timestamp: Since when, in Unix seconds; None for now.

        Raises:
            RuntimeError: This process does not own the unit (`UnitNotOwned`), or the server did not answer. One that
                is lost is told when it is back.
        """
        record = record_of(settings_snapshot_value(value), SettingsValue)
        timestamp_s = time.time() if timestamp is None else float(timestamp)
        report = r.ReportSettings(component_address, record, timestamp_s)
        try:
            await self._command(report, "PROCESS_SETTINGS_UPDATE")
        except RuntimeError as error:
            if isinstance(error.__cause__, ConnectionLost) and component_address in self._units:
                self._reported[component_address] = report
            raise
        self._reported[component_address] = report

    async def _command(self, record: r.Record, name: str) -> None:
        try:
            control = await self._connected()
            await control.request(record, timeout_s=COMMAND_TIMEOUT_S)
        except ServerUnreachable:
            raise
        except (UnitAlreadyOwned, UnitNotOwned):
            raise
        except RequestTimeout as error:
            raise RuntimeError(f"Timed out waiting for the answer to process control command {name}") from error
        except EzmsgError as error:
            raise RuntimeError(f"Process control command failed: {name}: {error}") from error

    # -- handler of the connection ------------------------------------------------------------------------------------

    def on_notice(self, connection: object, record: r.Record) -> None:
        """Nothing is told to a process but goodbye, which the link takes."""

    def on_end(self, reason: str) -> None:
        """The server has ended; requests can no longer come."""

    def on_request(self, connection: object, record: r.Record) -> r.Record | Awaitable[r.Record]:
        """Answer an operation: a built-in one at once, any other from the user's handler, whenever that is done."""
        if not isinstance(record, r.ProcessRequest):
            raise EzmsgError(f"a process has no answer to {type(record).__name__}")
        if self._is_closing:
            return asyncio.get_running_loop().create_future()  # the end of the connection is the answer
        builtin = BUILTIN.get(record.operation)
        if builtin is None:
            return self._start(record)
        with self._span(record) as span:
            try:
                return self._reply(pickle.dumps(builtin(self, record)))
            except Exception as error:
                answer = self._failure(record, error)
                span.error = answer.error_code or ""
                return answer

    def _start(self, record: r.ProcessRequest) -> asyncio.Future[r.Record]:
        """Run the handler in a task of ours: the connection waits for what it gave out, and handlers may take long."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[r.Record] = loop.create_future()
        task = loop.create_task(self._answer(record), name=f"{record.operation} of {record.unit_address or 'process'}")
        self._handling.add(task)
        task.add_done_callback(partial(self._handled, answer, record))
        # The requester takes it back, or the connection ends.
        answer.add_done_callback(lambda _: _cancel(task))
        return answer

    def _handled(
        self, answer: asyncio.Future[r.Record], record: r.ProcessRequest, task: asyncio.Task[r.Record]
    ) -> None:
        self._handling.discard(task)
        error = None if task.cancelled() else task.exception()
        if answer.done() or self._is_closing:
            return  # nobody waits any more, or the end of the connection is the answer
        if task.cancelled():
            text = f"process request handler failed: {record.operation} was cancelled"
            answer.set_result(self._refusal(ProcessControlErrorCode.HANDLER_ERROR, text))
        elif error is None:
            answer.set_result(task.result())
        else:
            answer.set_exception(error)

    def _span(self, record: r.ProcessRequest) -> OperationSpan:
        graph = "" if self._control is None else self._control.address
        return answering(
            record.operation, record.unit_address, self.client_id, graph, record.traceparent, self._profiles
        )

    async def _answer(self, record: r.ProcessRequest) -> r.Record:
        with self._span(record) as span:
            try:
                answer = await self._ask_handler(record)
            except Exception as error:
                answer = self._failure(record, error)
            if not answer.ok:
                span.error = answer.error_code or "_OTHER"
            return answer

    def _failure(self, record: r.ProcessRequest, error: Exception) -> r.ProcessResponse:
        if isinstance(error, OperationFailed):
            return self._refusal(error.error_code, str(error))
        logger.error("process control operation %s failed", record.operation, exc_info=error)
        return self._refusal(ProcessControlErrorCode.HANDLER_ERROR, f"process request handler failed: {_text(error)}")

    def _reply(self, payload: bytes | None) -> r.ProcessResponse:
        return r.ProcessResponse(True, payload, process_id=str(self.client_id))

    def _refusal(self, code: ProcessControlErrorCode, error: str) -> r.ProcessResponse:
        return r.ProcessResponse(False, error=error, error_code=code.value, process_id=str(self.client_id))

    async def _ask_handler(self, record: r.ProcessRequest) -> r.ProcessResponse:
        if self._handler is None:
            raise OperationFailed(
                ProcessControlErrorCode.HANDLER_NOT_CONFIGURED,
                f"Unsupported process control operation: {record.operation}",
            )
        request = ProcessControlRequest(
            record.request_id or str(uuid4()), record.unit_address, record.operation, record.payload
        )
        request_id = request.request_id
        answer = self._handler(request)
        # The handler is the user's: it may return anything.
        response = cast(object, await answer if inspect.isawaitable(answer) else answer)
        if (wrong := _wrong_in(response, request_id)) or not isinstance(response, ProcessControlResponse):
            raise OperationFailed(
                ProcessControlErrorCode.INVALID_RESPONSE,
                f"the handler of {record.operation} must return a ProcessControlResponse to request {request_id}: "
                f"{wrong}",
            )
        return r.ProcessResponse(
            response.ok,
            None if response.payload is None else bytes(response.payload),
            None if response.error is None else str(response.error),
            None if response.error_code is None else response.error_code.value,
            str(response.process_id or self.client_id),
        )

    # -- built-in operations ------------------------------------------------------------------------------------------

    def _ping(self, request: r.ProcessRequest) -> ProcessPing:
        return ProcessPing(self.process_id, os.getpid(), socket.gethostname(), time.time())

    def _stats(self, request: r.ProcessRequest) -> ProcessStats:
        return ProcessStats(self.process_id, os.getpid(), socket.gethostname(), sorted(self._units), time.time())

    def _measured(self, request: r.ProcessRequest) -> object:
        return OPERATIONS[request.operation](self._profiles, self.process_id, request)


BUILTIN: dict[str, Callable[[ProcessControlClient, r.ProcessRequest], object]] = {
    ProcessControlOperation.PING.value: ProcessControlClient._ping,  # pyright: ignore[reportPrivateUsage]
    ProcessControlOperation.GET_PROCESS_STATS.value: ProcessControlClient._stats,  # pyright: ignore[reportPrivateUsage]
    **dict.fromkeys(OPERATIONS, ProcessControlClient._measured),  # pyright: ignore[reportPrivateUsage]
}


def _wrong_in(response: object, request_id: str) -> str:
    """What makes this no answer to that request; "" if it is one. What cannot travel must not end the connection."""
    if not isinstance(response, ProcessControlResponse):
        return f"it returned {type(response).__name__}"
    if response.request_id != request_id:
        return f"its request_id is {reprlib.repr(response.request_id)}"
    for name, expected in RESPONSE_FIELDS.items():
        value = getattr(response, name)
        if not isinstance(value, expected):
            return f"its {name} is a {type(value).__name__}"
    return ""


def _cancel(task: asyncio.Task[Any]) -> None:
    """Once: what a handler does when it is cancelled is not interrupted."""
    if not task.cancelling():
        task.cancel()


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:
        return type(error).__name__
