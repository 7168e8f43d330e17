"""Bounded logs of rows by key, with named readers: every reader sees every row once, or has it counted as lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from ezmsg.core.recorder.rowlog import RowArray, RowLog, Tells

READERS: Final = 64
"""Readers remembered; the one idle longest is forgotten, and would start anew."""
CLOSED: Final = 256
"""Logs kept after their endpoint closed, for readers still to come."""


@dataclass(slots=True)
class _Reader:
    positions: dict[str, int] = field(default_factory=dict[str, int])
    evicted: int = 0
    cleared: int = 0


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
        # Rows of logs that no longer exist, for readers that come later.
        self._gone = _Reader()
        self.added: int = 0

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
        reader = self._reader(name)
        found: dict[str, RowArray] = {}
        for key, log in self._logs.items():
            if graph is not None and self._graphs[key] != graph:
                continue
            read = log.read(reader.positions.get(key, 0), limit)
            reader.evicted += read.evicted
            reader.cleared += read.cleared
            reader.positions[key] = read.start
            if len(read.rows):
                found[key] = read.rows
        return found

    def advance(self, name: str, key: str, count: int) -> None:
        """Take the first `count` rows of what `peek` showed of a key, where none follows another."""
        self._reader(name).positions[key] += count

    def take(self, name: str, limit: int, graph: str | None = None) -> bytes:
        """At most `limit` unread rows of all keys (of a graph, or of all), and what follows the last of each."""
        reader = self._reader(name)
        taken: list[memoryview] = []
        for key, log in self._logs.items():
            if graph is not None and self._graphs[key] != graph:
                continue
            found = log.find(reader.positions.get(key, 0), max(0, limit))
            reader.evicted += found.evicted
            reader.cleared += found.cleared
            reader.positions[key] = found.position
            taken += (part.data for part in found.parts)
            limit -= sum(len(part) for part in found.parts)
        return b"".join(taken)

    def positions(self, name: str) -> dict[str, int]:
        """Where a reader is, for `rewind`."""
        return dict(self._reader(name).positions)

    def rewind(self, name: str, positions: dict[str, int]) -> None:
        """Put a reader back to where it was."""
        reader = self._reader(name)
        for key, position in positions.items():
            if key in self._logs:
                reader.positions[key] = position

    def rewind_all(self, name: str) -> None:
        """Put a reader back to the oldest rows that are still here."""
        reader = self._reader(name)
        for key, log in self._logs.items():
            reader.positions[key] = min(reader.positions.get(key, 0), log.oldest)

    def skip(self, name: str) -> None:
        """Let a reader go on after everything that is here."""
        reader = self._reader(name)
        for key, log in self._logs.items():
            reader.positions[key] = log.end

    def orphan(self, graph: str) -> None:
        """What is kept of a graph belongs to none from now on."""
        for key, of_graph in self._graphs.items():
            if of_graph == graph:
                self._graphs[key] = None

    def lost(self, name: str) -> tuple[int, int]:
        """Rows this reader will never see: given way to newer ones, and cleared on purpose."""
        reader = self._reader(name)
        return reader.evicted, reader.cleared

    def forget(self, name: str) -> None:
        """A reader is gone."""
        self._readers.pop(name, None)

    def _count(self, graph: str | None, count: int) -> None:
        self.added += count

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

    def _reader(self, name: str) -> _Reader:
        reader = self._readers.pop(name, None)
        if reader is None:
            reader = _Reader(evicted=self._gone.evicted, cleared=self._gone.cleared)
            if len(self._readers) >= READERS:
                del self._readers[next(iter(self._readers))]
        self._readers[name] = reader
        return reader

    def _remove(self, key: str, *, cleared: bool) -> None:
        log = self._logs.pop(key)
        self._graphs.pop(key)
        self._closed.pop(key, None)
        for reader in (*self._readers.values(), self._gone):
            missed = log.end - reader.positions.pop(key, 0)
            if cleared:
                reader.cleared += missed
            else:
                reader.evicted += missed
