"""A session comes back to a server that does not know its edges: it is given them again, a slice at a time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator

from ezmsg.core.server.core import GraphCore

Edge = tuple[str, str]
# What the server does for one peer before it looks at others.
SLICE_S = 0.005


class Restoring:
    """Edges that a session is still to be given back. There may be many, and other things to do.

    Who asks meanwhile finds what is there already in effect.

    Attributes:
        missing: Those it has not yet.
        refused: Those it cannot have.
    """

    def __init__(self, core: GraphCore, session_id: str, missing: Iterable[Edge]) -> None:
        self._core, self._session_id = core, session_id
        self.missing = deque(missing)
        self.refused: list[Edge] = []

    def some(self) -> set[asyncio.Task[None]]:
        """Give it some of them; returns what to wait for until they carry."""
        change, refused = self._core.routing.connect_all(self._slice(), self._session_id)
        self.refused += refused
        return self._core.tell(self._core.graph_changed(change, self._session_id))

    async def rest(self, told: set[asyncio.Task[None]]) -> None:
        """Give it the rest, and wait until all carry; `told` is what to wait for already."""
        await asyncio.sleep(0)
        while self.missing:
            told |= self.some()
            await asyncio.sleep(0)
        if told:
            await asyncio.wait(told)

    def stop(self) -> None:
        """It is gone, back over another connection, or dropped them all."""
        self.missing.clear()

    def _slice(self) -> Iterator[Edge]:
        until_s = time.monotonic() + SLICE_S
        while self.missing:
            yield self.missing.popleft()
            if time.monotonic() > until_s:
                return
