"""The inbox of a subscriber: notifications that wait to be taken, and the leases on messages that were."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable
from contextvars import Token
from types import TracebackType
from typing import Any

from ezmsg.core.errors import SubscriberClosed
from ezmsg.core.messagecache import CachedMessage, MessageContext
from ezmsg.core.messagechannel import Notification, Subscription
from ezmsg.core.profiling import PROFILE_TIME, CurrentMessage, ProfileRegistry, current_message, new_span_id
from ezmsg.core.transport import Undecoded


class Inbox:
    """Notifications in the order they came, for one event loop.

    Args:
        topic: Of the subscriber, for errors.
        max_queue: Keep only so many, dropping the oldest; 0 keeps all.
        profiles: The recorder of this process.
    """

    def __init__(self, topic: str, max_queue: int, profiles: ProfileRegistry) -> None:
        self.topic = topic
        self.queue: deque[Notification] = deque()
        # The lease that was entered last, for `sweep`.
        self.held: Lease | None = None
        self.is_closed = False
        # Of publishers that ended, while messages of theirs are still queued or held.
        self.retired: list[Subscription] = []
        # Finished: what leaving a lease is awaited with.
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.done.set_result(None)
        self._max_queue = max_queue
        self._profiles = profiles
        self._waiters: deque[asyncio.Future[None]] = deque()

    def accept(self, subscription: Subscription) -> None:
        """Take the messages of a subscription from now on."""
        # Closures: one is called for every message, and this saves looking everything up.
        queue, waiters, wake_one = self.queue, self._waiters, self._wake_one

        def deliver(message: CachedMessage) -> None:
            queue.append((message, subscription))
            if waiters:
                wake_one()

        def deliver_leaky(message: CachedMessage) -> None:
            if len(queue) >= self._max_queue:
                oldest, whose = queue.popleft()
                whose.metrics.dropped()
                whose.channel.release(oldest)
            deliver(message)

        subscription.deliver = deliver_leaky if self._max_queue else deliver

    async def arrival(self) -> None:
        """Wait for a notification. Cancelled, it passes its wake-up on.

        Raises:
            SubscriberClosed: The inbox is closed, or was while waiting.
        """
        if self.is_closed:
            raise SubscriberClosed(self.topic)
        self._profiles.relieve()
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and self.queue:
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

    def drop(self, subscription: Subscription) -> None:
        """Release what is queued of one publisher, unread."""
        dropped = [message for message, whose in self.queue if whose is subscription]
        kept = [item for item in self.queue if item[1] is not subscription]
        self.queue.clear()
        self.queue.extend(kept)
        for message in dropped:
            subscription.channel.release(message)

    def retire(self, subscription: Subscription) -> None:
        """A publisher ended: close what is measured of it once its last message was handled."""
        self.retired.append(subscription)
        self.sweep()

    def sweep(self) -> None:
        """Close the measurements of retired publishers of which nothing is left."""
        busy = {id(subscription) for _, subscription in self.queue}
        if self.held is not None:
            busy.add(id(self.held.notification[1]))
        for subscription in [retired for retired in self.retired if id(retired) not in busy]:
            self.retired.remove(subscription)
            subscription.metrics.close()

    def close(self) -> None:
        """Release everything unread; whoever waits gets SubscriberClosed."""
        self.is_closed = True
        while self.queue:
            message, subscription = self.queue.popleft()
            subscription.channel.release(message)
        for subscription in self.retired:
            subscription.metrics.close()
        self.retired.clear()
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(SubscriberClosed(self.topic))
        self._waiters.clear()


class Lease:
    """Holds one message for the time of an `async with` block; its slot is free for the publisher afterwards.

    Within the block it is the `current_message` of the task: what the task publishes belongs to it.

    Attributes:
        origin_ns: When the first message of its chain was published.
        trace: Trace id and the span id of this processing, when it is sampled.
        notification: The message, and through which subscription it came.
    """

    __slots__ = ("_inbox", "_start_ns", "_token", "notification", "origin_ns", "trace")

    _start_ns: int
    _token: Token[CurrentMessage | None]
    notification: Notification
    origin_ns: int
    trace: tuple[int, int] | None

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    async def __aenter__(self) -> Any:
        inbox = self._inbox
        queue = inbox.queue
        while not queue:
            await inbox.arrival()
        self.notification = message, subscription = queue.popleft()
        self._start_ns = PROFILE_TIME()
        self.origin_ns = message.origin_ns
        trace = message.trace
        self.trace = None if trace is None else (trace[0], new_span_id())
        obj = message.obj
        if type(obj) is Undecoded:
            try:
                obj = subscription.channel.decode(message)
            except BaseException as error:
                self._release(type(error).__qualname__)
                raise
        self._token = current_message.set(self)
        inbox.held = self
        return obj

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Awaitable[None]:
        # Not a coroutine: there is nothing to wait for, and awaiting a finished future costs half as much.
        inbox = self._inbox
        inbox.held = None
        try:
            current_message.reset(self._token)
        except ValueError:
            # Left in another context than it was entered in: an async generator that the loop closed.
            current_message.set(None)
        self._release(None if kind is None else kind.__qualname__)
        return inbox.done

    def _release(self, error: str | None) -> None:
        """Record what was measured, and let the message go."""
        message, subscription = self.notification
        trace = self.trace
        process_trace = None if trace is None or message.trace is None else (*trace, message.trace[1])
        subscription.metrics.processed(
            message.message_id,
            message.origin_ns,
            message.publish_ns,
            message.channel_ns,
            self._start_ns,
            PROFILE_TIME(),
            message.size,
            process_trace,
            error,
        )
        if message.holders == 1:
            # As `release` does, inline: the common case.
            message.obj = None
            message.holders = 0
            subscription.channel.acknowledge(message.message_id)
        else:
            subscription.channel.release(message)
        if self._inbox.retired:
            self._inbox.sweep()

    def own(self, obj: Any) -> Any:
        """The caller's own copy of the message; the object itself where nobody else can hold it."""
        message, subscription = self.notification
        if message.holders == 1 and subscription.channel.owns_objects:
            return obj
        return copy.deepcopy(obj)

    def keep_context(self) -> None:
        """What this task publishes from now on belongs to this message, though it is held no more."""
        current_message.set(MessageContext(self.origin_ns, self.trace))

    def is_of(self, inbox: Inbox) -> bool:
        """Whether the message came through this inbox."""
        return self._inbox is inbox

    @property
    def is_sampled(self) -> bool:
        """Whether user spans of this message are recorded."""
        message, subscription = self.notification
        return self.trace is not None or subscription.metrics.selects(message.message_id)

    def record_user_span(self, start_ns: int, end_ns: int, label: str | None) -> None:
        """Record a span that user code measured inside this message."""
        message, subscription = self.notification
        trace = None if self.trace is None else (self.trace[0], new_span_id(), self.trace[1])
        subscription.metrics.user_span(message.message_id, start_ns, end_ns, label, trace)
