"""A publisher: sends each message to every channel of its topic, and waits for the slowest of them."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any
from uuid import uuid4

from ezmsg.core import config
from ezmsg.core.control import ControlClient
from ezmsg.core.control.link import WAIT_S, ServerLink
from ezmsg.core.currentmessage import LATER, begin_trace, get_current_message
from ezmsg.core.errors import (
    EzmsgError,
    PublisherClosed,
)
from ezmsg.core.flow import Flow
from ezmsg.core.messagecache import CachedMessage
from ezmsg.core.messagemarshal import Encoded
from ezmsg.core.net.address import AddressType, boot_id
from ezmsg.core.profiling import (
    PROFILES,
    ProfileRegistry,
    PublishTrace,
    TraceIds,
    message_clock,
    new_span_id,
    new_trace_id,
    random_bits,
)
from ezmsg.core.recorder.rows import ROW_BYTES, SAMPLED, pack_row
from ezmsg.core.remotes import Remotes
from ezmsg.core.transport import Outlet
from ezmsg.core.transport.local import DOORS, LocalLink
from ezmsg.core.transport.messagelistener import MessageListener
from ezmsg.core.transport.stream import ChannelOutlet
from ezmsg.core.wire.records import Done, OpenPublisher, Pause, Record, Resume, Sync
from ezmsg.core.wire.records.fields import buffers_of, port_of, require_name

logger = logging.getLogger("ezmsg")

DEFAULT_NUM_BUFFERS = 32
DEFAULT_BUF_SIZE = 65536


class Publisher(Flow):
    """Sends messages on a topic.

    Made by `Publisher.create` (or `GraphContext.publisher`), used on the event loop that made it.

    Attributes:
        id: Identifies this publisher in the graph.
        pid: The process it was made in.
        topic: What it publishes on.
        log_name: How it is called in logs.
    """

    # Slots as `Flow` has them; the `__dict__` is for whoever wants to patch.
    __slots__ = (
        "__dict__", "__weakref__", "_bits", "_control", "_direct", "_leaving", "_listener", "_locals", "log_name",
        "pid", "publisher_id",
    )  # fmt: skip

    _control: ServerLink
    _listener: MessageListener

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError("use `await Publisher.create(topic, ...)` or `await context.publisher(topic)`")

    def _prepare(self, topic: str, num_buffers: int, start_paused: bool) -> None:
        self.id = uuid4()
        self.publisher_id = str(self.id)
        self.pid = os.getpid()
        self.topic = topic
        self.log_name = f"{topic}({self.publisher_id[:8]})"
        self._prepare_flow(num_buffers, start_paused)
        self._bits = 0
        # Who is handed the very object; if there is nobody else, and just one subscriber, it.
        self._locals: tuple[LocalLink, ...] = ()
        self._direct: Any = None
        self._remotes = Remotes(self)
        self._leaving: set[asyncio.Future[None]] = set()

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
        unit: str = "",
        task: str = "",
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
            unit: The address of the unit that publishes, for telemetry.
            task: Its task.

        Raises:
            ServerUnreachable: No GraphServer answers at the address.
            InsecureBind: `host` is not loopback and no key was configured.
            ValueError: `num_buffers` is not positive, `port` is no port, or `topic` cannot be a name.
        """
        require_name("topic", topic)
        port, num_buffers = port_of(port), buffers_of(num_buffers)
        self = object.__new__(cls)
        self._prepare(topic, num_buffers, start_paused)
        self._profiles = profiles
        tcp_only, local = cls._delivery(topic, force_tcp, allow_local)
        self._listener = await MessageListener.open(
            f"publisher {topic}", host, port, self._remotes.welcome, with_door=not tcp_only
        )
        try:
            self._control = await ServerLink.connect(graph_address, self, name=f"publisher {topic}")
        except BaseException:
            await self._listener.close()
            raise
        try:
            self._metrics = self._profiles.register_publisher(
                self.id, topic, num_buffers, graph_address=str(self._control.address), unit=unit, task=task
            )
            if self._listener.door:
                self._remotes.open_memory(self._held, buf_size)
            self._metrics.inflight_gauge = lambda: self._slots.inflight
            self._metrics.waits.holder = self._holder_of
            self._metrics.left_to = lambda: self._direct
            if local:
                DOORS.open(self, self._loop)
            await self._control.introduce()
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
        start_s = publish_s = message_clock()
        wait_s = 0.0
        slot = self._slot
        if self._looks or self._held[slot]:
            wait_s = await self._clear_to_send(start_s)
            publish_s = message_clock()
            slot = self._slot
        metrics = self._metrics
        context = get_current_message()
        if context is not None:
            context.is_answered = True
            origin_s = context.origin_s
            within = context.trace
            if within is LATER:
                within = context.known_trace()
            trace = None if within is None else (within[0], random_bits(64) or 1, within[1], context.links)
        else:
            origin_s = start_s
            trace = None
            if start_s >= metrics.next_root_s and (metrics.begins_all or metrics.begin_root(start_s)):
                trace = begin_trace(metrics.ids)
        direct, teller = self._direct, metrics.teller
        if trace is not None and (not teller or (type(trace) is tuple and trace[3])):
            direct = None
        if direct is None or wait_s or not metrics.is_plain:
            if metrics.selects_all and direct is not None and not wait_s and trace is None:
                self._publish_selected(direct, obj, origin_s, start_s)
                return
            self._publish(obj, origin_s, start_s, publish_s, wait_s, trace)
            if self._remotes.lent:
                await self._remotes.settle()
            return
        # One subscriber of this loop is all: it records the publish together with what it does itself, and its trace.
        message_id = self._next_id
        self._next_id = metrics.sent = message_id + 1
        self._held[slot] = self._bits
        slot += 1
        if slot < self.num_buffers:
            self._slot = slot
        else:
            self._slot = 0
            self._looks = True
        metrics.last_start_s = start_s
        direct.queue.append(CachedMessage(
            direct, message_id, obj, origin_s, start_s, message_clock(), 0, trace, None, teller
        ))  # fmt: skip
        if direct.waiters:
            direct.wake()

    def _publish_selected(self, direct: Any, obj: Any, origin_s: float, start_s: float) -> None:
        """Send a message to the one subscriber there is, and record that for a native trace of all messages.

        Not left to the subscriber: the trace wants to know of the message before.
        """
        metrics = self._metrics
        # As `_publish` does.
        message_id, slot = self._next_id, self._slot
        self._next_id = metrics.sent = message_id + 1
        self._held[slot] = self._bits
        if slot + 1 < self.num_buffers:
            self._slot = slot + 1
        else:
            self._slot = 0
            self._looks = True
        channel_s = message_clock()
        metrics.record_selected(message_id, start_s, channel_s)
        direct.queue.append(CachedMessage(direct, message_id, obj, origin_s, channel_s, channel_s))
        if direct.waiters:
            direct.wake()

    def _publish(
        self,
        obj: Any,
        origin_s: float,
        start_s: float,
        publish_s: float,
        wait_s: float,
        ids: PublishTrace | TraceIds | None,
    ) -> None:
        """Send a message to every channel, and record that."""
        encoded: Encoded | None = None
        serialize_s, size = 0.0, 0
        remotes = self._remotes
        if remotes.outlets:
            try:
                encoded = remotes.encode(obj)
            except EzmsgError as error:
                # The number is that of the next message, too, and so are the ids that are calculated from it.
                trace = (new_trace_id(), new_span_id(), 0, ()) if isinstance(ids, TraceIds) else ids
                self._metrics.record_failed(self._next_id, origin_s, start_s, wait_s, type(error).__qualname__, trace)
                raise
            size = encoded.size
            encoded_s = message_clock()
            serialize_s = encoded_s - publish_s
            publish_s = encoded_s
        # From here on nothing fails.
        metrics = self._metrics
        # Count it, and lease its slot to all channels.
        message_id, slot = self._next_id, self._slot
        self._next_id = metrics.sent = message_id + 1
        self._held[slot] = self._bits
        if slot + 1 < self.num_buffers:
            self._slot = slot + 1
        else:
            self._slot = 0
            self._looks = True
        if type(ids) is TraceIds:
            # Whoever receives its bytes, or reads its row, calculates the ids.
            trace, context = None, ()
            if not metrics.is_plain or self._locals:
                trace = ids.publish(message_id)
        else:
            trace = context = ids
        for link in self._locals:
            link.receive(message_id, obj, origin_s, publish_s, publish_s, 0, trace)
        if encoded is not None:
            metrics.bytes += size
            remotes.send(message_id, origin_s, publish_s, encoded, context)
            metrics.shm_reallocations = remotes.reallocations
        if not metrics.timed:
            return
        fanout = len(self._outlets)
        # What travels as one bit was plain when it was sent, whatever another thread has asked for since.
        if trace is not None or (context is None and not metrics.is_plain):
            end_s = message_clock()
            metrics.record(message_id, origin_s, start_s, end_s, wait_s, serialize_s, size, fanout, trace)
            return
        # As `record` does, inline: the common case.
        metrics.last_start_s = start_s
        ring, meta = metrics.ring, metrics.meta
        offset = ring.head
        if context is not None:
            meta, origin_s = meta | SAMPLED, fanout
            if wait_s:
                meta |= metrics.take_blame()
        pack_row(
            ring.buffer, offset & ring.mask,
            meta, message_id, origin_s, start_s, message_clock(), wait_s, serialize_s, size,
        )  # fmt: skip
        ring.head = end = offset + ROW_BYTES
        if context is not None:
            _, extras, spans, samples = ring.marks
            ring.marks = (end, extras, spans + 1, samples)

    # -- called by transports -----------------------------------------------------------------------------------------

    @property
    def trace_ids(self) -> TraceIds:
        """Those of the traces that begin with messages of this publisher."""
        return self._metrics.ids

    def attach(self, outlet: Outlet) -> tuple[int, int]:
        """A channel arrived: its bit, and the id of the first message it gets."""
        if self._is_closed:
            raise PublisherClosed(self.topic)
        bit = self._slots.add_channel()
        self._outlets.add(outlet)
        self._bits |= bit
        self._choose_ways()
        return bit, self._next_id

    def detach(self, outlet: Outlet) -> None:
        """A channel left: what it held is released."""
        if outlet not in self._outlets:
            return
        self._slots.remove_channel(outlet.bit)
        self._outlets.discard(outlet)
        self._bits &= ~outlet.bit
        self._choose_ways()

    def rerouted(self) -> None:
        """The listeners of a channel of this loop changed."""
        self._choose_ways()

    def _choose_ways(self) -> None:
        self._locals = tuple(outlet for outlet in self._outlets if isinstance(outlet, LocalLink))
        self._remotes.outlets = tuple(outlet for outlet in self._outlets if isinstance(outlet, ChannelOutlet))
        self._metrics.goes_by(self._remotes.way, self._remotes.channels)
        only = self._locals[0] if len(self._outlets) == 1 and self._locals else None
        direct = None if only is None else only.direct
        # Who records for us does it where we do: another recorder does not know us.
        if direct is not None and direct.metrics.ring is not self._metrics.ring:
            direct = None
        if direct is not self._direct:
            self._record_left()
        self._direct = direct

    def _record_left(self) -> None:
        """Record what was left to a receiver that we are about to lose sight of."""
        direct = self._direct
        if direct is None:
            return
        index = self._metrics.index
        for message in [*direct.taken(), *direct.queue]:
            if message.publisher == index:
                self.record_publish(message)

    def record_publish(self, message: CachedMessage) -> None:
        """Record the publish of a message, which was left to a receiver that does not read it."""
        message.publisher, trace = 0, message.trace
        if isinstance(trace, TraceIds):
            message.trace = trace = trace.publish(message.message_id)
        self._metrics.record_late(message.message_id, message.origin_s, message.publish_s, message.channel_s, trace)
        message.publish_s = message.channel_s  # what is left of it is a hand-over

    # -- called by the control connection -----------------------------------------------------------------------------

    async def introduce(self, client: ControlClient) -> None:
        """Offer the topic at a server; when this returns, every subscriber that it knows to be reached is connected."""
        address = self._listener.address
        await client.request(
            OpenPublisher(
                self.publisher_id, self.topic, self.pid, boot_id(),
                address.host, address.port, self._listener.door, self.num_buffers, self._control.token,
            ),
            timeout_s=WAIT_S + config.subscriber_update_timeout_s(),
        )  # fmt: skip

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

    def on_end(self, reason: str) -> None:
        """The server has ended: messages go on to the channels that are connected."""

    # -- the end ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop publishing. What was sent still arrives; waiting broadcasts raise PublisherClosed."""
        if self._is_closed:
            return
        self._is_closed = True
        self._blocked = self._looks = True
        self._running.set()
        DOORS.close(self.publisher_id)
        self._record_left()
        self._leave_registry()
        for outlet in list(self._outlets):
            outlet.close_soon()
            self.detach(outlet)
            self._leaving.add(asyncio.ensure_future(outlet.wait_closed()))
        self._slot_freed()
        self._remotes.close()
        self._leaving.add(asyncio.ensure_future(self._listener.close()))
        self._control.close_soon()

    @property
    def is_connected(self) -> bool:
        """Whether it has a connection to the GraphServer."""
        return self._control.is_up

    def forget_graph(self) -> None:
        """The graph ends: tell the GraphServer nothing any more, not even that this is closed."""
        self._control.abort_soon()

    @property
    def is_gone(self) -> bool:
        """Whether it was closed, and `wait_closed` has nothing to wait for."""
        return self._is_closed and self._control.is_gone and all(left.done() for left in self._leaving)

    async def wait_closed(self) -> None:
        """Wait until what was sent is delivered and nothing of this publisher is left."""
        if self._leaving:
            await asyncio.wait(self._leaving)
        await self._control.wait_closed()
