"""What telemetry costs this process, measured by itself, and what is done when that is more than its budget.

Counted are the thread that reads and sends, readings done by busy writers, and what writing rows takes by how long it
takes to write some. What an agent or a provider of the program costs is not among it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ezmsg.core.recorder.recorder import Recorder
from ezmsg.core.recorder.rows import ROW_BYTES, clock, pack_row

logger = logging.getLogger("ezmsg")

WINDOW_S: Final = 1.0
"""Shares are taken over at least this long."""
MOST: Final = 10
"""Rows and traces are thinned to one in two to this power, and no further."""
RELAX: Final = 0.8
"""More is recorded again when that is expected to take at most this share of the budget."""
TRIES: Final = 5
ROWS: Final = 200
SPAN_IN_ROWS: Final = 5
"""What a sampled row takes to write and to read, in rows of a message that is not sampled (benchmarks/recorder.py)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Totals of one process since it began.

    Attributes:
        time_s: When.
        reading_s: Time that was spent reading and sending.
        rows: Rows that were written, or left out.
        spans: Those of them that were sampled.
    """

    time_s: float
    reading_s: float
    rows: int
    spans: int


def row_cost_s() -> float:
    """How long it takes to record a row here, its clock read included: the least of some tries."""
    buffer, best_s = bytearray(ROW_BYTES), float("inf")
    for _ in range(TRIES):
        began_s = clock()
        for n in range(ROWS):
            now_s = clock()
            pack_row(buffer, 0, 1, n, now_s, now_s, now_s, now_s, now_s, 1)
        best_s = min(best_s, (clock() - began_s) / ROWS)
    return best_s


def shares(before: Reading, now: Reading, row_s: float) -> dict[str, float]:
    """What telemetry took of one core between two readings, by signal (0 to 1, and beyond with several writers)."""
    elapsed_s = now.time_s - before.time_s
    rows, spans = now.rows - before.rows, now.spans - before.spans
    plain = max(0, rows - spans)
    weight = plain + SPAN_IN_ROWS * spans
    writing_s, reading_s = row_s * weight, now.reading_s - before.reading_s
    of_traces = SPAN_IN_ROWS * spans / weight if weight else 0.0
    total = (writing_s + reading_s) / elapsed_s
    return {"metrics": total * (1 - of_traces), "traces": total * of_traces}


class Overhead:
    """Used by the thread that reads.

    Args:
        cpu_time_s: Time this thread has worked.
        clock_s: The time.
        row_s: What a row costs to write; None to measure it, when it is first asked for.
    """

    def __init__(
        self,
        cpu_time_s: Callable[[], float] = time.thread_time,
        clock_s: Callable[[], float] = time.monotonic,
        row_s: float | None = None,
    ) -> None:
        self._cpu_time_s, self._clock_s = cpu_time_s, clock_s
        self._row_s = row_s
        self._before: Reading | None = None
        self._has_complained = False

    def turn(self, recorder: Recorder) -> None:
        """Measure, now and then; record less when that is too much, and more when there is room for it."""
        now_s = self._clock_s()
        before = self._before
        if before is not None and now_s - before.time_s < WINDOW_S:
            return
        recorded = recorder.counts()
        reading_s = self._cpu_time_s() + recorder.relieved_s
        self._before = Reading(now_s, reading_s, recorded["row"], recorded["span"])
        if before is None:
            return
        if self._row_s is None:
            self._row_s = row_cost_s()  # not while the process starts, and not at all in one that ends soon
        by_signal = shares(before, self._before, self._row_s)
        recorder.process.costs(by_signal)
        if recorder.cost_budget is not None:
            self._hold(recorder, sum(by_signal.values()), recorder.cost_budget)

    def _hold(self, recorder: Recorder, share: float, budget: float) -> None:
        throttle = recorder.throttle
        if share > budget:
            if throttle < MOST:
                recorder.set_throttle(throttle + 1)
                # The first step is news; how far it goes is told by the metrics.
                logger.log(
                    logging.DEBUG if throttle else logging.WARNING,
                    "telemetry takes %.1f %% of a core, more than its budget of %.1f %% (EZMSG_OTEL_BUDGET): "
                    "one in %d messages, and one in as many traces, is recorded; counters stay exact",
                    100 * share, 100 * budget, 2 << throttle,
                )  # fmt: skip
            elif not self._has_complained:
                self._has_complained = True
                logger.warning(
                    "telemetry takes %.1f %% of a core however little is recorded; its budget is %.1f %% "
                    "(EZMSG_OTEL_LEVEL=off records totals only)",
                    100 * share, 100 * budget,
                )  # fmt: skip
        elif throttle and 2 * share <= RELAX * budget:
            recorder.set_throttle(throttle - 1)
            self._has_complained = False
            if throttle == 1:
                logger.warning("telemetry is within its budget again: everything is recorded")
