"""Spans of operations: what is asked of a process, what it does about it, and settings that it applies.

An operation that is asked for within a sampled message, or a sampled span of the program, is part of that trace. Others
begin one as messages of a publisher do: so many a second and operation, or this share of them.
"""

from __future__ import annotations

import re
from contextvars import Token
from types import TracebackType
from typing import Final, Self

from ezmsg.core.currentmessage import (
    CurrentMessage,
    Surroundings,
    get_current_message,
    outer_trace,
    reset_current_message,
    set_current_message,
)
from ezmsg.core.graphmeta import ProcessControlOperation
from ezmsg.core.profiling import PROFILE_TIME, PROFILES, ProfileRegistry, new_span_id, new_trace_id
from ezmsg.core.recorder.rows import CONTROL_CLIENT, CONTROL_SERVER, SETTINGS

# Who looks at traces does not begin any.
_NOT_BEGUN: Final = frozenset(
    operation.value
    for operation in (
        ProcessControlOperation.GET_PROFILING_SNAPSHOT,
        ProcessControlOperation.GET_PROFILING_TRACE_BATCH,
        ProcessControlOperation.SET_PROFILING_TRACE,
    )
)
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class OperationSpan:
    """Records a span of the block, if it has a trace; what is published and asked for within follows from it.

    Attributes:
        error: What went wrong, where no exception tells.
    """

    def __init__(
        self,
        kind: int,
        name: str,
        unit: str,
        detail: object,
        graph: object,
        trace: tuple[bytes, int] | None,
        profiles: ProfileRegistry = PROFILES,
    ) -> None:
        # Made text only where a span is recorded.
        self._what, self._detail, self._graph, self._profiles = (kind, name, unit), detail, graph, profiles
        # Trace id, the id of this span, that of its parent.
        self._trace = None if trace is None else (trace[0], new_span_id(), trace[1])
        self._token: Token[CurrentMessage | None] | None = None
        self.error = ""

    @property
    def traceparent(self) -> str:
        """The W3C header for whoever does what is asked; empty without a trace."""
        return "" if self._trace is None else f"00-{self._trace[0].hex()}-{self._trace[1]:016x}-01"

    def __enter__(self) -> Self:
        if self._trace is not None:
            self._token = set_current_message(Surroundings(self._trace[:2]))
            self._start_ns = PROFILE_TIME()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._trace is None or self._token is None:
            return
        reset_current_message(self._token)
        name = self.error if kind is None else kind.__qualname__
        detail, graph = str(self._detail), str(self._graph)
        self._profiles.record_operation(*self._what, detail, self._start_ns, PROFILE_TIME(), self._trace, name, graph)


def asking(operation: str, unit: str, process_id: str, graph: object) -> OperationSpan:
    """What is asked of a process, at who asks."""
    trace = _here() or outer_trace()
    if trace is None and operation not in _NOT_BEGUN and PROFILES.begins_operation(operation):
        trace = new_trace_id(), 0
    return OperationSpan(CONTROL_CLIENT, operation, unit, process_id, graph, trace)


def answering(
    operation: str, unit: str, process_id: object, graph: object, traceparent: str, profiles: ProfileRegistry
) -> OperationSpan:
    """What is asked of a process, there."""
    return OperationSpan(CONTROL_SERVER, operation, unit, process_id, graph, _trace_of(traceparent), profiles)


def applying(event: str, unit: str, field: str, graph: str) -> OperationSpan:
    """Settings that a unit takes over; their value is never told."""
    return OperationSpan(SETTINGS, event, unit, field, graph, _here())


def _here() -> tuple[bytes, int] | None:
    message = get_current_message()
    return None if message is None else message.own_trace


def _trace_of(traceparent: str) -> tuple[bytes, int] | None:
    """Trace and span of a W3C header; None if it has none that is sampled."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if match is None or not int(match[3], 16) & 1:
        return None
    ids = bytes.fromhex(match[1]), int(match[2], 16)
    return ids if any(ids[0]) and ids[1] else None
