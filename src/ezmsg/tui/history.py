"""The last values of everything that is drawn as bars."""

from __future__ import annotations

from collections import deque

from ezmsg.tui.figures import bars

# One value for each look: a minute, at one a second.
LENGTH = 60


class History:
    """Values by key, the latest last. Keys that got no value in a look are forgotten."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._values: dict[str, deque[float | None]] = {}

    def add(self, values: dict[str, float | None]) -> None:
        """Take the values of one look."""
        kept: dict[str, deque[float | None]] = {}
        for key, value in values.items():
            kept[key] = self._values.get(key) or deque(maxlen=LENGTH)
            kept[key].append(value)
        self._values = kept

    def bars(self, key: str, width: int) -> str:
        """The last `width` values of a key as bars."""
        return bars(list(self._values.get(key, ())), width)
