"""Messages within one process: the very object, by reference.

On one event loop a hand-over is a method call. Between loops it is an append to a deque and, once per batch, a
thread-safe wake-up of the other loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from ezmsg.core.errors import ConnectionFailed
from ezmsg.core.messagecache import CachedMessage
from ezmsg.core.profiling import TraceIds
from ezmsg.core.transport import PublisherDoor, Receiver

# How long a channel waits for a publisher whose loop stands still.
JOIN_TIMEOUT_S = 2.0
# How often each end looks whether the loop of the other was closed with the channel still open.
WATCH_INTERVAL_S = 1.0


class LocalDoors:
    """The publishers of this process that accept channels without a socket, by id."""

    def __init__(self) -> None:
        self._doors: dict[str, tuple[PublisherDoor, asyncio.AbstractEventLoop]] = {}

    def open(self, door: PublisherDoor, loop: asyncio.AbstractEventLoop) -> None:
        """Offer a publisher that lives on `loop`."""
        self._doors[door.publisher_id] = (door, loop)

    def close(self, publisher_id: str) -> None:
        """Offer it no more; channels that are attached stay."""
        self._doors.pop(publisher_id, None)

    def get(self, publisher_id: str) -> tuple[PublisherDoor, asyncio.AbstractEventLoop] | None:
        """The publisher and its loop, if it is offered here."""
        return self._doors.get(publisher_id)

    def clear(self) -> None:
        """Forget all, without telling them: for a forked child."""
        self._doors.clear()


class Crossing:
    """Calls for another thread's loop, in order, one wake-up per batch."""

    __slots__ = ("_calls", "_loop", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._scheduled = False

    def call(self, function: Callable[..., None], *args: Any) -> bool:
        """Run it soon on the other loop; False when that loop is closed."""
        self._calls.append((function, args))
        # A loop that was closed before it ran what is scheduled is found out by scheduling again.
        if self._scheduled and not self._loop.is_closed():
            return True
        self._scheduled = True
        try:
            self._loop.call_soon_threadsafe(self._run)
        except RuntimeError:  # the loop is closed: nobody is there any more
            self._calls.clear()
            return False
        return True

    def _run(self) -> None:
        # Cleared before the calls are taken: what is appended from here on schedules another run.
        self._scheduled = False
        calls = self._calls
        while calls:
            function, args = calls.popleft()
            function(*args)


class LocalLink:
    """One channel at one publisher of the same process: outlet and inlet at once.

    Attributes:
        receive: Hands the channel a message (see `Receiver`).
        direct: The channel's only subscription, when the publisher may put messages into its queue itself.
        holder: The topic of the subscriber that released a message last.
    """

    def __init__(self, door: PublisherDoor, receiver: Receiver) -> None:
        self._door = door
        self._receiver = receiver
        self._closed = False
        self.bit = 0
        self.trace_ids: TraceIds | None = None
        self.next_message_id = 0
        self.receive: Callable[..., None] = receiver.receive
        self.direct: Any = None
        self.holder = ""
        self._release: Callable[[int], None] | None = None

    def attach(self) -> None:
        """Join the publisher."""
        self.bit, self.next_message_id = self._door.attach(self)
        self._release = self._door.releaser(self.bit)

    def record_publish(self, message: CachedMessage) -> None:
        """Let the publisher do it."""
        self._door.record_publish(message)

    def only_listener(self, subscription: Any) -> None:
        """Let the publisher know a shorter way."""
        self.direct = subscription
        self._door.rerouted()

    @property
    def acknowledge(self) -> Callable[[int], None]:
        """Releases the slot at once."""
        assert self._release is not None
        return self._release

    @property
    def acknowledge_for(self) -> Callable[[int, str], None]:
        """Releases the slot at once."""
        return self._release_for

    def _release_for(self, message_id: int, topic: str) -> None:
        self.holder = topic
        if self._release is not None:
            self._release(message_id)

    def holder_is(self, topic: str) -> None:
        """Remember it."""
        self.holder = topic

    def close_soon(self) -> None:
        """Either side leaves; the other is told."""
        if self._closed:
            return
        self._closed = True
        self._door.detach(self)
        self._receiver.ended(None)

    async def wait_closed(self) -> None:
        """Nothing to wait for."""


class CrossLoopLink(LocalLink):
    """As LocalLink, where the channel lives on another loop than the publisher."""

    def __init__(
        self,
        door: PublisherDoor,
        receiver: Receiver,
        publisher_loop: asyncio.AbstractEventLoop,
        channel_loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(door, receiver)
        self._publisher_loop = publisher_loop
        self._channel_loop = channel_loop
        self._to_publisher = Crossing(publisher_loop)
        self._to_channel = Crossing(channel_loop)
        self._told_holder = ""
        self.receive = self._pass_on

    def _pass_on(self, *message: Any) -> None:
        """Pass a message to the channel's loop."""
        if not self._to_channel.call(self._receiver.receive, *message):
            self._closed = True
            self._door.detach(self)

    def only_listener(self, subscription: Any) -> None:
        """There is no shorter way."""

    async def attach_across(self) -> None:
        """Join the publisher, from the channel's loop.

        Raises:
            ConnectionFailed: The publisher's loop is closed, or stands still.
            PublisherClosed: The publisher is.
        """
        joined: Future[None] = Future()
        try:
            self._publisher_loop.call_soon_threadsafe(self._join, joined)
        except RuntimeError as error:
            raise ConnectionFailed("the publisher's event loop is closed") from error
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                await asyncio.wrap_future(joined)
        except BaseException as error:
            # It may have joined all the same, a moment ago.
            self.close_soon()
            if isinstance(error, TimeoutError):
                raise ConnectionFailed("the publisher's event loop stands still") from error
            raise
        self._watch(self._channel_loop, self._publisher_loop, partial(self._receiver.ended, None))

    def _join(self, joined: Future[None]) -> None:
        """Join, on the publisher's loop, unless nobody waits for it any more."""
        if not joined.set_running_or_notify_cancel():
            return
        try:
            self.attach()
        except Exception as error:
            joined.set_exception(error)
        else:
            joined.set_result(None)
            self._watch(self._publisher_loop, self._channel_loop, partial(self._door.detach, self))

    def _watch(
        self, loop: asyncio.AbstractEventLoop, other: asyncio.AbstractEventLoop, gone: Callable[[], None]
    ) -> None:
        """Look now and then, on one of the two loops, whether the other was closed: it can tell nobody itself."""
        if self._closed:
            return
        if other.is_closed():
            self._closed = True
            gone()
        else:
            loop.call_later(WATCH_INTERVAL_S, self._watch, loop, other, gone)

    @property
    def acknowledge(self) -> Callable[[int], None]:
        """Tells the publisher's loop."""
        return self._acknowledge

    def _acknowledge(self, message_id: int) -> None:
        # Once closed, the bit may be another channel's.
        if not self._closed and self._release is not None:
            self._to_publisher.call(self._release, message_id)

    @property
    def acknowledge_for(self) -> Callable[[int, str], None]:
        """Tells the publisher's loop."""
        return self._acknowledge_for

    def _acknowledge_for(self, message_id: int, topic: str) -> None:
        if not self._closed:
            self._told_holder = topic
            self._to_publisher.call(self._release_for, message_id, topic)

    def holder_is(self, topic: str) -> None:
        """Tell the publisher's loop, if it is another."""
        if not self._closed and topic != self._told_holder:
            self._told_holder = topic
            self._to_publisher.call(super().holder_is, topic)

    def close_soon(self) -> None:
        """Either side leaves; both are told on their own loops."""
        if self._closed:
            return
        self._closed = True
        self._to_publisher.call(self._door.detach, self)
        self._to_channel.call(self._receiver.ended, None)


DOORS = LocalDoors()
