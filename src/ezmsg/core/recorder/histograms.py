"""A table of histograms, filled from columns of durations and read one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.graphmeta import HistogramValue
from ezmsg.core.recorder.buckets import COLUMNS, columns, compact
from ezmsg.core.recorder.runs import Counted
from ezmsg.core.wire.records import HistogramState

Exemplar = tuple[int, int, str, str]
"""Value in ns, time in ns, trace id, span id."""

Column = NDArray[np.int64]
_LONGEST: Final = (1 << 63) - 1


class Series:
    """One histogram: of which endpoint, of what, for which label (an error type or a span's label)."""

    __slots__ = ("index", "label", "name", "random", "seen", "slot", "slowest")

    def __init__(self, index: int, name: str, label: str, slot: int) -> None:
        """Made by the table."""
        self.index, self.name, self.label, self.slot = index, name, label, slot
        self.slowest: Exemplar | None = None
        self.random: Exemplar | None = None
        self.seen = 0

    def forget_exemplars(self) -> None:
        """They were exported: look for new ones."""
        self.slowest = self.random = None
        self.seen = 0


class Histograms:
    """Dense arrays, one row per series; rows of closed series are used again."""

    def __init__(self) -> None:
        """Make an empty table."""
        self._counts = np.zeros((16, COLUMNS), dtype=np.int64)
        self._sums, self._mins = np.zeros(16, dtype=np.int64), np.full(16, _LONGEST)
        self._maxs, self._changed = np.zeros(16, dtype=np.int64), np.zeros(16, dtype=np.int64)
        self._free: list[int] = list(range(16))

    def open(self, index: int, name: str, label: str) -> Series:
        """A new, empty series."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._counts[slot] = 0
        self._sums[slot] = self._maxs[slot] = self._changed[slot] = 0
        self._mins[slot] = _LONGEST
        return Series(index, name, label, slot)

    def close(self, series: Series) -> None:
        """Give a series' row back."""
        self._free.append(series.slot)

    def add(self, slots: Column, durations_ns: Column, turn: int) -> None:
        """Count durations (all >= 0, at least one), each in its slot; `turn` marks what changed."""
        self._changed[slots] = turn
        first = int(slots[0])
        if (slots == first).all():
            # One endpoint at work, the common case at high rates: three times as fast as `ufunc.at`.
            self._counts[first] += np.bincount(columns(durations_ns), minlength=COLUMNS)
            self._sums[first] += durations_ns.sum()
            self._mins[first] = min(self._mins[first], durations_ns.min())
            self._maxs[first] = max(self._maxs[first], durations_ns.max())
            return
        flat = slots * COLUMNS
        flat += columns(durations_ns)
        np.add.at(self._counts.reshape(-1), flat, 1)
        np.add.at(self._sums, slots, durations_ns)
        np.minimum.at(self._mins, slots, durations_ns)
        np.maximum.at(self._maxs, slots, durations_ns)

    def add_counted(self, slot: int, counted: Counted, turn: int) -> None:
        """Count durations of one series that were sorted into columns already."""
        self._changed[slot] = turn
        self._counts[slot] += counted.counts
        self._sums[slot] += counted.sum_ns
        self._mins[slot] = min(self._mins[slot], counted.min_ns)
        self._maxs[slot] = max(self._maxs[slot], counted.max_ns)

    def changed_since(self, series: Series, turn: int) -> bool:
        """Whether a series changed after a turn."""
        return bool(self._changed[series.slot] > turn)

    def total(self, series: Series) -> tuple[int, int]:
        """The sum of a series in ns, and how many durations that is."""
        return int(self._sums[series.slot]), int(self._counts[series.slot].sum())

    def sum_of(self, several: Sequence[Series]) -> HistogramValue:
        """Several series, at least one, as if they were one."""
        slots = [series.slot for series in several]
        counts = self._counts[slots].sum(axis=0)
        scale, offset, buckets = compact(counts)
        return HistogramValue(
            count=int(counts.sum()),
            sum=int(self._sums[slots].sum()) / 1e9,
            min=int(self._mins[slots].min()) / 1e9,
            max=int(self._maxs[slots].max()) / 1e9,
            zero_count=int(counts[0]),
            scale=scale,
            offset=offset,
            counts=buckets,
        )

    def state(self, series: Series) -> HistogramState:
        """One series as it travels."""
        counts = self._counts[series.slot]
        scale, offset, buckets = compact(counts)
        slot = series.slot
        return HistogramState(
            index=series.index,
            name=series.name,
            count=int(counts.sum()),
            sum_ns=int(self._sums[slot]),
            min_ns=int(self._mins[slot]),
            max_ns=int(self._maxs[slot]),
            zero_count=int(counts[0]),
            scale=scale,
            offset=offset,
            counts=buckets,
            exemplars=[exemplar for exemplar in (series.slowest, series.random) if exemplar is not None],
            label=series.label,
        )

    def _grow(self) -> None:
        old = len(self._sums)
        self._counts = np.concatenate((self._counts, np.zeros((old, COLUMNS), dtype=np.int64)))
        self._sums = np.concatenate((self._sums, np.zeros(old, dtype=np.int64)))
        self._mins = np.concatenate((self._mins, np.full(old, _LONGEST)))
        self._maxs = np.concatenate((self._maxs, np.zeros(old, dtype=np.int64)))
        self._changed = np.concatenate((self._changed, np.zeros(old, dtype=np.int64)))
        self._free = list(range(old, 2 * old))


def histogram_value(state: HistogramState) -> HistogramValue:
    """A histogram as the native API shows it, in seconds."""
    return HistogramValue(
        count=state.count,
        sum=state.sum_ns / 1e9,
        min=state.min_ns / 1e9 if state.count else 0.0,
        max=state.max_ns / 1e9,
        zero_count=state.zero_count,
        scale=state.scale,
        offset=state.offset,
        counts=list(state.counts),
    )
