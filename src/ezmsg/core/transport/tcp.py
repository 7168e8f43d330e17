"""Messages over a socket: TCP, or the Unix door between processes of one host.

Each channel has a connection of its own to its publisher. Messages go one way as frames, acknowledgements the other;
backpressure bounds what lies in either direction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from ezmsg.core import config
from ezmsg.core.errors import ConnectionFailed, ConnectionLost, EzmsgError, ProtocolError
from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.messagecache import CachedMessage
from ezmsg.core.messagemarshal import Encoded
from ezmsg.core.net.address import Address, boot_id
from ezmsg.core.net.authkey import load_key
from ezmsg.core.net.dial import connect
from ezmsg.core.net.door import open_door
from ezmsg.core.net.framestream import FrameStream
from ezmsg.core.net.listener import Listener, bind_tcp
from ezmsg.core.profiling import message_clock
from ezmsg.core.transport import PublisherDoor, Receiver, Undecoded
from ezmsg.core.wire.frames import REPLY, REQUEST, Frame, encode_frame, error_of, refusal_of
from ezmsg.core.wire.handshake import PeerInfo
from ezmsg.core.wire.messages import decode_ack, decode_message, encode_ack, encode_message_header, message_parts
from ezmsg.core.wire.records import (
    ACK_OPCODE,
    MESSAGE_OPCODE,
    ChannelOpened,
    OpenChannel,
    PublisherRoute,
    Record,
    Refusal,
    decode_record,
    encode_record,
)

logger = logging.getLogger("ezmsg")

DIAL_TIMEOUT_S = 2.0
# A peer that is authenticated but does not open its channel within this time is cut off.
OPEN_TIMEOUT_S = 5.0
# How long a publisher that ends waits for a peer to take what was sent to it.
LINGER_S = 5.0
# Frames up to this size are joined into one write.
JOIN_BYTES = 1 << 16
# Beside the message itself: header, trace context, buffer sizes, padding.
MESSAGE_OVERHEAD_BYTES = 1 << 20


class MessageSocket(FrameStream):
    """One connection of the message path, at either end."""

    def __init__(self, name: str) -> None:
        # What may wait for a peer is bounded by the slots of the publisher, not in bytes.
        super().__init__(name, frame_limit=config.max_message_bytes() + MESSAGE_OVERHEAD_BYTES, write_limit=1 << 62)
        self._closing: asyncio.Task[None] | None = None

    def write_record(self, record: Record, flags: int) -> None:
        """Send one record."""
        opcode, body = encode_record(record)
        self.write(encode_frame(opcode, body, 0, flags))

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
    """The publisher's end of one channel."""

    _release: Callable[[int], None]

    def __init__(self, door: PublisherDoor, name: str) -> None:
        super().__init__(name)
        self._door = door
        self._is_open = False
        self._deadline = self._loop.call_later(OPEN_TIMEOUT_S, self.abort)
        self.bit = 0

    def send(self, parts: list[bytes | memoryview]) -> None:
        """Send a message as `frame` made it.

        The first of a turn of the loop goes out at once: it is not held back by what its sender computes next.
        """
        if len(parts) == 1:
            self.write(parts[0])  # pyright: ignore[reportArgumentType] - a frame in one part is bytes
        else:
            self.write_parts(parts)

    def frame_received(self, frame: Frame) -> None:
        """An acknowledgement; or, first, the opening of the channel."""
        if self._is_open:
            if frame.opcode != ACK_OPCODE:
                raise ProtocolError(f"a channel sent opcode {frame.opcode} instead of acknowledgements")
            release = self._release
            for message_id in decode_ack(frame.body):
                release(message_id)
            return
        record = decode_record(frame.opcode, frame.body)
        if not isinstance(record, OpenChannel) or not frame.flags & REQUEST:
            raise ProtocolError(f"a channel began with {type(record).__name__} instead of OpenChannel")
        self._open(record)

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
        self.write_record(ChannelOpened(door.topic, door.num_buffers, next_message_id), REPLY)

    def stream_ended(self, error: Exception | None) -> None:
        """The channel is gone: the publisher releases what it held."""
        self._deadline.cancel()
        if self._is_open:
            self._door.detach(self)

    @staticmethod
    def frame(
        message_id: int, publish_s: float, origin_s: float, encoded: Encoded, trace: tuple[int, int] | None
    ) -> list[bytes | memoryview]:
        """A message as parts to send: one where it is small, the large buffers by themselves where it is not."""
        codec, head, buffers, size = encoded
        if not buffers:
            header = encode_message_header(message_id, publish_s, origin_s, codec, len(head), (), trace)
            return [header + head] if size <= JOIN_BYTES else [header, head]
        sizes = [buffer.nbytes for buffer in buffers]
        header = encode_message_header(message_id, publish_s, origin_s, codec, len(head), sizes, trace)
        parts = message_parts(header, head, buffers)
        return [b"".join(parts)] if size <= JOIN_BYTES else parts


