"""A bounded log of fixed-size rows that any number of readers read, each at its own pace."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK: Final = 512
"""Rows whose memory is taken, and given back, together."""

RowArray = NDArray[Any]
Tells = Callable[[np.void], bool]
"""Whether a row belongs to the one before it, and is read with it."""


class Found(NamedTuple):
    """As `Read`, with opaque views of the rows where they lie, valid until the next `append`."""

    parts: list[RowArray]
    position: int
    evicted: int
    cleared: int


class Read(NamedTuple):
    """What a read found: rows, where the next read begins, and how many rows were gone before it could see them."""

    rows: RowArray
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
    """The newest `limit` rows of a structured type. Positions only grow, and are never used again.

    They lie in blocks, the row at a position in block `position // BLOCK`: memory grows with use, never moves, and is
    used again once its rows are too old.
    """

    __slots__ = ("_blocks", "_dtype", "_first_block", "_floor", "_follows", "_limit", "_spare", "end")

    def __init__(self, dtype: np.dtype[Any], limit: int, follows: Tells | None = None, end: int = 0) -> None:
        """Make an empty log, whose first row is at `end`; what `follows` a row is never read apart from it."""
        self._dtype, self._limit, self._follows = dtype, limit, follows
        self._blocks: deque[RowArray] = deque()
        self._first_block = end // BLOCK
        self._spare: RowArray | None = None
        self._floor = end
        self.end = end

    @property
    def oldest(self) -> int:
        """Position of the oldest row that can be read."""
        return max(self._floor, self.end - self._limit)

    def append(self, rows: RowArray) -> None:
        """Add rows; the oldest give way."""
        self.end += len(rows)
        rows = opaque(rows[-self._limit :])
        self._forget_before(self.oldest)
        position = self.end - len(rows)
        while len(rows):
            number, at = divmod(position, BLOCK)
            if number == self._first_block + len(self._blocks):
                self._blocks.append(self._new_block())
            part = rows[: BLOCK - at]
            self._blocks[-1][at : at + len(part)] = part
            rows = rows[len(part) :]
            position += len(part)

    def clear(self) -> None:
        """Take away every row, on purpose: readers count it as cleared, not as lost."""
        self._floor = self.end
        self._forget_before(self.end)
        self._spare = None

    def read(self, position: int, limit: int) -> Read:
        """At most `limit` rows from a position on, and those that follow the last of them.

        The rows may be a view, valid until the next `append`.
        """
        parts, *where = self.find(position, limit)
        rows = parts[0].view(self._dtype) if len(parts) == 1 else joined(parts, self._dtype)
        return Read(rows, *where)

    def find(self, position: int, limit: int) -> Found:
        """As `read`."""
        cleared = max(0, self._floor - position)
        position = max(position, self._floor)
        first = self.oldest
        # What followed rows that are gone goes with them.
        start = self._past_followers(max(position, first))
        evicted = start - position
        position = start
        stop = min(self.end, position + limit)
        if stop > position:
            stop = self._past_followers(stop)
        parts: list[RowArray] = []
        while position < stop:
            number, at = divmod(position, BLOCK)
            part = self._blocks[number - self._first_block][at : at + stop - position]
            parts.append(part)
            position += len(part)
        return Found(parts, position, evicted, cleared)

    def _past_followers(self, position: int) -> int:
        """The position of the first row from here on that does not belong to the one before it."""
        if self._follows is not None:
            while position < self.end:
                number, at = divmod(position, BLOCK)
                if not self._follows(self._blocks[number - self._first_block].view(self._dtype)[at]):
                    break
                position += 1
        return position

    def _forget_before(self, position: int) -> None:
        first = position // BLOCK
        while self._blocks and self._first_block < first:
            self._spare = self._blocks.popleft()
            self._first_block += 1
        if not self._blocks:
            self._first_block = first

    def _new_block(self) -> RowArray:
        spare, self._spare = self._spare, None
        return opaque(np.empty(BLOCK, dtype=self._dtype)) if spare is None else spare
