"""SyncContext: a session with a graph for programs without an event loop."""

from __future__ import annotations

import inspect
from types import TracebackType
from typing import Any, Self

from ezmsg.core.currentmessage import set_current_message
from ezmsg.core.errors import SyncContextClosed, SyncContextNotEntered
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.net.address import Address, AddressType
from ezmsg.core.sync.bridge import Bridge
from ezmsg.core.sync.endpoints import Callback, SyncPublisher, SyncSubscriber
from ezmsg.core.sync.spinner import Spinner

DEFAULT_POLL_S = 0.1


class SyncContext:
    """A GraphContext whose methods block, used with `with`, once. Its event loop has a thread of its own.

    All methods may be called from any thread. Messages are received and acknowledged by that thread, callbacks run in
    the one that spins.

    Args:
        graph_address: Of the GraphServer; None for the default.
        auto_start: Start a server when none answers; None does so only where no address is configured.
    """

    def __init__(self, graph_address: AddressType | None = None, auto_start: bool | None = None) -> None:
        self._graph = GraphContext(graph_address, auto_start)
        self._bridge = Bridge(self._graph, "ezmsg-sync")
        self._spinner = Spinner(self._bridge)
        self._is_entered = False
        self._is_shut = False

    def __repr__(self) -> str:
        state = "shut down" if self._is_shut else "open" if self._is_entered else "not entered"
        return f"<SyncContext {self.graph_address} {state}>"

    @property
    def graph_address(self) -> Address | None:
        """Of the server this context started, else as it was given (perhaps None)."""
        return self._graph.graph_address

    def __enter__(self) -> Self:
        """Make sure that a server is there, and open a session.

        Raises:
            RuntimeError: It was entered before (`SyncContextClosed`).
            ServerUnreachable: No server answers and none may be started.
            HandshakeError: What answers does not hold our key, or is no GraphServer.
        """
        if self._is_entered or self._is_shut:
            raise SyncContextClosed
        self._is_entered = True
        try:
            self._bridge.start()
        except BaseException:
            self._is_shut = True
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Shut down; what this thread received last is its message no more."""
        set_current_message(None)
        self.shutdown()

    def shutdown(self) -> None:
        """Close what was made here, the session, and a server that this context started; end every `spin`.

        Waits until that is done. From any thread, also from a callback, and any number of times.
        """
        self._is_shut = True
        self._spinner.stop()
        self._bridge.stop()

    def _running(self) -> Bridge:
        if not self._is_entered:
            raise SyncContextNotEntered
        if self._is_shut:
            raise SyncContextClosed
        return self._bridge

    # -- endpoints ----------------------------------------------------------------------------------------------------

    def publisher(self, topic: str, **kwargs: Any) -> SyncPublisher:
        """A publisher on `topic`, closed with this context; keywords as in `Publisher.create`."""
        bridge = self._running()
        return SyncPublisher(bridge, bridge.run(self._graph.publisher(topic, **kwargs), f"a publisher on {topic!r}"))

    create_publisher = publisher

    def subscriber(self, topic: str, **kwargs: Any) -> SyncSubscriber:
        """A subscriber on `topic` that is asked for messages; keywords as in `Subscriber.create`."""
        return self.create_subscription(topic, **kwargs)

    def create_subscription(
        self, topic: str, callback: Callback | None = None, *, zero_copy: bool = False, **kwargs: Any
    ) -> SyncSubscriber:
        """A subscriber on `topic`, closed with this context.

        Args:
            topic: Exact name.
            callback: Called by `spin` and `spin_once` with each message; None for a subscriber that is asked. What it
                raises is logged.
            zero_copy: Give the callback the message itself, not a copy of its own.
            kwargs: As in `Subscriber.create`.

        Raises:
            TypeError: The callback cannot be called, or is a coroutine function.
        """
        if callback is not None and not callable(callback):
            raise TypeError(f"{callback!r:.100} is no callback: it cannot be called")
        if inspect.iscoroutinefunction(callback):
            raise TypeError(f"{callback!r} is a coroutine function: spin() calls plain functions")
        bridge = self._running()
        subscriber = bridge.run(self._graph.subscriber(topic, **kwargs), f"a subscriber on {topic!r}")
        subscription = SyncSubscriber(bridge, subscriber, callback, zero_copy, self._spinner.remove)
        if callback is not None:
            self._spinner.add(subscription)
        return subscription

    # -- the graph ----------------------------------------------------------------------------------------------------

    def connect(self, from_topic: str, to_topic: str, timeout: float | None = None) -> None:
        """Add an edge for as long as this session lives; when this returns, messages take it.

        Raises:
            CyclicException: It would close a cycle; the graph is unchanged.
            TimeoutError: That took longer than `timeout` seconds, or the server does not answer.
        """
        self._running().run(self._graph.connect(from_topic, to_topic), "connecting", timeout)

    def disconnect(self, from_topic: str, to_topic: str, timeout: float | None = None) -> None:
        """Give up this session's share of an edge; other owners keep it. Queued messages of it are dropped.

        Raises:
            TimeoutError: That took longer than `timeout` seconds, or the server does not answer.
        """
        self._running().run(self._graph.disconnect(from_topic, to_topic), "disconnecting", timeout)

    def sync(self, timeout: float | None = None) -> None:
        """Pause all publishers of the graph, and wait until every message was released. They stay paused.

        Raises:
            TimeoutError: That took longer than `timeout` seconds, or the server or a publisher stands still.
        """
        self._running().run(self._graph.sync(timeout), "the sync of the graph", timeout)

    def pause(self, timeout: float | None = None) -> None:
        """Pause all publishers of the graph.

        Raises:
            TimeoutError: That took longer than `timeout` seconds, or the server or a publisher stands still.
        """
        self._running().run(self._graph.pause(), "pausing the graph", timeout)

    def resume(self, timeout: float | None = None) -> None:
        """Let all publishers of the graph go on.

        Raises:
            TimeoutError: That took longer than `timeout` seconds, or the server or a publisher stands still.
        """
        self._running().run(self._graph.resume(), "resuming the graph", timeout)

    # -- callbacks ----------------------------------------------------------------------------------------------------

    def spin(self, poll_interval: float = DEFAULT_POLL_S) -> None:
        """Call back for each message, until `shutdown()` or KeyboardInterrupt, which ends here.

        Args:
            poll_interval: Nothing depends on it: messages and `shutdown()` wake this thread at once.
        """
        if not self._is_entered:
            raise SyncContextNotEntered
        try:
            self._spinner.spin()
        except KeyboardInterrupt:
            pass
        except SyncContextClosed:
            if not self._is_shut:
                raise

    def spin_once(self, timeout: float | None = 0.0) -> bool:
        """Call back for one message of every subscription that has any, in this thread.

        Args:
            timeout: Seconds to wait if none has; None waits until one has or `shutdown()`.

        Returns:
            Whether there was any message.
        """
        self._running()
        try:
            return self._spinner.spin_once(timeout)
        except SyncContextClosed:
            if self._is_shut:
                return False  # meanwhile
            raise
