"""Rows with extra rows (see `Piece.pairs_in_ns`) into rows of spans and samples, and samples of many into one order."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.recorder.ring import Rows
from ezmsg.core.recorder.rowlog import RowArray, joined, opaque
from ezmsg.core.recorder.rows import (
    AGE,
    BACKPRESSURE_WAIT,
    CHANNEL_MASK,
    CHANNEL_SHIFT,
    EXTENDED,
    HOP,
    INDEX_SHIFT,
    KIND_MASK,
    LABEL_MASK,
    LABEL_SHIFT,
    LEASE_TIME,
    METRICS,
    NO_PREVIOUS,
    PUBLISH,
    PUBLISH_DELTA,
    QUEUE_WAIT,
    ROW_WORDS,
    SAMPLE_ROW,
    SAMPLED,
    SELECTED,
    SERIALIZE,
    SPAN_ROW,
    TRANSPORT,
    USER_SPAN,
    WAIT,
    meta_word,
)

_PUBLISH_META: Final = meta_word(PUBLISH, 0, flags=SAMPLED | EXTENDED)


class Sampled(NamedTuple):
    """Sample rows in the order they were recorded, and how many more came from a trace that has ended since."""

    rows: RowArray
    stale: int


def sample_rows(pairs: Rows, generation: int) -> Sampled | None:
    """The samples owed by pairs of rows; None when there are none."""
    at = np.flatnonzero(pairs[:, 0] & SELECTED)
    if not len(at):
        return None
    pairs = pairs.take(at, axis=0)
    owed = pairs[:, ROW_WORDS]
    current = owed >> INDEX_SHIFT == generation
    emits = owed >> LABEL_SHIFT & LABEL_MASK
    stale = int(np.bitwise_count(emits[~current]).sum())
    if stale:
        pairs, emits = pairs.compress(current, axis=0), emits[current]
    ends = np.cumsum(np.bitwise_count(emits), dtype=np.int64)
    made = np.empty(int(ends[-1]) if len(ends) else 0, dtype=SAMPLE_ROW)
    for metric in range(len(METRICS)):
        owing = np.flatnonzero(emits >> metric & 1)
        if len(owing):
            # Behind those of earlier rows, and those of its own row that come first.
            places = ends.take(owing) - np.bitwise_count(emits.take(owing) >> metric)
            opaque(made)[places] = opaque(_samples(metric, pairs.take(owing, axis=0)))
    return Sampled(made, stale)


def _samples(metric: int, pairs: Rows) -> RowArray:
    made = np.zeros(len(pairs), dtype=SAMPLE_ROW)
    words, extras = pairs[:, :ROW_WORDS], pairs[:, ROW_WORDS:]
    meta, of_pairs = words[:, 0], pairs.view(SPAN_ROW).reshape(-1)
    kinds = meta & KIND_MASK
    made["time_ns"] = np.where((kinds == PUBLISH) | (kinds == WAIT), words[:, 4], words[:, 6])
    made["value_ns"] = _values(metric, words, extras)
    made["seq"] = words[:, 1]
    made["index"] = meta >> INDEX_SHIFT
    made["metric"] = metric
    made["channel"] = meta >> CHANNEL_SHIFT & CHANNEL_MASK
    if metric == USER_SPAN:
        made["label"] = meta >> LABEL_SHIFT & LABEL_MASK
    for name in ("trace_id", "span_id"):
        made[name] = of_pairs[name]
    return made


def _values(metric: int, words: Rows, extras: Rows) -> NDArray[np.int64]:
    if metric == PUBLISH_DELTA:
        previous = extras[:, 5]
        return np.where(previous == NO_PREVIOUS, 0, words[:, 3] - previous)
    if metric == BACKPRESSURE_WAIT:
        return words[:, 5]
    if metric == SERIALIZE:
        return words[:, 6]
    later, earlier = {
        LEASE_TIME: (6, 5),
        USER_SPAN: (6, 5),
        TRANSPORT: (4, 3),
        QUEUE_WAIT: (5, 4),
        AGE: (5, 2),
    }[metric]
    return words[:, later] - words[:, earlier]


def merge_oldest(unread: dict[str, RowArray], limit: int) -> tuple[RowArray, dict[str, int]]:
    """The oldest `limit` samples of all endpoints, by time, then number; and how many are of which endpoint.

    No endpoint can starve another. What is taken of an endpoint is always what it recorded first.
    """
    if not unread:
        return np.empty(0, dtype=SAMPLE_ROW), {}
    seqs: NDArray[np.int64] = np.concatenate([part["seq"] for part in unread.values()])
    # Overlapping leases end out of order; a running maximum keeps the prefix of each endpoint together.
    times = np.concatenate([np.maximum.accumulate(part["time_ns"]) for part in unread.values()])
    owner = np.repeat(np.arange(len(unread)), [len(part) for part in unread.values()])
    oldest = np.lexsort((seqs, times))[:limit]
    # Within an endpoint, ties in time may put a later row first: take as many, from the front.
    counts = np.bincount(owner[oldest], minlength=len(unread))
    taken = joined([part[:count] for part, count in zip(unread.values(), counts, strict=True)], SAMPLE_ROW)
    in_order = np.lexsort((taken["seq"], taken["time_ns"]))
    return opaque(taken)[in_order].view(SAMPLE_ROW), dict(zip(unread, counts.tolist(), strict=True))


def span_rows(pairs: Rows, into: Rows) -> RowArray | None:
    """Those of pairs that belong to a trace, each hop as a publish and its processing; None when there are none.

    Args:
        pairs: The pairs.
        into: Memory for two rows of a span for each of them.
    """
    at = np.flatnonzero(pairs[:, 0] & SAMPLED)
    if not len(at):
        return None
    pairs = pairs if len(at) == len(pairs) else pairs.take(at, axis=0)
    hops = np.flatnonzero(pairs[:, 0] & HOP)
    return (_apart(pairs, hops, into) if len(hops) else pairs).view(SPAN_ROW).reshape(-1)


def _apart(pairs: Rows, hops: NDArray[np.int64], into: Rows) -> Rows:
    """Pairs, with a publish before each of the hops, which are left with what they say of the processing."""
    made = into[: len(pairs) + len(hops)]
    if len(hops) == len(pairs):
        publishes, processes = made[0::2], made[1::2]
        processes[:] = pairs
        publishes[:] = pairs
        _tell_publishes(publishes)
        _leave_processes(processes)
        return made
    at = np.arange(len(pairs))
    at[hops] += 1
    at += np.searchsorted(hops, np.arange(len(pairs)))
    told = pairs.take(hops, axis=0)
    made[at] = pairs
    left = made.take(at[hops], axis=0)
    _leave_processes(left)
    made[at[hops]] = left
    _tell_publishes(told)
    made[at[hops] - 1] = told
    return made


def _tell_publishes(hops: Rows) -> None:
    """Make rows of publishes of hops."""
    hops[:, 0] = _PUBLISH_META | hops[:, 7] << INDEX_SHIFT
    # Begin and end are where they are; it neither waited nor was serialized, and has no size.
    hops[:, 5:ROW_WORDS] = 0
    extras = hops[:, ROW_WORDS:]
    extras[:, 3], extras[:, 4], extras[:, 5], extras[:, 6] = extras[:, 4], extras[:, 6], NO_PREVIOUS, 1


def _leave_processes(hops: Rows) -> None:
    """Make rows of processing alone of hops: what was before it took no time."""
    hops[:, 3] = hops[:, 4]
    hops[:, 7] = hops[:, ROW_WORDS + 6] = 0
