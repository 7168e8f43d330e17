"""Publishes that are told before the receivers, to which they were left, record them."""

from __future__ import annotations

from collections import deque
from uuid import uuid4

from ezmsg.core.messagecache import CachedMessage
from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.recorder.pending import Pending
from ezmsg.core.recorder.publisher import PublisherMetrics

TRACE = (bytes(15) + b"\1", 7, 0, ())


class FakeHolder:
    """A subscriber that several publishers hand messages to; counts how often it was looked through."""

    def __init__(self) -> None:
        self.queue: deque[CachedMessage] = deque()
        self.looks = 0

    def taken(self) -> list[CachedMessage]:
        self.looks += 1
        return []

    def put(self, publisher: PublisherMetrics, message_id: int, *, is_traced: bool = True) -> None:
        trace = TRACE if is_traced else None
        self.queue.append(CachedMessage(None, message_id, "", 1.0, 2.0, 3.0, 0, trace, None, publisher.index))


def fan_in(count: int) -> tuple[FakeHolder, list[PublisherMetrics]]:
    registry, holder = ProfileRegistry(), FakeHolder()
    publishers = [registry.register_publisher(uuid4(), f"OUT{number}", 8) for number in range(count)]
    for publisher in publishers:
        publisher.left_to = lambda: holder
    return holder, publishers


def told(pending: Pending, publishers: list[PublisherMetrics]) -> list[tuple[int, int]]:
    """Index and message of what is told now."""
    taken = pending.look(publishers)
    if taken is None:
        return []
    pending.note(taken.rows)
    return [(meta >> 32, message_id) for meta, message_id in taken.rows[::2, :2].tolist()]


def test_a_queue_that_many_publishers_share_is_looked_through_once() -> None:
    holder, publishers = fan_in(50)
    for message_id in range(2):
        for publisher in publishers:
            holder.put(publisher, message_id, is_traced=message_id == 1)
    pending = Pending()
    assert told(pending, publishers) == [(publisher.index, 1) for publisher in publishers]
    assert holder.looks == 1
    assert told(pending, publishers) == []


def test_messages_of_a_publisher_that_closed_are_not_told() -> None:
    holder, publishers = fan_in(2)
    for publisher in publishers:
        holder.put(publisher, 0)
    assert told(Pending(), publishers[:1]) == [(publishers[0].index, 0)]
