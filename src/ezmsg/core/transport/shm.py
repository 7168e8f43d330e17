"""Messages in shared memory: between processes of one host.

The connection is the Unix door of the publisher. Over it go the notifications, small messages whole, and once, before
anything else, the descriptor of the publisher's memory, in which large buffers lie. Where a message cannot be put
there, it goes through the door; where a reader cannot map it, it is read.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Final

from ezmsg.core.errors import ProtocolError, SharedMemoryUnavailable
from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.net import forking
from ezmsg.core.net.authkey import load_key
from ezmsg.core.net.dial import connect
from ezmsg.core.segment import Segment
from ezmsg.core.transport import PublisherDoor, Receiver, Source
from ezmsg.core.transport.stream import DIAL_TIMEOUT_S, ChannelInlet, ChannelOutlet, join, opening_of
from ezmsg.core.wire.messages import Chunk, Placed, decode_placed, placed
from ezmsg.core.wire.records import PublisherRoute

logger = logging.getLogger("ezmsg")

_FD: Final = struct.Struct("i")
WITH_SEGMENT: Final = b"S"
WITHOUT_SEGMENT: Final = b"-"
WINDOWS: Final = 16
"""So many mappings of one publisher's memory a channel keeps; six are enough for 32 slots, until messages grow."""
RETRY_S: Final = 5.0
"""How long messages go through the door, once there was no memory for one."""


