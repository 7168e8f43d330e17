"""The newest samples of somebody, most of them as the rows they are made of until somebody reads them."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from ezmsg.core.recorder.ring import Rows
from ezmsg.core.recorder.rowlog import BLOCK, Found, RowArray, RowLog
from ezmsg.core.recorder.rows import SAMPLE_ROW
from ezmsg.core.recorder.selected import owed_by, samples_of


class Unmade(NamedTuple):
    """Unread rows that samples are made of, the position of the first, and how many were gone before it."""

    parts: list[Rows]
    start: int
    evicted: int
    cleared: int


class SampleLog(RowLog):
    """The newest `limit` samples. The last of them may be rows that are selected and alone (see `selected`).

    Not more of these are made than a reader asks for: all that a server keeps would hold it up.
    """

    __slots__ = ("_unmade", "_unmade_count")

    def __init__(self, limit: int, end: int = 0) -> None:
        """Make an empty log, whose first sample is at position `end`."""
        super().__init__(SAMPLE_ROW, limit, end=end)
        # Oldest first, with how many samples they are.
        self._unmade: deque[tuple[Rows, int]] = deque()
        self._unmade_count = 0

    def append_selected(self, rows: Rows) -> int:
        """Add the samples that rows owe, which are kept; returns how many."""
        added = count = int(owed_by(rows).sum())
        if not count:
            return 0
        self._stop += count
        self.end += count
        self._unmade_count += count
        if self._unmade and len(self._unmade[-1][0]) + len(rows) <= BLOCK:
            # Few at a time: readers would look at each of these.
            last, of_last = self._unmade.pop()
            rows, count = np.concatenate((last, rows)), of_last + count
        self._unmade.append((rows, count))
        while self._unmade_count - self._unmade[0][1] >= self._limit:
            self._unmade_count -= self._unmade.popleft()[1]
        self._forget_before(self._oldest_place)
        return added

    def append(self, rows: RowArray) -> None:
        """Add samples; the oldest give way."""
        self._make(self.end)
        super().append(rows)

    def clear(self) -> None:
        """Take away every sample, on purpose."""
        self._unmade.clear()
        self._unmade_count = 0
        super().clear()

    def find(self, position: int, limit: int) -> Found:
        """As `read`."""
        self._make(max(position, self.oldest) + limit)
        return super().find(position, limit)

    def find_unmade(self, position: int, limit: int) -> Unmade | None:
        """Samples from a position on, as the rows they are made of; None where that is not possible.

        All that there are, or at least `limit` rows. Of a row that was not read in time, all samples are gone if one of
        them is.
        """
        cleared = max(0, self._floor - position)
        position = max(position, self._floor)
        start = max(position, self.oldest)
        at = self.end - self._unmade_count
        if start >= self.end:
            return Unmade([], start, start - position, cleared)
        if start < at:
            return None
        parts: list[Rows] = []
        found = 0
        for rows, count in self._unmade:
            if at + count > start:
                if at < start:
                    owed = owed_by(rows)
                    begins = at + np.cumsum(owed) - owed
                    first = int(np.searchsorted(begins, start))
                    whole = int(begins[first]) if first < len(rows) else at + count
                    if whole > start == position:
                        return None
                    start, rows = whole, rows[first:]
                parts.append(rows)
                found += len(rows)
                if found >= limit:
                    break
            at += count
        return Unmade([part for part in parts if len(part)], start, start - position, cleared)

    def _make(self, until: int) -> None:
        """Make the samples before a position that are not made yet, and no more than their rows make."""
        while self._unmade and self.end - self._unmade_count < until:
            rows, count = self._unmade.popleft()
            place = self._stop - self._unmade_count
            self._unmade_count -= count
            # They are counted already.
            self.end -= count
            self._put(samples_of(rows), place)
