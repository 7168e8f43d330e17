"""Endpoints that closed lately, as one link tells of them: again, should a connection be lost before it was heard.

Later they are a part of the past (`recorder.past`), of which only servers are told that hear of this process for the
first time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from ezmsg.core.recorder.past import LastValues, Pasts

KEPT: Final = 256


class _Told(NamedTuple):
    """In which batch it was told, under which client."""

    seq: int
    client: str
    last: LastValues


class Closing:
    """Used by one thread, which holds `Recorder.reading`.

    Args:
        pasts: Where they go.
        graph: Whose link it is.
    """

    def __init__(self, pasts: Pasts, graph: str) -> None:
        self._pasts, self._graph = pasts, graph
        self._told: deque[_Told] = deque()
        self._untold: list[LastValues] = []
        # Clients of which the server knows the past; None for all.
        self._known: set[str] | None = set()

    def begin(self, last_seq: int, client: str) -> None:
        """A connection was opened to a server that has the batches up to one, or none of this link (-1)."""
        unheard = [told for told in self._told if told.seq > last_seq]
        self._pass_on(told for told in self._told if told.seq <= last_seq)
        self._pass_on(told for told in unheard if told.client != client)
        self._untold += [told.last for told in unheard if told.client == client]
        self._told.clear()
        # One that knows this link was told of each endpoint by itself.
        self._known = set() if last_seq < 0 else None

    def note(self, seq: int, client: str, lasts: Iterable[LastValues]) -> None:
        """A batch tells that these have closed."""
        self._told.extend(_Told(seq, client, last) for last in lasts)
        self._pass_on(self._told.popleft() for _ in range(len(self._told) - KEPT))

    def take_untold(self) -> list[LastValues]:
        """Those that have to be told again."""
        untold, self._untold = self._untold, []
        return untold

    def take_past(self, client: str) -> list[LastValues]:
        """What this client counted before, where the server does not know it."""
        if self._known is None or client in self._known:
            return []
        self._known.add(client)
        return self._pasts.of(self._graph, client).values()

    def end(self, client: str, lasts: Iterable[LastValues]) -> None:
        """The link is over; nobody was told of `lasts`."""
        self._pass_on(self._told)
        past = self._pasts.of(self._graph, client)
        for last in (*self._untold, *lasts):
            past.add(last)
        self._told.clear()
        self._untold.clear()

    def _pass_on(self, lasts: Iterable[_Told]) -> None:
        for _, client, last in lasts:
            self._pasts.of(self._graph, client).add(last)