class MessageMemory:
    """The memory of one publisher's messages.

    It is cut into places, all of one size, enough for the largest message so far twice. A place is taken when a message
    needs one, from those that were freed last (they are still in the caches), and it is free again when the logical
    slot of its message is. Places are mapped in extents of 1, 1, 2, 4 … of them. When one is too large, all begins
    anew behind them, with larger places; those of before are given back to the system as they become free.

    Args:
        held: Which slots are held (see `Backpressure`).
        place_bytes: Size of a place to begin with.
        clock: In seconds.
    """

    def __init__(self, held: Sequence[int], place_bytes: int, clock: Callable[[], float]) -> None:
        self._held = held
        self._clock = clock
        self._segment: Segment | None = Segment.create(0)
        self._end = 0
        self._place_bytes = _whole_pages(place_bytes)
        self._extents: list[Extent] = []
        self._free: list[Place] = []
        # By logical slot: where the message in it lies.
        self._used: dict[int, Place] = {}
        # So much more memory was refused; not to be asked for before then.
        self._refused_bytes = 0
        self._retry_at_s = 0.0
        self.reallocations = 0

    def __repr__(self) -> str:
        places = len(self._used) + len(self._free)
        return f"<MessageMemory {self._end} bytes, {len(self._used)} of {places} places used>"

    @property
    def segment(self) -> Segment | None:
        """What the places are in; None once it was closed."""
        return self._segment

    @property
    def used_bytes(self) -> int:
        """What messages that are not released take, up to twice."""
        return len(self._used) * self._place_bytes // 2

    def put(self, slot: int, buffers: Sequence[memoryview]) -> Placed | None:
        """Copy the buffers of the message in a slot to where readers find them; None when there is no memory."""
        sizes = [buffer.nbytes for buffer in buffers]
        offsets, size = placed(sizes)
        self._reclaim(slot)
        needed = self._needed(size)
        if needed and needed >= self._refused_bytes and self._clock() < self._retry_at_s:
            return None
        try:
            place = self._take(size)
        except SharedMemoryUnavailable as error:
            if not self._retry_at_s:
                logger.warning("%s; large messages go through a socket until there is some", error)
            self._refused_bytes, self._retry_at_s = needed, self._clock() + RETRY_S
            return None
        self._used[slot] = place
        extent, start = place.extent, place.start
        for buffer, offset in zip(buffers, offsets, strict=True):
            extent.view[start + offset : start + offset + buffer.nbytes] = buffer
        return Placed(extent.offset, len(extent.view), extent.offset + start, sizes)

    def close(self) -> None:
        """Let go of it; readers keep what they have mapped."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None
        self._extents.clear()
        self._free.clear()
        self._used.clear()

    def _reclaim(self, slot: int) -> None:
        """Places of messages that were released are free; `slot` is about to be used again."""
        held = self._held
        done = [other for other in self._used if other == slot or not held[other]]
        for other in done:
            self._give_back(self._used.pop(other))

    def _give_back(self, place: Place) -> None:
        if place.extent.place_bytes == self._place_bytes:
            self._free.append(place)
        else:
            self._punch(place)

    def _punch(self, place: Place) -> None:
        if self._segment is not None:
            self._segment.punch(place.extent.offset + place.start, place.extent.place_bytes)

    def _needed(self, size: int) -> int:
        """How much memory more a message needs at least."""
        if size > self._place_bytes:
            return _whole_pages(2 * size)
        return 0 if self._free else self._place_bytes

    def _take(self, size: int) -> Place:
        if size > self._place_bytes:
            self._outgrow(_whole_pages(2 * size))
        elif not self._free:
            self._add_extent()
        return self._free.pop()

    def _outgrow(self, place_bytes: int) -> None:
        # First, because it may fail: then what fits into the places of now still does.
        extent = self._new_extent(1, place_bytes)
        self.reallocations += bool(self._extents)
        for place in self._free:
            self._punch(place)
        self._place_bytes = place_bytes
        self._extents, self._free = [], []
        self._keep(extent)

    def _add_extent(self) -> None:
        assert self._segment is not None, "the memory is closed"
        count = max(1, sum(extent.places for extent in self._extents))
        try:
            extent = self._new_extent(count, self._place_bytes)
        except SharedMemoryUnavailable:
            if count == 1:
                raise
            extent = self._new_extent(1, self._place_bytes)
        self._keep(extent)

    def _keep(self, extent: Extent) -> None:
        self._extents.append(extent)
        self._free.extend(Place(extent, extent.place_bytes * index) for index in reversed(range(extent.places)))

    def _new_extent(self, places: int, place_bytes: int) -> Extent:
        assert self._segment is not None
        size = places * place_bytes
        self._segment.grow(self._end + size)
        view = self._segment.map_range(self._end, size, writable=True)
        extent = Extent(self._end, place_bytes, places, view)
        self._end += size
        return extent


class Extent:
    """Some places, mapped together."""

    __slots__ = ("offset", "place_bytes", "places", "view")

    def __init__(self, offset: int, place_bytes: int, places: int, view: memoryview) -> None:
        self.offset, self.place_bytes, self.places, self.view = offset, place_bytes, places, view


class Place:
    """Where a message lies: in which extent, and from where on there."""

    __slots__ = ("extent", "start")

    def __init__(self, extent: Extent, start: int) -> None:
        self.extent, self.start = extent, start


def _whole_pages(size: int) -> int:
    return max(1, -(-size // mmap.PAGESIZE)) * mmap.PAGESIZE


class SegmentSource(Source):
    """Finds messages in the memory of their publisher.

    Args:
        segment: The memory, from now on this object's.
        name: The publisher, for the log.
    """

    __slots__ = ("_has_all", "_name", "_segment", "_windows")

    def __init__(self, segment: Segment, name: str) -> None:
        super().__init__()
        self._segment = segment
        self._name = name
        # By offset; None where there is no address space to map it.
        self._windows: dict[int, memoryview | None] = {}
        self._has_all = True

    def see(self, chunk: Chunk, start: int, stop: int, layout: int) -> Placed:
        """A message came that lies in the memory: where. Maps it, if that was not done yet."""
        at = decode_placed(chunk, start, stop, layout)
        window = self._windows.get(at.window)
        if window is not None and len(window) == at.window_bytes:
            return at
        if at.window in self._windows and window is None:
            return at
        try:
            self._windows[at.window] = self._segment.map_range(at.window, at.window_bytes, writable=True)
        except SharedMemoryUnavailable as error:
            if None not in self._windows.values():
                logger.warning("%s: messages of %s are copied instead of mapped", error, self._name)
            self._windows[at.window] = None
            self._has_all = False
        except ValueError as error:
            raise ProtocolError(f"a message lies outside of the publisher's memory: {error}") from error
        if len(self._windows) > WINDOWS:
            # Of places that were outgrown: the oldest. What still lies there is read.
            del self._windows[next(iter(self._windows))]
            self._has_all = False
        return at

    def buffers(self, at: Placed) -> list[memoryview]:
        """The buffers of a message."""
        offsets, _ = placed(at.sizes)
        window = self._windows.get(at.window)
        if window is None:
            return [
                memoryview(self._segment.read(at.offset + offset, size))
                for offset, size in zip(offsets, at.sizes, strict=True)
            ]
        start = at.offset - at.window
        return [window[start + offset : start + offset + size] for offset, size in zip(offsets, at.sizes, strict=True)]

    def close(self) -> None:
        """No more messages come; those that came stay readable."""
        if self._has_all:
            self._segment.close()


# -- connecting -------------------------------------------------------------------------------------------------------


class SegmentOutlet(ChannelOutlet):
    """The publisher's end of a channel that sees its memory."""

    reads_segment = True


