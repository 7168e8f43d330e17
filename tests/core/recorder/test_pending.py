"""Publishes that are told before the receivers, to which they were left, record them."""

from __future__ import annotations

from collections import deque
from typing import cast
from uuid import uuid4

from ezmsg.core.messagecache import CachedMessage
from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.recorder.pending import Pending
from ezmsg.core.recorder.publisher import PublisherMetrics
from ezmsg.core.recorder.rows import ERROR
from tests.core.recorder.rowmaking import publish, sampled, table

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


def test_a_message_may_be_recorded_while_it_is_looked_at() -> None:
    class Recorded:
        """What its receiver records, in its own thread, as soon as one has asked whose it is."""

        def __init__(self, index: int) -> None:
            self.message_id, self.origin_s, self.publish_s, self.channel_s, self.trace = 0, 1.0, 2.0, 3.0, TRACE
            self.whose = [0, index]

        @property
        def publisher(self) -> int:
            return self.whose.pop() if len(self.whose) > 1 else self.whose[0]

    holder, publishers = fan_in(1)
    index = publishers[0].index
    holder.queue.append(cast(CachedMessage, Recorded(index)))
    assert told(Pending(), publishers) == [(index, 0)]


def test_a_broadcast_that_failed_is_not_taken_for_the_message_that_got_its_number() -> None:
    holder, publishers = fan_in(1)
    index = publishers[0].index
    holder.put(publishers[0], 5)
    pending = Pending()
    assert told(pending, publishers) == [(index, 5)]
    failed, sent = (table(sampled(publish(index, 5, 10, flags=flags), 99)) for flags in (ERROR, 0))
    left, known = pending.without_told(failed)
    assert (len(left), known) == (2, 0)
    left, known = pending.without_told(sent)
    assert (len(left), known) == (0, 1)


def test_messages_of_a_publisher_that_closed_are_not_told() -> None:
    holder, publishers = fan_in(2)
    for publisher in publishers:
        holder.put(publisher, 0)
    assert told(Pending(), publishers[:1]) == [(publishers[0].index, 0)]
