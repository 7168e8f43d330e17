"""A channel without a transport: what it tells the publisher of who holds a message."""

from __future__ import annotations

from typing import Any

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.messagecache import CachedMessage
from ezmsg.core.messagechannel import Channel, Subscription


class FakeInlet:
    """Remembers of whom the publisher heard last."""

    def __init__(self) -> None:
        self.holder = ""

    def holder_is(self, topic: str) -> None:
        self.holder = topic

    def acknowledge(self, message_id: int) -> None:
        pass

    def acknowledge_for(self, message_id: int, topic: str) -> None:
        self.holder_is(topic)

    def only_listener(self, subscription: Any) -> None:
        pass


def new_channel() -> tuple[Channel, Any]:
    """A channel, and its inlet."""
    inlet: Any = FakeInlet()
    channel = Channel("publisher", "TOPIC", 3)
    channel.opened(inlet, ProfileChannelType.TCP)
    return channel, inlet


def subscribed(channel: Channel, topic: str, received: list[CachedMessage]) -> Subscription:
    """A new subscriber, and where it puts what it is handed."""
    metrics: Any = None
    subscription = Subscription(channel, topic, metrics, lambda _: None)
    subscription.deliver, subscription.queue, subscription.unreleased = received.append, None, list
    channel.subscribe(subscription)
    return subscription


def test_whoever_holds_the_oldest_message_is_told_as_soon_as_the_one_before_is_released() -> None:
    channel, inlet = new_channel()
    leaky: list[CachedMessage] = []
    slow: list[CachedMessage] = []
    subscribed(channel, "LEAKY", leaky)
    subscribed(channel, "SLOW", slow)
    for message_id in range(3):
        channel.receive(message_id, "message", 0.0, 0.0, 0.0, 0, None)
    channel.release(slow[0])
    channel.release(leaky[1])  # it gave way in its queue, while the first is handled
    assert inlet.holder == "LEAKY"

    channel.release(leaky[0])

    assert inlet.holder == "SLOW"
    channel.release(leaky[2])
    assert inlet.holder == "SLOW"


def test_bits_are_few_however_many_come_and_go() -> None:
    channel, inlet = new_channel()
    received: list[CachedMessage] = []
    subscribed(channel, "STAYS", received)
    for number in range(200):
        comes = subscribed(channel, f"COMES{number}", received)
        assert comes.bit.bit_length() == 2
        channel.receive(number, "message", 0.0, 0.0, 0.0, 0, None)
        assert inlet.holder == "STAYS"
        channel.unsubscribe(comes)
        while received:
            channel.release(received.pop())


def test_who_left_with_a_message_is_not_mistaken_for_any_of_those_who_came_since() -> None:
    channel, inlet = new_channel()
    kept: list[CachedMessage] = []
    read: list[CachedMessage] = []
    leaver = subscribed(channel, "LEAVER", kept)
    subscribed(channel, "STAYS", read)
    channel.receive(0, "message", 0.0, 0.0, 0.0, 0, None)
    channel.unsubscribe(leaver)
    channel.release(read[0])
    for number in range(200):
        comes = subscribed(channel, f"COMES{number}", [])
        assert inlet.holder == "LEAVER"
        channel.unsubscribe(comes)
    subscribed(channel, "CAME", [])
    assert inlet.holder == "LEAVER"
    channel.release(kept[0])
    assert inlet.holder == "STAYS"


def test_who_left_is_not_told_as_the_one_that_holds_messages() -> None:
    channel, inlet = new_channel()
    first, *_ = (subscribed(channel, topic, []) for topic in ("A", "B", "C", "D"))
    assert inlet.holder == "A"

    channel.unsubscribe(first)

    assert inlet.holder == "B"


def test_who_left_with_the_oldest_message_is_told_rather_than_somebody_who_holds_nothing() -> None:
    channel, inlet = new_channel()
    kept: list[CachedMessage] = []
    read: list[CachedMessage] = []
    leaver = subscribed(channel, "LEAVER", kept)
    subscribed(channel, "STAYS", read)
    channel.receive(0, "message", 0.0, 0.0, 0.0, 0, None)
    channel.unsubscribe(leaver)
    assert inlet.holder == "STAYS"  # as long as it holds the message, too

    channel.release(read[0])

    assert inlet.holder == "LEAVER"
    channel.release(kept[0])
    assert inlet.holder == "STAYS"
