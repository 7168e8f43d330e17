"""The line between the process that runs a graph and one of its backend processes: a pair of sockets, pickles on it."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final

from ezmsg.core.net import forking
from ezmsg.core.runtime.messages import Command, Event, Failed, Failure

_SIZE: Final = struct.Struct("!I")


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
    """The end of a backend process: a thread hears commands, whatever the event loop does.

    Args:
        sock: The socket, owned from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()

    def report(self, event: Event) -> None:
        """Tell the coordinator; from any thread. Does nothing when it is gone."""
        frame = _frame(event)
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(frame)

    def listen(self, on_command: Callable[[Command], object], on_lost: Callable[[], object]) -> None:
        """Call `on_command` with each command, and `on_lost` when the coordinator is gone; both in a thread."""
        threading.Thread(target=self._listen, args=[on_command, on_lost], name="ezmsg line", daemon=True).start()

    def _listen(self, on_command: Callable[[Command], object], on_lost: Callable[[], object]) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as file:
            while len(head := file.read(_SIZE.size)) == _SIZE.size:
                body = file.read(*_SIZE.unpack(head))
                on_command(pickle.loads(body))  # from the process that started this one
        on_lost()


class CoordinatorEnd:
    """The end of the coordinator, for its event loop.

    Args:
        sock: The socket, owned from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._writer: asyncio.StreamWriter | None = None
        self._untold: list[bytes] = []

    async def listen(self, on_event: Callable[[Event], object]) -> None:
        """Call `on_event` with each event, until the process is gone. Cancel it to close the line."""
        reader, self._writer = await asyncio.open_connection(sock=self._socket)
        try:
            self._writer.writelines(self._untold)
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    body = await reader.readexactly(*_SIZE.unpack(await reader.readexactly(_SIZE.size)))
                    on_event(pickle.loads(body))  # from a process this one started
        finally:
            self._writer.close()
            with contextlib.suppress(ConnectionError):
                await self._writer.wait_closed()

    def tell(self, command: Command) -> None:
        """Tell the process, as soon as it is listened to; does nothing when it is gone."""
        if self._writer is None:
            self._untold.append(_frame(command))
        else:
            self._writer.write(_frame(command))

    def close(self) -> None:
        """Let go of the socket, where nobody listens."""
        self._socket.close()
