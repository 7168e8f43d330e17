"""One kind of events: their numbers, those kept for who comes later, and what each reader still has to get."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Generic, TypeVar

import msgspec

from ezmsg.core.wire.limits import EVENT_QUEUE, EVENT_WINDOW
from ezmsg.core.wire.records import Event

E = TypeVar("E", bound=Event)


class EventLog(Generic[E]):
    """Numbers events, keeps the latest, and hands each reader all of them in order, at its own pace.

    Args:
        history: Events kept for readers that come later.
        queue: Events that may wait for one reader; beyond that it misses the oldest.
        window: Events a reader may be sent without having acknowledged them.
    """

    def __init__(self, history: int, queue: int = EVENT_QUEUE, window: int = EVENT_WINDOW) -> None:
        self._history: deque[E] = deque(maxlen=history)
        self._queue, self._window = queue, window
        self._seq = 0
        self._readers: dict[str, _Reader[E]] = {}

    def publish(self, event: E) -> E:
        """Give an event its number, keep it, and queue it for every reader."""
        self._seq += 1
        event = msgspec.structs.replace(event, seq=self._seq)
        self._history.append(event)
        for reader in self._readers.values():
            reader.append(event, self._queue)
        return event

    def since(self, after_seq: int) -> list[E]:
        """All kept events after this number; the first tells how many before it are not kept any more."""
        first = self._seq - len(self._history) + 1
        start = max(0, after_seq + 1 - first)
        events = list(islice(self._history, start, None))
        missed = first - max(0, after_seq) - 1
        if events and missed > 0:
            events[0] = msgspec.structs.replace(events[0], missed=missed)
        return events

    # -- readers ------------------------------------------------------------------------------------------------------

    def open(self, reader_id: str, after_seq: int, unacknowledged: int = 0) -> None:
        """A reader comes: it gets what is kept after this number, all of it, and then what follows.

        It may have something to acknowledge already, which it was sent before its connection was lost.
        """
        self._readers[reader_id] = _Reader(self.since(after_seq), unacknowledged)

    def close(self, reader_id: str) -> None:
        """It left."""
        self._readers.pop(reader_id, None)

    def take(self, reader_id: str) -> E | None:
        """What a reader is to be sent next; None when there is nothing, or when it has to acknowledge first."""
        reader = self._readers.get(reader_id)
        if reader is None or reader.unacknowledged >= self._window:
            return None
        return reader.take()

    def acknowledged(self, reader_id: str, count: int) -> None:
        """A reader took `count` of what it was sent."""
        reader = self._readers.get(reader_id)
        if reader is not None:
            reader.unacknowledged = max(0, reader.unacknowledged - max(0, count))


class _Reader(Generic[E]):
    """What one reader still has to get: first what was there when it came, then what followed."""

    def __init__(self, replay: list[E], unacknowledged: int) -> None:
        self._replay = deque(replay)
        self._live: deque[E] = deque()
        self._missed = 0
        self.unacknowledged = max(0, unacknowledged)

    def append(self, event: E, limit: int) -> None:
        self._live.append(event)
        if len(self._live) > limit:
            self._live.popleft()
            self._missed += 1

    def take(self) -> E | None:
        if self._replay:
            event = self._replay.popleft()
        elif self._live:
            event = self._live.popleft()
            if self._missed:
                # Where events are missing is in front of the oldest that is left.
                event = msgspec.structs.replace(event, missed=self._missed)
                self._missed = 0
        else:
            return None
        self.unacknowledged += 1
        return event
