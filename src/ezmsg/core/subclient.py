"""A subscriber: a queue of notifications from every publisher that reaches its topic."""

from __future__ import annotations

import asyncio
import copy
import logging
import os
from collections import deque
from contextvars import Token
from types import TracebackType
from typing import Any
from uuid import UUID, uuid4

from ezmsg.core.profiling import (
    PROFILE_TIME,
    PROFILES,
    ProfileRegistry,
    current_message,
    new_span_id,
)

from ezmsg.core.channelmanager import CHANNELS, ChannelManager
from ezmsg.core.control import ControlClient
from ezmsg.core.errors import EzmsgError, SubscriberClosed
from ezmsg.core.messagecache import CachedMessage, MessageContext
from ezmsg.core.messagechannel import Channel, Notification, Subscription
from ezmsg.core.net.address import AddressType, boot_id
from ezmsg.core.transport import Undecoded
from ezmsg.core.wire.records import Done, OpenSubscriber, PublisherRoute, Record, Routing

logger = logging.getLogger("ezmsg")

DEFAULT_LEAKY_QUEUE = 1


class Lease:
    """Holds one message for the time of an `async with` block; its slot is free for the publisher afterwards."""

    __slots__ = ("_held", "_notification", "_previous", "_start_ns", "_subscriber", "_token", "_trace")

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber

    async def __aenter__(self) -> Any:
        subscriber = self._subscriber
        queue = subscriber._queue
        while not queue:
            await subscriber._arrival()
        self._notification = message, subscription = queue.popleft()
        self._start_ns = PROFILE_TIME()
        trace = message.trace
        if trace is None:
            self._trace = None
            held = message
        else:
            span_id = new_span_id()
            self._trace = (trace[0], span_id, trace[1])
            held = MessageContext(message.origin_ns, (trace[0], span_id))
        obj = message.obj
        if type(obj) is Undecoded:
            try:
                obj = subscription.channel.decode(message)
            except EzmsgError as error:
                self._finish(type(error).__name__)
                raise
        self._token: Token[Any] = current_message.set(held)
        self._held = held
        self._previous = subscriber._handling
        subscriber._handling = self
        return obj

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        subscriber = self._subscriber
        if subscriber._handling is self:
            subscriber._handling = self._previous
        try:
            current_message.reset(self._token)
        except ValueError:
            # Left in another context than it was entered in (an async generator closed by the loop).
            current_message.set(None)
        self._finish(None if kind is None else kind.__qualname__)

    def _finish(self, error: str | None) -> None:
        message, subscription = self._notification
        subscription.metrics.processed(
            message.message_id,
            message.origin_ns,
            message.publish_ns,
            message.channel_ns,
            self._start_ns,
            PROFILE_TIME(),
            message.size,
            self._trace,
            error,
        )
        subscription.channel.release(message)
        if self._subscriber._retired:
            self._subscriber._sweep()

    # -- for Subscriber.recv, begin_profile and end_profile ---------------------------------------------------------

    def copy(self, obj: Any) -> Any:
        """The caller's own copy of the message; the object itself where nobody else can hold it."""
        message, subscription = self._notification
        if message.holders == 1 and subscription.channel.owns_objects:
            return obj
        return copy.deepcopy(obj)

    @property
    def held(self) -> CachedMessage | MessageContext:
        """The message, as context of what is published while it is held."""
        return self._held

    @property
    def subscription(self) -> Subscription:
        """Through which the message came."""
        return self._notification[1]

    def record_user_span(self, start_ns: int, end_ns: int, label: str | None) -> None:
        """Record a span that user code measured inside this message."""
        message, subscription = self._notification
        trace = None if self._trace is None else (self._trace[0], new_span_id(), self._trace[1])
        subscription.metrics.user_span(message.message_id, start_ns, end_ns, label, trace)

    @property
    def is_sampled(self) -> bool:
        """Whether user spans of this message are recorded."""
        message, subscription = self._notification
        return self._trace is not None or subscription.metrics.selects(message.message_id)


