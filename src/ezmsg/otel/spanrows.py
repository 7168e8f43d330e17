"""Span rows of one process, as they wait for export: 128 bytes each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ezmsg.core.recorder.rows import SPAN_ROW, are_followers, count_spans
from ezmsg.core.wire.records import ClockAnchor
from ezmsg.otel.spancolumns import RowArray
from ezmsg.otel.state import Process


@dataclass(frozen=True, slots=True)
class SpanRows:
    """Rows, and the anchor that came with them."""

    process: Process
    anchor: ClockAnchor
    rows: RowArray

    @classmethod
    def of(cls, process: Process, anchor: ClockAnchor, data: bytes) -> SpanRows:
        """Rows as they travel."""
        return cls(process, anchor, np.frombuffer(data, SPAN_ROW))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def spans(self) -> int:
        """How many spans they are."""
        return count_spans(self.rows)

    def up_to(self, count: int) -> SpanRows:
        """A copy of at most `count` rows, the last span with all its links."""
        if count < len(self.rows):
            begins = np.flatnonzero(~are_followers(self.rows[: count + 1]))
            count = int(begins[-1]) if len(begins) else 0
        return SpanRows(self.process, self.anchor, self.rows[:count].copy())

    def split(self, count: int) -> tuple[SpanRows, SpanRows]:
        """The first `count` rows and the links of the last of them, and the others."""
        begins = np.flatnonzero(~are_followers(self.rows[count:]))
        count += int(begins[0]) if len(begins) else len(self.rows)
        head, tail = self.rows[:count], self.rows[count:]
        return SpanRows(self.process, self.anchor, head), SpanRows(self.process, self.anchor, tail)


def joined(chunks: Sequence[SpanRows]) -> list[SpanRows]:
    """The same rows, those of one process (and anchor) together."""
    of_process: dict[tuple[int, ClockAnchor], list[SpanRows]] = {}
    for chunk in filter(len, chunks):
        of_process.setdefault((id(chunk.process), chunk.anchor), []).append(chunk)
    return [
        parts[0]
        if len(parts) == 1
        else SpanRows(parts[0].process, anchor, np.concatenate([part.rows for part in parts]))
        for (_, anchor), parts in of_process.items()
    ]


class RecentIds:
    """The last so many span ids: after a reconnection the server sends again what it still has."""

    def __init__(self, limit: int) -> None:
        """Remember at least `limit` ids, and at most twice as many."""
        self._limit = limit
        self._newer: set[int] = set()
        self._older: set[int] = set()

    def new(self, rows: RowArray) -> RowArray:
        """The rows of spans whose ids are new (from now on known), and of their links."""
        ids: list[int] = rows["span_id"].tolist()
        follows: list[bool] = are_followers(rows).tolist()
        is_new: list[bool] = []
        for is_follower, span_id in zip(follows, ids, strict=True):
            # A link says which span it leads to; it, and an attribute, goes with the span before it.
            is_new.append((not is_new or is_new[-1]) if is_follower else self._add(span_id))
        return rows if all(is_new) else rows[is_new]

    def _add(self, span_id: int) -> bool:
        newer = self._newer
        if span_id in newer or span_id in self._older:
            return False
        newer.add(span_id)
        if len(newer) >= self._limit:
            self._newer, self._older = set(), newer
        return True
