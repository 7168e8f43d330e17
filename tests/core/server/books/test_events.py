"""Logs of events, without a loop: numbers, history, and readers of any pace."""

from __future__ import annotations

from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezmsg.core.server.books.events import EventLog
from ezmsg.core.wire.frames import FrameDecoder
from ezmsg.core.wire.records import TopologyEvent, decode_record

Log = EventLog[TopologyEvent]
EVENT = TopologyEvent(timestamp=1.0, event_type="GRAPH_CHANGED")


FRAME_BYTES = 60


def log_of(events: int, *, history: int = 100, queue: int = 100, window: int = 1000, max_bytes: int = 1 << 20) -> Log:
    log = EventLog(TopologyEvent, history, queue, window, max_bytes)
    publish(log, events)
    return log


def since(log: Log, after_seq: int) -> list[TopologyEvent]:
    events, is_last = log.since(after_seq)
    assert is_last
    return [msgspec.msgpack.decode(event, type=TopologyEvent) for event in events]


def take(log: Log, reader: str) -> TopologyEvent | None:
    frame = log.take(reader)
    if frame is None:
        return None
    [decoded] = FrameDecoder().feed(frame)
    return cast(TopologyEvent, decode_record(decoded.opcode, decoded.body))


def publish(log: Log, events: int) -> None:
    for _ in range(events):
        log.publish(EVENT)


def seqs(events: list[TopologyEvent]) -> list[int]:
    return [event.seq for event in events]


def drain(log: Log, reader: str) -> list[TopologyEvent]:
    events: list[TopologyEvent] = []
    while (event := take(log, reader)) is not None:
        events.append(event)
        log.acknowledged(reader, 1)
    return events


def test_numbers_start_at_one_and_history_gives_what_follows_a_number() -> None:
    log = log_of(3)
    assert seqs(since(log, 0)) == [1, 2, 3]
    assert seqs(since(log, 2)) == [3]
    assert seqs(since(log, 3)) == seqs(since(log, 99)) == []
    assert seqs(since(log, -5)) == [1, 2, 3]


def test_the_history_is_bounded_and_its_first_event_tells_how_many_are_gone() -> None:
    log = log_of(10, history=4)
    assert [(event.seq, event.missed) for event in since(log, 0)] == [(7, 6), (8, 0), (9, 0), (10, 0)]
    assert [(event.seq, event.missed) for event in since(log, 5)] == [(7, 1), (8, 0), (9, 0), (10, 0)]
    assert since(log, 6)[0].missed == 0


def test_the_history_is_bounded_in_bytes_too_and_what_that_costs_is_counted() -> None:
    log = log_of(10, history=100, max_bytes=4 * FRAME_BYTES)
    kept = len(since(log, 0))
    assert 1 < kept < 10
    assert since(log, 0)[0].missed == log.evicted == 10 - kept
    log = log_of(3, max_bytes=1)
    assert seqs(since(log, 0)) == [3]
    assert log.evicted == 2


def test_a_reader_of_a_history_that_is_given_up_meanwhile_is_told_how_many_it_missed() -> None:
    log = log_of(5, history=5, queue=2)
    log.open("slow", 0)
    assert take(log, "slow") is not None
    publish(log, 3)
    assert [(event.seq, event.missed) for event in drain(log, "slow")] == [(4, 2), (5, 0), (7, 1), (8, 0)]
    assert log.missed == 3


def test_what_follows_a_number_comes_in_pages() -> None:
    log = log_of(5)
    first = log.since(0, limit_bytes=2 * FRAME_BYTES)
    assert (0 < len(first.events) < 5, first.is_last) == (True, False)
    assert len(log.since(0, limit_bytes=1).events) == 1
    assert log.since(4, limit_bytes=1).is_last
    assert log.since(5, limit_bytes=1) == ([], True)
    assert log.missed == 0


def test_a_reader_gets_the_history_and_then_what_follows_each_once() -> None:
    log = log_of(3)
    log.open("reader", 1)
    publish(log, 2)
    assert seqs(drain(log, "reader")) == [2, 3, 4, 5]
    assert take(log, "reader") is None


def test_a_reader_who_asks_for_the_future_gets_what_follows() -> None:
    log = log_of(3)
    log.open("reader", 99)
    publish(log, 1)
    assert seqs(drain(log, "reader")) == [4]


def test_a_replay_longer_than_the_queue_is_complete() -> None:
    log = log_of(10, queue=2)
    log.open("reader", 0)
    publish(log, 2)
    assert seqs(drain(log, "reader")) == list(range(1, 13))


def test_a_reader_that_is_too_slow_misses_the_oldest_and_is_told_how_many() -> None:
    log = log_of(1, queue=2)
    log.open("slow", 0)
    publish(log, 5)
    assert [(event.seq, event.missed) for event in drain(log, "slow")] == [(1, 0), (5, 3), (6, 0)]


def test_no_more_than_the_window_is_sent_without_acknowledgement() -> None:
    log = log_of(5, window=2)
    log.open("reader", 0)
    assert [event and event.seq for event in (take(log, "reader") for _ in range(3))] == [1, 2, None]
    log.acknowledged("reader", 1)
    assert [event and event.seq for event in (take(log, "reader") for _ in range(2))] == [3, None]
    log.acknowledged("reader", 100)
    log.acknowledged("reader", -100)
    assert [event and event.seq for event in (take(log, "reader") for _ in range(3))] == [4, 5, None]


def test_readers_who_left_get_nothing_and_disturb_nobody() -> None:
    log = log_of(1)
    log.open("gone", 0)
    log.close("gone")
    log.close("gone")
    log.acknowledged("gone", 1)
    publish(log, 1)
    assert take(log, "gone") is None


@pytest.mark.parametrize("after_seq", [0, 3])
@given(
    steps=st.lists(st.tuples(st.sampled_from(["publish", "a", "b", "c"]), st.integers(1, 6)), max_size=40),
    queue=st.integers(1, 5),
    window=st.integers(1, 5),
)
def test_every_event_reaches_every_reader_in_order_or_is_counted_as_missed(
    after_seq: int, steps: list[tuple[str, int]], queue: int, window: int
) -> None:
    log = log_of(4, history=7, queue=queue, window=window)
    readers = {"a": [], "b": [], "c": []}  # type: dict[str, list[TopologyEvent]]
    for reader in readers:
        log.open(reader, after_seq)
    for who, count in steps:
        if who == "publish":
            publish(log, count)
            continue
        taken = [event for event in (take(log, who) for _ in range(count)) if event is not None]
        assert len(taken) <= window
        readers[who] += taken
        log.acknowledged(who, len(taken))
    log.publish(EVENT)
    last = since(log, 0)[-1].seq
    for reader, got in readers.items():
        got += drain(log, reader)
        expected = after_seq
        for event in got:
            expected += event.missed + 1
            assert event.seq == expected
        assert got[-1].seq == last
