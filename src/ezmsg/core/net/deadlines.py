"""Time limits of what is waited for, and mostly comes in time: one timer of the loop for all of them.

A timer of asyncio costs several times as much as one of these: it finds its place among others by comparing in Python,
and keeps it long after it was cancelled.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any


class Deadline:
    """One time limit: when it is reached, on the clock of the loop, and what is called then."""

    __slots__ = ("_others", "arguments", "call", "due_s")

    def __init__(
        self, others: set[Deadline], due_s: float, call: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        self._others, self.due_s, self.call, self.arguments = others, due_s, call, arguments
        others.add(self)

    def cancel(self) -> None:
        """It came in time. Safe to call twice."""
        # The timer stays: one request after the other would set it again each time.
        self._others.discard(self)


class Deadlines:
    """The time limits of one connection."""

    __slots__ = ("_loop", "_open", "_set_s", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._open: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None
        # When the timer goes off: not after any of those that are open.
        self._set_s = math.inf

    def __len__(self) -> int:
        return len(self._open)

    def after(self, seconds: float, call: Callable[..., None], *arguments: Any) -> Deadline:
        """Call this after so many seconds, unless it is cancelled before."""
        deadline = Deadline(self._open, self._loop.time() + seconds, call, arguments)
        if deadline.due_s < self._set_s:
            self._set(deadline.due_s)
        return deadline

    def _set(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._set_s, self._timer = due_s, self._loop.call_at(due_s, self._reached)

    def _reached(self) -> None:
        # All that are due, in one look: one look each would be later and later where there are many.
        now_s = max(self._set_s, self._loop.time())
        self._set_s, self._timer = math.inf, None
        due: list[Deadline] = []
        next_s = math.inf
        for deadline in self._open:
            if deadline.due_s <= now_s:
                due.append(deadline)
            elif deadline.due_s < next_s:
                next_s = deadline.due_s
        if next_s < math.inf:
            self._set(next_s)
        for deadline in sorted(due, key=_due_s):
            self._loop.call_soon(self._call, deadline)

    def _call(self, deadline: Deadline) -> None:
        # Another one may have cancelled it, or closed all of them.
        if deadline in self._open:
            deadline.cancel()
            deadline.call(*deadline.arguments)

    def close(self) -> None:
        """Call nothing any more."""
        self._open.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._set_s, self._timer = math.inf, None


def _due_s(deadline: Deadline) -> float:
    return deadline.due_s
