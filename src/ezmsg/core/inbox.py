"""The inbox of a subscriber: notifications that wait to be taken."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol
from weakref import ref

from ezmsg.core.currentmessage import Inputs, with_input
from ezmsg.core.errors import SubscriberClosed
from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.messagecache import CachedMessage
from ezmsg.core.messagechannel import Subscription
from ezmsg.core.profiling import ProfileRegistry, message_clock
from ezmsg.core.recorder.edge import EdgeMetrics
from ezmsg.core.turns import Eagerness

OVERLAPPING: Final = 256
"""Leases of one subscriber that are known at once. Of one beyond that, a publish that its receiver is to record is told
when the lease is left, not before."""


RELIEVE_EVERY: Final = 8
"""Rests of which one asks whether the recorder is crowded."""


class Taken(Protocol):
    """A lease, as the inbox knows it: on a message that was taken from it."""

    origin_s: float
    start_s: float

    @property
    def measured(self) -> CachedMessage | None:
        """The message while something may be measured of it."""
        ...

    @property
    def is_held(self) -> bool:
        """Whether the message is not released yet."""
        ...

    def known_trace(self) -> tuple[bytes, int] | None:
        """Trace id and span id of the processing, when the message is sampled."""
        ...


class Inbox:
    """Notifications in the order they came, for one event loop.

    Args:
        topic: Of the subscriber, for errors.
        max_queue: Keep only so many, dropping the oldest; 0 keeps all.
        profiles: The recorder of this process.
    """

    __slots__ = (
        "_eagerness",
        "_handler",
        "_is_reached_from_afar",
        "_left",
        "_loop",
        "_max_queue",
        "_profiles",
        "_waiters",
        "done",
        "held",
        "inputs",
        "is_closed",
        "others",
        "queue",
        "rests",
        "retired",
        "topic",
    )

    def __init__(self, topic: str, max_queue: int, profiles: ProfileRegistry) -> None:
        self.topic = topic
        self.queue: deque[CachedMessage] = deque()
        # The lease that was entered last, and those entered before that were not left yet.
        self.held: Taken | None = None
        self.others: deque[Taken] = deque(maxlen=OVERLAPPING)
        self.is_closed = False
        # What was handled since something was published, the inputs of what will be; None when there were too many.
        self.inputs: Inputs | None = ()
        self._handler: ref[asyncio.Task[Any]] | None = None
        # Of publishers that ended, or that nothing is heard of any more, while messages of theirs are queued or held.
        self.retired: list[Subscription] = []
        # Called once everything is closed that was measured.
        self._left: Callable[[], None] | None = None
        # Finished: what leaving a lease is awaited with.
        # Kept: asking for the running one, or its task, is a system call in Python 3.11.
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self.done.set_result(None)
        # How often somebody had to wait for a message.
        self.rests = 0
        self._max_queue = max_queue
        self._profiles = profiles
        self._eagerness = Eagerness()
        self._is_reached_from_afar = False
        self._waiters: deque[asyncio.Future[None]] = deque()

    def accept(self, subscription: Subscription) -> None:
        """Take the messages of a subscription from now on."""
        # Closures: one is called for every message, and this saves looking everything up.
        queue, waiters, wake_one = self.queue, self._waiters, self._wake_one

        def deliver(message: CachedMessage) -> None:
            queue.append(message)
            if waiters:
                wake_one()

        def deliver_leaky(message: CachedMessage) -> None:
            if len(queue) >= self._max_queue:
                oldest = queue.popleft()
                whose: Subscription = oldest.subscription
                whose.metrics.dropped()
                whose.channel.release(oldest)
            deliver(message)

        self._is_reached_from_afar |= subscription.channel.kind is not ProfileChannelType.LOCAL
        subscription.deliver = deliver_leaky if self._max_queue else deliver
        subscription.queue = None if self._max_queue else queue
        subscription.waiters = waiters
        subscription.wake = wake_one
        subscription.taken = self._taken
        subscription.unreleased = self._unreleased

    async def arrival(self) -> None:
        """Wait for a notification. Cancelled, it passes its wake-up on.

        Raises:
            SubscriberClosed: The inbox is closed, or was while waiting.
        """
        if self.is_closed:
            raise SubscriberClosed(self.topic)
        self.rests += 1
        if not self.rests % RELIEVE_EVERY:
            self._profiles.relieve()
        # Only if nobody waits: the first is served first. What tasks of this loop send comes without looking.
        is_eager = self._is_reached_from_afar
        if is_eager and not self._waiters:
            if await self._eagerness.sees(self._has_news):
                return
            if self._eagerness.is_dense:
                self._profiles.relieve(is_idle=True)
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        began_s = message_clock() if is_eager else 0.0
        try:
            await waiter
            if is_eager:
                self._eagerness.slept(message_clock() - began_s)
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and self.queue:
                self._wake_one()
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def watch(self, waiter: asyncio.Future[None]) -> None:
        """Set this future when a notification comes."""
        self._waiters.append(waiter)

    def unwatch(self, waiter: asyncio.Future[None]) -> None:
        """Watch no more; a wake-up that was for this future goes to who waits next."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        if self.queue:
            self._wake_one()

    def _has_news(self) -> bool:
        return bool(self.queue) or self.is_closed

    def _wake_one(self) -> None:
        waiters = self._waiters
        while waiters:
            waiter = waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def remember(self, lease: Taken) -> None:
        """A message was handled, and nothing was published meanwhile."""
        inputs = self.inputs_here()
        if inputs is None:
            return
        task = asyncio.current_task(self._loop)
        self._handler = None if task is None else ref(task)
        self.inputs = with_input(inputs, lease.origin_s, lease.known_trace())

    def inputs_here(self) -> Inputs | None:
        """The inputs of what this task publishes next: if it was another one that handled them, there are none."""
        task = asyncio.current_task(self._loop)
        handler = None if self._handler is None else self._handler()
        return self.inputs if self.inputs is None or handler is task else ()

    def let_go(self, lease: Taken) -> None:
        """A lease was left while others are not, or its copy is used no more."""
        if self.held is lease:
            self.held = self.others.pop() if self.others else None
        else:
            with suppress(ValueError):
                self.others.remove(lease)

    def _taken(self) -> list[CachedMessage]:
        # Each once: meanwhile one may come to be among the others, or from there.
        leases = dict.fromkeys((*self.others.copy(), self.held))
        return [message for lease in leases if lease is not None and (message := lease.measured) is not None]

    def _unreleased(self) -> list[CachedMessage]:
        leases = (*self.others, self.held)
        held = [lease.measured for lease in leases if lease is not None and lease.is_held]
        return [*(message for message in held if message is not None), *self.queue]

    def holding(self) -> tuple[EdgeMetrics, float] | None:
        """What measures the message that is handled now, and since when it is, in s; may be asked from any thread."""
        held = self.held
        message = None if held is None else held.measured
        return None if held is None or message is None else (message.subscription.metrics, held.start_s)

    def drop(self, subscription: Subscription) -> None:
        """Release what is queued of one publisher, unread."""
        dropped = [message for message in self.queue if message.subscription is subscription]
        kept = [message for message in self.queue if message.subscription is not subscription]
        self.queue.clear()
        self.queue.extend(kept)
        for message in dropped:
            subscription.channel.release(message)

    def retire(self, subscription: Subscription) -> None:
        """Nothing more comes of a publisher: close what is measured of it once its last message was handled."""
        self.retired.append(subscription)
        self.sweep()

    def sweep(self) -> None:
        """Close the measurements of retired publishers of which nothing is left."""
        busy = {id(message.subscription) for message in (*self.queue, *self._taken())}
        for subscription in [retired for retired in self.retired if id(retired) not in busy]:
            self.retired.remove(subscription)
            subscription.metrics.close()
        if not self.retired and (left := self._left) is not None:
            self._left = None
            left()

    def when_left(self, left: Callable[[], None]) -> None:
        """Call this once the last message of the retired publishers was handled."""
        self._left = left
        self.sweep()

    def close(self) -> None:
        """Release everything unread; whoever waits gets SubscriberClosed."""
        self.is_closed = True
        self.inputs = None
        while self.queue:
            message = self.queue.popleft()
            message.subscription.channel.release(message)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(SubscriberClosed(self.topic))
        self._waiters.clear()