class Subscriber:
    """Receives the messages of every publisher that reaches a topic.

    Made by `Subscriber.create` (or `GraphContext.subscriber`), used on the event loop that made it.

    Attributes:
        id: Identifies this subscriber in the graph.
        topic: What it subscribes to.
        leaky: Whether it keeps only the newest messages.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("use `await Subscriber.create(topic, ...)` or `await context.subscriber(topic)`")

    @classmethod
    async def create(
        cls,
        topic: str,
        graph_address: AddressType | None = None,
        *,
        leaky: bool = False,
        max_queue: int | None = None,
        channels: ChannelManager | None = None,
        profiles: ProfileRegistry | None = None,
        **_ignored: Any,
    ) -> Subscriber:
        """Subscribe to a topic; when this returns, every publisher that reaches the topic is connected.

        Args:
            topic: Exact name; there are no wildcards.
            graph_address: Of the GraphServer; None for the default.
            leaky: Keep only the newest `max_queue` messages, drop the oldest.
            max_queue: Length of a leaky queue (default 1); ignored otherwise.
            channels: The process's channels, when not the default ones.
            profiles: The process's recorder, when not the default one.

        Raises:
            ServerUnreachable: No GraphServer answers at the address.
            ValueError: `max_queue` is not positive.
        """
        if max_queue is not None and max_queue < 1:
            raise ValueError(f"max_queue={max_queue} must be positive")
        self = object.__new__(cls)
        self.id: UUID = uuid4()
        self.topic = topic
        self.leaky = leaky
        self._max_queue = (max_queue or DEFAULT_LEAKY_QUEUE) if leaky else 0
        self._queue: deque[Notification] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._subscriptions: dict[str, Subscription] = {}
        self._handling: Lease | None = None
        # Of publishers that ended, while messages of theirs are still queued or held.
        self._retired: list[Subscription] = []
        self._is_closed = False
        self._routing = asyncio.Lock()
        self._channels = channels or CHANNELS
        self._profiles = profiles or PROFILES
        self._closing: set[asyncio.Task[None]] = set()
        self._control = await ControlClient.connect(graph_address, self, name=f"subscriber {topic}")
        self._metrics = self._profiles.register_subscriber(self.id, topic, graph_address=str(self._control.address))
        try:
            routing = await self._control.request(OpenSubscriber(str(self.id), topic, os.getpid(), boot_id()))
            assert isinstance(routing, Routing)
            await self._apply(routing)
        except BaseException:
            self.close()
            await self.wait_closed()
            raise
        return self

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"queued={len(self._queue)}"
        return f"<Subscriber {self.topic} {state} publishers={len(self._subscriptions)}>"

    # -- receiving ------------------------------------------------------------------------------------------------

    async def recv(self) -> Any:
        """The next message, as a copy of the caller's own.

        What this task publishes until its next receive belongs to this message.

        Raises:
            SubscriberClosed: It is closed, or was while waiting.
            MessageNotReadable: The message cannot be decoded in this process.
        """
        lease = Lease(self)
        obj = await lease.__aenter__()
        try:
            obj = lease.copy(obj)
        finally:
            await lease.__aexit__(None, None, None)
        current_message.set(lease.held)
        return obj

    def recv_zero_copy(self) -> Lease:
        """An async context manager that yields the next message itself and releases it when the block is left.

        Do not change the object, and do not keep views of it: what they show after the block is undefined.

        Raises:
            SubscriberClosed: It is closed, or was while waiting.
            MessageNotReadable: The message cannot be decoded in this process.
        """
        return Lease(self)

    def begin_profile(self) -> int:
        """Begin a user span within the message now held: its start in ns, or 0 when it is not sampled."""
        return PROFILE_TIME() if self._handling is not None and self._handling.is_sampled else 0

    def end_profile(self, start_ns: int, label: str | None = None) -> None:
        """End a user span that `begin_profile` began; does nothing when that returned 0."""
        if start_ns and self._handling is not None:
            self._handling.record_user_span(start_ns, PROFILE_TIME(), label)

    async def _arrival(self) -> None:
        """Wait for a notification; cancelled, it passes its wake-up on."""
        if self._is_closed:
            raise SubscriberClosed(self.topic)
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and self._queue:
                self._wake_one()
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def _wake_one(self) -> None:
        waiters = self._waiters
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    # -- called by channels -----------------------------------------------------------------------------------------

    def notify(self, notification: Notification) -> None:
        """A message is there; a leaky queue that is full drops its oldest."""
        queue = self._queue
        if self._max_queue and len(queue) >= self._max_queue:
            message, subscription = queue.popleft()
            subscription.metrics.dropped()
            subscription.channel.release(message)
        queue.append(notification)
        if self._waiters:
            self._wake_one()

    def channel_ended(self, channel: Channel, error: Exception | None) -> None:
        """A publisher is gone; what it sent stays in the queue."""
        subscription = self._subscriptions.get(channel.publisher_id)
        if subscription is None or subscription.channel is not channel:
            return
        del self._subscriptions[channel.publisher_id]
        self._leave(subscription)
        self._retired.append(subscription)
        self._sweep()

    def _sweep(self) -> None:
        """Close the measurements of publishers that ended, once their last message was processed."""
        busy = {id(subscription) for _, subscription in self._queue}
        if self._handling is not None:
            busy.add(id(self._handling.subscription))
        for subscription in [retired for retired in self._retired if id(retired) not in busy]:
            self._retired.remove(subscription)
            subscription.metrics.close()

    # -- routing ----------------------------------------------------------------------------------------------------

    def on_request(self, _connection: object, record: Record) -> Any:
        """The server sends the publishers that now reach this topic; the answer says that they are connected."""
        if isinstance(record, Routing):
            return self._apply(record)
        raise EzmsgError(f"a subscriber has no answer to {type(record).__name__}")

    def on_notice(self, _connection: object, record: Record) -> None:
        """Nothing else is told to a subscriber."""

    def on_closed(self, _connection: object, error: Exception | None) -> None:
        """The server is gone: messages go on arriving from the publishers that are connected."""

    async def _apply(self, routing: Routing) -> Record:
        async with self._routing:
            wanted = {route.publisher_id: route for route in routing.publishers}
            for publisher_id in [known for known in self._subscriptions if known not in wanted]:
                # A publisher that ended closes its channel itself, after its last message.
                if publisher_id not in routing.ended:
                    self._cut(self._subscriptions.pop(publisher_id))
            added = [route for known, route in wanted.items() if known not in self._subscriptions]
            if added and not self._is_closed:
                await asyncio.gather(*(self._join(route) for route in added))
            return Done()

    async def _join(self, route: PublisherRoute) -> None:
        try:
            channel = await self._channels.open(route)
        except (OSError, EzmsgError) as error:
            # A publisher that is just going away; the server will say so.
            logger.debug("%r could not reach publisher %s on %s: %s", self, route.publisher_id, route.topic, error)
            return
        if self._is_closed:
            self._channels.close(channel)
            return
        if self.leaky and self._max_queue >= channel.num_buffers:
            logger.warning(
                "Leaky Subscriber on %s may cause backpressure on %s: max_queue=%d, num_buffers=%d",
                self.topic, route.topic, self._max_queue, channel.num_buffers,
            )  # fmt: skip
        metrics = self._metrics.edge(route.publisher_id, route.topic, channel.kind, foreign=route.boot_id != boot_id())
        subscription = Subscription(channel, self, metrics)
        self._subscriptions[route.publisher_id] = subscription
        channel.subscribe(subscription)
        if channel.is_ended:
            self.channel_ended(channel, channel.ended_with)

    def _cut(self, subscription: Subscription) -> None:
        """Stop hearing a publisher at once: queued messages of it are dropped and released."""
        channel = subscription.channel
        kept = [item for item in self._queue if item[1] is not subscription]
        dropped = [item for item in self._queue if item[1] is subscription]
        self._queue.clear()
        self._queue.extend(kept)
        self._leave(subscription)
        subscription.metrics.close()
        for message, _ in dropped:
            channel.release(message)

    def _leave(self, subscription: Subscription) -> None:
        subscription.channel.unsubscribe(subscription)
        self._channels.close(subscription.channel)

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop receiving; whatever is queued is released. Waiting receives raise SubscriberClosed."""
        if self._is_closed:
            return
        self._is_closed = True
        for subscription in list(self._subscriptions.values()):
            self._cut(subscription)
        self._subscriptions.clear()
        while self._queue:  # of publishers that are gone
            message, subscription = self._queue.popleft()
            subscription.channel.release(message)
        for subscription in self._retired:
            subscription.metrics.close()
        self._retired.clear()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(SubscriberClosed(self.topic))
        self._waiters.clear()
        self._profiles.unregister_subscriber(self.id)
        self._control.close_soon()

    async def wait_closed(self) -> None:
        """Wait until nothing of this subscriber is left."""
        await self._control.wait_closed()
        await self._channels.wait_closed()
