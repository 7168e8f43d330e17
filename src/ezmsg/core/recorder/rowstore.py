"""Bounded logs of rows by key, with named readers: every reader sees every row once, or has it counted as lost."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from ezmsg.core.recorder.rowlog import Found, Read, RowArray, RowLog, Tells
from ezmsg.core.recorder.unmadelog import Unmade

READERS: Final = 64
"""Readers remembered; the one idle longest is forgotten, and would start anew."""
CLOSED: Final = 256
"""Logs kept after their endpoint closed, for readers still to come."""
ENDED: Final = 256
"""Logs that are no more of which a reader that goes back knows how far it had come."""
GRAPHS: Final = 256
"""Graphs whose logs that are no more are counted apart."""


class Place(NamedTuple):
    """Where a reader is in a log, and what of it it missed before."""

    position: int = 0
    evicted: int = 0
    cleared: int = 0


_BEGIN: Final = Place()


class Places(NamedTuple):
    """Where a reader is in all logs, and how many there had been by then that are no more."""

    places: dict[str, Place]
    removed: int


class _Ended(NamedTuple):
    """How far a reader had come in a log that is no more: the how manieth, of which key, what was had before."""

    number: int
    key: str
    place: Place
    had: int
    is_cleared: bool


@dataclass(slots=True)
class _Cursor:
    """A reader of one log.

    What lies before `had` it has had once, and cannot miss; of what lies before `missed`, the rest counts as missed.
    """

    place: Place = _BEGIN
    had: int = 0
    missed: int = 0

    def go(self, found: Read | Found | Unmade, position: int) -> None:
        """Go on to a position; what was gone before it could be read is missed, if it was not had before."""
        begin, evicted, cleared = self.place
        floor = begin + found.cleared
        evicted += max(0, found.start - max(floor, self.had))
        cleared += max(0, floor - max(begin, self.had))
        if found.evicted:
            self.missed = found.start
        self.place = Place(position, evicted, cleared)


@dataclass(slots=True)
class _Reader:
    """Of all graphs, or of one (once it has read it); counts what it missed of logs that are no more."""

    graph: str | None = None
    cursors: dict[str, _Cursor] = field(default_factory=dict[str, _Cursor])
    evicted: int = 0
    cleared: int = 0
    # Of logs that are no more, if it is one that goes back.
    ended: deque[_Ended] = field(default_factory=lambda: deque[_Ended](maxlen=ENDED))
    goes_back: bool = False

    def cursor(self, key: str) -> _Cursor:
        """Where it is in the log of a key."""
        cursor = self.cursors.get(key)
        if cursor is None:
            cursor = self.cursors[key] = _Cursor()
        return cursor

    def lost(self) -> tuple[int, int]:
        """What it missed, evicted and cleared."""
        places = [cursor.place for cursor in self.cursors.values()]
        evicted, cleared = sum(place.evicted for place in places), sum(place.cleared for place in places)
        return self.evicted + evicted, self.cleared + cleared

    def end(self, cursor: _Cursor, end: int, *, is_cleared: bool) -> None:
        """A log is no more; what was not read of it is missed."""
        position, evicted, cleared = cursor.place
        missed = max(0, end - max(position, cursor.had))
        self.evicted += evicted + (0 if is_cleared else missed)
        self.cleared += cleared + (missed if is_cleared else 0)

    def go_back(self, to: Places) -> None:
        """Be where it was; what it read since, and is no more, it missed after all."""
        places = to.places.copy()
        for at, ended in enumerate(self.ended):
            if ended.number <= to.removed:
                continue
            # Another log of this key is a new one.
            place, before = ended.place, places.pop(ended.key, _BEGIN)
            counted = place.evicted - before.evicted + place.cleared - before.cleared
            missed = max(0, place.position - max(before.position, ended.had)) - counted
            self.evicted += 0 if ended.is_cleared else missed
            self.cleared += missed if ended.is_cleared else 0
            self.ended[at] = ended._replace(place=before)
        for key, cursor in self.cursors.items():
            cursor.place = places.get(key, _BEGIN)


class RowStore:
    """Logs by key (an endpoint, a graph), each of which belongs to a graph. Callers take turns.

    For every reader, rows added = rows read + `evicted` + `cleared` + rows it can still read, whenever it has peeked
    at all graphs; what follows a row counts as a part of it.
    """

    def __init__(self, dtype: np.dtype[Any], limit: int, follows: Tells | None = None) -> None:
        """Make an empty store that keeps `limit` rows per key; what `follows` a row is never read apart from it."""
        self._dtype, self._limit, self._follows = dtype, limit, follows
        self._logs: dict[str, RowLog] = {}
        self._graphs: dict[str, str | None] = {}
        self._closed: dict[str, None] = {}
        self._readers: dict[str, _Reader] = {}
        # Rows of logs that no longer exist, for readers that come later; by graph.
        self._gone: dict[str | None, _Reader] = {}
        self._removed = 0
        # What readers missed that were forgotten; by role.
        self._forgotten: dict[str, tuple[int, int]] = {}
        self.added: int = 0
        # By graph, since it was last orphaned.
        self._added: Counter[str] = Counter()

    def add(self, key: str, graph: str | None, rows: RowArray) -> None:
        """Add rows to the log of a key."""
        log = self._log(key, graph)
        before = log.end
        log.append(rows)
        self._count(graph, log.end - before)

    def close(self, key: str) -> None:
        """No more rows will come for a key; what is there can still be read."""
        if key not in self._logs:
            return
        self._closed[key] = None
        if len(self._closed) > CLOSED:
            self._remove(next(iter(self._closed)), cleared=False)

    def clear(self) -> None:
        """Empty every log, for all readers."""
        for key in list(self._closed):
            self._remove(key, cleared=True)
        for log in self._logs.values():
            log.clear()

    def peek(self, name: str, limit: int, graph: str | None = None) -> dict[str, RowArray]:
        """At most `limit` unread rows of each key (of a graph, or of all), and what follows, without taking them.

        The arrays are views, valid until rows are added.
        """
        reader = self._reader(name, graph)
        found: dict[str, RowArray] = {}
        for key, log in self._logs.items():
            if graph is not None and self._graphs[key] != graph:
                continue
            cursor = reader.cursor(key)
            read = log.read(cursor.place.position, limit)
            cursor.go(read, read.start)
            if len(read.rows):
                found[key] = read.rows
        return found

    def advance(self, name: str, key: str, count: int) -> None:
        """Take the first `count` rows of what `peek` showed of a key, where none follows another."""
        cursor = self._reader(name).cursor(key)
        cursor.place = cursor.place._replace(position=cursor.place.position + count)

    def take(self, name: str, limit: int, graph: str | None = None) -> bytes:
        """At most `limit` unread rows of all keys (of a graph, or of all), and what follows the last of each."""
        reader = self._reader(name, graph)
        taken: list[memoryview] = []
        for key, log in self._logs.items():
            if graph is not None and self._graphs[key] != graph:
                continue
            cursor = reader.cursor(key)
            found = log.find(cursor.place.position, max(0, limit))
            cursor.go(found, found.position)
            taken += (part.data for part in found.parts)
            limit -= sum(len(part) for part in found.parts)
        return b"".join(taken)

    def places(self, name: str) -> Places:
        """Where a reader is, for `rewind`."""
        reader = self._reader(name)
        reader.goes_back = True
        return Places({key: cursor.place for key, cursor in reader.cursors.items()}, self._removed)

    def rewind(self, name: str, places: Places) -> None:
        """Put a reader back to where it was: it has not had what it read since."""
        self._reader(name).go_back(places)

    def rewind_all(self, name: str) -> None:
        """Put a reader back to the oldest rows that are still here: it gets again what it has had already."""
        reader = self._reader(name)
        for key, log in self._logs.items():
            if (cursor := reader.cursors.get(key)) is not None:
                position = cursor.place.position
                cursor.had = max(cursor.had, position)
                # Some of what counts as missed may be here still: samples of a row that others of are gone.
                oldest = max(log.oldest, cursor.missed)
                cursor.place = cursor.place._replace(position=min(position, oldest))

    def skip(self, name: str, graph: str | None = None) -> None:
        """Let a reader (of a graph, or of all) go on after everything that is here."""
        reader = self._reader(name, graph)
        for key, log in self._logs.items():
            cursor = reader.cursor(key)
            cursor.place = cursor.place._replace(position=log.end)

    def orphan(self, graph: str) -> None:
        """What is kept of a graph belongs to none from now on; what comes is of another, whose readers begin anew."""
        for key, of_graph in self._graphs.items():
            if of_graph == graph:
                self._graphs[key] = None
        self._added.pop(graph, None)
        for name in [name for name, reader in self._readers.items() if reader.graph == graph]:
            self.forget(name)
        if (gone := self._gone.pop(graph, None)) is not None:
            of_none = self._gone.setdefault(None, _Reader())
            of_none.evicted += gone.evicted
            of_none.cleared += gone.cleared

    def added_for(self, name: str) -> int:
        """Rows that a reader was to have: all, or those of its graph."""
        graph = self._reader(name).graph
        return self.added if graph is None else self._added[graph]

    def lost(self, name: str) -> tuple[int, int]:
        """Rows this reader will never see: given way to newer ones, and cleared on purpose."""
        return self._reader(name).lost()

    def lost_to(self, role: str) -> tuple[int, int]:
        """The same of all readers of a role (the first of several words of a name), forgotten ones, too."""
        evicted, cleared = self._forgotten.get(role, (0, 0))
        for name, reader in self._readers.items():
            if _role_of(name) == role:
                more = reader.lost()
                evicted, cleared = evicted + more[0], cleared + more[1]
        return evicted, cleared

    def forget(self, name: str) -> None:
        """A reader is gone."""
        reader = self._readers.pop(name, None)
        if reader is not None and (role := _role_of(name)):
            evicted, cleared = self._forgotten.get(role, (0, 0))
            more = reader.lost()
            self._forgotten[role] = evicted + more[0], cleared + more[1]

    def _count(self, graph: str | None, count: int) -> None:
        self.added += count
        if graph is not None:
            self._added[graph] += count

    def _new_log(self) -> RowLog:
        return RowLog(self._dtype, self._limit, self._follows)

    def _log(self, key: str, graph: str | None) -> RowLog:
        """The log of a key that is added to."""
        log = self._logs.get(key)
        if log is None:
            log = self._logs[key] = self._new_log()
        self._graphs[key] = graph
        self._closed.pop(key, None)
        return log

    def _reader(self, name: str, graph: str | None = None) -> _Reader:
        reader = self._readers.pop(name, None)
        if reader is None:
            reader = _Reader(graph)
            for of_graph, gone in self._gone.items():
                if graph in (None, of_graph):
                    reader.evicted += gone.evicted
                    reader.cleared += gone.cleared
            if len(self._readers) >= READERS:
                self.forget(next(iter(self._readers)))
        if graph is not None:
            reader.graph = graph
        self._readers[name] = reader
        return reader

    def _remove(self, key: str, *, cleared: bool) -> None:
        log, graph = self._logs.pop(key), self._graphs.pop(key)
        self._closed.pop(key, None)
        self._removed += 1
        for reader in self._readers.values():
            cursor = reader.cursors.pop(key, None)
            if cursor is not None and reader.goes_back:
                reader.ended.append(_Ended(self._removed, key, cursor.place, cursor.had, cleared))
            if reader.graph in (None, graph):
                reader.end(cursor or _Cursor(), log.end, is_cleared=cleared)
            elif cursor is not None:
                # What it missed while this was of its graph; the rest was for others.
                reader.end(cursor, cursor.place.position, is_cleared=cleared)
        if graph not in self._gone and len(self._gone) >= GRAPHS:
            graph = None
        self._gone.setdefault(graph, _Reader()).end(_Cursor(), log.end, is_cleared=cleared)


def _role_of(name: str) -> str:
    role, space, _ = name.partition(" ")
    return role if space else ""