class ChannelInlet(MessageSocket):
    """The channel's end."""

    def __init__(self, receiver: Receiver, opening: OpenChannel) -> None:
        super().__init__(f"publisher on {opening.topic}")
        self._receiver = receiver
        self._opening = opening
        self._opened: asyncio.Future[ChannelOpened] = self._loop.create_future()
        self._acks: list[int] = []
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
        answer = await self._opened
        # Half of the slots may wait for the end of the turn; the publisher still has the other half.
        self._ack_at = max(1, answer.num_buffers // 2)
        return answer

    def frame_received(self, frame: Frame) -> None:
        """A message; or, first, the answer to the opening."""
        if frame.opcode != MESSAGE_OPCODE:
            self._answered(decode_record(frame.opcode, frame.body))
            return
        # A frame that is not ours lies in a buffer that the next read overwrites.
        body = frame.body if frame.is_owned else memoryview(bytearray(frame.body))
        header, head, buffers = decode_message(body)
        self._receiver.receive(
            header.message_id,
            Undecoded(header.codec, head, buffers),
            header.origin_s,
            header.publish_s,
            message_clock(),
            len(body),
            header.trace,
        )

    def _answered(self, record: Record) -> None:
        if self._opened.done():
            raise ProtocolError(f"a publisher sent {type(record).__name__} instead of a message")
        if isinstance(record, ChannelOpened):
            self._opened.set_result(record)
        elif isinstance(record, Refusal):
            self._opened.set_exception(error_of(record))
        else:
            raise ProtocolError(f"a publisher answered OpenChannel with {type(record).__name__}")

    def stream_ended(self, error: Exception | None) -> None:
        """The publisher is gone."""
        if not self._opened.done():
            self._opened.set_exception(ConnectionLost(self._opening.topic, "the publisher hung up"))
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
        """Release a message at the publisher: at half its slots at once, else when this turn of the loop ends."""
        acks = self._acks
        acks.append(message_id)
        if len(acks) >= self._ack_at:
            self._send_acks()
        elif not self._acks_scheduled:
            self._acks_scheduled = True
            self._loop.call_soon(self._send_scheduled_acks)

    def _send_scheduled_acks(self) -> None:
        self._acks_scheduled = False
        if self._acks:
            self._send_acks()

    def _send_acks(self) -> None:
        acks, self._acks = self._acks, []
        self.write(encode_ack(acks))


# -- connecting -------------------------------------------------------------------------------------------------------


async def connect_channel(
    route: PublisherRoute, receiver: Receiver, channel_id: str, *, same_host: bool
) -> ChannelInlet:
    """Connect a channel to a publisher of another process (or, without local delivery, of this one).

    Args:
        route: Where the publisher is; its Unix door is tried first on the same host.
        receiver: Gets the messages.
        channel_id: Names the channel to the publisher.
        same_host: Whether the door can be reached.

    Raises:
        ConnectionFailed: The publisher cannot be reached, or does not accept the channel.
    """
    sock, _peer = await _dial(route, same_host)
    opening = OpenChannel(channel_id, route.publisher_id, os.getpid(), boot_id(), route.topic)
    inlet = ChannelInlet(receiver, opening)
    # Now, not when the answer is there: messages may come in the same breath, and each must be acknowledged.
    receiver.opened(inlet, ProfileChannelType.TCP)
    await inlet.attach(sock)
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            await inlet.opened()
    except BaseException as error:
        inlet.abort()
        await inlet.wait_closed()
        if isinstance(error, TimeoutError):
            raise ConnectionFailed(f"the publisher on {route.topic!r} does not answer") from error
        raise
    return inlet


async def _dial(route: PublisherRoute, same_host: bool) -> tuple[socket.socket, PeerInfo]:
    key = load_key()
    if same_host and route.door:
        # Another network namespace of the same host has no such door: then TCP.
        with contextlib.suppress(ConnectionFailed):
            return await connect(route.door, key, DIAL_TIMEOUT_S)
    return await connect(Address(route.host, route.port), key, DIAL_TIMEOUT_S)


class MessageListener:
    """Where channels of other processes reach a publisher."""

    def __init__(self, address: Address, door: str) -> None:
        self.address = address
        self.door = door
        self._listener: Listener | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._outlets: set[ChannelOutlet] = set()

    @classmethod
    async def open(cls, door: PublisherDoor, host: str | None, port: int | None, *, with_door: bool) -> MessageListener:
        """Listen on TCP and, where the host has such a thing and it is wanted, on a Unix door.

        Args:
            door: The publisher that is reached.
            host: Interface; None for loopback.
            port: None for the first free one from EZMSG_PUBLISHER_PORT_START.
            with_door: Whether to offer the door.

        Raises:
            OSError: The address cannot be bound.
            InsecureBind: `host` is not loopback and no key was configured.
        """
        key = load_key()
        tcp = bind_tcp(
            host or config.DEFAULT_HOST, port, key,
            search_from=config.publisher_port_start(), skip={config.GRAPHSERVER_PORT_DEFAULT},
        )  # fmt: skip
        sockets = [tcp]
        door_name = ""
        if with_door:
            door_socket, door_name = open_door()
            if door_socket is not None:
                sockets.append(door_socket)
        self = cls(Address(*tcp.getsockname()[:2]), door_name)
        loop = asyncio.get_running_loop()

        def on_peer(sock: socket.socket, info: PeerInfo, name: str) -> None:
            task = loop.create_task(self._serve(ChannelOutlet(door, name), sock), name=f"channel to {name}")
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

        self._listener = await Listener.start(sockets, key, on_peer, name=f"publisher {door.topic}")
        return self

    async def _serve(self, outlet: ChannelOutlet, sock: socket.socket) -> None:
        await outlet.attach(sock)
        self._outlets.add(outlet)
        try:
            await outlet.wait_closed()
        finally:
            self._outlets.discard(outlet)

    async def close(self) -> None:
        """Accept nobody any more, and wait until every channel got what was sent to it and is closed."""
        assert self._listener is not None
        await self._listener.close()
        while self._serving:
            for outlet in self._outlets:
                outlet.close_soon()
            await asyncio.wait(self._serving, return_when=asyncio.FIRST_COMPLETED, timeout=LINGER_S)
