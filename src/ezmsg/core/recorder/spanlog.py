"""The newest spans of somebody, most of them as the rows they are made of until somebody reads them.

A row of a message whose ids are calculated is half of what its span is, and less where it is a hop, which is two.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.recorder.calculated import Seeds, complete
from ezmsg.core.recorder.pieces import Piece
from ezmsg.core.recorder.ring import Rows
from ezmsg.core.recorder.rowlog import RowArray
from ezmsg.core.recorder.rows import HOP, ROW_WORDS, SPAN_ROW, are_followers
from ezmsg.core.recorder.samples import span_rows
from ezmsg.core.recorder.unmadelog import Part, UnmadeLog
from ezmsg.core.recorder.unmadestore import UnmadeStore


class SpanLog(UnmadeLog):
    """The newest `limit` spans and what follows them. The last of them may be rows whose ids are calculated."""

    __slots__ = ()

    def __init__(self, limit: int, end: int = 0) -> None:
        """Make an empty log, whose first span is at position `end`."""
        super().__init__(SPAN_ROW, limit, spans_in, spans_of, are_followers, end)


class UnmadeRows(NamedTuple):
    """Rows as they travel, how many they are, and what their ids are calculated from."""

    rows: bytes
    number: int
    seeds: dict[int, Seeds]


class SpanStore(UnmadeStore):
    """Logs of spans by graph. Callers take turns."""

    def __init__(self, limit: int) -> None:
        """Make an empty store that keeps `limit` spans of each graph."""
        super().__init__(SPAN_ROW, limit, are_followers)

    def take_unmade(self, name: str, limit: int, graph: str | None = None) -> UnmadeRows | None:
        """At most `limit` unread rows that spans are made of; None if these spans are to be had only by `take`."""
        unread = self.find_unmade(name, limit, graph)
        if unread is None:
            return None
        taken: list[Rows] = []
        seeds: dict[int, Seeds] = {}
        for key, parts in unread.items():
            for part in parts:
                rows = part.rows[:limit]
                limit -= len(rows)
                self.advance(name, key, int(spans_in(rows).sum()))
                taken.append(rows)
                seeds.update(part.seeds)
        return UnmadeRows(b"".join([rows.data for rows in taken]), sum(map(len, taken)), seeds)

    def _new_log(self) -> SpanLog:
        return SpanLog(self._limit)


def spans_in(rows: Rows) -> NDArray[np.int64]:
    """How many spans each of these rows is, whose ids are calculated."""
    return 1 + (rows[:, 0] & HOP != 0)


def spans_of(part: Part) -> RowArray:
    """The spans that rows are, at least one, in order."""
    count = len(part.rows)
    with np.errstate(invalid="ignore"):  # they may be anybody's, and hold anything
        pairs = Piece(complete(*part)).pairs_in_ns(np.empty((count, 2 * ROW_WORDS), dtype=np.int64))
    made = span_rows(pairs, np.empty((2 * count, 2 * ROW_WORDS), dtype=np.int64))
    assert made is not None, "rows without ids belong to no trace"
    return made
