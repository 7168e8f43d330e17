"""What processes own, and operations on them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from uuid import UUID

__all__ = [
    "BUILTIN_OPERATIONS",
    "ProcessControlErrorCode",
    "ProcessControlOperation",
    "ProcessControlRequest",
    "ProcessControlResponse",
    "ProcessOwnershipUpdate",
    "ProcessPing",
    "ProcessRegistration",
    "ProcessStats",
]


@dataclass
class ProcessRegistration:
    """A process claims units."""

    pid: int
    host: str
    units: list[str]


@dataclass
class ProcessOwnershipUpdate:
    """A process claims or gives up units."""

    added_units: list[str] = field(default_factory=list[str])
    removed_units: list[str] = field(default_factory=list[str])


@dataclass
class ProcessControlRequest:
    """An operation asked of the process that owns a unit. `payload` is opaque to the server."""

    request_id: str
    unit_address: str
    operation: ProcessControlOperation | str
    payload: bytes | None = None


class ProcessControlOperation(Enum):
    """The built-in operations."""

    PING = "PING"
    GET_PROCESS_STATS = "GET_PROCESS_STATS"
    GET_PROFILING_SNAPSHOT = "GET_PROFILING_SNAPSHOT"
    SET_PROFILING_TRACE = "SET_PROFILING_TRACE"
    GET_PROFILING_TRACE_BATCH = "GET_PROFILING_TRACE_BATCH"
    UPDATE_SETTING_FIELD = "UPDATE_SETTING_FIELD"


# Answered by the process itself, at once; all others are for its handler.
BUILTIN_OPERATIONS = frozenset(
    operation.value for operation in ProcessControlOperation if operation.value != "UPDATE_SETTING_FIELD"
)


class ProcessControlErrorCode(Enum):
    """Why an operation failed."""

    UNROUTABLE_UNIT = "UNROUTABLE_UNIT"
    ROUTE_WRITE_FAILED = "ROUTE_WRITE_FAILED"
    TIMEOUT = "TIMEOUT"
    PROCESS_DISCONNECTED = "PROCESS_DISCONNECTED"
    UNSUPPORTED_OPERATION = "UNSUPPORTED_OPERATION"
    HANDLER_NOT_CONFIGURED = "HANDLER_NOT_CONFIGURED"
    HANDLER_ERROR = "HANDLER_ERROR"
    INVALID_RESPONSE = "INVALID_RESPONSE"
    TOO_MANY_REQUESTS = "TOO_MANY_REQUESTS"


@dataclass
class ProcessControlResponse:
    """The answer to a ProcessControlRequest. `payload` is opaque to the server."""

    request_id: str
    ok: bool
    payload: bytes | None = None
    error: str | None = None
    error_code: ProcessControlErrorCode | None = None
    process_id: UUID | None = None


@dataclass
class ProcessPing:
    """A process answers; `timestamp` in Unix seconds."""

    process_id: UUID
    pid: int
    host: str
    timestamp: float

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickled by name, this and its UUID were a tenth of the work that a ping is for the one that answers.
        return _ping, (self.process_id.int, self.pid, self.host, self.timestamp)


def _ping(process_id: int, pid: int, host: str, timestamp: float) -> ProcessPing:
    return ProcessPing(UUID(int=process_id), pid, host, timestamp)


@dataclass
class ProcessStats:
    """A process answers, with the units it owns; `timestamp` in Unix seconds."""

    process_id: UUID
    pid: int
    host: str
    owned_units: list[str]
    timestamp: float
