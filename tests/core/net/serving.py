"""A server that lets in who holds the key, and answers."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from ezmsg.core.net.address import Address
from ezmsg.core.net.authkey import AuthKey
from ezmsg.core.net.connection import Connection
from ezmsg.core.net.dial import connect
from ezmsg.core.net.door import open_door
from ezmsg.core.net.listener import KEPT_FOR_A_GATE, Listener, bind_tcp
from ezmsg.core.wire.handshake import PeerInfo
from ezmsg.core.wire.limits import UNAUTHENTICATED_PEERS
from ezmsg.core.wire.records import Done, Record

KEY = AuthKey(b"k" * 32, explicit=False)


class Recorder:
    """A handler that remembers, and answers as it is told."""

    def __init__(self, answer: Callable[[Record], Record | Awaitable[Record]] = lambda record: Done()) -> None:
        self.answer = answer
        self.requests: list[Record] = []
        self.notices: list[Record] = []
        self.ends: list[Exception | None] = []
        self.noticed = asyncio.Event()
        self.ended = asyncio.Event()

    def on_request(self, connection: Connection, record: Record) -> Record | Awaitable[Record]:
        self.requests.append(record)
        return self.answer(record)

    def on_notice(self, connection: Connection, record: Record) -> None:
        self.notices.append(record)
        self.noticed.set()

    def on_closed(self, connection: Connection, error: Exception | None) -> None:
        self.ends.append(error)
        self.ended.set()


class Serving:
    """A listener on loopback and at a door, whose peers get a connection with their own Recorder."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.handler: Callable[[], Recorder] = Recorder
        self.peers: asyncio.Queue[tuple[Connection, Recorder]] = asyncio.Queue()
        self.connections: list[Connection] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator["Serving"]:
        tcp = bind_tcp("127.0.0.1", 0, KEY)
        door, self.door = open_door()
        self.address = Address(*tcp.getsockname()[:2])
        sockets = [tcp] if door is None else [tcp, door]
        self.strangers_at_a_gate = UNAUTHENTICATED_PEERS - KEPT_FOR_A_GATE * (len(sockets) - 1)
        self.listener = await Listener.start(sockets, KEY, self._on_peer, name="test")
        try:
            yield self
        finally:
            await self.listener.close()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await asyncio.gather(*(connection.close() for connection in self.connections))

    def _on_peer(self, sock: socket.socket, info: PeerInfo, name: str) -> None:
        task = asyncio.ensure_future(self._welcome(sock, info, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _welcome(self, sock: socket.socket, info: PeerInfo, name: str) -> None:
        handler = self.handler()
        connection = await Connection.over(sock, info, handler, name=name, **self.options)
        self.connections.append(connection)
        self.peers.put_nowait((connection, handler))

    async def dial(
        self, handler: Recorder | None = None, *, where: tuple[str, int] | None = None, **options: Any
    ) -> Connection:
        sock, info = await connect(Address(*where or self.address), KEY)
        return await Connection.over(sock, info, handler or Recorder(), name="the server", **options)

    @contextlib.asynccontextmanager
    async def both(
        self, handler: Recorder | None = None, **options: Any
    ) -> AsyncIterator[tuple[Connection, Connection]]:
        """A client and the server's end of its connection."""
        async with await self.dial(handler, **options) as client:
            server, _ = await self.peers.get()
            yield client, server
