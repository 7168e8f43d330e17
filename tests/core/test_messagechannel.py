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


def subscribe(channel: Channel, topic: str) -> list[CachedMessage]:
    """What a new subscriber is handed."""
    received: list[CachedMessage] = []
    metrics: Any = None
    subscription = Subscription(channel, topic, metrics, lambda _: None)
    subscription.deliver, subscription.queue = received.append, None
    channel.subscribe(subscription)
    return received


def test_the_last_that_holds_a_message_is_told_also_after_another_acknowledged() -> None:
    inlet: Any = FakeInlet()
    channel = Channel("publisher", "TOPIC", 3)
    channel.opened(inlet, ProfileChannelType.TCP)
    leaky, slow = subscribe(channel, "LEAKY"), subscribe(channel, "SLOW")
    for message_id in range(3):
        channel.receive(message_id, "message", 0.0, 0.0, 0.0, 0, None)
    channel.release(slow[0])
    channel.release(leaky[1])  # it gave way in its queue, while the first is handled
    assert inlet.holder == "SLOW"
    channel.release(leaky[0])
    assert inlet.holder == "LEAKY"

    channel.release(leaky[2])

    assert inlet.holder == "SLOW"
