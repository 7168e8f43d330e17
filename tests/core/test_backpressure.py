"""The slots of a publisher, without a loop: who holds what, and when a slot is free."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezmsg.core.backpressure import Backpressure


def no_one_waits(bit: int) -> None:
    raise AssertionError("nobody asked to be told")


def lease(slots: Backpressure, message_id: int, bits: int) -> None:
    """As the publisher does it, inline."""
    assert not slots.held[message_id % slots.num_buffers]
    slots.held[message_id % slots.num_buffers] = bits


def test_a_slot_is_free_when_the_last_channel_released_it() -> None:
    slots = Backpressure(4, no_one_waits)
    first, second = slots.add_channel(), slots.add_channel()
    lease(slots, 6, first | second)
    assert slots.held == [0, 0, first | second, 0]
    slots.release(first, 6)
    assert slots.inflight == 1
    slots.release(second, 6)
    assert (slots.inflight, slots.held) == (0, [0, 0, 0, 0])


def test_releasing_twice_or_what_was_never_held_changes_nothing() -> None:
    slots = Backpressure(2, no_one_waits)
    first, second = slots.add_channel(), slots.add_channel()
    lease(slots, 0, first | second)
    slots.release(first, 0)
    slots.release(first, 0)
    slots.release(first, 1)
    assert (slots.inflight, slots.held) == (1, [second, 0])


def test_whoever_waits_is_told_once_a_slot_is_free() -> None:
    told: list[int] = []
    slots = Backpressure(1, told.append)
    bit = slots.add_channel()
    lease(slots, 0, bit)
    slots.is_awaited = True
    slots.release(bit, 0)
    assert told == [bit]


def test_the_channel_that_held_a_slot_last_is_told() -> None:
    told: list[int] = []
    slots = Backpressure(1, told.append)
    first, second = slots.add_channel(), slots.add_channel()
    for last in (first, second):
        lease(slots, 0, first | second)
        slots.is_awaited = True
        for bit in (first | second) & ~last, last:
            slots.releaser(bit)(0)
    assert told == [first, second]


def test_a_channel_that_leaves_releases_everything_and_its_bit_is_used_again() -> None:
    told: list[int] = []
    slots = Backpressure(3, told.append)
    first, second = slots.add_channel(), slots.add_channel()
    for message_id in range(3):
        lease(slots, message_id, first | (second if message_id else 0))
    slots.is_awaited = True
    slots.remove_channel(first)
    assert told == [first]
    assert slots.held == [0, second, second]
    assert slots.add_channel() == first


def test_at_least_one_buffer_is_needed() -> None:
    with pytest.raises(ValueError, match="num_buffers=0 must be positive"):
        Backpressure(0, no_one_waits)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60), st.integers(1, 5))
def test_inflight_always_is_the_number_of_slots_that_are_held(steps: list[tuple[int, bool]], size: int) -> None:
    slots = Backpressure(size, no_one_waits)
    bits = [slots.add_channel() for _ in range(4)]
    message_id = 0
    for channel, publishes in steps:
        if publishes and not slots.held[message_id % size]:
            lease(slots, message_id, sum(bits))
            message_id += 1
        else:
            slots.release(bits[channel], max(0, message_id - 1))
        assert slots.inflight == sum(map(bool, slots.held))
