"""Many rows of one endpoint in a row, counted at once: what a busy process writes nearly all the time.

Works on rows as they were written, with their times in seconds, and gives up (None) where a row needs a closer look.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.recorder.buckets import COLUMNS, float_columns
from ezmsg.core.recorder.calculated import TraceIds, owner_of
from ezmsg.core.recorder.intervals import Stretch
from ezmsg.core.recorder.pieces import Column, Piece, Times
from ezmsg.core.recorder.ring import Rows
from ezmsg.core.recorder.rows import (
    ERROR,
    EXTENDED,
    FOREIGN,
    HOP,
    INSTANT,
    KIND_MASK,
    LABEL_BITS,
    NO_PREVIOUS_S,
    PREVIOUS,
    PROCESS,
    PUBLISH,
    SAMPLED,
    SELECTED,
)

RUNS: Final = 4
"""In so many the rows of a piece may fall."""
_SPECIAL: Final = FOREIGN | INSTANT | ERROR | LABEL_BITS
_OF_A_ROW: Final = SAMPLED | SELECTED | EXTENDED
"""Flags that may differ within a run."""


class Run(NamedTuple):
    """Rows of one endpoint, none of them special: their first word without what differs, and which of a piece."""

    meta: int
    piece: Piece
    at: Column

    @property
    def is_all(self) -> bool:
        """Whether it is the whole piece."""
        return len(self.at) == len(self.piece.rows)

    @property
    def ids(self) -> Column:
        """The numbers of the messages."""
        ids = self.piece.rows[:, 1]
        return ids if self.is_all else ids.take(self.at)

    @property
    def times(self) -> Times:
        """In seconds, (time, row)."""
        times = self.piece.times
        return times if self.is_all else times.take(self.at, axis=1)

    @property
    def sampled(self) -> Column | None:
        """Which of these rows belong to a trace; None for none."""
        if not len(self.piece.extended) and self.piece.seeds is None:
            return None
        words = self.piece.rows[:, 0]
        found = np.flatnonzero((words if self.is_all else words.take(self.at)) & SAMPLED)
        return found if len(found) else None

    @property
    def whole(self) -> Rows:
        """The rows, each extra row behind its row."""
        return self.piece.whole if self.is_all else self.piece.of(self.at)

    def ids_of(self, row: int, *, is_publish: bool) -> tuple[bytes, int]:
        """Trace and span id of one of these rows, which is sampled; with `is_publish`, those of the publish in it."""
        seeds = self.piece.seeds
        if seeds is not None:
            words = self.piece.rows[self.at[row]]
            ids = TraceIds.of(seeds[owner_of(words)])
            return ids.publish(int(words[1]))[:2] if is_publish else ids.process(int(words[1]))
        extra = self.extra(row)
        assert extra is not None, "a sampled row has one"
        # Of a hop, which is first of all a processing, the publish is the parent.
        return ids_in(extra, is_parent=is_publish and bool(self.meta & HOP))

    def extra(self, row: int) -> Rows | None:
        """The extra row of one of these rows, if it has one."""
        found = np.flatnonzero(self.piece.extended == self.at[row])
        return self.piece.extras[found[0]] if len(found) else None


class Counted(NamedTuple):
    """One histogram's share of a run: how many durations fell into each column, and their sum and ends in ns."""

    counts: NDArray[np.int64]
    sum_ns: int
    min_ns: int
    max_ns: int


class Durations(NamedTuple):
    """What a run says: its histograms, and each row's share of them, in ns, by the name of the histogram."""

    histograms: dict[str, Counted]
    by_row: dict[str, Times]


class Published(NamedTuple):
    """The publishes of a run: their durations, and which they are."""

    durations: Durations
    stretch: Stretch


def ids_in(extra: Rows, *, is_parent: bool) -> tuple[bytes, int]:
    """Trace and span id in an extra row; with `is_parent`, the span is the parent."""
    return extra[1:3].tobytes(), int(extra[4 if is_parent else 3]) & (1 << 64) - 1


def is_special(meta: int) -> bool:
    """Whether rows with this first word, without what differs within a run, cannot be counted as a run."""
    return meta & KIND_MASK not in (PUBLISH, PROCESS) or bool(meta & _SPECIAL)


def runs_of(piece: Piece) -> tuple[list[Run], Rows] | None:
    """Rows by endpoint, and those of other kinds than publishes and messages received, as they were written.

    None if some are special, or there are too many endpoints for this to pay.
    """
    metas = piece.rows[:, 0] & ~_OF_A_ROW
    if len(set(metas[:64].tolist())) > RUNS:
        return None
    at = np.arange(len(metas))
    others = piece.rows[:0]
    runs: list[Run] = []
    while len(at):
        first = int(metas[0])
        if first & KIND_MASK not in (PUBLISH, PROCESS):
            kinds = metas & KIND_MASK
            chosen = (kinds != PUBLISH) & (kinds != PROCESS)
            others = piece.of(at[chosen])
        elif first & _SPECIAL or len(runs) == RUNS:
            return None
        else:
            chosen = metas == first
            if chosen.all():
                runs.append(Run(first, piece, at))
                break
            runs.append(Run(first, piece, at[chosen]))
        metas, at = metas[~chosen], at[~chosen]
    return runs, others


