"""Log lines that strangers can cause are limited, and say how many of them were left out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

logger = logging.getLogger("ezmsg")

INTERVAL_S = 5.0


class LogLimiter:
    """Logs at most one warning per reason and interval, and counts the rest.

    Args:
        interval_s: The least time between two lines of one reason.
        clock: Seconds, monotonic; only tests give it.
    """

    def __init__(self, interval_s: float = INTERVAL_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        # By reason: when the next line may be logged, how many were left out, and the last of them.
        self._reasons: dict[str, tuple[float, int, str]] = {}

    def warning(self, reason: str, text: str) -> None:
        """Log this line, or count it until the next may be logged."""
        now = self._clock()
        next_s, left_out, _ = self._reasons.get(reason, (0.0, 0, ""))
        if now < next_s:
            self._reasons[reason] = (next_s, left_out + 1, text)
            return
        self._reasons[reason] = (now + self._interval_s, 0, "")
        logger.warning("%s%s", text, f" (and {left_out} more like it)" if left_out else "")

    def flush(self) -> None:
        """Log what was left out: nothing more will come."""
        for reason, (_, left_out, text) in self._reasons.items():
            if left_out:
                logger.warning("%s (%s, one of %d not logged)", text, reason, left_out)
        self._reasons.clear()
