"""Messages over a socket, whatever a transport adds to it.

Each channel has a connection of its own to its publisher: messages go one way, releases the other. Backpressure bounds
what lies in either direction.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

from ezmsg.core import config
from ezmsg.core.errors import ConnectionFailed, ConnectionLost, EzmsgError, ProtocolError
from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.messagecache import CachedMessage
from ezmsg.core.net.address import boot_id
from ezmsg.core.net.framestream import FrameStream
from ezmsg.core.profiling import TraceIds, message_clock
from ezmsg.core.transport import PublisherDoor, Receiver, Source, Undecoded
from ezmsg.core.wire.frames import REPLY, REQUEST, Frame, FrameDecoder, encode_frame, error_of, refusal_of
from ezmsg.core.wire.messages import (
    ALIGNMENT,
    BUFFERS_MAX,
    CALCULATED,
    FLAGS_SHIFT,
    NUMBER_SHIFT,
    PADDING_MASK,
    PADDING_SHIFT,
    PARTS,
    SAMPLED,
    SEGMENT,
    TRACE_BYTES,
    MessageDecoder,
    decode_ack,
    decode_trace,
    encode_ack,
    large_size,
)
from ezmsg.core.wire.records import (
    ACK_OPCODE,
    ChannelOpened,
    OpenChannel,
    PublisherRoute,
    Record,
    Refusal,
    SlotHolder,
    decode_record,
    encode_record,
)

logger = logging.getLogger("ezmsg")

DIAL_TIMEOUT_S = 2.0
# A peer that is authenticated but does not open its channel within this time is cut off.
OPEN_TIMEOUT_S = 5.0
# How long a publisher that ends waits for a peer to take what was sent to it.
LINGER_S = 5.0
# Beside the message itself: header, trace context, the head of an array, and for each buffer its size and padding.
MESSAGE_OVERHEAD_BYTES = (1 << 20) + BUFFERS_MAX * (8 + ALIGNMENT)
# Memory of large messages that a connection keeps to use it again.
POOL_BYTES = 32 << 20
# What chains that began by another host's clock say here of when they did: also to whoever is sent what follows.
UNKNOWN_ORIGIN_S = -1.0
_SAMPLED = SAMPLED << FLAGS_SHIFT
_TRACED = (SAMPLED | CALCULATED) << FLAGS_SHIFT
_SEGMENT = SEGMENT << FLAGS_SHIFT
_LARGE = (PARTS | SEGMENT) << FLAGS_SHIFT


class BufferPool:
    """Memory for large messages, used again once nobody has a view of it.

    Memory that was used lately is in the caches, and need not be zeroed by the system first.
    """

    def __init__(self, limit: int = POOL_BYTES) -> None:
        self._limit = limit
        self._size = 0
        # Used last: at the end.
        self._buffers: list[bytearray] = []

    def take(self, opcode: int, size: int) -> memoryview:
        """Writable memory of so many bytes."""
        buffers = self._buffers
        for index in range(len(buffers) - 1, -1, -1):
            # Whoever has a view of a bytearray holds it. Here hold it: the list, and the argument.
            if size <= len(buffers[index]) <= 2 * size and sys.getrefcount(buffers[index]) == 2:
                buffer = buffers.pop(index)
                break
        else:
            buffer = bytearray(size)
            if size > self._limit:
                return memoryview(buffer)
            self._size += size
            self._make_room()
        buffers.append(buffer)
        return memoryview(buffer)[:size]

    def _make_room(self) -> None:
        while self._size > self._limit:
            self._size -= len(self._buffers.pop(0))


class MessageSocket(FrameStream):
    """One connection of the message path, at either end."""

    def __init__(self, name: str, decoder: FrameDecoder | None = None, gather: int | None = None) -> None:
        # What may wait for a peer is bounded by the slots of the publisher, not in bytes.
        super().__init__(name, write_limit=1 << 62, decoder=decoder, gather=gather)
        self._closing: asyncio.Task[None] | None = None

    def write_record(self, record: Record, flags: int) -> None:
        """Send one record."""
        opcode, body = encode_record(record)
        self.write(encode_frame(opcode, body, 0, flags))

    def write_alone(self, frame: bytes) -> None:
        """As `write`, of a frame after which none is expected in this turn of the loop: no turn begins with it.

        To end one, the loop would have to turn once more.
        """
        if self._in_turn:
            self.write(frame)
        elif not self._is_closing and self._transport is not None:
            with self._sending:
                self._transport.write(frame)

    def close_soon(self) -> None:
        """Begin to close: what was written is still delivered, for LINGER_S at most."""
        if self._closing is None:
            self._closing = self._loop.create_task(self.close(LINGER_S), name=f"close {self.name}")

    async def wait_closed(self) -> None:
        """Wait until nothing of the connection is left."""
        await super().wait_closed()
        if self._closing is not None and self._closing is not asyncio.current_task():
            await asyncio.wait([self._closing])


class ChannelOutlet(MessageSocket):
    """The publisher's end of one channel.

    Attributes:
        reads_segment: Whether the channel sees the publisher's shared memory.
        holder: The topic of the subscriber that released a message last.
    """

    _release: Callable[[int], None]
    reads_segment = False

    def __init__(self, door: PublisherDoor, name: str) -> None:
        # The channel works on one half of the slots while the other half is being filled.
        super().__init__(name, gather=max(1, door.num_buffers // 2))
        self._door = door
        self._is_open = False
        self._deadline = self._loop.call_later(OPEN_TIMEOUT_S, self.abort)
        self.bit = 0
        self.holder = ""

    def frame_received(self, frame: Frame) -> None:
        """An acknowledgement; or, first, the opening of the channel."""
        if self._is_open:
            if frame.opcode != ACK_OPCODE:
                self._told(decode_record(frame.opcode, frame.body))
                return
            release = self._release
            for message_id in decode_ack(frame.body):
                release(message_id)
            return
        record = decode_record(frame.opcode, frame.body)
        if not isinstance(record, OpenChannel) or not frame.flags & REQUEST:
            raise ProtocolError(f"a channel began with {type(record).__name__} instead of OpenChannel")
        self._open(record)

    def _told(self, record: Record) -> None:
        if not isinstance(record, SlotHolder):
            raise ProtocolError(f"a channel sent {type(record).__name__} instead of acknowledgements")
        self.holder = record.topic

    def _open(self, record: OpenChannel) -> None:
        self._deadline.cancel()
        door = self._door
        try:
            if record.publisher_id != door.publisher_id:
                raise ConnectionFailed(f"publisher {record.publisher_id} is not here")
            self.bit, next_message_id = door.attach(self)
            self._release = door.releaser(self.bit)
        except EzmsgError as error:
            self.write_record(refusal_of(error), REPLY)
            self.close_soon()
            return
        self._is_open = True
        self.write_record(ChannelOpened(door.topic, door.num_buffers, next_message_id, door.trace_ids.told), REPLY)

    def stream_ended(self, error: Exception | None) -> None:
        """The channel is gone: the publisher releases what it held."""
        self._deadline.cancel()
        if self._is_open:
            self._door.detach(self)


class ChannelInlet(MessageSocket):
    """The channel's end.

    Args:
        receiver: Gets the messages.
        opening: What to ask the publisher first.
        source: What the bytes of its messages need to become objects.
        is_foreign: The publisher's clock is not ours.
    """

    def __init__(self, receiver: Receiver, opening: OpenChannel, source: Source, *, is_foreign: bool = False) -> None:
        limit = config.max_message_bytes() + MESSAGE_OVERHEAD_BYTES
        self._messages = MessageDecoder(limit, allocate=BufferPool().take)
        super().__init__(f"publisher on {opening.topic}", decoder=self._messages)
        self._receiver = receiver
        self._source = source
        self._is_foreign = is_foreign
        self._opening = opening
        self.trace_ids: TraceIds | None = None
        self._opened: asyncio.Future[ChannelOpened] = self._loop.create_future()
        # Messages in the publisher's memory that are held here; and whether to close when they are not any more.
        self._placed: set[int] = set()
        self._is_leaving = False
        self._acks: list[int] = []
        self._newest = -1
        self._holder = ""
        self._ack_at = 1
        self._acks_scheduled = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the publisher's messages."""
        super().connection_made(transport)
        self.write_record(self._opening, REQUEST)

    async def opened(self) -> ChannelOpened:
        """Wait for the publisher's answer.

        Raises:
            ConnectionFailed: It refused, or hung up.
        """
        return await self._opened

    def take(self, nbytes: int) -> None:
        """Messages; or, first, the answer to the opening."""
        if not self._opened.done():
            for frame in self._messages.received(nbytes):
                self._answered(decode_record(frame.opcode, frame.body))
                break
            if not self._opened.done() or self._is_closing:
                return
            nbytes = 0
        chunk, found = self._messages.messages(nbytes)
        if not found:
            return
        now_s = message_clock()
        self._newest = found[-1][0]
        receive, source, is_foreign = self._receiver.receive, self._source, self._is_foreign
        for message_id, publish_s, origin_s, layout, start, stop in found:
            trace = at = None
            if layout & _TRACED:
                if layout & _SAMPLED:
                    trace = decode_trace(chunk, start, stop)
                    start += TRACE_BYTES
                else:
                    trace = self.trace_ids
                layout &= ~_TRACED
            if layout & _LARGE:
                if layout & _SEGMENT:
                    at = source.see(chunk, start, stop, layout)
                    self._placed.add(message_id)
                size = large_size(chunk, start, stop, layout, at)
            else:
                # What the publisher counts: neither padding nor the head of an array.
                size = stop - start - (layout >> NUMBER_SHIFT) - (layout >> PADDING_SHIFT & PADDING_MASK)
                if size < 0:
                    size = 0  # a lie, which will be found out
            if is_foreign:
                origin_s = UNKNOWN_ORIGIN_S
            message = Undecoded(source, layout, chunk, start, stop, at)
            receive(message_id, message, origin_s, publish_s, now_s, size, trace)

    def _answered(self, record: Record) -> None:
        if isinstance(record, ChannelOpened):
            # Half of the slots may wait for the end of the turn; the publisher still has the other half.
            self._ack_at = max(1, record.num_buffers // 2)
            self.trace_ids = TraceIds(record.trace_ids)
            self._opened.set_result(record)
        elif isinstance(record, Refusal):
            self._opened.set_exception(error_of(record))
        else:
            raise ProtocolError(f"a publisher answered OpenChannel with {type(record).__name__}")

    def close_soon(self) -> None:
        """The channel leaves: at once, or when the last message is let go of that lies in the publisher's memory.

        The publisher uses it again as soon as the connection is gone, under the hands of whoever still reads.
        """
        self._is_leaving = True
        if not self._placed:
            super().close_soon()

    async def wait_closed(self) -> None:
        """Wait until nothing of the connection is left, unless somebody still reads: it may be who waits."""
        if not (self._is_leaving and self._placed):
            await super().wait_closed()

    def stream_ended(self, error: Exception | None) -> None:
        """The publisher is gone."""
        self._placed.clear()
        if not self._opened.done():
            self._opened.set_exception(ConnectionLost(self._opening.topic, "the publisher hung up"))
        # What is still queued holds the source; this end of a connection, being part of a cycle, must not.
        self._source.close()
        self._source = Source()
        self._receiver.ended(error)

    def only_listener(self, subscription: Any) -> None:
        """Nothing changes."""

    def record_publish(self, message: CachedMessage) -> None:
        """The publisher does it itself."""

    # -- acknowledgements ---------------------------------------------------------------------------------------------

    @property
    def acknowledge(self) -> Callable[[int], None]:
        """Tells the publisher."""
        return self._acknowledge

    def _acknowledge(self, message_id: int) -> None:
        """Release a message at the publisher: at half its slots at once, and with the message that came last.

        Most likely nothing follows it then. Others wait for the end of the turn of the loop.
        """
        if self._placed:
            self._placed.discard(message_id)
            if self._is_leaving:
                self.close_soon()
        acks = self._acks
        acks.append(message_id)
        if message_id == self._newest or len(acks) >= self._ack_at:
            self._send_acks()
        elif not self._acks_scheduled:
            self._acks_scheduled = True
            self._loop.call_soon(self._send_scheduled_acks)

    @property
    def acknowledge_for(self) -> Callable[[int, str], None]:
        """Tells the publisher."""
        return self._acknowledge_for

    def _acknowledge_for(self, message_id: int, topic: str) -> None:
        self.holder_is(topic)
        self._acknowledge(message_id)

    def holder_is(self, topic: str) -> None:
        """Tell the publisher, in front of what is acknowledged from here on."""
        if topic != self._holder:
            self._holder = topic
            if self._acks:
                self._send_acks()
            self.write_record(SlotHolder(topic), 0)

    def _send_scheduled_acks(self) -> None:
        self._acks_scheduled = False
        if self._acks:
            self._send_acks()

    def _send_acks(self) -> None:
        acks, self._acks = self._acks, []
        self.write_alone(encode_ack(acks))


# -- connecting -------------------------------------------------------------------------------------------------------


def opening_of(route: PublisherRoute, channel_id: str) -> OpenChannel:
    """How a channel of this process asks for a publisher's messages."""
    return OpenChannel(channel_id, route.publisher_id, os.getpid(), boot_id(), route.topic)


async def join(inlet: ChannelInlet, sock: socket.socket, kind: ProfileChannelType, receiver: Receiver) -> None:
    """Begin with an authenticated connection, which is the inlet's from now on.

    Raises:
        ConnectionFailed: The publisher does not accept the channel, or does not answer.
    """
    # Now, not when the answer is there: messages may come in the same breath, and each must be acknowledged.
    receiver.opened(inlet, kind)
    await inlet.attach(sock)
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            await inlet.opened()
    except BaseException as error:
        inlet.abort()
        await inlet.wait_closed()
        if isinstance(error, TimeoutError):
            raise ConnectionFailed(f"{inlet.name} does not answer") from error
        raise
