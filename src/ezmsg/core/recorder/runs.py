"""Many plain rows of one endpoint in a row, counted at once: what a busy process writes nearly all the time.

Works on rows as they were written, with their times in seconds, and gives up (None) where a row needs a closer look.
"""

from __future__ import annotations

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
    first_id: int
    first_start_ns: int
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
    """The histograms of a run of PROCESS rows."""
    origin, publish, channel, start, end = _times(rows)
    if int(rows[0, 0]) & HOP:
        # A hand-over takes no time.
        publish = channel
    if origin.min() < 0:
        return None
    return _count(
        {"age": start - origin, "transport": channel - publish, "queue": start - channel, "process": end - start}
    )


def publish_run(rows: Rows) -> PublishRun | None:
    """The histograms of a run of PUBLISH rows, or of PROCESS rows that speak for the publish."""
    ids = rows[:, 1]
    if int(ids[-1]) - int(ids[0]) != len(ids) - 1 or not (np.diff(ids) == 1).all():
        return None
    times = _times(rows)
    durations: dict[str, Times]
    if int(rows[0, 0]) & HOP:
        starts = times[1]
        durations = {"publish": times[2] - starts}
    else:
        starts = times[1]
        durations = {"publish": times[2] - starts}
        for name, column in (("backpressure", times[3]), ("serialize", times[4])):
            if column.any():
                durations[name] = column
    durations["interval"] = np.diff(starts)
    histograms = _count(durations)
    if histograms is None:
        return None
    ends = np.rint(starts[[0, -1]] * 1e9)
    return PublishRun(histograms, int(ids[0]), int(ends[0]), int(ids[-1]), int(ends[1]))


def _times(rows: Rows) -> Times:
    """The times of rows, (time, row)."""
    return np.ascontiguousarray(rows[:, FIRST_TIME : LAST_TIME + 1].view(np.float64).T)


def _count(durations_s: dict[str, Times]) -> dict[str, Counted] | None:
    counted: dict[str, Counted] = {}
    for name, column in durations_s.items():
        if not len(column):
            continue
        durations_ns = np.rint(column * 1e9)
        if name in ("backpressure", "serialize"):
            # Zero says that there was none.
            durations_ns = durations_ns[durations_ns > 0]
            if not len(durations_ns):
                continue
        shortest = durations_ns.min()
        if shortest < 0:
            return None
        counts = np.bincount(float_columns(durations_ns), minlength=COLUMNS)
        counted[name] = Counted(counts, int(durations_ns.sum()), int(shortest), int(durations_ns.max()))
    return counted
