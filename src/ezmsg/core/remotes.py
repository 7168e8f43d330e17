"""The channels of other processes that one publisher sends to: bytes out, by socket or through shared memory."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ezmsg.core import config
from ezmsg.core.errors import MessageNotSerializable, MessageTooLarge, SharedMemoryUnavailable
from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.messagemarshal import Encoded, Encoder
from ezmsg.core.profiling import message_clock
from ezmsg.core.transport import PublisherDoor, shm, tcp
from ezmsg.core.transport.stream import ChannelOutlet
from ezmsg.core.turns import Courtesy
from ezmsg.core.wire.messages import Context, encode_in_parts, encode_in_segment, encode_plain

logger = logging.getLogger("ezmsg")

# Messages up to this size are joined with others of their turn of the loop, rather than sent in parts.
JOIN_BYTES = 1 << 16
# Of messages in shared memory, so much is gathered before their reader is told. With more than so much of it held, its
# readers go first before every message: memory that was read and freed lately is still in the caches, and copying into
# it takes a third of the time.
TELL_BYTES = 4 << 20
WARM_BYTES = 3 << 20


class Remotes:
    """Serialises each message once, and sends it to every outlet.

    Attributes:
        outlets: The channels; falsy when there are none, and nothing need be serialised.
        lent: Those that still send memory of the last message (see `settle`).
        memory: Where large messages are shared, if anywhere.
    """

    __slots__ = ("_courtesy", "_door", "_encoder", "_max_bytes", "_num_buffers", "_untold", "lent", "memory", "outlets")

    def __init__(self, door: PublisherDoor) -> None:
        self._door = door
        self._num_buffers = door.num_buffers
        self._encoder = Encoder()
        self._max_bytes = config.max_message_bytes()
        self.memory: shm.MessageMemory | None = None
        self._untold = 0
        self._courtesy = Courtesy()
        self.outlets: tuple[ChannelOutlet, ...] = ()
        self.lent: list[ChannelOutlet] = []

    def open_memory(self, held: Sequence[int], place_bytes: int) -> None:
        """Have memory for large messages; says so if there is none.

        Args:
            held: Which slots are held.
            place_bytes: Expected size of a message.
        """
        try:
            self.memory = shm.MessageMemory(held, place_bytes, message_clock)
        except SharedMemoryUnavailable as error:
            logger.warning("%s; messages on %s go through a socket", error, self._door.topic)

    def close(self) -> None:
        """Let go of the memory; readers keep what they have mapped."""
        if self.memory is not None:
            self.memory.close()

    async def welcome(self, sock: socket.socket, peer: str) -> ChannelOutlet:
        """The outlet of a peer that came in through a socket."""
        if sock.family != getattr(socket, "AF_UNIX", None):
            return await tcp.welcome(self._door, sock, peer)
        return await shm.welcome(self._door, sock, peer, None if self.memory is None else self.memory.segment)

    @property
    def reallocations(self) -> int:
        """How often messages outgrew their places in shared memory."""
        return 0 if self.memory is None else self.memory.reallocations

    @property
    def channels(self) -> Counter[ProfileChannelType]:
        """How many channels there are that see shared memory, and that do not."""
        kinds = ProfileChannelType.TCP, ProfileChannelType.SHM
        return Counter(kinds[outlet.reads_segment] for outlet in self.outlets)

    @property
    def way(self) -> ProfileChannelType:
        """Where bytes go: SHM if some channel sees shared memory; UNKNOWN if there are no channels."""
        if any(outlet.reads_segment for outlet in self.outlets):
            return ProfileChannelType.SHM
        return ProfileChannelType.TCP if self.outlets else ProfileChannelType.UNKNOWN

    # -- sending ------------------------------------------------------------------------------------------------------

    def encode(self, obj: Any) -> Encoded:
        """The message as bytes.

        Raises:
            MessageNotSerializable: It cannot be pickled.
            MessageTooLarge: It needs more bytes than the limit.
        """
        try:
            encoded = self._encoder.encode(obj)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise MessageNotSerializable(self._door.topic, type(obj).__qualname__, reason) from error
        if encoded.size > self._max_bytes:
            raise MessageTooLarge(self._door.topic, encoded.size, self._max_bytes)
        return encoded

    def send(self, message_id: int, origin_s: float, publish_s: float, encoded: Encoded, trace: Context | None) -> None:
        """Send a message to every outlet."""
        if encoded.buffers:
            self._send_buffers(message_id, origin_s, publish_s, encoded, trace)
            return
        frame = encode_plain(message_id, publish_s, origin_s, encoded.codec, encoded.head, encoded.data, trace)
        for outlet in self.outlets:
            outlet.write(frame)

    def _send_buffers(
        self, message_id: int, origin_s: float, publish_s: float, encoded: Encoded, trace: Context | None
    ) -> None:
        """Send a large message: through shared memory to whom sees it, in parts to others."""
        codec, head, buffers = encoded.codec, encoded.head, encoded.buffers
        others: Sequence[ChannelOutlet] = self.outlets
        readers = [outlet for outlet in others if outlet.reads_segment]
        if readers and self.memory is not None:
            if self.memory.used_bytes > WARM_BYTES:
                self._let_them_read(readers)
            at = self.memory.put(message_id % self._num_buffers, buffers)
            if at is not None:
                frame = encode_in_segment(message_id, publish_s, origin_s, codec, head, at, trace)
                for outlet in readers:
                    outlet.write(frame)
                self._tell(readers, encoded.size)
                others = [outlet for outlet in others if not outlet.reads_segment]
        if not others:
            return
        parts = encode_in_parts(message_id, publish_s, origin_s, codec, head, buffers, trace)
        if encoded.size <= JOIN_BYTES:
            frame = b"".join(parts)
            for outlet in others:
                outlet.write(frame)
            return
        for outlet in others:
            if outlet.write_parts(parts):
                self.lent.append(outlet)

    def _let_them_read(self, readers: Sequence[ChannelOutlet]) -> None:
        """Tell readers of all that there is, let them run if they wait for this core, and hear what they released."""
        self._untold = 0
        for outlet in readers:
            outlet.flush()
        self._courtesy.offer()
        for outlet in readers:
            outlet.poll()

    def _tell(self, readers: Sequence[ChannelOutlet], size: int) -> None:
        self._untold += size
        if self._untold >= TELL_BYTES:
            self._untold = 0
            for outlet in readers:
                outlet.flush()

    async def settle(self) -> None:
        """Wait until no connection needs the memory of a message any more; cancelled, what is needed is copied."""
        lent, self.lent = self.lent, []
        try:
            while lent:
                await lent[-1].settled()
                lent.pop()
        except asyncio.CancelledError:
            for outlet in lent:
                outlet.own()
            raise
