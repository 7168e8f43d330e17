"""When traces begin by rate: so many a second and source topic, whichever of its publishers in this process it is."""

from __future__ import annotations

import math
import threading
from typing import Final, final


@final
class RootTurns:
    """The turns of the publishers of one topic, of any thread; each asks when its own time has come."""

    __slots__ = ("_last_s", "_lock", "key", "users")

    def __init__(self, key: tuple[str | None, str]) -> None:
        """Begin at once; `key` is the graph and the topic, `users` counts the publishers."""
        self.key: Final = key
        self.users = 0
        self._lock = threading.Lock()
        self._last_s = -math.inf

    def take(self, now_s: float, period_s: float) -> tuple[bool, float]:
        """Begin a trace now, unless one began within the period; whether it does, and when to ask again."""
        with self._lock:
            next_s = self._last_s + period_s
            if now_s < next_s:
                return False, next_s
            self._last_s = now_s
            return True, now_s + period_s
