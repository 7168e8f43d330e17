"""The histograms of each endpoint: found by its index, opened when first needed, closed with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.recorder.distinct import distinct
from ezmsg.core.recorder.histograms import Column, Exemplar, Histograms, Series
from ezmsg.core.recorder.ids import below, chance
from ezmsg.core.recorder.labels import Labels
from ezmsg.core.recorder.runs import Counted

NAMES: Final = (
    "publish",
    "backpressure",
    "serialize",
    "interval",
    "age",
    "transport",
    "queue",
    "process",
    "span",
)
CODES: Final = {name: code for code, name in enumerate(NAMES)}
NOWHERE: Final = -1

Mask = NDArray[np.bool_]


class SeriesTable:
    """Endpoint indices only grow; the position of an endpoint in the tables here is used again after it closed."""

    def __init__(self, labels: Labels) -> None:
        """Make a table without endpoints."""
        self._labels = labels
        self.histograms = Histograms()
        self._series: dict[int, dict[tuple[str, int], Series]] = {}
        self._position = np.zeros(0, dtype=np.int64)
        self._index = np.zeros(0, dtype=np.int64)
        self._slots = np.full((len(NAMES), 0), NOWHERE, dtype=np.int64)
        self._free: list[int] = []

    def open(self, index: int) -> int:
        """Know an endpoint from now on; returns its position."""
        if index >= len(self._position):
            more = max(64, index + 1 - len(self._position), len(self._position) // 2)
            self._position = np.append(self._position, np.full(more, NOWHERE, dtype=np.int64))
        if not self._free:
            self._grow()
        position = self._free.pop()
        self._slots[:, position] = NOWHERE
        self._position[index], self._index[position] = position, index
        self._series[index] = {}
        return position

    def close(self, index: int) -> None:
        """Forget an endpoint and its histograms."""
        for series in self._series.pop(index, {}).values():
            self.histograms.close(series)
        if index < len(self._position) and self._position[index] != NOWHERE:
            self._free.append(int(self._position[index]))
            self._position[index] = NOWHERE

    def __len__(self) -> int:
        """How many positions exist; they are below this."""
        return len(self._index)

    def position(self, index: int) -> int:
        """The position of one endpoint, NOWHERE if it is not known."""
        return int(self._position[index]) if index < len(self._position) else NOWHERE

    def positions(self, indices: Column) -> Column:
        """The position of each endpoint, NOWHERE for one that is not known."""
        found = np.full(len(indices), NOWHERE, dtype=np.int64)
        inside = indices < len(self._position)
        found[inside] = self._position[indices[inside]]
        return found

    def of(self, index: int) -> Sequence[Series]:
        """The histograms of an endpoint."""
        return list(self._series.get(index, {}).values())

    def count(self, name: str, positions: Column, durations_ns: Column, turn: int) -> None:
        """Count durations (all >= 0) under a name, each for the endpoint at its position."""
        if not len(positions):
            return
        slots = self._slots[CODES[name]][positions]
        if int(slots.min()) == NOWHERE:
            for position in distinct(positions[slots == NOWHERE]):
                self._slots[CODES[name], position] = self._one(int(self._index[position]), name, 0).slot
            slots = self._slots[CODES[name]][positions]
        self.histograms.add(slots, durations_ns, turn)

    def count_run(self, position: int, histograms: dict[str, Counted], labels: dict[str, int], turn: int) -> None:
        """Count what a run of rows of one endpoint gave; `labels` are for some of the names."""
        for name, counted in histograms.items():
            slot = int(self._slots[CODES[name], position])
            if label := labels.get(name):
                slot = self._one(int(self._index[position]), name, label).slot
            elif slot == NOWHERE:
                slot = self._slots[CODES[name], position] = self._one(int(self._index[position]), name, 0).slot
            self.histograms.add_counted(slot, counted, turn)

    def count_labelled(self, name: str, positions: Column, labels: Column, durations_ns: Column, turn: int) -> None:
        """Count durations (all >= 0) under a name and a label each."""
        for pair in distinct(positions << 16 | labels):
            position, label = pair >> 16, pair & 0xFFFF
            series = self._one(int(self._index[position]), name, label)
            mine = durations_ns[(positions == position) & (labels == label)]
            self.histograms.add(np.full(len(mine), series.slot, dtype=np.int64), mine, turn)

    def observe(self, index: int, name: str, label: str, duration_ns: int, turn: int) -> None:
        """Count one duration (>= 0) of a known endpoint, under a name and a label."""
        series = self._one(index, name, self._labels.code(label))
        self.histograms.add(np.array([series.slot]), np.array([duration_ns]), turn)

    def offer_exemplars(
        self, name: str, positions: Column, durations_ns: Column, make: Callable[[int], Exemplar], label: int = 0
    ) -> None:
        """Keep, per series and until taken, the slowest of these and one at random; `make` makes the nth of them."""
        for position in distinct(positions):
            mine = np.flatnonzero(positions == position)
            self.offer(position, name, durations_ns[mine], lambda n, mine=mine: make(int(mine[n])), label)

    def offer(
        self,
        position: int,
        name: str,
        durations_ns: NDArray[Any],
        make: Callable[[int], Exemplar],
        label: int = 0,
    ) -> None:
        """As `offer_exemplars`, of one endpoint."""
        series = self._one(int(self._index[position]), name, label)
        count = len(durations_ns)
        slowest = int(np.argmax(durations_ns))
        if series.slowest is None or durations_ns[slowest] > series.slowest[0]:
            series.slowest = make(slowest)
        series.seen += count
        if chance(count / series.seen):
            series.random = make(below(count))

    def _one(self, index: int, name: str, label: int) -> Series:
        of_endpoint = self._series[index]
        series = of_endpoint.get((name, label))
        if series is None:
            series = of_endpoint[name, label] = self.histograms.open(index, name, self._labels.text(label))
        return series

    def _grow(self) -> None:
        old = len(self._index)
        more = max(16, old)
        self._index = np.append(self._index, np.zeros(more, dtype=np.int64))
        self._slots = np.concatenate((self._slots, np.full((len(NAMES), more), NOWHERE, dtype=np.int64)), axis=1)
        self._free = list(range(old, old + more))
