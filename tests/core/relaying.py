"""A relay between peers and their server, which can lose the one without the other."""

from __future__ import annotations

import asyncio
import contextlib

from ezmsg.core.net.address import Address


class Relay:
    """Passes bytes on; `address` is where peers connect."""

    def __init__(self, server: Address) -> None:
        self._server = server
        self.address = Address("127.0.0.1", 0)
        self._peers: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Ends at the server whose peer was cut off.
        self._left: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        """Let peers in, for the first time or again."""
        self._listener = await asyncio.start_server(self._relay, *self.address)
        self.address = Address(*self._listener.sockets[0].getsockname()[:2])

    async def close(self) -> None:
        """Lose everybody, and let nobody in."""
        self._listener.close()
        while self._tasks:
            for end in (*self._peers, *self._peers.values()):
                end.transport.abort()
            await asyncio.wait(self._tasks, timeout=0.01)
        await self._listener.wait_closed()

    def cut(self) -> None:
        """Lose the peers; the server does not notice."""
        self._left.update(self._peers.values())
        for peer in self._peers:
            peer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            server_reader, server = await asyncio.open_connection(*self._server)
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        self._peers[writer] = server
        await asyncio.gather(self._copy(reader, server), self._copy(server_reader, writer))
        del self._peers[writer]
        self._left.discard(server)
        self._tasks.discard(task)
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