async def welcome(door: PublisherDoor, sock: socket.socket, peer: str, segment: Segment | None) -> ChannelOutlet:
    """The publisher's end for a peer that came through the door; hands it the memory, if there is any.

    Raises:
        OSError: The peer is gone.
    """
    if segment is None:
        sock.sendall(WITHOUT_SEGMENT)
        return ChannelOutlet(door, peer)
    socket.send_fds(sock, [WITH_SEGMENT], [segment.fileno()])
    return SegmentOutlet(door, peer)


async def connect_channel(route: PublisherRoute, receiver: Receiver, channel_id: str) -> ChannelInlet:
    """Connect a channel to a publisher of this host through its door.

    Args:
        route: Where the publisher is.
        receiver: Gets the messages.
        channel_id: Names the channel to the publisher.

    Raises:
        CannotConnect: The door cannot be reached: another network namespace of this host has no such door.
        ConnectionFailed: The publisher does not accept the channel.
    """
    sock, _ = await connect(route.door, load_key(), DIAL_TIMEOUT_S)
    try:
        async with asyncio.timeout(DIAL_TIMEOUT_S):
            segment = await _receive_segment(sock)
    except BaseException as error:
        sock.close()
        if isinstance(error, TimeoutError):
            raise ProtocolError(f"the publisher on {route.topic!r} says nothing at its door") from error
        raise
    opening = opening_of(route, channel_id)
    if segment is None:
        inlet, kind = ChannelInlet(receiver, opening, Source()), ProfileChannelType.TCP
    else:
        inlet, kind = ChannelInlet(receiver, opening, SegmentSource(segment, route.topic)), ProfileChannelType.SHM
    await join(inlet, sock, kind, receiver)
    return inlet


async def _receive_segment(sock: socket.socket) -> Segment | None:
    """The publisher's first byte at its door, and the descriptor that comes with it.

    Raises:
        ProtocolError: It is something else.
        OSError: The publisher is gone.
    """
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(sock, lambda: readable.done() or readable.set_result(None))
    try:
        await readable
    finally:
        loop.remove_reader(sock)
    # Together: a thread that forks in between would leave the child a descriptor that nobody knows of.
    with forking.no_fork():
        # Not `recv_fds`: it ignores its flags, so that programs which are run would inherit the descriptor.
        said, control, _, _ = sock.recvmsg(1, socket.CMSG_LEN(_FD.size), getattr(socket, "MSG_CMSG_CLOEXEC", 0))
        segments = [Segment.of(descriptor) for _, _, data in control for (descriptor,) in _FD.iter_unpack(data)]
    if said == WITH_SEGMENT and segments:
        return segments[0]
    for segment in segments:
        segment.close()
    if said != WITHOUT_SEGMENT:
        raise ProtocolError(f"a publisher began with {said!r} at its door")
    return None
