"""Requests to processes, which the GraphServer passes on: what a GraphContext asks of them."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import pickle
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

from ezmsg.core.control.link import ServerLink
from ezmsg.core.control.spans import asking
from ezmsg.core.errors import BacklogFull, FrameTooLarge, RequestTimeout, TooManyRequests
from ezmsg.core.graphmeta import (
    ProcessControlErrorCode,
    ProcessControlOperation,
    ProcessControlResponse,
    ProcessPing,
    ProcessProfilingSnapshot,
    ProcessProfilingTraceBatch,
    ProcessStats,
    ProfilingTraceControl,
)
from ezmsg.core.profiling import random_bits
from ezmsg.core.wire import records as r
from ezmsg.core.wire.limits import ROUTED_PER_CLIENT

logger = logging.getLogger("ezmsg")
T = TypeVar("T")

# What a server may take to answer, besides the time that is spent on what it was asked for.
SERVER_TIMEOUT_S = 1.0
# Half of what a requester may have in flight: the other half is for the program.
ASKED_AT_ONCE = ROUTED_PER_CLIENT // 2
# The same few processes answer again and again.
_id_of = functools.lru_cache(maxsize=256)(UUID)


class ProcessRequests:
    """The part of a session that talks to processes."""

    _reader: str

    def _active(self) -> ServerLink:
        """The connection of the session."""
        raise NotImplementedError

    async def process_request(
        self,
        unit_address: str | None,
        operation: ProcessControlOperation | str,
        *,
        payload: bytes | None = None,
        payload_obj: Any = None,
        timeout: float = 2.0,
        process_id: UUID | None = None,
    ) -> ProcessControlResponse:
        """Ask the process that owns a unit, or the one with this id. Cancelling it cancels the handler, too.

        Args:
            unit_address: The unit; with a `process_id` it is only passed on, and may be None.
            operation: A built-in operation, or the name of one that the process's own handler knows.
            payload: Bytes for the handler, opaque to the server.
            payload_obj: Pickled and sent as payload.
            timeout: Seconds to wait for the process; a server that does not answer is given one second more.
            process_id: Ask this process, which need not own any unit; ids as in `snapshot().processes`.

        Returns:
            The answer; failures are answers too, with `ok` False and an `error_code`.

        Raises:
            ValueError: There are two payloads, neither a unit nor a process, or the timeout is no number of seconds.
            TypeError: What was given cannot be sent.
            ConnectionLost: The server is gone.
            SessionClosed: This context was not entered, or was left.
        """
        if payload is not None and payload_obj is not None:
            raise ValueError("give payload or payload_obj, not both")
        if payload_obj is not None:
            payload = pickle.dumps(payload_obj)
        if payload is not None and not isinstance(payload, (bytes, bytearray, memoryview)):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may err
            raise TypeError(f"payload must be bytes, not {type(payload).__name__}: give objects as payload_obj")
        if unit_address is None and process_id is None:
            raise ValueError("give a unit_address or a process_id")
        name = operation.value if isinstance(operation, ProcessControlOperation) else operation
        for what, text in (("unit_address", unit_address or ""), ("operation", name)):
            if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may err
                raise TypeError(f"{what} must be a string, not {type(text).__name__}")
        timeout = float(timeout)
        if not 0 <= timeout < math.inf:
            raise ValueError(f"timeout must be seconds, 0 or more, not {timeout:g}")
        target = "" if process_id is None else str(process_id)
        with asking(name, unit_address or "", target, self._active().address) as span:
            request = r.ProcessRequest(
                unit_address or "", name, bytes(payload) if payload else None, timeout,
                target, self._reader, f"{random_bits(128):032x}", span.traceparent,
            )  # fmt: skip
            response = await self._route(request, process_id)
            if not response.ok:
                span.error = "" if response.error_code is None else response.error_code.value
                span.error = span.error or "_OTHER"
        return response

    async def _route(self, request: r.ProcessRequest, process_id: UUID | None) -> ProcessControlResponse:
        session = self._active()
        try:
            answer = await session.request(
                request, r.ProcessResponse, request.timeout_s + SERVER_TIMEOUT_S, revocable=True
            )
        except RequestTimeout:
            text = (
                f"Timed out waiting for process response to {request.operation}: the GraphServer at {session.address} "
                f"does not answer"
            )
            return ProcessControlResponse(
                request.request_id, False, None, text, ProcessControlErrorCode.TIMEOUT, process_id
            )
        except (BacklogFull, FrameTooLarge) as error:
            text = f"Failed to route request {request.operation}: {error}"
            return ProcessControlResponse(
                request.request_id, False, None, text, ProcessControlErrorCode.ROUTE_WRITE_FAILED, process_id
            )
        except TooManyRequests as error:
            return ProcessControlResponse(
                request.request_id, False, None, str(error), ProcessControlErrorCode.TOO_MANY_REQUESTS, process_id
            )
        return ProcessControlResponse(
            request_id=request.request_id,
            ok=answer.ok,
            payload=answer.payload,
            error=answer.error,
            error_code=None if answer.error_code is None else ProcessControlErrorCode(answer.error_code),
            process_id=None if answer.process_id is None else _id_of(answer.process_id),
        )

    def decode_process_payload(self, response: ProcessControlResponse, expected_type: type[T] = object) -> T:
        """The object in the payload of a successful response.

        Raises:
            RuntimeError: The request failed, or its payload is missing, cannot be read here, or is of another type.
        """
        if not response.ok:
            code = "UNKNOWN" if response.error_code is None else response.error_code.value
            raise RuntimeError(f"Process request failed ({code}): {response.error}")
        if response.payload is None:
            raise RuntimeError("Process response has no payload")
        try:
            value = pickle.loads(response.payload)  # from an authenticated peer, never looked at by the server
        except Exception as error:
            raise RuntimeError(f"Process response cannot be read: {error}") from error
        if not isinstance(value, expected_type):
            raise RuntimeError(f"Process response holds {type(value).__name__}, expected {expected_type.__name__}")
        return value

    async def _ask(
        self,
        unit_address: str | None,
        operation: ProcessControlOperation,
        expected: type[T],
        timeout: float,
        process_id: UUID | None,
        argument: Any = None,
    ) -> T:
        response = await self.process_request(
            unit_address, operation, payload_obj=argument, timeout=timeout, process_id=process_id
        )
        return self.decode_process_payload(response, expected)

    async def process_ping(
        self, unit_address: str | None = None, *, timeout: float = 2.0, process_id: UUID | None = None
    ) -> ProcessPing:
        """Ask the process of a unit, or the one with this id, whether it answers.

        This and all `process_*` below raise a RuntimeError that names the error code when it does not.
        """
        return await self._ask(unit_address, ProcessControlOperation.PING, ProcessPing, timeout, process_id)

    async def process_stats(
        self, unit_address: str | None = None, *, timeout: float = 2.0, process_id: UUID | None = None
    ) -> ProcessStats:
        """Ask the process of a unit, or the one with this id, what it is and owns."""
        operation = ProcessControlOperation.GET_PROCESS_STATS
        return await self._ask(unit_address, operation, ProcessStats, timeout, process_id)

    async def process_profiling_snapshot(
        self, unit_address: str | None = None, *, timeout: float = 2.0, process_id: UUID | None = None
    ) -> ProcessProfilingSnapshot:
        """Totals of all endpoints of a process; window values since this context asked last."""
        operation = ProcessControlOperation.GET_PROFILING_SNAPSHOT
        return await self._ask(unit_address, operation, ProcessProfilingSnapshot, timeout, process_id)

    async def process_set_profiling_trace(
        self,
        unit_address: str | None,
        control: ProfilingTraceControl,
        *,
        timeout: float = 2.0,
        process_id: UUID | None = None,
    ) -> ProcessControlResponse:
        """Switch the collection of trace samples in a process on or off; returns the answer, good or bad."""
        operation = ProcessControlOperation.SET_PROFILING_TRACE
        return await self.process_request(
            unit_address, operation, payload_obj=control, timeout=timeout, process_id=process_id
        )

    async def process_profiling_trace_batch(
        self,
        unit_address: str | None = None,
        *,
        max_samples: int = 1000,
        timeout: float = 2.0,
        process_id: UUID | None = None,
    ) -> ProcessProfilingTraceBatch:
        """The oldest samples of a process that this context has not read yet."""
        operation = ProcessControlOperation.GET_PROFILING_TRACE_BATCH
        return await self._ask(unit_address, operation, ProcessProfilingTraceBatch, timeout, process_id, max_samples)

    async def profiling_snapshot_all(self, *, timeout_per_process: float = 0.5) -> dict[UUID, ProcessProfilingSnapshot]:
        """Ask every process, at once; those that do not answer in time are left out.

        All in all this takes as long as the slowest, `timeout_per_process` at most; more where there are more processes
        than may be asked at once (200).
        """
        return await self._snapshots(timeout_per_process, with_links=False)

    async def _snapshots(self, timeout_s: float, *, with_links: bool) -> dict[UUID, ProcessProfilingSnapshot]:
        """The snapshots of all processes that answer; with `with_links` also of those that only have a link."""

        async def ask(process_id: UUID) -> ProcessProfilingSnapshot | None:
            try:
                return await self.process_profiling_snapshot(timeout=timeout_s, process_id=process_id)
            except RuntimeError as error:
                logger.debug("process %s gave no profiling snapshot: %s", process_id, error)
                return None

        answers = await self._ask_all(ask, timeout_s, with_links=with_links)
        return {process_id: answer for process_id, answer in answers.items() if answer is not None}

    async def set_profiling_trace_all(
        self, control: ProfilingTraceControl, *, timeout_per_process: float = 2.0
    ) -> dict[UUID, ProcessControlResponse]:
        """Do as `process_set_profiling_trace` in every process that is there now; returns the answers, good or bad.

        That includes processes with publishers and subscribers, but without a ProcessControlClient: they take over the
        level and the rates of traces, but collect no samples, which no stream would tell. They answer under an id that
        is not in `snapshot().processes`, and can be asked for what they measure by it.
        """

        async def ask(process_id: UUID) -> ProcessControlResponse:
            return await self.process_set_profiling_trace(
                None, control, timeout=timeout_per_process, process_id=process_id
            )

        answers = await self._ask_all(ask, timeout_per_process, with_links=True)
        # One whose client is new is known by that.
        return {answer.process_id or process_id: answer for process_id, answer in answers.items()}

    async def _ask_all(
        self, ask: Callable[[UUID], Awaitable[T]], timeout_s: float, *, with_links: bool = False
    ) -> dict[UUID, T]:
        """Ask every process, many at once; with `with_links` also those that only have a telemetry link."""
        state = await self._active().request(r.GetSnapshot(), r.Snapshot, timeout_s + SERVER_TIMEOUT_S)
        asked = [entry.process_id for entry in state.processes] + (state.links if with_links else [])
        at_once = asyncio.Semaphore(ASKED_AT_ONCE)

        async def ask_one(process_id: UUID) -> tuple[UUID, T]:
            async with at_once:
                return process_id, await ask(process_id)

        return dict(await asyncio.gather(*(ask_one(UUID(process_id)) for process_id in asked)))
