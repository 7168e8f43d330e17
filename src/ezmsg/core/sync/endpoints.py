"""Publishers and subscribers for threads without an event loop."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from contextvars import Token, copy_context
from types import TracebackType
from typing import Any

from ezmsg.core.currentmessage import CurrentMessage, reset_current_message, set_current_message
from ezmsg.core.errors import SyncContextClosed
from ezmsg.core.lease import Lease
from ezmsg.core.pubclient import Publisher
from ezmsg.core.subclient import Subscriber
from ezmsg.core.sync.bridge import Bridge
from ezmsg.core.sync.hold import Hold

Callback = Callable[[Any], object]


class SyncPublisher:
    """Sends messages on a topic, from any thread. Made by `SyncContext.publisher`.

    What is published inside a callback, or while a received message is held, belongs to that message.
    """

    def __init__(self, bridge: Bridge, publisher: Publisher) -> None:
        self._bridge = bridge
        self._publisher = publisher
        self._publishing = f"publishing on {publisher.topic!r}"

    def __repr__(self) -> str:
        return f"<Sync{repr(self._publisher)[1:]}"

    @property
    def topic(self) -> str:
        """What it publishes on."""
        return self._publisher.topic

    @property
    def running(self) -> bool:
        """Whether `publish` sends, as opposed to waiting for `resume()` or being closed."""
        return self._publisher.running

    def publish(self, obj: Any, timeout: float | None = None) -> None:
        """Send one message to every subscriber that this topic reaches.

        Waits while paused, and while the slot it would reuse is still held by a slow subscriber. Subscribers of this
        process get this very object: do not change it afterwards.

        Args:
            obj: The message.
            timeout: Seconds to wait; None waits as long as it takes.

        Raises:
            TimeoutError: It had to wait longer; nothing was sent.
            PublisherClosed: The publisher was closed, before or while waiting.
            MessageTooLarge: The message needs more bytes than the limit; nothing was sent.
            MessageNotSerializable: It cannot be pickled for another process; nothing was sent.
        """
        self._bridge.run_brief(self._publisher.broadcast(obj), self._publishing, timeout, copy_context())

    broadcast = publish

    def sync(self, timeout: float | None = None) -> None:
        """Pause, and wait until every message sent so far was released. Stays paused until `resume()`.

        Raises:
            TimeoutError: That took longer than `timeout` seconds; it is paused all the same.
        """
        self._bridge.run(self._publisher.sync(), f"sync of {self.topic!r}", timeout)

    def pause(self) -> None:
        """Make every `publish` wait from now on."""
        self._bridge.run_brief(_called(self._publisher.pause), "pause", None, copy_context())

    def resume(self) -> None:
        """Let `publish` go on."""
        self._bridge.run_brief(_called(self._publisher.resume), "resume", None, copy_context())

    def close(self) -> None:
        """Stop publishing. What was sent still arrives; waiting calls of `publish` raise PublisherClosed."""
        _closed(self._bridge, self._publisher)

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until what was sent is delivered and nothing of this publisher is left.

        Raises:
            TimeoutError: That took longer than `timeout` seconds.
        """
        _wait_closed(self._bridge, self._publisher, timeout)


