"""Histograms of a window: what came between two looks at histograms that only ever grow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ezmsg.core.graphmeta import HistogramValue


def between(before: HistogramValue | None, now: HistogramValue) -> HistogramValue:
    """What was added since `before`.

    Least and greatest value are those of the buckets, within what was measured since the beginning.
    """
    if before is None or before.count > now.count:
        return now
    scale = min(before.scale, now.scale)
    buckets = _buckets(now, scale)
    buckets.subtract(_buckets(before, scale))
    buckets = Counter({index: count for index, count in buckets.items() if count > 0})
    zeros = max(0, now.zero_count - before.zero_count)
    return _value(buckets, scale, zeros, max(0.0, now.sum - before.sum), now.min, now.max)


def merged(values: Iterable[HistogramValue]) -> HistogramValue | None:
    """All of them in one; None of none."""
    known = [value for value in values if value.count]
    if len(known) < 2:
        return known[0] if known else None
    scale = min(value.scale for value in known)
    buckets: Counter[int] = Counter()
    for value in known:
        buckets.update(_buckets(value, scale))
    zeros, total = sum(value.zero_count for value in known), sum(value.sum for value in known)
    least, most = min(value.min for value in known), max(value.max for value in known)
    return _value(buckets, scale, zeros, total, least, most)


def _buckets(value: HistogramValue, scale: int) -> Counter[int]:
    """Counts by bucket at a coarser scale, each of whose buckets is a power of two of those of `value`."""
    buckets: Counter[int] = Counter()
    for position, count in enumerate(value.counts):
        if count:
            buckets[(value.offset + position) >> (value.scale - scale)] += count
    return buckets


def _value(buckets: Counter[int], scale: int, zeros: int, total: float, least: float, most: float) -> HistogramValue:
    if not buckets:
        return HistogramValue(zeros, total, 0.0, 0.0, zeros, scale, 0, [])
    first, last = min(buckets), max(buckets)
    step: float = 2.0**-scale
    low = 0.0 if zeros else 2.0 ** (first * step)
    return HistogramValue(
        count=zeros + sum(buckets.values()),
        sum=total,
        min=max(least, low),
        max=min(most, 2.0 ** ((last + 1) * step)),
        zero_count=zeros,
        scale=scale,
        offset=first,
        counts=[buckets[index] for index in range(first, last + 1)],
    )
