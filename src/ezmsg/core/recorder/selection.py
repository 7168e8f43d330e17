"""What decides per endpoint whether a message is recorded, thinned, or selected by a native trace."""

from __future__ import annotations

from typing import Final, NamedTuple

OFF: Final = 0
"""Totals only."""
PLAIN: Final = 1
"""One row a message; whatever is special about a message is seen from its arguments."""
FULL: Final = 2
"""Ask for each message: a native trace is on, or rows are thinned."""

DECISIONS: Final = 64
"""Messages whose decision is remembered: more than a subscriber holds leases of at once."""


class Selection(NamedTuple):
    """An enabled native trace as one endpoint sees it: metrics owed (a bit each), one message in `mod`, which trace."""

    emit: int
    mod: int
    generation: int


class Selector:
    """The native sampling decision of one endpoint: one per message, shared by everything measured of it."""

    __slots__ = ("_calls", "_decisions", "_selection")

    def __init__(self, selection: Selection) -> None:
        """Begin counting messages for a trace that was just set."""
        self._selection = selection
        self._calls = 0
        self._decisions: dict[tuple[int, int], bool] = {}

    @property
    def selection(self) -> Selection:
        """The trace this decides for."""
        return self._selection

    def next(self) -> bool:
        """Decide for a message without identity: with `mod` 3 the 3rd, 6th … call is True."""
        self._calls += 1
        return self._calls % self._selection.mod == 0

    def decide(self, index: int, message_id: int) -> bool:
        """Decide for a message of the publisher behind `index`; asked again about it, repeat the answer."""
        key = (index, message_id)
        decided = self._decisions.get(key)
        if decided is None:
            decided = self._decisions[key] = self.next()
            if len(self._decisions) > DECISIONS:
                del self._decisions[next(iter(self._decisions))]
        return decided
