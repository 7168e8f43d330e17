"""Operations on what a process measures: its client does them, and its telemetry link for a process that has none."""

from __future__ import annotations

import dataclasses
import logging
import pickle
import reprlib
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from ezmsg.core.control.spans import answering
from ezmsg.core.errors import EzmsgError, InvalidTraceControl
from ezmsg.core.graphmeta import ProcessControlErrorCode, ProcessControlOperation, ProfilingTraceControl
from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.wire.records import ProcessRequest, ProcessResponse

logger = logging.getLogger("ezmsg")

DEFAULT_BATCH_SAMPLES: Final = 1000
# More than this in one answer might not fit a frame; the rest is there for the next.
MOST_BATCH_SAMPLES: Final = 100_000

Operation = Callable[[ProfileRegistry, UUID, ProcessRequest], object]


class OperationFailed(EzmsgError, RuntimeError):
    """An operation failed, with the code its requester gets."""

    code = "OPERATION_FAILED"

    def __init__(self, error_code: ProcessControlErrorCode, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code


def answer(profiles: ProfileRegistry, graph: str, request: ProcessRequest) -> ProcessResponse:
    """Do what is asked of a process over its telemetry link to a graph.

    It goes by the id of that link while it has no client there. No stream knows it then, so no samples are collected.
    """
    client_id = profiles.client_of(graph)
    process_id = client_id or UUID(request.process_id)
    with answering(request.operation, request.unit_address, process_id, graph, request.traceparent, profiles) as span:
        try:
            value = _perform(profiles, process_id, request, has_client=client_id is not None)
            return ProcessResponse(True, pickle.dumps(value), process_id=str(process_id))
        except OperationFailed as error:
            code, text = error.error_code, str(error)
        except Exception as error:  # the link goes on
            logger.exception("process control operation %s failed", request.operation)
            code, text = ProcessControlErrorCode.HANDLER_ERROR, f"process request handler failed: {error}"
        span.error = code.value
        return ProcessResponse(False, error=text, error_code=code.value, process_id=str(process_id))


def _perform(profiles: ProfileRegistry, process_id: UUID, request: ProcessRequest, *, has_client: bool) -> object:
    if request.operation == ProcessControlOperation.SET_PROFILING_TRACE.value and not has_client:
        control = argument(request, ProfilingTraceControl)
        return _set_control(profiles, dataclasses.replace(control, metrics=[]))
    operation = OPERATIONS.get(request.operation)
    if operation is None:
        raise OperationFailed(
            ProcessControlErrorCode.HANDLER_NOT_CONFIGURED,
            f"Unsupported process control operation: {request.operation} (a process without a ProcessControlClient "
            f"knows {', '.join(OPERATIONS)})",
        )
    return operation(profiles, process_id, request)


def argument(request: ProcessRequest, expected: type[Any]) -> Any:
    """The object that came with a request.

    Raises:
        OperationFailed: There is none, or it is of another type.
    """
    try:
        value = pickle.loads(request.payload or b"")  # from an authenticated peer
    except Exception as error:
        raise OperationFailed(
            ProcessControlErrorCode.INVALID_RESPONSE,
            f"{request.operation} needs a pickled {expected.__name__}: {error}",
        ) from error
    if not isinstance(value, expected):
        raise OperationFailed(
            ProcessControlErrorCode.INVALID_RESPONSE,
            f"{request.operation} needs a {expected.__name__}, not {reprlib.repr(value)}",
        )
    return value


def _set_trace(profiles: ProfileRegistry, process_id: UUID, request: ProcessRequest) -> None:
    _set_control(profiles, argument(request, ProfilingTraceControl))


def _set_control(profiles: ProfileRegistry, control: ProfilingTraceControl) -> None:
    try:
        profiles.set_trace_control(control)
    except InvalidTraceControl as error:
        raise OperationFailed(ProcessControlErrorCode.INVALID_RESPONSE, str(error)) from error


def _snapshot(profiles: ProfileRegistry, process_id: UUID, request: ProcessRequest) -> object:
    return profiles.snapshot(request.reader, process_id=process_id)


def _trace_batch(profiles: ProfileRegistry, process_id: UUID, request: ProcessRequest) -> object:
    limit = DEFAULT_BATCH_SAMPLES if request.payload is None else argument(request, int)
    return profiles.trace_batch(min(limit, MOST_BATCH_SAMPLES), request.reader, process_id=process_id)


OPERATIONS: Final[dict[str, Operation]] = {
    ProcessControlOperation.SET_PROFILING_TRACE.value: _set_trace,
    ProcessControlOperation.GET_PROFILING_SNAPSHOT.value: _snapshot,
    ProcessControlOperation.GET_PROFILING_TRACE_BATCH.value: _trace_batch,
}
