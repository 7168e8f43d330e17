"""A publisher: sends each message to every channel of its topic, and waits for the slowest of them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

from ezmsg.core import config
from ezmsg.core.backpressure import Backpressure
from ezmsg.core.control import ControlClient
from ezmsg.core.errors import EzmsgError, MessageNotSerializable, MessageTooLarge, PublisherClosed
from ezmsg.core.messagecache import CachedMessage
from ezmsg.core.messagemarshal import Encoded, encode
from ezmsg.core.net.address import AddressType, boot_id
from ezmsg.core.profiling import (
    PROFILE_TIME,
    PROFILES,
    ProfileRegistry,
    PublisherMetrics,
    current_message,
    new_span_id,
    new_trace_id,
)
from ezmsg.core.transport import Outlet, Target
from ezmsg.core.transport.local import DOORS, LocalLink
from ezmsg.core.transport.tcp import ChannelOutlet, MessageListener
from ezmsg.core.wire.records import Done, OpenPublisher, Pause, Record, Resume, Sync

logger = logging.getLogger("ezmsg")

DEFAULT_NUM_BUFFERS = 32
DEFAULT_BUF_SIZE = 65536
BACKPRESSURE_WARNING_INTERVAL_NS = 5_000_000_000


class Publisher:
    """Sends messages on a topic.

    Made by `Publisher.create` (or `GraphContext.publisher`), used on the event loop that made it.

    Attributes:
        id: Identifies this publisher in the graph.
        pid: The process it was made in.
        topic: What it publishes on.
        log_name: How it is called in logs.
    """

    _control: ControlClient
    _profiles: ProfileRegistry
    _metrics: PublisherMetrics
    _listener: MessageListener

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("use `await Publisher.create(topic, ...)` or `await context.publisher(topic)`")

    def _prepare(self, topic: str, num_buffers: int, start_paused: bool) -> None:
        self.id: UUID = uuid4()
        self.publisher_id = str(self.id)
        self.pid = os.getpid()
        self.topic = topic
        self.log_name = f"{topic}({self.publisher_id[:8]})"
        self.num_buffers = num_buffers
        self._slots = Backpressure(num_buffers, self._slot_freed)
        self._loop = asyncio.get_running_loop()
        self._next_id = 0
        self._bits = 0
        # Who is handed the very object: channels of this loop, and links to those of other loops.
        self._targets: tuple[Target, ...] = ()
        self._remotes: tuple[ChannelOutlet, ...] = ()
        self._outlets: set[Outlet] = set()
        self._leaving: set[asyncio.Future[None]] = set()
        self._freed: asyncio.Future[None] | None = None
        self._running = asyncio.Event()
        # Broadcasts that wait stand in line; `_waiting` counts them, so that newcomers do not overtake.
        self._line = asyncio.Lock()
        self._waiting = 0
        self._stalled_ns = 0
        self._is_closed = False
        self._blocked = start_paused
        if not start_paused:
            self._running.set()
        self._max_bytes = config.max_message_bytes()
        self._warned_ns = 0
        self._warns = not config.backpressure_warning_disabled()

    @classmethod
    async def create(
        cls,
        topic: str,
        graph_address: AddressType | None = None,
        host: str | None = None,
        port: int | None = None,
        buf_size: int = DEFAULT_BUF_SIZE,
        num_buffers: int = DEFAULT_NUM_BUFFERS,
        start_paused: bool = False,
        force_tcp: bool | None = None,
        allow_local: bool | None = None,
        *,
        profiles: ProfileRegistry = PROFILES,
    ) -> Publisher:
        """Offer a topic; when this returns, every subscriber that it reaches is connected.

        Args:
            topic: Exact name.
            graph_address: Of the GraphServer; None for the default.
            host: Interface that other processes connect to; None for loopback.
            port: TCP port; None for the first free one from EZMSG_PUBLISHER_PORT_START.
            buf_size: Expected size of a message in bytes; larger ones work too.
            num_buffers: Messages that may be unreleased before `broadcast` waits.
            start_paused: Wait in `broadcast` until `resume()`.
            force_tcp: Use TCP for every subscriber; None for EZMSG_FORCE_TCP.
            allow_local: Hand subscribers of this process the very object; None for EZMSG_ALLOW_LOCAL.
            profiles: The recorder of this process.

        Raises:
            ServerUnreachable: No GraphServer answers at the address.
            InsecureBind: `host` is not loopback and no key was configured.
            ValueError: `num_buffers` is not positive.
        """
        self = object.__new__(cls)
        self._prepare(topic, num_buffers, start_paused)
        self._profiles = profiles
        tcp_only, local = cls._delivery(topic, force_tcp, allow_local)
        self._listener = await MessageListener.open(self, host, port, with_door=not tcp_only)
        try:
            self._control = await ControlClient.connect(graph_address, self, name=f"publisher {topic}")
        except BaseException:
            await self._listener.close()
            raise
        try:
            self._metrics = self._profiles.register_publisher(
                self.id, topic, num_buffers, graph_address=str(self._control.address)
            )
            if local:
                DOORS.open(self, self._loop)
            address = self._listener.address
            await self._control.request(
                OpenPublisher(
                    self.publisher_id, topic, self.pid, boot_id(),
                    address.host, address.port, self._listener.door, num_buffers,
                )
            )  # fmt: skip
        except BaseException:
            self.close()
            await self.wait_closed()
            raise
        return self

    @staticmethod
    def _delivery(topic: str, force_tcp: bool | None, allow_local: bool | None) -> tuple[bool, bool]:
        tcp_only = config.force_tcp() if force_tcp is None else force_tcp
        local = config.allow_local() if allow_local is None else allow_local
        if tcp_only and local:
            logger.info("force_tcp=True disables local delivery for publisher on %s", topic)
            local = False
        return tcp_only, local

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "running" if self.running else "paused"
        return f"<Publisher {self.topic} {state} channels={len(self._outlets)} inflight={self._slots.inflight}>"

    # -- publishing ---------------------------------------------------------------------------------------------------

    async def broadcast(self, obj: Any) -> None:
        """Send one message to every subscriber that this topic reaches.

        Waits while paused, and while the slot it would reuse is still held by a slow subscriber. Subscribers of this
        process get this very object, others a pickled copy: do not change it afterwards.

        Raises:
            PublisherClosed: The publisher was closed, before or while waiting.
            MessageTooLarge: The message needs more bytes than the limit; nothing was sent.
            MessageNotSerializable: It cannot be pickled for another process; nothing was sent.
        """
        start_ns = publish_ns = PROFILE_TIME()
        wait_ns = 0
        slots = self._slots
        held = slots.held
        # At least one turn of the loop per round of the ring: a publisher that nobody holds up must not starve it.
        if not self._next_id % self.num_buffers:
            self._profiles.relieve()
            await asyncio.sleep(0)
            publish_ns = PROFILE_TIME()
        if self._blocked or self._waiting or held[self._next_id % self.num_buffers]:
            wait_ns = await self._clear_to_send()
            publish_ns = PROFILE_TIME()
        message_id = self._next_id
        metrics = self._metrics
        context = current_message.get()
        trace: tuple[int, int, int] | None = None
        if context is None:
            origin_ns = start_ns
            if start_ns >= metrics.next_root_ns and metrics.begin_root(start_ns):
                trace = (new_trace_id(), new_span_id(), 0)
        else:
            origin_ns = context.origin_ns
            if context.trace is not None:
                trace = (context.trace[0], new_span_id(), context.trace[1])
        carried = None if trace is None else (trace[0], trace[1])
        serialize_ns = size = 0
        remotes = self._remotes
        encoded: Encoded | None = None
        if remotes:
            encoded = self._encode(obj)
            size = encoded.size
            encoded_ns = PROFILE_TIME()
            serialize_ns = encoded_ns - publish_ns
            publish_ns = encoded_ns
        # From here on nothing fails and nothing waits.
        self._next_id = message_id + 1
        if self._bits:
            held[message_id % self.num_buffers] = self._bits
            slots.inflight += 1
            for target in self._targets:
                target.hand(CachedMessage(message_id, obj, origin_ns, publish_ns, publish_ns, size, carried, 1))
            if encoded is not None:
                parts = ChannelOutlet.frame(message_id, publish_ns, origin_ns, encoded, carried)
                for outlet in remotes:
                    outlet.send(parts)
        metrics.published(
            message_id, origin_ns, start_ns, PROFILE_TIME(), wait_ns, serialize_ns, size,
            slots.inflight, len(self._outlets), trace,
        )  # fmt: skip

    def _encode(self, obj: Any) -> Encoded:
        try:
            encoded = encode(obj)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise MessageNotSerializable(self.topic, type(obj).__qualname__, reason) from error
        if encoded.size > self._max_bytes:
            raise MessageTooLarge(self.topic, encoded.size, self._max_bytes)
        return encoded

    async def _clear_to_send(self) -> int:
        """Stand in line, and wait out a pause or a held slot; returns how much of it was backpressure, in ns.

        Whoever called `broadcast` first sends first: the caller sends before anybody else runs.
        """
        began_ns, stalled_ns = PROFILE_TIME(), self._stalled_ns
        self._waiting += 1
        try:
            async with self._line:
                while not self._is_closed:
                    if self._blocked:
                        await self._running.wait()
                    elif self._slots.held[self._next_id % self.num_buffers]:
                        await self._stall()
                    else:
                        return min(self._stalled_ns - stalled_ns, PROFILE_TIME() - began_ns)
                raise PublisherClosed(self.topic)
        finally:
            self._waiting -= 1

    async def _stall(self) -> None:
        began_ns = PROFILE_TIME()
        if self._warns and began_ns - self._warned_ns > BACKPRESSURE_WARNING_INTERVAL_NS:
            self._warned_ns = began_ns
            logger.warning("%s under subscriber backpressure!", self.topic)
        try:
            await self._any_release()
        finally:
            self._stalled_ns += PROFILE_TIME() - began_ns

    async def _any_release(self) -> None:
        if self._freed is None:
            self._freed = self._loop.create_future()
            self._slots.is_awaited = True
        # Shielded: a broadcast and any number of `sync` may wait for the same release, and one of them be cancelled.
        await asyncio.shield(self._freed)

    # -- flow ---------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether `broadcast` sends, as opposed to waiting for `resume()` or being closed."""
        return not self._blocked

    def pause(self) -> None:
        """Make every `broadcast` wait from now on."""
        self._blocked = True
        self._running.clear()

    def resume(self) -> None:
        """Let `broadcast` go on."""
        if not self._is_closed:
            self._blocked = False
        self._running.set()

    async def sync(self) -> None:
        """Pause, and wait until every message sent so far was released. Stays paused until `resume()`."""
        self.pause()
        while self._slots.inflight:
            await self._any_release()

    # -- called by transports -----------------------------------------------------------------------------------------

    @property
    def release(self) -> Callable[[int, int], None]:
        """Called with a channel's bit and the id of a message that it is done with."""
        return self._slots.release

    def attach(self, outlet: Outlet) -> tuple[int, int]:
        """A channel arrived: its bit, and the id of the first message it gets."""
        if self._is_closed:
            raise PublisherClosed(self.topic)
        bit = self._slots.add_channel()
        self._outlets.add(outlet)
        self._bits |= bit
        if isinstance(outlet, LocalLink):
            self._targets = (*self._targets, outlet.target)
        elif isinstance(outlet, ChannelOutlet):
            self._remotes = (*self._remotes, outlet)
        return bit, self._next_id

    def detach(self, outlet: Outlet) -> None:
        """A channel left: what it held is released."""
        if outlet not in self._outlets:
            return
        self._outlets.discard(outlet)
        self._bits &= ~outlet.bit
        self._targets = tuple(other.target for other in self._outlets if isinstance(other, LocalLink))
        self._remotes = tuple(other for other in self._outlets if isinstance(other, ChannelOutlet))
        self._slots.remove_channel(outlet.bit)

    def _slot_freed(self) -> None:
        self._slots.is_awaited = False
        freed, self._freed = self._freed, None
        if freed is not None and not freed.done():
            freed.set_result(None)

    # -- called by the control connection -----------------------------------------------------------------------------

    def on_request(self, _connection: object, record: Record) -> Any:
        """The server passes on what somebody asked of all publishers."""
        if isinstance(record, Pause):
            self.pause()
        elif isinstance(record, Resume):
            self.resume()
        elif isinstance(record, Sync):
            return self._synced()
        else:
            raise EzmsgError(f"a publisher has no answer to {type(record).__name__}")
        return Done()

    async def _synced(self) -> Record:
        await self.sync()
        return Done()

    def on_notice(self, _connection: object, record: Record) -> None:
        """Nothing else is told to a publisher."""

    def on_closed(self, _connection: object, error: Exception | None) -> None:
        """The server is gone: messages go on to the channels that are connected."""

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop publishing. What was sent still arrives; waiting broadcasts raise PublisherClosed."""
        if self._is_closed:
            return
        self._is_closed = True
        self._blocked = True
        self._running.set()
        DOORS.close(self.publisher_id)
        self._profiles.unregister_publisher(self.id)
        for outlet in list(self._outlets):
            outlet.close_soon()
            self.detach(outlet)
            self._leaving.add(asyncio.ensure_future(outlet.wait_closed()))
        self._slot_freed()
        self._leaving.add(asyncio.ensure_future(self._listener.close()))
        self._control.close_soon()

    async def wait_closed(self) -> None:
        """Wait until what was sent is delivered and nothing of this publisher is left."""
        if self._leaving:
            await asyncio.wait(self._leaving)
        await self._control.wait_closed()
