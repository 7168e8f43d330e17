"""One kind of events: their numbers, those kept for who comes later, and what each reader still has to get."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar, cast

import msgspec

from ezmsg.core.wire.frames import HEADER_BYTES, encode_frame
from ezmsg.core.wire.limits import EVENT_HISTORY_BYTES, EVENT_QUEUE, EVENT_WINDOW, PAGE_BYTES
from ezmsg.core.wire.records import OPCODE_OF, Event, decode_record, encode_record

E = TypeVar("E", bound=Event)


class Page(NamedTuple):
    """Some events, encoded, and whether they are the last there are."""

    events: list[msgspec.Raw]
    is_last: bool


class EventLog(Generic[E]):
    """Numbers events, keeps the latest, and hands each reader all of them in order, at its own pace.

    An event is kept once, as the frame that tells it: readers are places in the log.

    Args:
        record_type: What it logs.
        history: Events kept for readers that come later.
        queue: Events that may wait for one reader; beyond that it misses the oldest.
        window: Events a reader may be sent without having acknowledged them.
        max_bytes: Bytes of events kept, however few these are; one is kept always.

    Attributes:
        missed: Events that readers did not get, all together.
        evicted: Events given up for the sake of `max_bytes`.
    """

    def __init__(
        self,
        record_type: type[E],
        history: int,
        queue: int = EVENT_QUEUE,
        window: int = EVENT_WINDOW,
        max_bytes: int = EVENT_HISTORY_BYTES,
    ) -> None:
        self._opcode = OPCODE_OF[record_type]
        self._history, self._queue, self._window = history, queue, window
        self._kept, self._max_bytes = max(history, queue), max_bytes
        # By number, the oldest first.
        self._frames: dict[int, bytes] = {}
        self._bytes = 0
        self._seq = 0
        self._readers: dict[str, _Reader] = {}
        self.missed = self.evicted = 0

    def publish(self, event: E) -> None:
        """Give an event its number, and keep it."""
        self._seq += 1
        frame = _frame(msgspec.structs.replace(event, seq=self._seq))
        self._frames[self._seq] = frame
        self._bytes += len(frame)
        while len(self._frames) > self._kept:
            self._drop_oldest()
        while self._bytes > self._max_bytes and len(self._frames) > 1:
            self._drop_oldest()
            self.evicted += 1

    def _drop_oldest(self) -> None:
        self._bytes -= len(self._frames.pop(self._first))

    @property
    def _first(self) -> int:
        return next(iter(self._frames), self._seq + 1)

    def since(self, after_seq: int, limit_bytes: int = PAGE_BYTES) -> Page:
        """The oldest of the kept events after this number: about `limit_bytes` of them, one at least.

        The first tells how many after this number are not kept any more.
        """
        reader = self._newcomer(after_seq)
        events: list[msgspec.Raw] = []
        size = 0
        for frame in self._following(reader):
            size += len(frame)
            if events and size > limit_bytes:
                return Page(events, False)
            events.append(msgspec.Raw(frame[HEADER_BYTES:]))
        return Page(events, True)

    # -- readers ------------------------------------------------------------------------------------------------------

    def open(self, reader_id: str, after_seq: int, unacknowledged: int = 0) -> None:
        """A reader comes: it gets what is kept after this number, all of it, and then what follows.

        It may have something to acknowledge already, which it was sent before its connection was lost.
        """
        self._readers[reader_id] = reader = self._newcomer(after_seq)
        reader.unacknowledged = max(0, unacknowledged)

    def close(self, reader_id: str) -> None:
        """It left."""
        self._readers.pop(reader_id, None)

    def take(self, reader_id: str) -> bytes | None:
        """The frame a reader is to be sent next; None when there is nothing, or when it has to acknowledge first."""
        reader = self._readers.get(reader_id)
        if reader is None or reader.unacknowledged >= self._window:
            return None
        frame = next(self._following(reader), None)
        if frame is not None:
            reader.unacknowledged += 1
            self.missed += reader.missed
            reader.missed = 0
        return frame

    def acknowledged(self, reader_id: str, count: int) -> None:
        """A reader took `count` of what it was sent."""
        reader = self._readers.get(reader_id)
        if reader is not None:
            reader.unacknowledged = max(0, reader.unacknowledged - max(0, count))

    def _newcomer(self, after_seq: int) -> _Reader:
        expected = min(max(0, after_seq), self._seq) + 1
        return _Reader(expected, max(expected, self._seq - self._history + 1), self._seq)

    def _following(self, reader: _Reader) -> Iterator[bytes]:
        """What a reader gets next, one after the other."""
        while True:
            seq = max(reader.next_seq, self._first)
            if seq > reader.replay_to:
                seq = max(seq, self._seq - self._queue + 1)
            frame = self._frames.get(seq)
            if frame is None:
                return
            missed = seq - reader.expected
            if missed:
                reader.missed += missed
                event = cast(E, decode_record(self._opcode, frame[HEADER_BYTES:]))
                frame = _frame(msgspec.structs.replace(event, missed=missed))
            reader.expected = reader.next_seq = seq + 1
            yield frame


class _Reader:
    """Where one reader is in a log.

    Attributes:
        expected: The first number it has not had.
        next_seq: The first that it may still get.
        replay_to: Up to here is history, which is not bounded by the queue.
        missed: How many it did not get before the last one.
    """

    __slots__ = ("expected", "missed", "next_seq", "replay_to", "unacknowledged")

    def __init__(self, expected: int, next_seq: int, replay_to: int) -> None:
        self.expected, self.next_seq, self.replay_to = expected, next_seq, replay_to
        self.missed = self.unacknowledged = 0


def _frame(event: Event) -> bytes:
    return encode_frame(*encode_record(event))
