"""What is measured of a process itself and not of an endpoint: index 0, where rows and counters name endpoints.

Everything here happens a few times a second at most, from any thread.
"""

from __future__ import annotations

import gc
import os
import resource
import threading
import time
from collections import Counter, deque
from pathlib import Path
from typing import Final

from ezmsg.core.recorder.labels import portable
from ezmsg.core.recorder.rowlog import RowArray
from ezmsg.core.recorder.rows import PROCESS_INDEX, SEPARATOR
from ezmsg.core.recorder.series import SeriesTable

DURATIONS: Final = 4096
"""Durations that wait for a reader."""
SPANS: Final = 1024
"""Spans that do."""
ERRORS: Final = 64
"""Kinds of errors (of which task, of which type) counted apart; further ones are counted as `other`."""
LOGGERS: Final = 64
"""Units that log messages, counted apart; further ones are counted as `other`."""
FRESH_S: Final = 1.0
"""How old what the operating system says may be: to ask costs about 0.1 ms."""
GAUGES: Final = frozenset({"memory_bytes", "threads", "descriptors", "overhead_ppm"})

_PROC: Final = Path("/proc/self")
_DESCRIPTORS: Final = Path("/dev/fd")
LOOP_LAG: Final = "loop_lag"


class ProcessScope:
    """Durations, errors, and what the operating system and the interpreter say.

    Attributes:
        observed: Durations that were measured.
        lost: Those of them that nobody read in time.
        spans_lost: Spans that nobody read in time.
    """

    def __init__(self) -> None:
        """Nothing was measured."""
        self._durations: deque[tuple[str, str, int]] = deque()
        self._spans: deque[tuple[str, RowArray]] = deque()
        self._errors: Counter[str] = Counter()
        self._unlogged: Counter[str] = Counter()
        self._overhead: dict[str, float] = {}
        self._system: dict[str, int] = {}
        self._asked_s = -FRESH_S
        self._lock = threading.Lock()
        self.observed = self.lost = self.spans_lost = 0

    def observe(self, name: str, label: str, duration_ns: int) -> None:
        """Measure a duration for the histogram of this name and label."""
        self.observed += 1
        if len(self._durations) >= DURATIONS:
            self.lost += 1
        else:
            self._durations.append((name, label, max(0, duration_ns)))

    def task_failed(self, unit: str, task: str, error: str) -> None:
        """Count an error of a task that was not handling a message."""
        with self._lock:
            name = SEPARATOR.join((unit, task, portable(error)))
            if name not in self._errors and len(self._errors) >= ERRORS:
                name = SEPARATOR.join(("other", "other", "other"))
            self._errors[name] += 1

    def unlogged(self, unit: str, count: int) -> None:
        """Count messages that a unit was to write to a log, and did not."""
        with self._lock:
            if unit not in self._unlogged and len(self._unlogged) >= LOGGERS:
                unit = "other"
            self._unlogged[unit] += count

    def add_span(self, graph: str, row: RowArray) -> None:
        """Record a span that belongs to no message, for the readers of a graph."""
        if len(self._spans) >= SPANS:
            self.spans_lost += 1
        else:
            self._spans.append((graph, row))

    def take_spans(self) -> list[tuple[str, RowArray]]:
        """Spans since the last call, and their graphs. Callers take turns."""
        waiting = self._spans
        return [waiting.popleft() for _ in range(len(waiting))]

    def costs(self, overhead: dict[str, float]) -> None:
        """Say what telemetry costs: shares of one core, by signal."""
        self._overhead = overhead

    def count_durations(self, series: SeriesTable, turn: int) -> None:
        """Put what was measured into histograms. Callers take turns."""
        waiting = self._durations
        for _ in range(len(waiting)):
            series.observe(PROCESS_INDEX, *waiting.popleft(), turn)

    @property
    def has_durations(self) -> bool:
        """Whether something was measured since they were counted last."""
        return bool(self._durations)

    def counters(self, *, with_system: bool) -> dict[str, int]:
        """Totals and gauges, by the names of the wire.

        Args:
            with_system: Those of the operating system and the interpreter, too; at most `FRESH_S` old.
        """
        with self._lock:
            values = {f"task_errors:{name}": count for name, count in self._errors.items()}
            values |= {f"unlogged:{unit}": count for unit, count in self._unlogged.items()}
            if not with_system:
                return values
            values |= {f"overhead_ppm:{signal}": round(share * 1e6) for signal, share in self._overhead.items()}
            now_s = time.monotonic()
            if now_s - self._asked_s >= FRESH_S:
                self._asked_s, self._system = now_s, system_values()
            return values | self._system


def system_values() -> dict[str, int]:
    """What the operating system and the interpreter say of this process; what they do not say is left out."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    values = {
        "cpu_user_ns": round(usage.ru_utime * 1e9),
        "cpu_system_ns": round(usage.ru_stime * 1e9),
        "threads": threading.active_count(),
    }
    try:
        # One of the descriptors is that of the look itself.
        values["descriptors"] = len(os.listdir(_DESCRIPTORS)) - 1
        values["threads"] = len(os.listdir(_PROC / "task"))
        # As text it takes three times as long.
        with open(_PROC / "statm", "rb", buffering=0) as statm:
            values["memory_bytes"] = int(statm.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        pass  # not Linux, or out of descriptors: the rest is told all the same
    for generation, (stats, before) in enumerate(zip(gc.get_stats(), _gc_before, strict=True)):
        for name in ("collections", "collected", "uncollectable"):
            values[f"gc_{name}:{generation}"] = stats[name] - before[name]
    return values


_gc_before: list[dict[str, int]] = [dict.fromkeys(stats, 0) for stats in gc.get_stats()]


def _began_here() -> None:
    """In a forked child: what its parent collected is the parent's."""
    global _gc_before
    _gc_before = gc.get_stats()


os.register_at_fork(after_in_child=_began_here)
