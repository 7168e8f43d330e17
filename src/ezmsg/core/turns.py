"""Turns of the event loop: letting it run once, and looking a few times more before going to sleep.

A process that sleeps needs tens of microseconds to wake up, more than a message needs to cross it. Where the next event
follows that soon, a few turns of the loop see it; where it does not, they would be wasted, so they are given up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from types import coroutine
from typing import Final

TURNS: Final = 16
"""Some 80 µs: what it takes the other side to wake up and answer. Once both look, it is there after two or three."""
SOON_S: Final = 150e-6
"""Who slept for less than this may well have been awake by the time."""
TRIES: Final = 8
PAUSE: Final = 256
"""After so many tries in vain, so many waits without one."""


@coroutine
def one_turn() -> Generator[None]:
    """Let the loop run what is ready; as `asyncio.sleep(0)`, for half the time."""
    yield


class Eagerness:
    """Waits for one thing again and again, and decides whether to look a few times before sleeping.

    Two processes that answer each other find out at the same time that it pays: both sleep for short times only.
    """

    __slots__ = ("_is_dense", "_paused", "_tries")

    def __init__(self) -> None:
        self._is_dense = False
        self._tries = TRIES
        self._paused = 0

    async def sees(self, is_there: Callable[[], bool]) -> bool:
        """Look for a few turns of the loop, if that may pay; whether it is there."""
        if not self._is_dense:
            return False
        if not self._tries:
            self._paused += 1
            if self._paused < PAUSE:
                return False
            self._paused, self._tries = 0, TRIES
        for _ in range(TURNS):
            # Whoever else wants this core goes first: it may be who we wait for.
            os.sched_yield()
            await one_turn()
            if is_there():
                self._tries = TRIES
                return True
        self._tries -= 1
        return False

    def slept(self, seconds: float) -> None:
        """Where it was not seen, so long was slept."""
        self._is_dense = seconds < SOON_S
