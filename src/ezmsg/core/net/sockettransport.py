"""An asyncio transport over a connected stream socket that neither joins nor copies what it cannot send at once.

asyncio of Python 3.11 keeps everything unsent in one bytearray and moves its rest to the front after every write: a
message of 8 MB crossed a connection 24 times a second. Here unsent buffers wait as they are. Whoever lends memory
(`lend`) gets it back when it was sent (`settle`), or when the transport has made a copy of its own (`own`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any

from ezmsg.core import config
from ezmsg.core.net.peerwatch import PeerWatch, can_watch

Buffer = bytes | memoryview

# More are refused by sendmsg.
PARTS_AT_ONCE = min(os.sysconf("SC_IOV_MAX") if "SC_IOV_MAX" in os.sysconf_names else 16, 256)


class SocketTransport(asyncio.Transport):
    """One connected socket, which it owns, on the running loop.

    Args:
        sock: Non-blocking.
        protocol: Gets what is received; told of the connection before this returns.
    """

    def __init__(self, sock: socket.socket, protocol: asyncio.BufferedProtocol) -> None:
        super().__init__({"socket": sock, "peername": None})
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._fd = sock.fileno()
        self._protocol = protocol
        self._waiting: deque[memoryview] = deque()
        self._waiting_bytes = 0
        # Memory of others among what waits, and who wants to know when it is not any more.
        self._is_borrowing = False
        self._returned: asyncio.Future[None] | None = None
        self._is_eof_written = self._is_eof_due = False
        self._is_closing = self._is_lost = False
        # Why nothing can be sent any more, while what the peer said is still read.
        self._send_error: OSError | None = None
        self._is_reading = True
        self._watch = PeerWatch(sock, config.peer_timeout_s(), self._fail) if can_watch(sock) else None
        protocol.connection_made(self)
        if self.is_reading():
            self._loop.add_reader(self._fd, self._readable)

    def __repr__(self) -> str:
        state = "closed" if self._is_lost else "closing" if self._is_closing else "open"
        return f"<SocketTransport fd={self._fd} {state} waiting={self._waiting_bytes}>"

    # -- reading ------------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        if self._is_lost or not self._is_reading:
            return
        try:
            size = self._sock.recv_into(self._protocol.get_buffer(-1))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        if size:
            self._protocol.buffer_updated(size)
            return
        self._loop.remove_reader(self._fd)
        self._is_reading = False
        if not self._protocol.eof_received() or self._send_error is not None:
            self.close()

    def poll(self) -> None:
        """Read what there is, without waiting for the loop to tell that there is something."""
        self._readable()

    def pause_reading(self) -> None:
        """Take nothing from the peer."""
        if self._is_reading and not self._is_closing:
            self._is_reading = False
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        """Take what the peer sends again."""
        if not self._is_reading and not self._is_closing:
            self._is_reading = True
            self._loop.add_reader(self._fd, self._readable)

    def is_reading(self) -> bool:
        """Whether what the peer sends is taken."""
        return self._is_reading and not self._is_closing

    # -- writing ------------------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send now, as far as the socket takes it; the rest waits, and must not change."""
        if self._is_lost or self._is_eof_due:
            return
        if not self._waiting:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._cannot_send(error)
                return
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
            self._loop.add_writer(self._fd, self._writable)
        self._wait(memoryview(data))

    def write_from_outside(self, data: bytes) -> None:
        """As `write`, from another thread than that of the loop, which writes nothing meanwhile; nothing may wait."""
        if self._is_lost or self._is_eof_due:
            return
        sent = 0
        with contextlib.suppress(OSError):
            sent = self._sock.send(data)
        if sent == len(data):
            return
        self._wait(memoryview(data)[sent:])
        # A loop that is closed sends nothing any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._begin_waiting)

    def _begin_waiting(self) -> None:
        if self._waiting and not self._is_lost:
            self._loop.add_writer(self._fd, self._writable)

    def lend(self, parts: Sequence[Buffer]) -> bool:
        """As writing one part after the other; whether memory of the caller's still waits (see `settle`)."""
        if self._is_lost or self._is_eof_due:
            return False
        if not self._waiting:
            try:
                sent = self._sock.sendmsg(parts[:PARTS_AT_ONCE])
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._cannot_send(error)
                return False
        else:
            sent = 0
        had_none = not self._waiting
        for part in parts:
            if sent >= len(part):
                sent -= len(part)
                continue
            self._wait(memoryview(part)[sent:])
            sent = 0
        if not self._waiting:
            return False
        if had_none:
            self._loop.add_writer(self._fd, self._writable)
        self._is_borrowing = True
        return True

    async def settle(self) -> None:
        """Wait until no memory that was lent is needed any more."""
        if not self._is_borrowing:
            return
        if self._returned is None:
            self._returned = self._loop.create_future()
        await asyncio.shield(self._returned)

    def own(self) -> None:
        """Copy what still waits of memory that was lent; nobody need wait any more."""
        if self._is_borrowing and self._waiting:
            self._waiting = deque([memoryview(b"".join(self._waiting))])
        self._give_back()

    def _give_back(self) -> None:
        self._is_borrowing = False
        returned, self._returned = self._returned, None
        if returned is not None and not returned.done():
            returned.set_result(None)

    def _wait(self, part: memoryview) -> None:
        if len(part):
            self._waiting.append(part)
            self._waiting_bytes += len(part)

    def _writable(self) -> None:
        if self._is_lost:
            return
        waiting = self._waiting
        parts = [waiting[0]] if len(waiting) == 1 else list(islice(waiting, PARTS_AT_ONCE))
        try:
            sent = self._sock.sendmsg(parts)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._cannot_send(error)
            return
        self._waiting_bytes -= sent
        while sent:
            first = waiting[0]
            if sent < len(first):
                waiting[0] = first[sent:]
                break
            sent -= len(waiting.popleft())
        if waiting:
            return
        self._loop.remove_writer(self._fd)
        self._give_back()
        if self._is_eof_due:
            self._shut_down()
        if self._is_closing:
            self._lose(None)
        else:
            self._protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        """Bytes that wait."""
        return self._waiting_bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nobody is told to pause: whoever writes looks at `get_write_buffer_size`; but its end is told."""

    def can_write_eof(self) -> bool:
        """Sockets can."""
        return True

    def write_eof(self) -> None:
        """Say that nothing follows, once what waits was sent."""
        if self._is_eof_due or self._is_lost:
            return
        self._is_eof_due = True
        if not self._waiting:
            self._shut_down()

    def _shut_down(self) -> None:
        if not self._is_eof_written:
            self._is_eof_written = True
            # The peer may be gone already.
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)

    # -- the end ------------------------------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Only the socket."""
        return self._sock if name == "socket" else default

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._is_closing

    def close(self) -> None:
        """Send what waits, then close."""
        if self._is_closing:
            return
        self._is_closing = True
        if self._is_reading:
            self._loop.remove_reader(self._fd)
        if not self._waiting:
            self._lose(self._send_error)

    def abort(self) -> None:
        """Close at once."""
        self._is_closing = True
        self._lose(None)

    def _cannot_send(self, error: OSError) -> None:
        if self.is_reading() and isinstance(error, (BrokenPipeError, ConnectionResetError)):
            # What the peer said before it hung up is heard first, a goodbye for one; then comes its end.
            self._is_eof_due = self._is_eof_written = True
            self._send_error = error
            self._forget_waiting()
        else:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._is_closing = True
        self._lose(error)

    def _lose(self, error: OSError | None) -> None:
        if self._is_lost:
            return
        self._is_lost = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self._loop.remove_reader(self._fd)
        self._forget_waiting()
        self._loop.call_soon(self._lost, error)

    def _forget_waiting(self) -> None:
        self._loop.remove_writer(self._fd)
        self._waiting.clear()
        self._waiting_bytes = 0
        self._give_back()

    def _lost(self, error: OSError | None) -> None:
        try:
            self._protocol.connection_lost(error)
        finally:
            self._sock.close()