def process_run(run: Run) -> Durations | None:
    """The durations of a run of PROCESS rows; None where times run backwards."""
    origin, publish, channel, start, end = run.times
    # Those two are as the peer says, which may be no time of any clock, nor a number.
    if not (origin.min() >= 0 and publish.min() >= 0):
        return None
    is_hop = run.meta & HOP
    names = ("age", "queue", "process") if is_hop else ("age", "queue", "process", "transport")
    durations = np.empty((len(names), len(start)))
    np.subtract(start, origin, out=durations[0])
    np.subtract(start, channel, out=durations[1])
    np.subtract(end, start, out=durations[2])
    if not is_hop:
        np.subtract(channel, publish, out=durations[3])
    counted = _count(names, durations)
    if counted is not None and is_hop:
        # A hand-over takes no time.
        counted.histograms["transport"], counted.by_row["transport"] = _zeros(len(start)), np.zeros(len(start))
    return counted


def publish_run(run: Run, start_before_ns: int | None) -> Published | None:
    """The durations of a run of PUBLISH rows, or of PROCESS rows that speak for the publish.

    None where messages are missing in between, or times run backwards.

    Args:
        run: The run.
        start_before_ns: When the publish before the first of them began, if that is known.
    """
    ids = run.ids
    count = len(ids)
    if int(ids[-1]) - int(ids[0]) != count - 1 or not (ids[1:] - ids[:-1] == 1).all():
        return None
    _, starts, ends, waits, serializing = run.times
    waited = serialized = False
    if not run.meta & HOP:
        waited, serialized = bool(waits.any()), bool(serializing.any())
    durations = np.empty((2, count))
    np.subtract(ends, starts, out=durations[0])
    np.subtract(starts[1:], starts[:-1], out=durations[1, 1:])
    before_s = _start_before(run) if start_before_ns is None else start_before_ns / 1e9
    is_first = before_s == NO_PREVIOUS_S
    durations[1, 0] = starts[0] - before_s if not is_first else durations[1, -1] if count > 1 else 0
    counted = _count(("publish", "interval"), durations)
    if counted is None:
        return None
    histograms = counted.histograms
    if is_first:
        # Nothing is known of what came before the first: its interval was a copy of the last.
        histograms["interval"] = _without(histograms["interval"], durations[1, :1])
        if count == 1:
            del histograms["interval"]
    for name, is_there, column in (("backpressure", waited, waits), ("serialize", serialized, serializing)):
        if is_there:
            found = _count((name,), column[column > 0].reshape(1, -1))
            if found is None:
                return None
            histograms.update(found.histograms)
            counted.by_row[name] = column * 1e9
    first_ns, last_ns = round(float(starts[0]) * 1e9), round(float(starts[-1]) * 1e9)
    return Published(counted, Stretch(int(ids[0]), first_ns, not is_first, int(ids[-1]), last_ns))


def _start_before(run: Run) -> float:
    """When the publish before the first of a run began, as that one says; NO_PREVIOUS_S if it does not."""
    extra = run.extra(0) if run.meta & KIND_MASK == PUBLISH else None
    return NO_PREVIOUS_S if extra is None else float(extra[PREVIOUS : PREVIOUS + 1].view(np.float64)[0])


def _count(names: Sequence[str], durations: Times) -> Durations | None:
    """Count durations in seconds, (name, row), which are ns afterwards; None if some are negative."""
    with np.errstate(over="ignore"):
        durations *= 1e9
    np.rint(durations, out=durations)
    shortest = durations.min(axis=1)
    if shortest.min() < 0:
        return None
    found = float_columns(durations)
    found += np.arange(0, len(names) * COLUMNS, COLUMNS).reshape(-1, 1)
    counts = np.bincount(found.reshape(-1), minlength=len(names) * COLUMNS).reshape(len(names), COLUMNS)
    sums, longest = durations.sum(axis=1).tolist(), durations.max(axis=1).tolist()
    return Durations(
        {name: Counted(counts[n], int(sums[n]), int(shortest[n]), int(longest[n])) for n, name in enumerate(names)},
        dict(zip(names, durations, strict=True)),
    )


def _zeros(count: int) -> Counted:
    counts = np.zeros(COLUMNS, dtype=np.int64)
    counts[0] = count
    return Counted(counts, 0, 0, 0)


def _without(counted: Counted, one_ns: Times) -> Counted:
    counted.counts[float_columns(one_ns)] -= 1
    return counted._replace(sum_ns=counted.sum_ns - int(one_ns[0]))
