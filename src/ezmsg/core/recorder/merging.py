"""Base-2 exponential histograms of durations: merging several into one, and recording into one.

Sums and extremes are integer nanoseconds, bucket boundaries are powers of two in seconds (`scale`, `offset`
and `counts` as in the data model of OpenTelemetry: bucket i of scale s holds (2^(i/2^s), 2^((i+1)/2^s)]).
"""

from __future__ import annotations

import math

from ezmsg.core.wire.records import HistogramState

MAX_BUCKETS = 160
SCALE = 3
_NS_PER_S = 1e9


class Histogram:
    """A histogram that others are merged into. It starts empty, at the finest scale it will ever have."""

    __slots__ = ("count", "counts", "max_ns", "min_ns", "offset", "scale", "sum_ns", "zero_count")

    def __init__(self, scale: int = SCALE) -> None:
        self.count = self.sum_ns = self.min_ns = self.max_ns = self.zero_count = 0
        self.scale = scale
        self.offset = 0
        self.counts: list[int] = []

    def record(self, duration_ns: int) -> None:
        """Add one duration, not negative."""
        zero = duration_ns == 0
        index = 0 if zero else math.ceil(math.log2(duration_ns / _NS_PER_S) * 2**self.scale) - 1
        counts = [] if zero else [1]
        self._add(1, duration_ns, duration_ns, duration_ns, int(zero), self.scale, index, counts)

    def merge(self, other: HistogramState | Histogram) -> None:
        """Add all that `other` counted; a finer one is brought to our scale, or we to its."""
        if other.count <= 0:
            return
        # Values may come from numpy, and the encoder would take its integers for doubles.
        counts = [int(count) for count in other.counts]
        extremes = int(other.min_ns), int(other.max_ns)
        zero_count, scale, offset = int(other.zero_count), int(other.scale), int(other.offset)
        self._add(int(other.count), int(other.sum_ns), *extremes, zero_count, scale, offset, counts)

    def copy(self) -> Histogram:
        """The same, to be kept while this one goes on."""
        copy = Histogram(self.scale)
        copy.merge(self)
        return copy

    def state(self, index: int, name: str, label: str) -> HistogramState:
        """As it travels, for an endpoint."""
        return HistogramState(
            index, name, self.count, self.sum_ns, self.min_ns, self.max_ns, self.zero_count,
            self.scale, self.offset, self.counts.copy(), label=label,
        )  # fmt: skip

    def _add(
        self,
        count: int,
        sum_ns: int,
        min_ns: int,
        max_ns: int,
        zero_count: int,
        scale: int,
        offset: int,
        counts: list[int],
    ) -> None:
        self.min_ns = min_ns if not self.count else min(self.min_ns, min_ns)
        self.max_ns = max(self.max_ns, max_ns)
        self.count += count
        self.sum_ns += sum_ns
        self.zero_count += zero_count
        if counts:
            self._add_buckets(scale, offset, counts)

    def _add_buckets(self, scale: int, offset: int, counts: list[int]) -> None:
        if not self.counts:
            self.scale, self.offset, self.counts = scale, offset, [0] * len(counts)
        common = min(self.scale, scale)
        # Find the scale at which the union fits before it is made: two far-apart ranges would be a huge list.
        while self._width_at(common, scale, offset, len(counts)) > MAX_BUCKETS:
            common -= 1
        self.offset, self.counts = downscale(self.offset, self.counts, self.scale - common)
        offset, counts = downscale(offset, counts, scale - common)
        low = min(self.offset, offset)
        merged = [0] * (max(self.offset + len(self.counts), offset + len(counts)) - low)
        for start, part in ((self.offset, self.counts), (offset, counts)):
            for position, value in enumerate(part, start - low):
                merged[position] += value
        self.scale, self.offset, self.counts = common, low, merged

    def _width_at(self, common: int, scale: int, offset: int, length: int) -> int:
        """How many buckets the union with another range of buckets takes at scale `common`."""
        mine, others = self.scale - common, scale - common
        low = min(self.offset >> mine, offset >> others)
        last = max((self.offset + len(self.counts) - 1) >> mine, (offset + length - 1) >> others)
        return last - low + 1


def downscale(offset: int, counts: list[int], by: int) -> tuple[int, list[int]]:
    """Offset and counts `by` scales coarser: 2^by neighbours become one bucket."""
    first = offset >> by
    merged = [0] * (((offset + len(counts) - 1) >> by) - first + 1)
    for index, count in enumerate(counts, offset):
        merged[(index >> by) - first] += count
    return first, merged
