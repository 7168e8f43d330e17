"""Keeping a loop awake for a moment where one request follows the other: waking it up takes longer than answering."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Final
from weakref import WeakKeyDictionary

from ezmsg.core.turns import Eagerness

TURNS: Final = 40
"""Some 200 µs: what a request takes on its way through a server to another process and back, if all are awake."""
SOON_S: Final = 600e-6
"""As long as that may take where all of them have to be woken up."""


class Attention:
    """One for each loop, which its connections share: it is the loop that sleeps."""

    __slots__ = ("_eagerness", "_last_s", "_left")

    def __init__(self) -> None:
        self._eagerness = Eagerness(SOON_S)
        self._last_s = 0.0
        # Turns of the loop in which it still looks.
        self._left = 0

    def heard(self, loop: asyncio.AbstractEventLoop) -> None:
        """Something came: more may come soon, if it did so before."""
        now_s = perf_counter()
        self._eagerness.slept(now_s - self._last_s)
        self._last_s = now_s
        if self._left:
            self._left = TURNS
            self._eagerness.saw()
        elif self._eagerness.begins():
            self._left = TURNS
            loop.call_soon(self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._left -= 1
        if not self._left:
            self._eagerness.saw_nothing()
        elif self._eagerness.lets_others():
            loop.call_soon(self._look, loop)
        else:
            self._left = 0


_OF_LOOP: WeakKeyDictionary[asyncio.AbstractEventLoop, Attention] = WeakKeyDictionary()


def attention_of(loop: asyncio.AbstractEventLoop) -> Attention:
    """That of a loop."""
    attention = _OF_LOOP.get(loop)
    if attention is None:
        attention = _OF_LOOP[loop] = Attention()
    return attention