class SyncSubscriber:
    """Receives the messages of a topic, in any thread. Made by `SyncContext.subscriber` or `create_subscription`.

    Attributes:
        callback: What `spin` and `spin_once` call with each message; None for a subscriber that is asked.
        zero_copy: Whether the callback gets the message itself, instead of a copy of its own.
    """

    def __init__(
        self,
        bridge: Bridge,
        subscriber: Subscriber,
        callback: Callback | None = None,
        zero_copy: bool = False,
        on_close: Callable[[SyncSubscriber], None] | None = None,
    ) -> None:
        self._bridge = bridge
        self._subscriber = subscriber
        self._on_close = on_close
        self.callback = callback
        self.zero_copy = zero_copy

    def __repr__(self) -> str:
        return f"<Sync{repr(self._subscriber)[1:]}"

    @property
    def topic(self) -> str:
        """What it subscribes to."""
        return self._subscriber.topic

    @property
    def leaky(self) -> bool:
        """Whether it keeps only the newest messages."""
        return self._subscriber.leaky

    def recv(self, timeout: float | None = None) -> Any:
        """The next message, as a copy of the caller's own.

        What this thread publishes until its next receive belongs to this message.

        Args:
            timeout: Seconds to wait; None waits as long as it takes.

        Raises:
            TimeoutError: No message came in time; none is lost.
            SubscriberClosed: It is closed, or was while waiting.
            MessageNotReadable: The message cannot be decoded in this process.
        """
        held = self.recv_zero_copy(timeout)
        with held as obj:
            own = held.lease.own(obj)
        held.lease.keep_context()
        return own

    def recv_zero_copy(self, timeout: float | None = None) -> HeldMessage:
        """A context manager that yields the next message itself and releases it when the block is left.

        Do not change the object, and do not keep views of it: what they show after the block is undefined.

        Args:
            timeout: Seconds to wait for a message; None waits as long as it takes.

        Raises:
            TimeoutError: No message came in time; none is lost.
            SubscriberClosed: It is closed, or was while waiting.
            MessageNotReadable: The message cannot be decoded in this process.
        """
        return HeldMessage(self._bridge, self._subscriber, timeout)

    def close(self) -> None:
        """Stop receiving; whatever is queued is released. Waiting receives raise SubscriberClosed."""
        if self._on_close is not None:
            self._on_close(self)
        _closed(self._bridge, self._subscriber)

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until nothing of this subscriber is left.

        Raises:
            TimeoutError: That took longer than `timeout` seconds.
        """
        _wait_closed(self._bridge, self._subscriber, timeout)

    # -- called by the spinner, on the loop except `has_message` ------------------------------------------------------

    @property
    def has_message(self) -> bool:
        """Whether a message waits; from any thread."""
        return self._subscriber.has_message

    @property
    def subscriber(self) -> Subscriber:
        """The subscriber itself, for use on its loop."""
        return self._subscriber


class HeldMessage:
    """Holds one message for the time of a `with` block, in which the thread's publishes belong to it."""

    __slots__ = ("_bridge", "_hold", "_subscriber", "_timeout_s", "_token")

    _token: Token[CurrentMessage | None]

    def __init__(self, bridge: Bridge, subscriber: Subscriber, timeout_s: float | None = None) -> None:
        self._bridge = bridge
        self._subscriber = subscriber
        self._timeout_s = timeout_s
        self._hold = Hold()

    @property
    def lease(self) -> Lease:
        """The lease on the message, inside the block."""
        return self._hold.lease

    def __enter__(self) -> Any:
        hold = self._hold
        what = f"waiting for a message on {self._subscriber.topic!r}"
        try:
            self._bridge.run_brief(hold.take(self._subscriber), what, self._timeout_s, hold.context)
            self._token = set_current_message(hold.lease)
        except BaseException:  # KeyboardInterrupt may strike when it is held already
            hold.leave_soon(self._bridge)
            raise
        return hold.obj

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        hold = self._hold
        hold.error = (kind, error, traceback)
        try:
            reset_current_message(self._token)
        finally:
            hold.leave_soon(self._bridge)


async def _called(function: Callable[[], None]) -> None:
    function()


def _closed(bridge: Bridge, client: Publisher | Subscriber) -> None:
    with suppress(SyncContextClosed):  # so is everything
        bridge.run(_called(client.close), "closing")


def _wait_closed(bridge: Bridge, client: Publisher | Subscriber, timeout_s: float | None) -> None:
    with suppress(SyncContextClosed):
        bridge.run(client.wait_closed(), f"the end of {client.topic!r}", timeout_s)
