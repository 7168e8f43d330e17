"""What a log keeps of a message beside itself, and how a replay gives it back: its age and its trace.

Ages survive, clocks do not: the origin of a replayed message lies as far before its publish as it did before it was
logged. So ages measured behind a replay compare with those of the recorded run, whenever it was.
"""

from __future__ import annotations

import re
import time
from typing import NamedTuple

from ezmsg.core import config
from ezmsg.core.currentmessage import get_current_message
from ezmsg.core.profiling import message_clock, new_trace_id
from ezmsg.core.recorder.ids import chance, hex_span_id
from ezmsg.util.messagecodec import LoggedMessage

Ids = tuple[bytes, int]

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_BEGINS = 0
"""The span that a publish without a parent is a child of."""


class LogContext(NamedTuple):
    """What is logged with a message: see `LoggedMessage`."""

    timestamp: float
    origin: float | None
    traceparent: str | None


def log_context() -> LogContext:
    """Of the message that is handled now."""
    now = time.time()
    current = get_current_message()
    if current is None:
        return LogContext(now, None, None)
    origin_s, trace = current.origin_s, current.own_trace
    # By the clock of another host, it is not known.
    origin = None if origin_s < 0 else now - (message_clock() - origin_s)
    traceparent = None if trace is None else f"00-{trace[0].hex()}-{hex_span_id(trace[1])}-01"
    return LogContext(now, origin, traceparent)


class Replayed:
    """A message of a log, as the one that its publish follows from.

    Args:
        logged: The message.
        is_traced: Whether it begins a trace though it had none; one that had a trace begins one that links to it.
    """

    __slots__ = ("is_answered", "links", "origin_s", "trace")

    holds = ""
    own_trace: Ids | None = None

    def __init__(self, logged: LoggedMessage, is_traced: bool) -> None:
        age_s = 0.0
        if logged.origin is not None and logged.timestamp is not None:
            age_s = max(0.0, logged.timestamp - logged.origin)
        self.is_answered = False
        self.origin_s = message_clock() - age_s
        recorded = _ids(logged.traceparent)
        self.links = () if recorded is None else (recorded,)
        self.trace = (new_trace_id(), _BEGINS) if is_traced or recorded is not None else None

    def known_trace(self) -> Ids | None:
        """The trace of what is published."""
        return self.trace


class Roots:
    """Which messages without a trace begin one, as everywhere: EZMSG_TRACE_RATIO, else EZMSG_TRACE_RATE."""

    def __init__(self) -> None:
        self._ratio = config.trace_ratio()
        self._rate_hz = config.trace_rate_hz()
        self._next_s = 0.0

    def begin(self) -> bool:
        """Whether the next one does."""
        if self._ratio is not None:
            return chance(self._ratio)
        now_s = message_clock()
        if not self._rate_hz or now_s < self._next_s:
            return False
        self._next_s = now_s + 1 / self._rate_hz
        return True


def _ids(traceparent: str | None) -> Ids | None:
    found = _TRACEPARENT.fullmatch(traceparent or "")
    return None if found is None else (bytes.fromhex(found[1]), int(found[2], 16))
