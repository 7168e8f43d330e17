"""A relay between peers and their server, which can lose the one without the other."""

from __future__ import annotations

import asyncio
import contextlib
import socket

from ezmsg.core.net.address import Address
from tests.ports import KeptPort


class Relay:
    """Passes bytes on; `address` is where peers connect."""

    def __init__(self, server: Address) -> None:
        self._server = server
        self._port = KeptPort()
        self.address = self._port.address
        self._peers: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Ends at the server whose peer was cut off.
        self._left: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Let peers in, for the first time or again."""
        self._listener = socket.create_server(self.address)
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def close(self) -> None:
        """Lose everybody, and let nobody in."""
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        while self._tasks:
            for end in (*self._peers, *self._peers.values()):
                end.transport.abort()
            await asyncio.wait(self._tasks, timeout=0.01)

    async def end(self) -> None:
        """Close for good."""
        await self.close()
        self._port.close()

    def cut(self) -> None:
        """Lose the peers; the server does not notice."""
        self._left.update(self._peers.values())
        for peer in self._peers:
            peer.transport.abort()

    def _accept(self) -> None:
        # Not asyncio.start_server: what that had accepted when it was closed it never closes (Python 3.11).
        with contextlib.suppress(BlockingIOError):
            peer, _ = self._listener.accept()
            task = asyncio.create_task(self._relay(peer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _relay(self, peer: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=peer)
        try:
            server_reader, server = await asyncio.open_connection(*self._server)
        except OSError:
            writer.transport.abort()
            return
        self._peers[writer] = server
        await asyncio.gather(self._copy(reader, server), self._copy(server_reader, writer))
        del self._peers[writer]
        self._left.discard(server)
        for end in (writer, server):
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until one side hangs up, which the other side is told, unless it was cut off from it."""
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        if writer not in self._left:
            with contextlib.suppress(OSError):
                writer.write_eof()
