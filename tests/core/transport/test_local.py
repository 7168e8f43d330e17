"""Hand-overs between event loops, and what becomes of them when one of the loops is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.messagecache import CachedMessage
from ezmsg.core.transport import Inlet, Outlet
from ezmsg.core.transport.local import Crossing, CrossLoopLink


class Door:
    """A publisher that notes what is done to it."""

    publisher_id, topic, num_buffers = "id", "T", 4

    def __init__(self) -> None:
        self.released: list[tuple[int, int]] = []
        self.outlets: list[Outlet] = []

    def attach(self, outlet: Outlet) -> tuple[int, int]:
        self.outlets.append(outlet)
        return 1, 0

    def detach(self, outlet: Outlet) -> None:
        self.outlets.remove(outlet)

    def releaser(self, bit: int) -> Callable[[int], None]:
        return lambda message_id: self.released.append((bit, message_id))

    def rerouted(self) -> None:
        pass

    def record_publish(self, message: CachedMessage) -> None:
        pass


class Receiver:
    """A channel that notes what it is told."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.is_ended = False

    def opened(self, inlet: Inlet, kind: ProfileChannelType) -> None:
        pass

    def receive(self, message_id: int, *message: Any) -> None:
        self.received.append(message_id)

    def ended(self, error: Exception | None) -> None:
        self.is_ended = True


def run(loop: asyncio.AbstractEventLoop) -> None:
    """Let a loop do what is ready."""
    loop.run_until_complete(asyncio.sleep(0))


@pytest.fixture
def loops() -> Iterator[tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop]]:
    """The publisher's and the channel's."""
    publisher_loop, channel_loop = asyncio.new_event_loop(), asyncio.new_event_loop()
    yield publisher_loop, channel_loop
    publisher_loop.close()
    channel_loop.close()


def joined(
    door: Door, receiver: Receiver, loops: tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop]
) -> CrossLoopLink:
    """A link between the loops."""
    publisher_loop, channel_loop = loops
    link = CrossLoopLink(door, receiver, *loops)
    joining = channel_loop.create_task(link.attach_across())
    while not joining.done():
        run(channel_loop)
        run(publisher_loop)
    joining.result()
    return link


def test_calls_cross_in_order_with_one_wake_up() -> None:
    loop = asyncio.new_event_loop()
    crossing = Crossing(loop)
    called: list[int] = []
    for number in range(3):
        assert crossing.call(called.append, number)
    run(loop)
    assert called == [0, 1, 2]
    loop.close()


def test_a_loop_that_was_closed_before_it_ran_what_was_scheduled_is_noticed_at_the_next_call() -> None:
    loop = asyncio.new_event_loop()
    crossing = Crossing(loop)
    assert crossing.call(print)
    loop.close()
    assert not crossing.call(print)


def test_nothing_is_released_through_a_link_that_was_closed(
    loops: tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop],
) -> None:
    door, receiver = Door(), Receiver()
    link = joined(door, receiver, loops)
    link.acknowledge(0)
    link.close_soon()
    link.acknowledge(1)  # the bit may be another channel's by now
    for loop in loops:
        run(loop)
    assert door.released == [(1, 0)]
    assert door.outlets == []
    assert receiver.is_ended


def test_a_join_that_was_given_up_leaves_nothing_at_the_publisher(
    loops: tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop],
) -> None:
    publisher_loop, channel_loop = loops
    door = Door()
    link = CrossLoopLink(door, Receiver(), *loops)
    joining = channel_loop.create_task(link.attach_across())
    run(channel_loop)
    joining.cancel()
    run(channel_loop)
    assert joining.cancelled()
    run(publisher_loop)
    assert door.outlets == []


@pytest.mark.parametrize("closed", ["publisher", "channel"])
def test_a_loop_that_is_closed_with_the_channel_open_is_found_out(
    loops: tuple[asyncio.AbstractEventLoop, asyncio.AbstractEventLoop],
    closed: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ezmsg.core.transport.local.WATCH_INTERVAL_S", 0.0)
    door, receiver = Door(), Receiver()
    link = joined(door, receiver, loops)
    publisher_loop, channel_loop = loops
    if closed == "publisher":
        publisher_loop.close()
        while not receiver.is_ended:
            run(channel_loop)
    else:
        channel_loop.close()
        while door.outlets:
            run(publisher_loop)
    link.close_soon()
