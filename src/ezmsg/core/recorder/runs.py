"""Many plain rows of one endpoint in a row, counted at once: what a busy process writes nearly all the time.

Works on rows as they were written, with their times in seconds, and gives up (None) where a row needs a closer look.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.recorder.buckets import COLUMNS, float_columns
from ezmsg.core.recorder.ring import Rows
from ezmsg.core.recorder.rows import (
    EXTENDED,
    FIRST_TIME,
    FOREIGN,
    HOP,
    INSTANT,
    KIND_MASK,
    LABEL_MASK,
    LABEL_SHIFT,
    LAST_TIME,
    PROCESS,
    PUBLISH,
)

RUNS: Final = 4
"""In so many the rows of a piece may fall."""
_SPECIAL: Final = EXTENDED | FOREIGN | INSTANT | LABEL_MASK << LABEL_SHIFT

Times = NDArray[np.float64]


class Counted(NamedTuple):
    """One histogram's share of a run: how many durations fell into each column, and their sum and ends in ns."""

    counts: NDArray[np.int64]
    sum_ns: int
    min_ns: int
    max_ns: int


class PublishRun(NamedTuple):
    """The publishes of a run."""

    histograms: dict[str, Counted]
    last_id: int
    last_start_ns: int


def runs_of(rows: Rows) -> list[Rows] | None:
    """Rows by endpoint; None if some of them are special, or there are too many endpoints for this to pay."""
    if len(set(rows[:64, 0].tolist())) > RUNS:
        return None
    runs: list[Rows] = []
    while len(rows):
        first = int(rows[0, 0])
        if first & _SPECIAL or first & KIND_MASK not in (PUBLISH, PROCESS) or len(runs) == RUNS:
            return None
        of_first = rows[:, 0] == first
        if of_first.all():
            runs.append(rows)
            break
        runs.append(rows[of_first])
        rows = rows[~of_first]
    return runs


def process_run(rows: Rows) -> dict[str, Counted] | None:
    """The histograms of a run of PROCESS rows; None where times run backwards."""
    origin, publish, channel, start, end = _times(rows)
    is_hop = int(rows[0, 0]) & HOP
    names = ("age", "queue", "process") if is_hop else ("age", "queue", "process", "transport")
    durations = np.empty((len(names), len(rows)))
    np.subtract(start, origin, out=durations[0])
    np.subtract(start, channel, out=durations[1])
    np.subtract(end, start, out=durations[2])
    if not is_hop:
        np.subtract(channel, publish, out=durations[3])
    if origin.min() < 0:
        return None
    counted = _count(names, durations)
    if counted is not None and is_hop:
        counted["transport"] = _zeros(len(rows))  # a hand-over takes no time
    return counted


def publish_run(rows: Rows, last_id: int, last_start_ns: int) -> PublishRun | None:
    """The histograms of a run of PUBLISH rows, or of PROCESS rows that speak for the publish.

    None where messages are missing in between, or times run backwards.

    Args:
        rows: The run.
        last_id: The message of the publisher that was counted last.
        last_start_ns: When its publish began.
    """
    ids = rows[:, 1]
    count = len(rows)
    if int(ids[-1]) - int(ids[0]) != count - 1 or not (ids[1:] - ids[:-1] == 1).all():
        return None
    _, starts, ends, waits, serializing = _times(rows)
    waited = serialized = False
    if not int(rows[0, 0]) & HOP:
        waited, serialized = bool(waits.any()), bool(serializing.any())
    durations = np.empty((2, count))
    np.subtract(ends, starts, out=durations[0])
    np.subtract(starts[1:], starts[:-1], out=durations[1, 1:])
    is_next = int(ids[0]) == last_id + 1
    durations[1, 0] = starts[0] - last_start_ns / 1e9 if is_next else durations[1, -1] if count > 1 else 0
    histograms = _count(("publish", "interval"), durations)
    if histograms is None:
        return None
    if not is_next:
        # Nothing is known of what came before the first: its interval was a copy of the last.
        histograms["interval"] = _without(histograms["interval"], durations[1, :1])
        if count == 1:
            del histograms["interval"]
    for name, is_there, column in (("backpressure", waited, waits), ("serialize", serialized, serializing)):
        if is_there:
            found = _count((name,), column[column > 0].reshape(1, -1))
            if found is None:
                return None
            histograms.update(found)
    return PublishRun(histograms, int(ids[-1]), round(float(starts[-1]) * 1e9))


def _times(rows: Rows) -> Times:
    """The times of rows, (time, row)."""
    return np.ascontiguousarray(rows[:, FIRST_TIME : LAST_TIME + 1].view(np.float64).T)


def _count(names: Sequence[str], durations: Times) -> dict[str, Counted] | None:
    """Count durations in seconds, (name, row), which are ns afterwards; None if some are negative."""
    durations *= 1e9
    np.rint(durations, out=durations)
    shortest = durations.min(axis=1)
    if shortest.min() < 0:
        return None
    found = float_columns(durations)
    found += np.arange(0, len(names) * COLUMNS, COLUMNS).reshape(-1, 1)
    counts = np.bincount(found.reshape(-1), minlength=len(names) * COLUMNS).reshape(len(names), COLUMNS)
    sums, longest = durations.sum(axis=1).tolist(), durations.max(axis=1).tolist()
    return {name: Counted(counts[n], int(sums[n]), int(shortest[n]), int(longest[n])) for n, name in enumerate(names)}


def _zeros(count: int) -> Counted:
    counts = np.zeros(COLUMNS, dtype=np.int64)
    counts[0] = count
    return Counted(counts, 0, 0, 0)


def _without(counted: Counted, one_ns: Times) -> Counted:
    counted.counts[float_columns(one_ns)] -= 1
    return counted._replace(sum_ns=counted.sum_ns - int(one_ns[0]))
