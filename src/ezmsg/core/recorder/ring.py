"""A ring of rows with one writing thread and one reader at a time.

The writer never waits and never looks at the reader. The reader copies `[tail, head)`, discards what the writer may
have overwritten meanwhile, and counts it, also by what it was: `marks` lets it tell how many spans and samples were
among the rows it never saw.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.recorder.rows import (
    ATTRIBUTE,
    BEHIND,
    EXTENDED,
    EXTRA,
    HOP,
    KIND_MASK,
    LABEL_BITS,
    LABEL_SHIFT,
    LINK,
    OWED_MASK,
    ROW_BYTES,
    ROW_WORDS,
    SAMPLED,
    SELECTED,
    pack_extra,
    pack_hop_pair,
    pack_pair,
    pack_row,
)

ROWS: Final = 1 << 15
"""Rows of a ring. The hot path masks with RING_MASK, so every ring has this size unless made smaller by a test."""

CROWDED: Final = 8
"""A ring of which this part is unread is read by its writer."""

_SPAN: Final = EXTENDED | SAMPLED
_MARKED: Final = _SPAN | SELECTED

Rows = NDArray[np.int64]
Words = tuple[Any, ...]


Marks = tuple[int, int, int, int]
"""What the writer had written in all: head, rows that say more of others, spans among them, native samples they owe."""


class Taken(NamedTuple):
    """What one read found.

    Rows as they were written; whether none of them has an extra row, or will get one; how many records they are: a row
    counts once with what says more of it (an extra row, links, attributes), a hop twice; what was lost of it: what was
    overwritten unread counts once a row, whatever it was; and whether some are selected and have no extra row.
    """

    rows: Rows
    is_plain: bool
    records: int
    lost: int
    lost_spans: int
    lost_samples: int
    is_selected: bool = False


class Ring:
    """Rows of one registry and one writing thread.

    `head` and the tail are byte positions that only grow. Plain rows are written by the endpoints themselves, inline:
    pack at `head & mask`, then `head += 64`. A row and its extra row are published by one store of `head`, and so is a
    publish with its links. `ahead` says how far behind `head` the writer may be busy. `users` counts the endpoints that
    write here.
    """

    __slots__ = (
        "_accounted",
        "_copied",
        "_last",
        "_size",
        "_tail",
        "_view",
        "ahead",
        "buffer",
        "head",
        "marks",
        "mask",
        "thread_id",
        "users",
    )

    def __init__(self, rows: int = ROWS, thread_id: int = 0) -> None:
        """Make an empty ring of `rows` rows, a power of two."""
        if rows < 4 or rows & (rows - 1):
            raise ValueError(f"a ring needs a power of two rows, at least 4, not {rows}")
        self.thread_id = thread_id
        self.users = 0
        self._size = rows * ROW_BYTES
        self.mask = self._size - 1
        self._last = self._size - ROW_BYTES
        # One row more: a pair that begins in the last row is written whole, then its second half put where it belongs.
        self.buffer = _untouched(self._size + ROW_BYTES)
        self.head = 0
        self.ahead = 2 * ROW_BYTES
        self.marks: Marks = (0, 0, 0, 0)
        self._tail = 0
        self._accounted = self.marks
        self._copied: Rows = np.empty((0, ROW_WORDS), dtype=np.int64)
        self._view: Rows = np.frombuffer(self.buffer, dtype=np.int64, count=rows * ROW_WORDS).reshape(rows, ROW_WORDS)

    def put(self, *words: float) -> None:
        """Write one row (off the hottest path; see the class)."""
        offset = self.head
        pack_row(self.buffer, offset & self.mask, *words)
        self.head = offset + ROW_BYTES

    def put_span(
        self,
        meta: int,
        message_id: int,
        a: float,
        b: float,
        c: float,
        d: float,
        e: float,
        last: int,
        trace_id: bytes,
        span_id: int,
        parent_id: int,
        previous_s: float,
        fanout: int,
        blame: int,
    ) -> None:
        """Write a row of a message that belongs to a trace, and its extra row; `meta` has no flags of these yet."""
        offset = self.head
        at = offset & self.mask
        pack_pair(
            self.buffer, at, meta | _SPAN, message_id, a, b, c, d, e, last,
            EXTRA, trace_id, span_id, parent_id, previous_s, fanout, blame,
        )  # fmt: skip
        if at == self._last:
            self.buffer[:ROW_BYTES] = self.buffer[self._size :]
        # As `mark` does.
        self.head = end = offset + 2 * ROW_BYTES
        _, extras, spans, samples = self.marks
        self.marks = (end, extras + 1, spans + 1, samples)

    def put_hop(
        self,
        meta: int,
        message_id: int,
        origin_s: float,
        publish_s: float,
        channel_s: float,
        start_s: float,
        end_s: float,
        publisher: int,
        trace: tuple[bytes, int, *tuple[Any, ...]],
        span_id: int,
    ) -> None:
        """Write both ends of a message that belongs to a trace; `meta` has HOP, `trace` is that of the publish."""
        offset = self.head
        at = offset & self.mask
        trace_id, publish_id, parent_id, _ = trace
        pack_hop_pair(
            self.buffer, at,
            meta | _SPAN, message_id, origin_s, publish_s, channel_s, start_s, end_s, publisher,
            EXTRA, trace_id, span_id, publish_id, 0.0, parent_id, 0,
        )  # fmt: skip
        if at == self._last:
            self.buffer[:ROW_BYTES] = self.buffer[self._size :]
        # As `mark` does.
        self.head = end = offset + 2 * ROW_BYTES
        _, extras, spans, samples = self.marks
        self.marks = (end, extras + 1, spans + 2, samples)

    def put_selected(self, samples: int, *words: float) -> None:
        """Write a row without an extra row that owes so many native samples."""
        offset = self.head
        pack_row(self.buffer, offset & self.mask, *words)
        # As `mark` does.
        self.head = end = offset + ROW_BYTES
        _, extras, spans, all_samples = self.marks
        self.marks = (end, extras, spans, all_samples + samples)

    def mark(self, end: int, spans: int, samples: int) -> None:
        """Publish a row and its extra row that end at `end`; they are so many spans (0 or 1) and native samples."""
        # The head first: what the marks count lies before it.
        self.head = end
        _, extras, all_spans, all_samples = self.marks
        self.marks = (end, extras + 1, all_spans + spans, all_samples + samples)

    def put_extended(self, meta: int, row: Words, extra: Words, samples: int) -> None:
        """Write a row, its first word apart, and its extra row; `samples` says how many native samples they owe."""
        offset = self.head
        pack_row(self.buffer, offset & self.mask, meta, *row)
        pack_extra(self.buffer, (offset + ROW_BYTES) & self.mask, *extra)
        self.mark(offset + 2 * ROW_BYTES, 1 if meta & SAMPLED else 0, samples)

    def put_linked(
        self, meta: int, row: Words, extra: Words, samples: int, link_meta: int, links: Sequence[tuple[bytes, int]]
    ) -> None:
        """As `put_extended`, for a span that is linked to others; readers see it with all its links."""
        offset, count = self.head, 1 + len(links)
        end = offset + 2 * ROW_BYTES * count
        self.ahead = end - offset
        pack_row(self.buffer, offset & self.mask, meta, *row)
        pack_extra(self.buffer, offset + ROW_BYTES & self.mask, *extra)
        message_id, span_id = row[0], extra[2]
        for at, linked in zip(range(offset + 2 * ROW_BYTES, end, 2 * ROW_BYTES), links, strict=True):
            pack_row(self.buffer, at & self.mask, link_meta | _SPAN, message_id, 0.0, 0.0, 0.0, 0.0, 0.0, 0)
            pack_extra(self.buffer, at + ROW_BYTES & self.mask, EXTRA, *linked, span_id, 0.0, 0, 0)
        self.head = end
        self.ahead = 2 * ROW_BYTES
        _, extras, all_spans, all_samples = self.marks
        self.marks = (end, extras + 2 * count - 1, all_spans + 1, all_samples + samples)

    def put_followed(self, row: Words, extra: Words, samples: int, followers: Sequence[tuple[Words, Words]]) -> None:
        """As `put_extended`, with rows and extra rows that are read together with it (off the hot path)."""
        pairs = ((row, extra), *followers)
        offset, end = self.head, self.head + 2 * ROW_BYTES * len(pairs)
        self.ahead = end - offset
        for at, (words, extra_words) in zip(range(offset, end, 2 * ROW_BYTES), pairs, strict=True):
            pack_row(self.buffer, at & self.mask, *words)
            pack_extra(self.buffer, at + ROW_BYTES & self.mask, *extra_words)
        self.head = end
        self.ahead = 2 * ROW_BYTES
        _, extras, spans, all_samples = self.marks
        self.marks = (end, extras + 2 * len(pairs) - 1, spans + 1, all_samples + samples)

    @property
    def is_crowded(self) -> bool:
        """Whether so much waits to be read that its writer should do it; no more, or the pump would hurry."""
        return (self.head - self._tail) * CROWDED > self._size

    @property
    def is_filling(self) -> bool:
        """Whether it is half as much: worth to be read by its writer while that waits for others."""
        return 2 * (self.head - self._tail) * CROWDED > self._size

    def unread(self) -> int:
        """Rows a read would find or find lost."""
        return (self.head - self._tail) // ROW_BYTES

    def take(self) -> Taken:
        """Everything written since the last call. Callers take turns (the registry holds a lock).

        The rows are valid until the next call.
        """
        # Marks first: all they count lies before this head.
        marks, head, tail = self.marks, self.head, self._tail
        start = max(tail, head - self._size)
        rows = self._copy(start, head)
        # What the writer may be busy with: first how far it may be, then from where on, for it does it the other way.
        ahead = self.ahead
        first = max(start, self.head + ahead - self._size)
        first = min(first, head)
        rows = rows[(first - start) // ROW_BYTES :]
        while first > tail and len(rows) and int(rows[0, 0]) & KIND_MASK in BEHIND:
            rows = rows[1:]
            first += ROW_BYTES
        self._tail = head
        return self._account(rows, marks, first, (first - tail) // ROW_BYTES)

    def _copy(self, start: int, head: int) -> Rows:
        count = (head - start) // ROW_BYTES
        at = (start & self.mask) // ROW_BYTES
        whole = len(self._view)
        if len(self._copied) < count:
            # Kept: memory new for every read would have to be zeroed by the system first.
            self._copied = np.empty((count, ROW_WORDS), dtype=np.int64)
        rows = self._copied[:count]
        until = min(count, whole - at)
        rows[:until] = self._view[at : at + until]
        rows[until:] = self._view[: count - until]
        return rows

    def _account(self, rows: Rows, marks: Marks, first: int, lost_rows: int) -> Taken:
        before = self._accounted
        words = rows[:, 0].copy()
        flags = int(np.bitwise_or.reduce(words))
        hops = int(np.count_nonzero(words & HOP)) if flags & HOP else 0
        if not flags & _MARKED and marks == before:
            return Taken(rows, True, len(rows) + hops, lost_rows, 0, 0)
        seen = _tally(words, flags)
        # The marks do not know yet what was written while we read them.
        ahead = _tally(words[max(0, (marks[0] - first) // ROW_BYTES) :], flags)
        self._accounted = (marks[0], marks[1] + ahead.more, marks[2] + ahead.spans, marks[3] + ahead.owed)
        extras, lost_spans, lost_samples = (self._accounted[n + 1] - before[n + 1] - seen[n] for n in range(3))
        records = len(rows) - seen.more + hops
        is_selected = bool(flags & SELECTED) and bool((words & (SELECTED | EXTENDED) == SELECTED).any())
        return Taken(rows, not flags & _SPAN, records, lost_rows - extras, lost_spans, lost_samples, is_selected)


class _Tally(NamedTuple):
    """What rows are: rows that say more of others, spans, native samples they owe."""

    more: int
    spans: int
    owed: int


def _tally(words: NDArray[np.int64], flags: int) -> _Tally:
    """Count rows by their first words, which have no others than these flags."""
    if not flags & (EXTENDED | SELECTED):
        return _Tally(0, int(_spans_of(words).sum()), 0)
    marked = np.flatnonzero(words & _MARKED)
    metas = words[marked]
    spans = _spans_of(metas) if flags & SAMPLED else np.zeros(len(metas), dtype=np.int64)
    extended = metas & EXTENDED != 0
    more = extended.astype(np.int64) + _are_followers(metas)
    # Without an extra row, the label of what is selected says it.
    owed = np.where(metas & SELECTED, np.bitwise_count(metas >> LABEL_SHIFT & OWED_MASK).astype(np.int64), 0)
    if flags & EXTENDED:
        owed[extended] = _owed(words[marked[extended] + 1])
    return _Tally(int(more.sum()), int(spans.sum()), int(owed.sum()))


def _spans_of(metas: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many spans rows are: one that is a hop is two, one that follows another is none."""
    is_span = (metas & SAMPLED != 0) & ~_are_followers(metas)
    return is_span * (1 + (metas & HOP != 0))


def _are_followers(metas: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows are parts of the ones before them."""
    kinds = metas & KIND_MASK
    return (kinds == LINK) | (kinds == ATTRIBUTE)


def _owed(metas: NDArray[np.int64]) -> NDArray[Any]:
    """How many native samples rows owe, by the first words of their extra rows."""
    emits = metas & LABEL_BITS
    return np.bitwise_count(emits) if emits.any() else emits


def _untouched(size: int) -> bytearray:
    """Memory that the system gives page by page, when rows are written; nothing is read before it was.

    Zeros in all of it take every process a millisecond when it starts, and 2 MiB, also where few rows are ever written.
    """
    prototype = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_char_p, ctypes.c_ssize_t)
    try:
        make = prototype(("PyByteArray_FromStringAndSize", ctypes.pythonapi))
    except AttributeError:  # another Python
        return bytearray(size)
    return make(None, size)
