"""Frames on an asyncio transport: reading without copies, writing without waiting, an end that leaves nothing behind.

`Connection` puts records on it; a transport of the message path may put messages on it.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from collections import deque
from collections.abc import Sequence
from typing import Self, cast

from ezmsg.core.errors import ConnectionLost, EzmsgError
from ezmsg.core.net.lateflush import LATE
from ezmsg.core.net.loglimit import LogLimiter
from ezmsg.core.net.sockettransport import Buffer, SocketTransport
from ezmsg.core.net.tlstransport import transport_over
from ezmsg.core.wire.frames import Frame, FrameDecoder
from ezmsg.core.wire.limits import CONTROL_FRAME_BYTES, WRITE_BUFFER_BYTES

logger = logging.getLogger("ezmsg")

# Frames of one loop turn that are gathered into one write, in bytes; what is larger goes out by itself.
COALESCED_BYTES = 128 << 10
CLOSE_TIMEOUT_S = 1.0
# How the system, or `PeerWatch`, ends a connection to a host that answers no more.
_VANISHED = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})

# One for all connections: a peer that opens a thousand of them must not fill the log either.
LOG = LogLimiter()


class FrameStream(asyncio.BufferedProtocol):
    """One connection of one event loop that carries frames. Subclasses say what frames mean.

    Args:
        name: How the peer is called in errors and in the log.
        frame_limit: The largest body accepted, in bytes.
        write_limit: How many bytes may wait for the peer before it is dropped.
        decoder: Cuts what is received into frames; one with this limit if there is none.
        gather: How many frames of a turn of the loop are gathered at most before they are sent; with a number, they are
            also sent when the loop takes long to end its turn.
    """

    def __init__(
        self,
        name: str,
        *,
        frame_limit: int = CONTROL_FRAME_BYTES,
        write_limit: int = WRITE_BUFFER_BYTES,
        decoder: FrameDecoder | None = None,
        gather: int | None = None,
    ) -> None:
        self.name = name
        self._decoder = decoder or FrameDecoder(frame_limit)
        self._gather = gather or 1 << 30
        self._is_watched = gather is not None and gather > 1
        self._write_limit = write_limit
        self._loop = asyncio.get_running_loop()
        self._transport: SocketTransport | None = None
        self._error: Exception | None = None
        self._is_closing = False
        self._lost = asyncio.Event()
        self._cut_off: asyncio.TimerHandle | None = None
        # Written since the first write of this turn of the loop, which went out at once; appended to by the loop only.
        self._followers: deque[bytes] = deque()
        self._followers_bytes = 0
        self._in_turn = False
        self._turn = 0
        # Held while something is sent: the late flusher does it in a thread of its own.
        self._sending = threading.Lock()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "closing" if self._is_closing else "open"
        return f"<{type(self).__name__} {self.name} {state}>"

    async def attach(self, sock: socket.socket) -> None:
        """Take over an authenticated socket; frames may be received from the next turn of the loop on."""
        try:
            sock.setblocking(False)
            transport_over(sock, self)
        except BaseException:
            sock.close()
            raise

    # -- for subclasses -------------------------------------------------------------------------------------------

    def frame_received(self, frame: Frame) -> None:
        """A frame arrived. An `EzmsgError` raised here ends the connection."""
        raise NotImplementedError

    def stream_ended(self, error: Exception | None) -> None:
        """The connection is gone, for this reason, or in order (None). Called once."""
        raise NotImplementedError

    # -- writing --------------------------------------------------------------------------------------------------

    @property
    def write_buffer_size(self) -> int:
        """Bytes that wait for the peer."""
        return self._followers_bytes + (self._transport.get_write_buffer_size() if self._transport else 0)

    def write(self, frame: bytes) -> None:
        """Send a frame: at once if it is the first in this turn of the loop, else together with the others.

        Never waits. Does nothing once the connection is closing.
        """
        if self._is_closing or self._transport is None:
            return
        if self._in_turn:
            followers = self._followers
            followers.append(frame)
            self._followers_bytes += len(frame)
            if len(followers) >= self._gather or self._followers_bytes > COALESCED_BYTES:
                self._flush()
            elif LATE.is_idle and self._is_watched:
                LATE.wake()
            return
        self._in_turn = True
        self._turn += 1
        self._loop.call_soon(self._end_turn)
        with self._sending:
            self._transport.write(frame)

    def write_parts(self, parts: Sequence[Buffer]) -> bool:
        """Send a large frame in parts, without joining them; in order with what was written before.

        Returns whether some of the memory is still needed: until `settled` has returned.
        """
        if self._is_closing or self._transport is None:
            return False
        self._flush()
        with self._sending:
            is_lent = self._transport.lend(parts)
        self._drop_if_slow()
        return is_lent

    async def settled(self) -> None:
        """Wait until the memory of parts is not needed any more."""
        if self._transport is not None:
            await self._transport.settle()

    def own(self) -> None:
        """Copy what is still needed of the memory of parts."""
        if self._transport is not None:
            self._transport.own()

    def flush(self) -> None:
        """Send what was gathered."""
        self._flush()

    def poll(self) -> None:
        """Take now what the peer has sent, without waiting for the loop to come to it."""
        if self._transport is not None:
            self._transport.poll()

    def _end_turn(self) -> None:
        self._in_turn = False
        self._flush()

    def _flush(self) -> None:
        if self._followers and self._transport is not None:
            with self._sending:
                self._transport.write(self._take_followers())
        self._drop_if_slow()

    def _take_followers(self) -> bytes:
        followers = self._followers
        self._followers_bytes = 0
        return b"".join([followers.popleft() for _ in range(len(followers))])

    @property
    def gathered(self) -> int:
        """Which turn of the loop it gathers frames of; 0 if it has none to send."""
        return self._turn if self._followers else 0

    def flush_late(self) -> None:
        """Send what was gathered, in the thread of the late flusher."""
        with self._sending:
            transport = self._transport
            if not self._followers or transport is None or self._is_closing:
                return
            # Where something waits, the peer does not take what it has; only the loop can go on then.
            if not transport.get_write_buffer_size():
                transport.write_from_outside(self._take_followers())

    def _drop_if_slow(self) -> None:
        if self._transport is not None and self._transport.get_write_buffer_size() > self._write_limit:
            size = self._transport.get_write_buffer_size()
            self.fail(ConnectionLost(self.name, f"it reads too slowly, {size} bytes were waiting for it"))

    def pause_reading(self) -> None:
        """Take nothing from the peer until `resume_reading`: it is to wait. Meanwhile its end is not noticed either.

        Frames that were read already still come.
        """
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take what the peer sends again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- protocol of the transport --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        self._transport = cast(SocketTransport, transport)
        if self._is_watched:
            LATE.watch(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # pyright: ignore[reportIncompatibleMethodOverride] - is a Buffer
        """Where the transport reads to."""
        return self._decoder.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        """The transport has read."""
        try:
            self.take(nbytes)
        except EzmsgError as error:
            self.fail(error)
        except Exception as error:
            logger.exception("%r failed on a frame", self)
            self.fail(error)

    def take(self, nbytes: int) -> None:
        """So many bytes came into the buffer of the decoder."""
        for frame in self._decoder.received(nbytes):
            if not self._is_closing:
                self.frame_received(frame)

    def eof_received(self) -> None:
        """The peer will send no more; the transport sends what waits, and closes."""
        if not self._decoder.is_empty and self._error is None:
            self._error = ConnectionLost(self.name, "it hung up in the middle of a frame")
        # A peer that says goodbye, but never reads what waits for it, must not keep the connection for ever.
        self._cut_off = self._loop.call_later(CLOSE_TIMEOUT_S, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        # The late flusher must have left the socket: the transport closes it next, and others may get its number.
        with self._sending:
            self._is_closing = True
        if self._cut_off is not None:
            self._cut_off.cancel()
        self._followers.clear()
        self._followers_bytes = 0
        if self._is_watched:
            LATE.forget(self)
        # What ended is gone at once, not when the garbage collector comes by: no cycle is left.
        self._transport = None
        self._decoder.close()
        if self._error is None and exc is not None:
            self._error = self._lost_to(exc)
        self._lost.set()
        self.stream_ended(self._error)

    def _lost_to(self, error: Exception) -> ConnectionLost:
        if not isinstance(error, OSError) or error.errno not in _VANISHED:
            return ConnectionLost(self.name, str(error))
        lost = ConnectionLost(self.name, f"its host does not answer ({error.strerror}): down, or the way to it is cut")
        LOG.warning("VANISHED", str(lost))
        return lost

    # -- the end --------------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return self._lost.is_set()

    def fail(self, error: Exception) -> None:
        """End the connection at once for this reason, and log it."""
        if self._error is None and not self.closed:
            self._error = error
            code = error.code if isinstance(error, EzmsgError) else type(error).__name__
            LOG.warning(code, f"dropping the connection to {self.name}: {error}")
        self.abort()

    def abort(self) -> None:
        """End the connection at once; what was not sent yet is lost."""
        self._is_closing = True
        if self._transport is not None:
            self._transport.abort()

    def _close_soon(self) -> None:
        if self._is_closing or self._transport is None:
            return
        self._flush()
        # The late flusher may have taken what was gathered, and not sent it yet.
        with self._sending:
            self._is_closing = True
        self.resume_reading()
        # Say that nothing follows, and read until the peer says so too: closing with bytes unread would throw away
        # what it has not read yet.
        self._transport.write_eof()

    async def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Send what was written, and close. What the peer still sends is ignored.

        Args:
            timeout_s: How long the peer may take to read it and to close as well; then the connection is cut.
        """
        self._close_soon()
        try:
            async with asyncio.timeout(timeout_s):
                await self._lost.wait()
        except TimeoutError:
            pass
        finally:
            self.abort()
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Wait until nothing of the connection is left."""
        await self._lost.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
