"""A bounded log of fixed-size rows that any number of readers read, each at its own pace.

A row may be followed by others that say more of the same. They are a part of it: read with it, and neither numbered nor
counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK: Final = 512
"""Rows whose memory is taken, and given back, together."""

RowArray = NDArray[Any]
Tells = Callable[[RowArray], NDArray[np.bool_]]
"""Which rows are parts of the ones before them."""


class Found(NamedTuple):
    """As `Read`, with opaque views of the rows where they lie, valid until the next `append`."""

    parts: list[RowArray]
    start: int
    position: int
    evicted: int
    cleared: int


class Read(NamedTuple):
    """What a read found: rows, where they and the next read begin, and how many were gone before it could see them."""

    rows: RowArray
    start: int
    position: int
    evicted: int
    cleared: int


def opaque(rows: RowArray) -> RowArray:
    """The same rows without fields: numpy copies fields one by one, which takes fifteen times as long."""
    return rows.view(f"V{rows.itemsize}")


def joined(parts: list[RowArray], dtype: np.dtype[Any]) -> RowArray:
    """A copy of rows, one part behind the other."""
    return np.concatenate([opaque(part) for part in parts] or [opaque(np.empty(0, dtype=dtype))]).view(dtype)


class RowLog:
    """The newest `limit` rows of a structured type, at positions that only grow and are never used again.

    What follows a row is at no position of its own. In memory it is a row like others: places count all of them. They
    lie in blocks, the row at a place in block `place // BLOCK`: memory grows with use, never moves, and is used again
    once its rows are too old.
    """

    __slots__ = (
        "_blocks",
        "_dtype",
        "_first_block",
        "_floor",
        "_floor_place",
        "_follows",
        "_limit",
        "_positions",
        "_spare",
        "_stop",
        "end",
    )

    def __init__(self, dtype: np.dtype[Any], limit: int, follows: Tells | None = None, end: int = 0) -> None:
        """Make an empty log, whose first row is at position `end`; `follows` tells which are parts of others."""
        self._dtype, self._limit, self._follows = dtype, limit, follows
        self._blocks: deque[RowArray] = deque()
        # By block: the position of the first row that begins there, or later.
        self._positions: deque[int] = deque()
        self._first_block = 0
        self._spare: RowArray | None = None
        self._floor = end
        self.end: int = end
        self._floor_place = 0
        self._stop: int = 0

    @property
    def oldest(self) -> int:
        """Position of the oldest row that can be read."""
        return self._position_at(self._oldest_place)

    @property
    def _oldest_place(self) -> int:
        return max(self._floor_place, self._stop - self._limit)

    def append(self, rows: RowArray) -> None:
        """Add rows; the oldest give way."""
        place = self._stop
        self._stop += len(rows)
        self._forget_before(self._oldest_place)
        self._put(rows, place)

    def _put(self, rows: RowArray, place: int) -> None:
        """Write the next rows where they belong, from `place` on, and count them."""
        # Whole blocks: what is before the oldest row is there as well.
        skipped = max(0, self._first_block * BLOCK - place)
        self.end += self._count(rows[:skipped])
        rows, place = rows[skipped:], place + skipped
        while len(rows):
            number, at = divmod(place, BLOCK)
            if number == self._first_block + len(self._blocks):
                self._blocks.append(self._new_block())
                # As if rows that follow none were before the first.
                self._blocks[-1][:at] = opaque(np.zeros(at, dtype=self._dtype))
                self._positions.append(self.end - at)
            part = rows[: BLOCK - at]
            self._blocks[-1][at : at + len(part)] = opaque(part)
            self.end += self._count(part)
            rows = rows[len(part) :]
            place += len(part)

    def clear(self) -> None:
        """Take away every row, on purpose: readers count it as cleared, not as lost."""
        self._floor, self._floor_place = self.end, self._stop
        self._begin_at(self._stop)
        self._spare = None

    def read(self, position: int, limit: int) -> Read:
        """At most `limit` rows from a position on, followers among them, and those that follow the last of them.

        The rows may be a view, valid until the next `append`.
        """
        parts, *where = self.find(position, limit)
        rows = parts[0].view(self._dtype) if len(parts) == 1 else joined(parts, self._dtype)
        return Read(rows, *where)

    def find(self, position: int, limit: int) -> Found:
        """As `read`."""
        cleared = max(0, self._floor - position)
        position = max(position, self._floor)
        # What followed a row that is gone goes with it.
        start = max(position, self.oldest)
        evicted = start - position
        if start >= self.end:
            return Found([], start, start, evicted, cleared)
        place = self._place_of(start)
        position = self._position_at(min(self._stop, place + limit))
        stop = self._place_of(position)
        parts: list[RowArray] = []
        while place < stop:
            number, at = divmod(place, BLOCK)
            part = self._blocks[number - self._first_block][at : at + stop - place]
            parts.append(part)
            place += len(part)
        return Found(parts, start, position, evicted, cleared)

    def _count(self, rows: RowArray) -> int:
        """How many of these rows follow none."""
        return len(rows) if self._follows is None else len(rows) - int(np.count_nonzero(self._follows(rows)))

    def _position_at(self, place: int) -> int:
        """The position of the first row from a place on that follows none."""
        if self._follows is None or place >= self._stop:
            return self.end - (self._stop - place)
        number, at = divmod(place, BLOCK)
        number -= self._first_block
        return self._positions[number] + self._count(self._blocks[number][:at].view(self._dtype))

    def _place_of(self, position: int) -> int:
        """Where the row at a position is; behind all when it is still to come."""
        if self._follows is None or position >= self.end:
            return self._stop - (self.end - position)
        # The last that begins so early: before it, blocks may be full of what follows.
        number = bisect_right(self._positions, position) - 1
        first = (self._first_block + number) * BLOCK
        rows = self._blocks[number][: self._stop - first].view(self._dtype)
        begins = np.flatnonzero(~self._follows(rows))
        return first + int(begins[position - self._positions[number]])

    def _begin_at(self, place: int) -> None:
        """Forget all that is in blocks: the next row that is put there is at `place`."""
        self._blocks.clear()
        self._positions.clear()
        self._first_block = place // BLOCK

    def _forget_before(self, place: int) -> None:
        first = place // BLOCK
        while self._blocks and self._first_block < first:
            self._spare = self._blocks.popleft()
            self._positions.popleft()
            self._first_block += 1
        if not self._blocks:
            self._first_block = first

    def _new_block(self) -> RowArray:
        spare, self._spare = self._spare, None
        return opaque(np.empty(BLOCK, dtype=self._dtype)) if spare is None else spare
