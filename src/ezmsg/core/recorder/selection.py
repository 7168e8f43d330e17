"""What decides per endpoint whether a message is recorded, thinned, or selected by a native trace."""

from __future__ import annotations

from typing import Final, NamedTuple

DECISIONS: Final = 64
"""Messages whose decision is remembered: more than a subscriber holds leases of at once."""
NOTHING: Final = -(1 << 62)


class Selection(NamedTuple):
    """An enabled native trace as one endpoint sees it: metrics owed (a bit each), one message in `mod`, which trace."""

    emit: int
    mod: int
    generation: int


class Selector:
    """The native sampling decision of one endpoint: one per message, shared by everything measured of it.

    Messages are told apart by the index of their edge or publisher and their number.
    """

    __slots__ = ("_calls", "_last", "_last_id", "_last_index", "_mod", "_undelivered", "selection")

    def __init__(self, selection: Selection) -> None:
        """Begin counting messages for a trace that was just set."""
        self.selection = selection
        self._mod = selection.mod
        self._calls = 0
        # Decided because something was measured of them before they were done with.
        self._undelivered: dict[tuple[int, int], bool] = {}
        self._last_index = self._last_id = NOTHING
        self._last = False

    @property
    def selects_all(self) -> bool:
        """Whether every message is selected: then nobody need ask."""
        return self._mod == 1

    def next(self) -> bool:
        """Decide for a message without identity: with `mod` 3 the 3rd, 6th … call is True."""
        self._calls += 1
        return self._calls % self._mod == 0

    def settle(self, index: int, message_id: int) -> bool:
        """Decide for a message that is done with, as it was decided before if it was."""
        if self._undelivered:
            decided = self._undelivered.pop((index, message_id), None)
            if decided is None:
                decided = self.next()
        else:
            # next(), inline
            self._calls = calls = self._calls + 1
            decided = calls % self._mod == 0
        self._last_index, self._last_id, self._last = index, message_id, decided
        return decided

    def decide(self, index: int, message_id: int) -> bool:
        """Decide for a message; asked again about it, also after `settle`, repeat the answer."""
        if message_id == self._last_id and index == self._last_index:
            return self._last
        key = (index, message_id)
        decided = self._undelivered.get(key)
        if decided is None:
            decided = self._undelivered[key] = self.next()
            if len(self._undelivered) > DECISIONS:
                del self._undelivered[next(iter(self._undelivered))]
        return decided
