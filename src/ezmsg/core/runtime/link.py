"""The line between the process that runs a graph and one of its backend processes: a pair of sockets, pickles on it."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final

from ezmsg.core.net import forking
from ezmsg.core.runtime.messages import Command, Event, Failed, Failure

_SIZE: Final = struct.Struct("!I")
_RECEIVED_BYTES: Final = 65536
# Always polled for; Linux also tells it where only the other half of the line was closed.
_HUNG_UP: Final = getattr(select, "POLLRDHUP", 0)


def open_line() -> tuple[socket.socket, socket.socket]:
    """Our end, which forked children do not keep, and the end for the backend process."""
    with forking.no_fork():
        ours, theirs = socket.socketpair()
        forking.track(ours)
    return ours, theirs


def _frame(record: Command | Event) -> bytes:
    if isinstance(record, Failed) and isinstance(record.error, BaseException):
        record = Failed(Failure.of(record.error))
    body = pickle.dumps(record)
    return _SIZE.pack(len(body)) + body


class BackendEnd:
    """The end of a backend process: its event loop hears commands, and a thread the end, whatever the loop does.

    Args:
        sock: The socket, owned from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()
        self._received = bytearray()

    def report(self, *events: Event) -> None:
        """Tell the coordinator; from any thread. Does nothing when it is gone."""
        frames = b"".join(map(_frame, events))
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(frames)

    def listen(self, on_command: Callable[[Command], object]) -> None:
        """Call `on_command` with each command, in the running loop."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket.fileno(), self._hear, loop, on_command)

    def _hear(self, loop: asyncio.AbstractEventLoop, on_command: Callable[[Command], object]) -> None:
        try:
            received = self._socket.recv(_RECEIVED_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            loop.remove_reader(self._socket.fileno())
            return
        self._received += received
        while (body := _cut(self._received)) is not None:
            on_command(pickle.loads(body))  # from the process that started this one

    def watch(self, on_lost: Callable[[], object]) -> None:
        """Call `on_lost` in a thread when the coordinator is gone."""
        threading.Thread(target=self._watch, args=[on_lost], name="ezmsg line", daemon=True).start()

    def _watch(self, on_lost: Callable[[], object]) -> None:
        poll = select.poll()
        poll.register(self._socket, _HUNG_UP)
        poll.poll()
        on_lost()


def _cut(received: bytearray) -> bytes | None:
    """The first record that is whole, taken out of what was received."""
    if len(received) < _SIZE.size:
        return None
    end = _SIZE.size + _SIZE.unpack_from(received)[0]
    if len(received) < end:
        return None
    body = bytes(received[_SIZE.size : end])
    del received[:end]
    return body


class CoordinatorEnd(asyncio.Protocol):
    """The end of the coordinator, for its event loop.

    Args:
        sock: The socket, owned from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._transport: asyncio.Transport | None = None
        self._untold: list[bytes] = []
        self._received = bytearray()
        self._on_event: Callable[[Event], object] = lambda event: None
        self._lost = asyncio.Event()

    async def listen(self, on_event: Callable[[Event], object]) -> None:
        """Call `on_event` with each event, until the process is gone. Cancel it to close the line."""
        self._on_event = on_event
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: self, sock=self._socket)
        try:
            self._transport.writelines(self._untold)
            await self._lost.wait()
        finally:
            self._transport.close()
            await self._lost.wait()

    def data_received(self, data: bytes) -> None:
        """The process said something."""
        self._received += data
        while (body := _cut(self._received)) is not None:
            self._on_event(pickle.loads(body))  # from a process this one started

    def connection_lost(self, exc: Exception | None) -> None:
        """The process is gone, or nobody listens any more."""
        if exc is not None:
            # It could not be told something: what it said before it went is still to be read.
            with contextlib.suppress(OSError):
                while data := self._socket.recv(_RECEIVED_BYTES):
                    self.data_received(data)
        self._lost.set()

    def tell(self, command: Command) -> None:
        """Tell the process, as soon as it is listened to; does nothing when it is gone."""
        if self._transport is None:
            self._untold.append(_frame(command))
        else:
            self._transport.write(_frame(command))

    def close(self) -> None:
        """Let go of the socket, where nobody listens."""
        self._socket.close()
