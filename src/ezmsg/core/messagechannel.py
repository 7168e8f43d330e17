"""A channel: one publisher's messages in one process and event loop, shared by the subscribers there.

It receives each message once, notifies its subscribers, and acknowledges the message when the last of them let it go.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ezmsg.core.errors import MessageNotReadable
from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.messagecache import CachedMessage, Shared
from ezmsg.core.profiling import TraceIds
from ezmsg.core.transport import Undecoded

if TYPE_CHECKING:
    from ezmsg.core.profiling import EdgeMetrics
    from ezmsg.core.transport import Inlet
    from ezmsg.core.wire.messages import Trace


class Subscription:
    """One subscriber at one channel.

    Attributes:
        channel: The channel.
        topic: Of the subscriber.
        metrics: What is measured of this publisher's messages at this subscriber.
        ended: Called when the publisher's end is gone; what was delivered can still be taken.
        deliver: Called with every message; it must be released once, taken or not. Set by the inbox.
        queue: Where `deliver` puts it; None where that is not all, because old messages may have to give way.
        waiters: Not empty when somebody waits for a message in the queue, and wants a call of `wake`.
        wake: Wakes one of them.
        taken: Tells the messages that were taken and are still held; may be asked from any thread.
        unreleased: Tells all that was delivered and is not released.
        bit: What it is among those of the channel.
    """

    __slots__ = (
        "bit", "channel", "deliver", "ended", "metrics", "queue", "taken", "topic", "unreleased", "waiters", "wake",
    )  # fmt: skip

    deliver: Callable[[CachedMessage], None]
    queue: deque[CachedMessage] | None
    waiters: deque[Any]
    wake: Callable[[], None]
    taken: Callable[[], list[CachedMessage]]
    unreleased: Callable[[], list[CachedMessage]]

    def __init__(
        self, channel: Channel, topic: str, metrics: EdgeMetrics, ended: Callable[[Subscription], None]
    ) -> None:
        self.channel = channel
        self.topic = topic
        self.metrics = metrics
        self.ended = ended
        self.bit = 0


class Channel:
    """One publisher, seen from one event loop of one process.

    Attributes:
        users: How many want it open; counted by the channel manager.
    """

    __slots__ = (
        "__weakref__",
        "_bits",
        "_blamed",
        "_inlet",
        "_shared",
        "_subscriptions",
        "_topics",
        "acknowledge",
        "acknowledge_for",
        "ended_with",
        "is_ended",
        "kind",
        "num_buffers",
        "publisher_id",
        "topic",
        "users",
    )

    def __init__(self, publisher_id: str, topic: str, num_buffers: int) -> None:
        self.publisher_id = publisher_id
        self.topic = topic
        self.num_buffers = num_buffers
        self.kind = ProfileChannelType.UNKNOWN
        self.users = 0
        self.ended_with: Exception | None = None
        self.is_ended = False
        self._subscriptions: tuple[Subscription, ...] = ()
        # Those of all subscriptions.
        self._bits = 0
        # Of subscribers, by their bits, also of those that left and may still hold messages.
        self._topics: dict[int, str] = {}
        # What several hold, the oldest first: its slot is the one that a publisher waits for.
        self._shared: deque[Shared] = deque()
        # Whom the publisher knows as who holds that; 0 for nobody.
        self._blamed = 0
        self._inlet: Inlet | None = None
        # Releases a message at the publisher.
        self.acknowledge: Callable[[int], None] = self._ignore
        self.acknowledge_for: Callable[[int, str], None] = self._ignore

    def __repr__(self) -> str:
        state = "ended" if self.is_ended else self.kind.value
        return f"<Channel {self.topic} {state} subscribers={len(self._subscriptions)}>"

    def opened(self, inlet: Inlet, kind: ProfileChannelType) -> None:
        """Messages come through this inlet, and are acknowledged there."""
        self._inlet = inlet
        self.acknowledge = inlet.acknowledge
        self.acknowledge_for = inlet.acknowledge_for
        self.kind = kind

    @property
    def trace_ids(self) -> TraceIds | None:
        """Those of the traces that begin with messages that do not carry them, if some may come."""
        return None if self._inlet is None else self._inlet.trace_ids

    # -- subscribers ----------------------------------------------------------------------------------------------

    def subscribe(self, subscription: Subscription) -> None:
        """Messages that arrive from now on go to this subscriber too."""
        subscription.bit = bit = self._free_bit()
        self._topics[bit] = subscription.topic
        self._listen((*self._subscriptions, subscription))

    def unsubscribe(self, subscription: Subscription) -> None:
        """No more messages for this subscriber; those it was notified of it must still release."""
        self._listen(tuple(s for s in self._subscriptions if s is not subscription))

    def _free_bit(self) -> int:
        """The lowest bit of nobody: who left may still hold messages, and is not to be mistaken for who comes now."""
        taken = self._bits
        for shared in self._shared:
            taken |= shared.holders
        return ~taken & (taken + 1)

    def _listen(self, subscriptions: tuple[Subscription, ...]) -> None:
        if len(self._subscriptions) == 1 and not self.is_ended:
            self._share(self._subscriptions[0])
        self._subscriptions = subscriptions
        self._bits = sum(subscription.bit for subscription in subscriptions)
        self._blamed = 0  # may have left
        self._tell_holder()
        if self._inlet is not None:
            only = subscriptions[0] if len(subscriptions) == 1 else None
            self._inlet.only_listener(None if only is None or only.queue is None else only)

    def _share(self, only: Subscription) -> None:
        """Remember what the only subscriber holds, now that it will not be the only one who may."""
        held = [message for message in only.unreleased() if message.subscription is only and message.shared is None]
        for message in sorted(held, key=lambda message: message.message_id):
            message.shared = Shared(only.bit)
            self._shared.append(message.shared)

    # -- the message path -----------------------------------------------------------------------------------------

    def receive(
        self,
        message_id: int,
        obj: Any,
        origin_s: float,
        publish_s: float,
        channel_s: float,
        size: int,
        trace: Trace | TraceIds | None,
    ) -> None:
        """A message arrived."""
        subscriptions = self._subscriptions
        if len(subscriptions) == 1:
            (only,) = subscriptions
            only.deliver(CachedMessage(only, message_id, obj, origin_s, publish_s, channel_s, size, trace))
            return
        if not subscriptions:
            # Acknowledge even with no listeners: the publisher frees the slot only on acknowledgement.
            self.acknowledge(message_id)
            return
        if isinstance(trace, TraceIds):
            # Not one processing alone: they need ids of their own.
            trace = trace.publish(message_id)
        shared = Shared(self._bits)
        self._shared.append(shared)
        for listener in subscriptions:
            listener.deliver(
                CachedMessage(listener, message_id, obj, origin_s, publish_s, channel_s, size, trace, shared)
            )

    def release(self, message: CachedMessage) -> None:
        """One subscriber let go of a message, read or not."""
        message.obj = None
        if message.publisher:
            self.record_publish(message)
        shared = message.shared
        if shared is None:
            self.acknowledge(message.message_id)
            return
        subscription: Subscription = message.subscription
        shared.holders = holders = shared.holders ^ subscription.bit
        waiting = self._shared
        if holders:
            if not holders & self._blamed and waiting[0] is shared:
                self._tell_holder()
            return
        shared.obj = None
        if waiting[0] is not shared:
            # Not `acknowledge_for`: whoever holds the oldest is to blame, not who let go of another.
            self.acknowledge(message.message_id)
            return
        self._blamed = subscription.bit
        self.acknowledge_for(message.message_id, subscription.topic)
        waiting.popleft()
        while waiting and not waiting[0].holders:
            waiting.popleft()
        if not (waiting[0].holders if waiting else self._bits) & self._blamed:
            self._tell_holder()

    def record_publish(self, message: CachedMessage) -> None:
        """Have the publisher record itself what was left to a receiver that does not."""
        if self._inlet is not None:
            self._inlet.record_publish(message)

    def _tell_holder(self) -> None:
        """Name one who holds the oldest message, or will: who waits for it shall know before it is released."""
        oldest = self._shared[0].holders if self._shared else 0
        # Who left is to blame only where nobody else is.
        holding = oldest & self._bits or oldest or self._bits
        if holding and self._inlet is not None:
            self._blamed = holding & -holding
            self._inlet.holder_is(self._topics[self._blamed])

    def decode(self, message: CachedMessage) -> Any:
        """The object of a message that arrived as bytes, decoded once.

        Raises:
            MessageNotReadable: Its bytes cannot be turned into an object in this process.
        """
        shared, pending = message.shared, message.obj
        if not isinstance(pending, Undecoded):
            return pending
        if shared is not None and shared.obj is not None:
            return shared.obj
        try:
            obj = pending.decode()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise MessageNotReadable(self.topic, message.message_id, reason) from error
        if shared is not None:
            shared.obj = obj
        return obj

    # -- the end --------------------------------------------------------------------------------------------------

    def ended(self, error: Exception | None) -> None:
        """The transport is gone; messages already here stay readable."""
        if self.is_ended:
            return
        self.is_ended = True
        self.ended_with = error
        self.acknowledge = self.acknowledge_for = self._ignore
        for subscription in self._subscriptions:
            subscription.ended(subscription)

    def close(self) -> None:
        """Leave the publisher; it frees whatever is held here."""
        if self._inlet is not None:
            self._inlet.close_soon()

    async def wait_closed(self) -> None:
        """Wait until nothing of the connection is left."""
        if self._inlet is not None:
            await self._inlet.wait_closed()

    def _ignore(self, message_id: int, topic: str = "") -> None:
        pass
