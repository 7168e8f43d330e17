"""How many rows a second are worth keeping."""

from __future__ import annotations

from typing import Final

DEFAULT_ROWS_PER_S: Final = 1_000_000.0
"""More than one interpreter writes today; reading so many takes 5 to 20 % of a core."""
WINDOW_NS: Final = 1_000_000_000
"""Rates are taken over at least this long, so that a burst is not thinned."""
_RELAX: Final = 0.8


class Budget:
    """Decides to keep one row in `mask + 1`, a power of two, from the number of rows that came in a window."""

    def __init__(self, rows_per_s: float = DEFAULT_ROWS_PER_S) -> None:
        """Keep everything until a first window has passed."""
        self.rows_per_s = rows_per_s
        self.mask = 0
        self._since: tuple[int, int] | None = None

    def note(self, rows: int, now_ns: int) -> bool:
        """Tell how many rows were recorded so far, kept or not; True when the mask changed."""
        if self._since is None:
            self._since = rows, now_ns
            return False
        rows_then, then_ns = self._since
        if now_ns - then_ns < WINDOW_NS:
            return False
        self._since = rows, now_ns
        rate = (rows - rows_then) * 1e9 / (now_ns - then_ns)
        mask = 0
        while rate / (mask + 1) > self.rows_per_s:
            mask = mask << 1 | 1
        # Keep more again only when that leaves a margin, or the rate would swing.
        if mask < self.mask and rate / (mask + 1) > _RELAX * self.rows_per_s:
            mask = mask << 1 | 1
        changed, self.mask = mask != self.mask, mask
        return changed
