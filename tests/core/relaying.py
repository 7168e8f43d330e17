"""A relay between peers and their server, which can lose the one without the other."""

from __future__ import annotations

import asyncio
import contextlib

from ezmsg.core.net.address import Address


class Relay:
    """Passes bytes on; `address` is where peers connect.

    Attributes:
        left: Connections whose server side is still open, though their peer is gone.
    """

    def __init__(self, server: Address) -> None:
        self._server = server
        self._peers: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.left: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._listener = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.address = Address(*self._listener.sockets[0].getsockname()[:2])

    async def close(self) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._listener.wait_closed()

    def cut(self) -> None:
        """Lose the peers; the server does not notice."""
        for peer, server in self._peers.items():
            self.left.add(server)
            peer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        server_reader, server = await asyncio.open_connection(*self._server)
        self._peers[writer] = server
        outward = asyncio.create_task(self._copy(reader, server))
        try:
            # Until the server hangs up: that the peer did is told only when it was not cut.
            await self._copy(server_reader, writer)
        finally:
            outward.cancel()
            self._tasks.discard(task)
            self._peers.pop(writer, None)
            self.left.discard(server)
            for end in (writer, server):
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        if writer not in self.left:
            with contextlib.suppress(OSError):
                writer.write_eof()
