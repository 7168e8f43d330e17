"""What a task is handling while it publishes, and what goes on around the graph: what a publish follows from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Final, Protocol

from ezmsg.core.recorder.calculated import TraceIds
from ezmsg.core.recorder.ids import new_span_id
from ezmsg.core.recorder.publisher import PublishTrace
from ezmsg.core.recorder.rows import clock as message_clock

Inputs = tuple[int, float, tuple[tuple[bytes, int], ...]] | tuple[()]
"""Messages that something published may follow from, if there are any: how many they are, the origin of the oldest, and
trace and processing span of those that are sampled."""

INPUTS: Final = 128
"""Messages that a publish may follow from, besides the last: as many as a span of OpenTelemetry may have links. A task
that takes more without publishing does not gather them: it waits for one among them, or publishes nothing ever."""


def with_input(inputs: Inputs, origin_s: float, trace: tuple[bytes, int] | None) -> Inputs | None:
    """The same, and another one; None if these are too many."""
    if not inputs:
        return 1, origin_s, () if trace is None else (trace,)
    count, oldest_s, traces = inputs
    if count >= INPUTS:
        return None
    # One that is not sampled may go by the trace of the one before it.
    if trace is not None and not (traces and traces[-1] == trace):
        traces = (*traces, trace)
    return count + 1, min(oldest_s, origin_s), traces


class CurrentMessage(Protocol):
    """What a publish takes over from the message it belongs to: its origin, and its trace and processing span."""

    is_answered: bool
    """Set by whatever is published."""

    @property
    def origin_s(self) -> float:
        """When the first message of the chain was published."""
        ...

    @property
    def holds(self) -> str:
        """The topic of the subscriber that holds the message, and its slot, as long as this lasts; empty afterwards."""
        ...

    @property
    def trace(self) -> tuple[bytes, int] | None:
        """Trace id and the span id a publish becomes a child of; None when not sampled; LATER when not known yet."""
        ...

    def known_trace(self) -> tuple[bytes, int] | None:
        """The same, known from now on."""
        ...

    @property
    def own_trace(self) -> tuple[bytes, int] | None:
        """The same for what happens within the message: None, too, if only something before it was sampled."""
        ...

    @property
    def links(self) -> Sequence[tuple[bytes, int]]:
        """What else a publish follows from, likewise, if it is sampled."""
        ...


LATER: Final[tuple[bytes, int]] = (b"", 0)
"""In place of the trace of a current message: nobody has asked for it yet (see `CurrentMessage.known_trace`)."""

current_message: ContextVar[CurrentMessage | None] = ContextVar("ezmsg_current_message", default=None)

# Bound once: the message path calls them for every message.
get_current_message = current_message.get
set_current_message = current_message.set
reset_current_message = current_message.reset


class Surroundings:
    """What goes on around messages, as a message that what is published follows from: a request, an operation."""

    __slots__ = ("is_answered", "trace")

    holds = ""
    links: tuple[tuple[bytes, int], ...] = ()

    def __init__(self, trace: tuple[bytes, int] | None) -> None:
        """Trace id and span id, if it is sampled."""
        self.is_answered = False
        self.trace = trace

    @property
    def own_trace(self) -> tuple[bytes, int] | None:
        """The trace it came with."""
        return self.trace

    def known_trace(self) -> tuple[bytes, int] | None:
        """The trace it came with."""
        return self.trace

    @property
    def origin_s(self) -> float:
        """Now: the age of data begins with its first publish."""
        return message_clock()


OuterTrace = Callable[[], tuple[bytes, int] | None]

_outer_trace: OuterTrace | None = None


def set_outer_trace(outer_trace: OuterTrace | None) -> None:
    """Ask this, whenever a trace is about to begin, for trace id and span id of what goes on around the graph."""
    global _outer_trace
    _outer_trace = outer_trace


def outer_trace() -> tuple[bytes, int] | None:
    """Trace id and span id of what goes on around the graph, if that is sampled."""
    return None if _outer_trace is None else _outer_trace()


def begin_trace(ids: TraceIds) -> PublishTrace | TraceIds:
    """The ids of a publish that goes on with the trace of the program around it; `ids`, if it begins one."""
    outer = None if _outer_trace is None else _outer_trace()
    return ids if outer is None else (outer[0], new_span_id(), outer[1], ())
