"""A server of a test, at one address: it comes and goes, and answers as it is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from ezmsg.core.net.authkey import AuthKey, load_key
from ezmsg.core.net.connection import Connection
from ezmsg.core.net.listener import Listener, bind_tcp
from ezmsg.core.wire.records import Done, Record
from tests.ports import KeptPort

Answer = Callable[[Record], Record | Awaitable[Record]]


def never(record: Record) -> Awaitable[Record]:
    """Do not answer."""
    return asyncio.get_running_loop().create_future()


class ScriptedServer:
    """Not up at first.

    Attributes:
        answer: What it says to a request.
        asked: One entry for every request.
        told: One entry for every notice.
        connections: Of its peers, since it is up.
    """

    def __init__(self) -> None:
        self._port = KeptPort()
        self.address = self._port.address
        self.answer: Answer = lambda record: Done()
        self.asked: asyncio.Queue[Record] = asyncio.Queue()
        self.told: asyncio.Queue[Record] = asyncio.Queue()
        self.connections: list[Connection] = []
        self._listener: Listener | None = None
        self._silent: socket.socket | None = None
        self._welcoming: set[asyncio.Task[None]] = set()

    def stand_still(self) -> socket.socket:
        """Be there, but do nothing; `up` goes on with that."""
        self._silent = bind_tcp(*self.address, load_key())
        return self._silent

    async def up(self, key: AuthKey | None = None) -> None:
        """Be there."""
        sock, self._silent = self._silent or bind_tcp(*self.address, load_key()), None
        self._listener = await Listener.start([sock], key or load_key(), self._on_peer, name="scripted")

    async def down(self) -> None:
        """Be lost."""
        if self._silent is not None:
            self._silent.close()
            self._silent = None
        if self._listener is not None:
            await self._listener.close()
            self._listener = None
        if self._welcoming:
            await asyncio.wait(self._welcoming)
        connections, self.connections = self.connections, []
        for connection in connections:
            connection.abort()
            await connection.wait_closed()

    async def close(self) -> None:
        """Be lost for good."""
        await self.down()
        self._port.close()

    async def restart(self) -> None:
        """Be lost, and there again."""
        await self.down()
        await self.up()

    def _on_peer(self, sock: socket.socket, info: Any, name: str) -> None:
        task = asyncio.ensure_future(self._welcome(sock, info, name))
        self._welcoming.add(task)
        task.add_done_callback(self._welcoming.discard)

    async def _welcome(self, sock: socket.socket, info: Any, name: str) -> None:
        self.connections.append(await Connection.over(sock, info, self, name=name))

    def on_request(self, connection: Connection, record: Record) -> Record | Awaitable[Record]:
        self.asked.put_nowait(record)
        return self.answer(record)

    def on_notice(self, connection: Connection, record: Record) -> None:
        self.told.put_nowait(record)

    def on_closed(self, connection: Connection, error: Exception | None) -> None:
        pass
