"""What was read from a ring, in pieces: rows apart from their extra rows, column by column, and in nanoseconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.recorder.calculated import Seeds, complete
from ezmsg.core.recorder.ring import Rows, Taken
from ezmsg.core.recorder.rows import (
    BEHIND,
    EXTENDED,
    EXTRA,
    FIRST_TIME,
    KIND_MASK,
    LAST_TIME,
    PREVIOUS,
    ROW_WORDS,
    SELECTED,
)

ROWS_AT_ONCE: Final = 2048
"""What is made of so many, with or without extra rows, stays in the caches, in memory that was used before."""
FEW: Final = ROWS_AT_ONCE // 4
"""No part of its own is made of fewer: a part takes some time however few there are."""

Column = NDArray[np.int64]
Times = NDArray[np.float64]

_NONE: Final[Column] = np.empty(0, dtype=np.int64)


class Piece:
    """Rows looked at together.

    Attributes:
        rows: Without the extra rows.
        extended: Which of those have one.
        extras: The extra rows.
        seeds: Where no row has one: what ids are calculated from, by endpoint.
    """

    def __init__(self, written: Rows, *, is_plain: bool = False, seeds: Mapping[int, Seeds] | None = None) -> None:
        """Take rows apart as they were written; with `is_plain` or `seeds`, none of them has an extra row."""
        self._written = self.rows = written
        self.extended, self.extras = _NONE, written[:0]
        self.seeds = seeds
        if is_plain or seeds is not None:
            return
        whole = written
        at = np.flatnonzero(whole[:, 0] & EXTENDED)
        count = len(at)
        if 2 * count == len(whole):
            pairs = whole.reshape(count, 2 * ROW_WORDS)
            self.rows, self.extended, self.extras = pairs[:, :ROW_WORDS], np.arange(count), pairs[:, ROW_WORDS:]
        elif count:
            is_row = np.ones(len(whole), dtype=np.bool_)
            is_row[at + 1] = False
            self.rows = whole.compress(is_row, axis=0)
            self.extended, self.extras = at - np.arange(count), whole.take(at + 1, axis=0)

    @property
    def whole(self) -> Rows:
        """All rows, each extra row behind its row."""
        return self._written if self.seeds is None else complete(self._written, self.seeds)

    @cached_property
    def times(self) -> Times:
        """The times of the rows in seconds, (time, row)."""
        return np.ascontiguousarray(self.rows[:, FIRST_TIME : LAST_TIME + 1].view(np.float64).T)

    def of(self, rows: Column) -> Rows:
        """Some rows, each extra row behind its row."""
        if self.seeds is not None:
            return complete(self.rows[rows], self.seeds)
        is_of = np.isin(self.extended, rows, assume_unique=True)
        places = np.searchsorted(rows, self.extended[is_of])
        return np.insert(self.rows[rows], places + 1, self.extras[is_of], axis=0)

    def pairs_in_ns(self, into: Rows) -> Rows:
        """The rows that have an extra row, with it at their side (16 words), their times in nanoseconds.

        Args:
            into: Memory for them, of 16 words a pair.
        """
        made = into[: len(self.extended)]
        made[:, :ROW_WORDS] = self.rows if len(made) == len(self.rows) else self.rows.take(self.extended, axis=0)
        made[:, ROW_WORDS:] = self.extras
        for times in (made[:, FIRST_TIME : LAST_TIME + 1], made[:, ROW_WORDS + PREVIOUS]):
            _make_ns(times)
        return made


def parts(taken: Taken) -> Iterator[Rows]:
    """What was taken from a ring, some `ROWS_AT_ONCE` rows at once, with no row apart from what is behind it."""
    rows, start = taken.rows, 0
    while start < len(rows):
        # Twice as many words where each has an extra row, and twice as many runs where both ends of a message have one:
        # as it is with most, if it is with the first.
        stop = start + (2 * ROWS_AT_ONCE if int(rows[start, 0]) & (EXTENDED | SELECTED) else ROWS_AT_ONCE)
        if stop + FEW > len(rows):
            stop = len(rows)
        elif int(rows[stop, 0]) & KIND_MASK in BEHIND:
            stop = _span_at(rows, start, stop)
        yield rows[start:stop]
        start = stop


def _span_at(rows: Rows, start: int, stop: int) -> int:
    """Where the span begins that goes on at `stop`; one that fills all from `start` on is cut behind an extra row."""
    first = stop - 1
    while first > start and int(rows[first, 0]) & KIND_MASK in BEHIND:
        first -= 1
    return first if first > start else stop + (int(rows[stop, 0]) & KIND_MASK == EXTRA)


def rows_in_ns(rows: Rows) -> Rows:
    """Rows as they were written, with their times turned into nanoseconds."""
    made = rows.copy()
    extras = np.flatnonzero(rows[:, 0] & KIND_MASK == EXTRA)
    # The bits of ids are no times: zero meanwhile, as a float of them may be anything.
    made[extras, FIRST_TIME : LAST_TIME + 1] = 0
    _make_ns(made[:, FIRST_TIME : LAST_TIME + 1])
    made[extras, FIRST_TIME : LAST_TIME + 1] = rows[extras, FIRST_TIME : LAST_TIME + 1]
    made[extras, PREVIOUS] = np.rint(rows[extras, PREVIOUS].view(np.float64) * 1e9)
    return made


def _make_ns(times: NDArray[np.int64]) -> None:
    """Make nanoseconds of seconds, in place."""
    with np.errstate(invalid="ignore", over="ignore"):  # some are as a peer says: they may be anything
        times[:] = np.rint(times.view(np.float64) * 1e9)
