"""The agent's own books: what was exported, what was dropped and why, how long exports took."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

from ezmsg.core.recorder.merging import Histogram
from ezmsg.otel.settings import Signal


@dataclass(frozen=True, slots=True)
class Totals:
    """Cumulative counts: exported by kind, dropped by (kind, reason), durations of exports by signal."""

    exported: dict[str, int]
    dropped: dict[tuple[str, str], int]
    durations: dict[Signal, Histogram]


class Ledger:
    """Counts from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # From the start, with 0: of a counter that appears with its first loss, the increase cannot be seen.
        self._exported: Counter[str] = Counter({"span": 0, "metric_point": 0})
        reasons = ("queue_full", "timeout", "rejected", "failed")
        self._dropped: Counter[tuple[str, str]] = Counter({("span", reason): 0 for reason in reasons})
        self._durations: dict[Signal, Histogram] = {}

    def exported(self, kind: str, count: int) -> None:
        """A receiver took `count` items."""
        with self._lock:
            self._exported[kind] += count

    def dropped(self, kind: str, reason: str, count: int) -> None:
        """`count` items will never arrive."""
        with self._lock:
            self._dropped[kind, reason] += count

    def took(self, signal: Signal, duration_ns: int) -> None:
        """An export ended, one way or another."""
        with self._lock:
            self._durations.setdefault(signal, Histogram()).record(duration_ns)

    def totals(self) -> Totals:
        """A copy of everything."""
        with self._lock:
            durations = self._durations.copy()
            for signal, histogram in self._durations.items():
                durations[signal] = histogram.copy()
            return Totals(dict(self._exported), dict(self._dropped), durations)
