"""Logs whose newest rows are made only when somebody reads them: of rows as rings have them, which are kept meanwhile.

Every message may be measured, and of many only the newest are ever read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.recorder.calculated import Seeds, owners_in
from ezmsg.core.recorder.ring import Rows
from ezmsg.core.recorder.rowlog import BLOCK, Found, RowArray, RowLog, Tells
from ezmsg.core.recorder.rows import ROW_WORDS

AT_ONCE: Final = 2048
"""Rows of which others are made in one step: somebody may wait for the thread that does it."""


class Part(NamedTuple):
    """Rows as they were written, and what the ids are calculated from that they do not have, by endpoint."""

    rows: Rows
    seeds: Mapping[int, Seeds] = {}

    @classmethod
    def read(cls, rows: bytes, seeds: Mapping[int, Sequence[int]]) -> Part:
        """A part as it travels."""
        made = np.frombuffer(rows, dtype=np.int64).reshape(-1, ROW_WORDS)
        return cls(made, {index: Seeds(*of_index) for index, of_index in seeds.items()})

    def last(self, count: int) -> Part:
        """A copy of the last rows, which keeps no memory of the others."""
        rows = self.rows[-count:].copy()
        return Part(rows, {index: self.seeds[index] for index in owners_in(rows)} if self.seeds else {})


class Unmade(NamedTuple):
    """Unread rows that others are made of, the position of the first, and how many were gone before it."""

    parts: list[Part]
    start: int
    evicted: int
    cleared: int


class UnmadeLog(RowLog):
    """The newest `limit` rows. The last of them may be made of others, none of them by one that is followed.

    Not more of these are made than a reader asks for: all that a server keeps would hold it up.
    """

    __slots__ = ("_counts", "_made", "_unmade", "_unmade_count")

    def __init__(
        self,
        dtype: np.dtype[Any],
        limit: int,
        counts: Callable[[Rows], NDArray[np.int64]],
        made: Callable[[Part], RowArray],
        follows: Tells | None = None,
        end: int = 0,
    ) -> None:
        """Make an empty log (see `RowLog`).

        Args:
            dtype: Of its rows.
            limit: How many it keeps.
            counts: How many rows are made of each of those.
            made: The rows that are made of those, at least one, in order.
            follows: Which rows are parts of others; none that is made is.
            end: The position of the first row.
        """
        super().__init__(dtype, limit, follows, end)
        self._counts, self._made = counts, made
        # Oldest first, with how many rows are made of them.
        self._unmade: deque[tuple[Part, int]] = deque()
        self._unmade_count = 0

    def append_unmade(self, part: Part) -> int:
        """Add the rows that are made of others, which are kept; returns how many."""
        added = count = int(self._counts(part.rows).sum())
        if not count:
            return 0
        self._stop += count
        self.end += count
        if len(part.rows) > self._limit:
            # However many somebody sends, no more are kept: at least one is made of each.
            part = part.last(self._limit)
            count = int(self._counts(part.rows).sum())
            self._unmade.clear()
            self._unmade_count = 0
        self._unmade_count += count
        if self._unmade and len(self._unmade[-1][0].rows) + len(part.rows) <= BLOCK:
            last, of_last = self._unmade[-1]
            # Few at a time: readers would look at each of these.
            if (joined := _joined(last, part)) is not None:
                self._unmade.pop()
                part, count = joined, of_last + count
        self._unmade.append((part, count))
        while self._unmade_count - self._unmade[0][1] >= self._limit:
            self._unmade_count -= self._unmade.popleft()[1]
        if self._oldest_place >= self._unmade_place:
            self._begin_at(self._unmade_place)
        else:
            self._forget_before(self._oldest_place)
        return added

    def append(self, rows: RowArray) -> None:
        """Add rows; the oldest give way."""
        self._make(self.end)
        super().append(rows)

    def clear(self) -> None:
        """Take away every row, on purpose."""
        self._unmade.clear()
        self._unmade_count = 0
        super().clear()

    def find(self, position: int, limit: int) -> Found:
        """As `read`."""
        self._make(max(position, self.oldest) + limit)
        return super().find(position, limit)

    def find_unmade(self, position: int, limit: int) -> Unmade | None:
        """Rows from a position on, as those they are made of; None where that is not possible.

        All that there are, or at least `limit` of these. Of one that was not read in time, all are gone if one of them
        is.
        """
        cleared = max(0, self._floor - position)
        position = max(position, self._floor)
        start = max(position, self.oldest)
        at = self.end - self._unmade_count
        if start >= self.end:
            return Unmade([], start, start - position, cleared)
        if start < at:
            return None
        parts: list[Part] = []
        found = 0
        for part, count in self._unmade:
            if at + count > start:
                if at < start:
                    counts = self._counts(part.rows)
                    begins = at + np.cumsum(counts) - counts
                    first = int(np.searchsorted(begins, start))
                    whole = int(begins[first]) if first < len(begins) else at + count
                    if whole > start == position:
                        return None
                    start, part = whole, part._replace(rows=part.rows[first:])
                parts.append(part)
                found += len(part.rows)
                if found >= limit:
                    break
            at += count
        return Unmade([part for part in parts if len(part.rows)], start, start - position, cleared)

    @property
    def _unmade_place(self) -> int:
        return self._stop - self._unmade_count

    def _make(self, until: int) -> None:
        """Make the rows before a position that are not made yet, and few more."""
        while self._unmade and self.end - self._unmade_count < until:
            part, count = self._unmade.popleft()
            if len(part.rows) > AT_ONCE:
                first, rest = (part._replace(rows=rows) for rows in (part.rows[:AT_ONCE], part.rows[AT_ONCE:]))
                of_first = int(self._counts(first.rows).sum())
                self._unmade.appendleft((rest, count - of_first))
                part, count = first, of_first
            place = self._unmade_place
            # They are counted already.
            end, self.end = self.end, self.end - self._unmade_count
            self._unmade_count -= count
            self._put(self._made(part), place)
            self.end = end

    def _position_at(self, place: int) -> int:
        return self.end - (self._stop - place) if place >= self._unmade_place else super()._position_at(place)

    def _place_of(self, position: int) -> int:
        place = self._stop - (self.end - position)
        return place if place >= self._unmade_place else super()._place_of(position)


def _joined(one: Part, other: Part) -> Part | None:
    """Both, unless the same ids would be calculated from other numbers."""
    if any(one.seeds.get(index, seeds) != seeds for index, seeds in other.seeds.items()):
        return None
    return Part(np.concatenate((one.rows, other.rows)), {**one.seeds, **other.seeds})
