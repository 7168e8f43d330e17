"""A bounded log of fixed-size rows that any number of readers read, each at its own pace."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RowArray = NDArray[Any]


class Read(NamedTuple):
    """What a read found: rows, where the next read begins, and how many rows were gone before it could see them."""

    rows: RowArray
    position: int
    evicted: int
    cleared: int


class RowLog:
    """The newest `limit` rows of a structured type. Positions only grow, and are never used again.

    Attributes:
        end: The position after the newest row; given, the first one.
    """

    __slots__ = ("_dtype", "_floor", "_limit", "_rows", "_used", "end")

    def __init__(self, dtype: np.dtype[Any], limit: int, end: int = 0) -> None:
        """Make an empty log; memory grows with use."""
        self._dtype, self._limit = dtype, limit
        self._rows: RowArray = np.empty(0, dtype=dtype)
        self._used = 0
        self._floor = end
        self.end = end

    @property
    def first(self) -> int:
        """Position of the oldest row still here."""
        return self.end - self._used

    @property
    def oldest(self) -> int:
        """Position of the oldest row that can be read."""
        return max(self.first, self.end - self._limit)

    def append(self, rows: RowArray) -> None:
        """Add rows; the oldest give way."""
        self.end += len(rows)
        rows = rows[-self._limit :]
        if self._used + len(rows) > len(self._rows):
            kept = self._rows[max(0, self._used - (self._limit - len(rows))) : self._used]
            # Room for as many again, so that copying is rare.
            room = max(min(2 * self._limit, max(64, 2 * (len(kept) + len(rows)))), len(kept) + len(rows))
            # Once it is as large as it gets it is used again: new memory would have to be zeroed by the system.
            fresh = self._rows if len(self._rows) >= room else np.empty(room, dtype=self._dtype)
            fresh[: len(kept)] = kept
            self._rows, self._used = fresh, len(kept)
        self._rows[self._used : self._used + len(rows)] = rows
        self._used += len(rows)

    def clear(self) -> None:
        """Take away every row, on purpose: readers count it as cleared, not as lost."""
        self._floor = self.end
        self._used = 0
        self._rows = np.empty(0, dtype=self._dtype)

    def read(self, position: int, limit: int) -> Read:
        """At most `limit` rows from a position on; the rows are a view, valid until the next `append`."""
        cleared = max(0, self._floor - position)
        position = max(position, self._floor)
        first = self.oldest
        evicted = max(0, first - position)
        position = max(position, first)
        at = position - self.first
        rows = self._rows[at : min(self._used, at + limit)]
        return Read(rows, position + len(rows), evicted, cleared)
