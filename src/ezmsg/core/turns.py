"""Turns of the event loop: letting it run once, and looking a few times more before going to sleep.

A process that sleeps needs tens of microseconds to wake up, more than a message needs to cross it. Where the next event
follows that soon, a few turns of the loop see it; where it does not, they would be wasted, so they are given up.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Final, cast

TURNS: Final = 16
"""Some 80 µs: what it takes the other side to wake up and answer. Once both look, it is there after two or three."""
SOON_S: Final = 150e-6
"""Who slept for less than this may well have been awake by the time."""
TRIES: Final = 8
PAUSE: Final = 256
"""After so many tries in vain, so many waits without one."""
CROWDED_S: Final = 1e-3
"""Whoever lets others have its core for so long shares it with one that computes. It comes back behind that one, where
who sleeps would come before it as soon as there is something to do: looking costs far more than it saves."""
LONGEST_PAUSE: Final = 1 << 16
"""The pause doubles up to this as long as the core is crowded."""

SLICE_S: Final = 2e-3
"""Who works on what it was sent keeps the core for less, 997 times of 1000; who computes keeps it for more, every third
time."""
BREAK: Final = 8
LONGEST_BREAK: Final = 1024
"""Offers that are not made after one of that kind; they double with every further one."""


class _OneTurn(tuple[None]):
    __slots__ = ()
    __await__ = cast("Any", tuple).__iter__


ONE_TURN: Final = cast("Awaitable[None]", _OneTurn((None,)))
"""Awaited, it lets the loop run what is ready; as `asyncio.sleep(0)`, for less than half the time."""


class Eagerness:
    """Waits for one thing again and again, and decides whether to look a few times before sleeping.

    Two processes that answer each other find out at the same time that it pays: both sleep for short times only.

    Args:
        soon_s: It may pay after having slept for less than this.

    Attributes:
        is_dense: Whether that was so the last time.
    """

    __slots__ = ("_pause", "_paused", "_soon_s", "_tries", "is_dense")

    def __init__(self, soon_s: float = SOON_S) -> None:
        self._soon_s = soon_s
        self.is_dense = False
        self._tries = TRIES
        self._pause, self._paused = PAUSE, 0

    async def sees(self, is_there: Callable[[], bool]) -> bool:
        """Look for a few turns of the loop, if that may pay; whether it is there."""
        if not self.begins():
            return False
        for _ in range(TURNS):
            is_alone = self.lets_others()
            await ONE_TURN
            if is_there():
                self.saw()
                return True
            if not is_alone:
                return False
        self.saw_nothing()
        return False

    def begins(self) -> bool:
        """Whether to look now."""
        if not self.is_dense:
            return False
        # Fewer than none, where several tried at the same time.
        if self._tries <= 0:
            self._paused += 1
            if self._paused < self._pause:
                return False
            self._paused, self._tries = 0, TRIES
        return True

    def lets_others(self) -> bool:
        """Let whoever else wants this core go first: it may be who we wait for. Whether it makes sense to go on."""
        began_s = perf_counter()
        os.sched_yield()
        if perf_counter() - began_s < CROWDED_S:
            return True
        self._tries = self._paused = 0
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return False

    def saw(self) -> None:
        """It was there."""
        self._tries, self._pause = TRIES, PAUSE

    def saw_nothing(self) -> None:
        """It was not."""
        self._tries -= 1

    def slept(self, seconds: float) -> None:
        """Where it was not seen, so long was slept."""
        self.is_dense = seconds < self._soon_s


class Courtesy:
    """Lets others have this core now and then, as long as they soon give it back."""

    __slots__ = ("_left", "_pause")

    def __init__(self) -> None:
        self._pause, self._left = BREAK, 0

    def offer(self) -> None:
        """Let who waits for the core go first; not for a while after one that computes had it."""
        if self._left:
            self._left -= 1
            return
        began_s = perf_counter()
        os.sched_yield()
        if perf_counter() - began_s < SLICE_S:
            self._pause = BREAK
        else:
            self._left = self._pause
            self._pause = min(2 * self._pause, LONGEST_BREAK)
