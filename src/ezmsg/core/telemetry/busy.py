"""How long tasks were busy with messages, also where only some of these are recorded."""

from __future__ import annotations

from typing import Final

from ezmsg.core.recorder.endpoints import Endpoint
from ezmsg.core.recorder.series import SeriesTable

PROCESS: Final = "process"


class BusyTimes:
    """Adds up, by endpoint. Rows that were left out took as long as the others of their time."""

    def __init__(self, series: SeriesTable) -> None:
        self._series = series
        # By index: time and number of messages that are in histograms, how many were left out, and what that makes.
        self._known: dict[int, tuple[int, int, int, int]] = {}

    def of(self, endpoint: Endpoint) -> int:
        """Nanoseconds up to now; never less than before."""
        histograms = self._series.histograms
        totals = [histograms.total(of_one) for of_one in self._series.of(endpoint.index) if of_one.name == PROCESS]
        sum_ns, count = sum(total[0] for total in totals), sum(total[1] for total in totals)
        thinned = endpoint.metrics.thinned
        sum_before, count_before, thinned_before, busy_ns = self._known.get(endpoint.index, (0, 0, 0, 0))
        if count > count_before:
            left_out = (thinned - thinned_before) / (count - count_before)
            busy_ns += round((sum_ns - sum_before) * (1 + left_out))
            self._known[endpoint.index] = sum_ns, count, thinned, busy_ns
        return busy_ns

    def forget(self, index: int) -> None:
        """An endpoint is no more."""
        self._known.pop(index, None)
