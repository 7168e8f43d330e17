"""Rows that a native trace selected and that have no extra row, as most have none: the samples that they owe.

Every message may be selected, and of many only the newest are ever read. So these rows are kept, and sent, as they are;
samples are made where somebody asks (see `samplelog`).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.recorder.ring import Rows
from ezmsg.core.recorder.rowlog import RowArray
from ezmsg.core.recorder.rows import (
    AGE,
    BACKPRESSURE_WAIT,
    CHANNEL_MASK,
    CHANNEL_SHIFT,
    EXTENDED,
    EXTRA,
    FIRST_TIME,
    GENERATION_SHIFT,
    GENERATIONS,
    INDEX_SHIFT,
    KIND_MASK,
    LABEL_BITS,
    LABEL_SHIFT,
    LEASE_TIME,
    METRICS,
    NO_PREVIOUS,
    OWED_MASK,
    PREVIOUS,
    PROCESS_END,
    PUBLISH,
    PUBLISH_DELTA,
    PUBLISH_END,
    QUEUE_WAIT,
    ROW_WORDS,
    SAMPLE_ROW,
    SELECTED,
    SERIALIZE,
    TRANSPORT,
)

_SAMPLE_WORDS: Final = SAMPLE_ROW.itemsize // 8
# Where the fields of a sample are in its fourth word, with the index at its low end.
_METRIC_SHIFT: Final = 32
_CHANNEL_SHIFT: Final = 40
RUNS: Final = 4
"""In so many, rows that come together are taken apart by what their first word is."""

Column = NDArray[np.int64]


def are_alone(rows: Rows) -> NDArray[np.bool_]:
    """Which rows are selected and have no extra row."""
    return rows[:, 0] & (SELECTED | EXTENDED) == SELECTED


def runs_alone(rows: Rows) -> list[Rows] | None:
    """Copies of rows by their first word, when all are alone and there are few such words; else None.

    What a busy process writes nearly all the time.
    """
    runs: list[Rows] = []
    while len(rows):
        metas = rows[:, 0]
        first = int(metas[0])
        if len(runs) == RUNS or first & (SELECTED | EXTENDED) != SELECTED:
            return None
        is_first = metas == first
        if is_first.all():
            runs.append(rows if runs else rows.copy())
            break
        runs.append(rows.compress(is_first, axis=0))
        rows = rows.compress(~is_first, axis=0)
    return runs


def unselected(meta: int) -> int:
    """The first word of a row that is alone, as it is of a message that nobody selected."""
    return meta & ~(SELECTED | LABEL_BITS)


def have_others(rows: Rows) -> bool:
    """Whether some rows are selected and have an extra row."""
    return bool((rows[:, 0] & (SELECTED | EXTENDED) == SELECTED | EXTENDED).any())


def owed_by(rows: Rows) -> Column:
    """How many samples each of these rows owes, which are alone."""
    return np.bitwise_count(rows[:, 0] >> LABEL_SHIFT & OWED_MASK).astype(np.int64)


def ends_s(rows: Rows) -> NDArray[np.float64]:
    """When what each of these rows tells of ended, in seconds: the time of its samples."""
    times = rows.view(np.float64)
    return np.where(rows[:, 0] & KIND_MASK == PUBLISH, times[:, PUBLISH_END], times[:, PROCESS_END])


def are_current(rows: Rows, generation: int) -> NDArray[np.bool_]:
    """Which of these rows, which are alone, were selected by the native trace of this generation."""
    return rows[:, 0] >> GENERATION_SHIFT & GENERATIONS - 1 == generation % GENERATIONS


def forget_selection(rows: Rows, alone: NDArray[np.bool_]) -> None:
    """Make rows that are alone those of messages that nobody selected."""
    rows[alone, 0] &= ~(SELECTED | LABEL_BITS)


def with_extra_rows(rows: Rows, generation: int) -> Rows:
    """Rows as they were written, with an extra row behind each that is alone."""
    at = np.flatnonzero(are_alone(rows))
    metas = rows[at, 0]
    extras = np.zeros((len(at), ROW_WORDS), dtype=np.int64)
    # What is not of this generation is of one before it, whichever.
    generations = np.where(are_current(rows[at], generation), generation, generation - 1)
    extras[:, 0] = EXTRA | (metas & OWED_MASK << LABEL_SHIFT) | generations << INDEX_SHIFT
    of_publish = metas & KIND_MASK == PUBLISH
    publishes = at[of_publish]
    extras[of_publish, PREVIOUS] = rows[publishes, FIRST_TIME]
    rows[publishes, FIRST_TIME] = 0
    rows[at, 0] = metas & ~LABEL_BITS | EXTENDED
    return np.insert(rows, at + 1, extras, axis=0)


def samples_of(rows: Rows) -> RowArray:
    """The samples owed by rows that are alone, at least one, in order."""
    metas = rows[:, 0]
    with np.errstate(invalid="ignore", over="ignore"):  # they may be anybody's, and hold anything
        times: Column = np.rint(rows[:, FIRST_TIME : PROCESS_END + 1].view(np.float64).T * 1e9).astype(np.int64)
    of_publish, of_process = times[PUBLISH_END - FIRST_TIME, :], times[PROCESS_END - FIRST_TIME, :]
    ended: Column = np.where(metas & KIND_MASK == PUBLISH, of_publish, of_process)
    about = metas >> INDEX_SHIFT | (metas >> CHANNEL_SHIFT & CHANNEL_MASK) << _CHANNEL_SHIFT
    emits = metas >> LABEL_SHIFT & OWED_MASK
    first = int(emits[0])
    ends = np.cumsum(np.bitwise_count(emits), dtype=np.int64)
    made = np.zeros((int(ends[-1]), _SAMPLE_WORDS), dtype=np.int64)
    # As it nearly always is: then the samples of a metric are evenly spaced.
    is_even = bool((emits == first).all())
    owing: Column | slice = slice(None)
    for metric in range(len(METRICS)):
        if is_even:
            if not first >> metric & 1:
                continue
            before = (first & (1 << metric) - 1).bit_count()
            places: Column | slice = slice(before, None, first.bit_count())
        else:
            owing = np.flatnonzero(emits >> metric & 1)
            places = ends[owing] - np.bitwise_count(emits[owing] >> metric)
        made[places, 0] = ended[owing]
        made[places, 1] = _values(metric, times)[owing]
        made[places, 2] = rows[owing, 1]
        made[places, 3] = about[owing] | metric << _METRIC_SHIFT
    return made.view(SAMPLE_ROW).reshape(-1)


def _values(metric: int, times: Column) -> Column:
    """What rows say of a metric, by their words that are times."""
    if metric == PUBLISH_DELTA:
        return np.where(times[0] == NO_PREVIOUS, 0, times[1] - times[0])
    if metric == BACKPRESSURE_WAIT:
        return times[3]
    if metric == SERIALIZE:
        return times[4]
    later, earlier = {LEASE_TIME: (4, 3), TRANSPORT: (2, 1), QUEUE_WAIT: (3, 2), AGE: (3, 0)}.get(metric, (0, 0))
    return times[later] - times[earlier]
