"""A circuit breaker: when to try again after a failure. Pure; the time is given by the caller."""

from __future__ import annotations

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 30.0
LONGEST_ASKED_S = 300.0


class Breaker:
    """Closed while exports succeed; open for 1 s after a failure, twice as long after each further one, up to 30.

    A receiver may ask for more (`Retry-After`), up to five minutes.
    """

    def __init__(self) -> None:
        self._wait_s = 0.0
        self._open_until_s = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether the last export succeeded (or there was none)."""
        return self._wait_s == 0.0

    def wait_s(self, now_s: float) -> float:
        """How long until the next try is due, 0 when it is."""
        return max(0.0, self._open_until_s - now_s)

    def succeeded(self) -> bool:
        """An export succeeded; tells whether that is news."""
        was_open = not self.is_closed
        self._wait_s = self._open_until_s = 0.0
        return was_open

    def failed(self, now_s: float, asked_s: float = 0.0) -> bool:
        """An export failed, and the receiver asked for so much time; tells whether that is news."""
        was_closed = self.is_closed
        self._wait_s = FIRST_WAIT_S if was_closed else min(2 * self._wait_s, LONGEST_WAIT_S)
        self._open_until_s = now_s + max(self._wait_s, min(asked_s, LONGEST_ASKED_S))
        return was_closed
