"""Intervals between the messages of a publisher, in whatever order it is heard of them.

A message that waits for a slot is recorded at once, one that is handed over by its receiver, when that is done with it,
and a reader may have asked for it in between. So what is known of the messages of a publisher is kept in stretches
without a gap; where two of them meet, one more interval is known.
"""

from __future__ import annotations

from typing import Final, NamedTuple

STRETCHES: Final = 256
"""Of one publisher, beside one for each message that may be under way. Where messages are lost, stretches never meet:
the one untouched for longest is forgotten."""


class Stretch(NamedTuple):
    """Messages one after another: the number and start of the first and last, and if the interval before is counted."""

    first_id: int
    first_ns: int
    is_linked: bool
    last_id: int
    last_ns: int


class Stretches:
    """What is known of the messages of one publisher."""

    __slots__ = ("_by_first", "_by_last", "_limit")

    def __init__(self, limit: int = STRETCHES) -> None:
        """Nothing; at most `limit` stretches are kept."""
        self._limit = limit
        self._by_first: dict[int, Stretch] = {}
        self._by_last: dict[int, Stretch] = {}

    def start_before(self, message_id: int) -> int | None:
        """When the publish of the message before this one began, if that is known."""
        before = self._by_last.get(message_id - 1)
        return None if before is None else before.last_ns

    def add(self, stretch: Stretch) -> list[int]:
        """Know these messages as well; returns the intervals that this closes, to those before and behind them."""
        first_id, first_ns, is_linked, last_id, last_ns = stretch
        closed: list[int] = []
        before = self._by_last.get(first_id - 1)
        if before is not None:
            self._drop(before)
            if not is_linked:
                closed.append(first_ns - before.last_ns)
            first_id, first_ns, is_linked = before.first_id, before.first_ns, before.is_linked
        behind = self._by_first.get(last_id + 1)
        if behind is not None:
            self._drop(behind)
            if not behind.is_linked:
                closed.append(behind.first_ns - last_ns)
            last_id, last_ns = behind.last_id, behind.last_ns
        # Numbers that come again are those of a program that counts its messages itself, and began anew.
        for known in (self._by_first.get(first_id), self._by_last.get(last_id)):
            if known is not None:
                self._drop(known)
        if len(self._by_first) >= self._limit:
            self._drop(next(iter(self._by_first.values())))
        self._by_first[first_id] = self._by_last[last_id] = Stretch(first_id, first_ns, is_linked, last_id, last_ns)
        return closed

    def _drop(self, stretch: Stretch) -> None:
        self._by_first.pop(stretch.first_id, None)
        self._by_last.pop(stretch.last_id, None)
