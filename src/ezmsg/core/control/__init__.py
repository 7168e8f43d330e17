"""The client half of the control protocol: one authenticated connection to a GraphServer."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable
from typing import Any, Protocol, TypeVar

from ezmsg.core import config
from ezmsg.core.errors import CannotConnect, ConfigError, ConnectionFailed, HandshakeError, ServerUnreachable
from ezmsg.core.net.address import Address, AddressType
from ezmsg.core.net.authkey import load_key
from ezmsg.core.net.connection import Connection
from ezmsg.core.net.dial import connect
from ezmsg.core.net.door import server_door
from ezmsg.core.wire.handshake import PeerInfo
from ezmsg.core.wire.records import Goodbye, Record

R = TypeVar("R", bound=Record)

# A server on the same host answers within milliseconds; one that takes this long is not going to.
DIAL_TIMEOUT_S = 5.0
# What a server may take to answer for a whole graph, which it may have to tell much of.
GRAPH_TIMEOUT_S = 5.0


class ControlHandler(Protocol):
    """What a client of the GraphServer answers and hears."""

    def on_request(self, connection: Any, record: Record, /) -> Record | Awaitable[Record]:
        """The server asks something."""
        ...

    def on_notice(self, connection: Any, record: Record, /) -> None:
        """The server tells something."""
        ...

    def on_closed(self, connection: Any, error: Exception | None, /) -> None:
        """The connection is gone."""
        ...


def resolve(graph_address: AddressType | None) -> Address:
    """The address of the GraphServer: as given, or the configured default.

    Raises:
        ValueError: It is no address.
    """
    if graph_address is None:
        return Address.from_string(config.graph_address(), config.GRAPHSERVER_ADDR_ENV)
    if isinstance(graph_address, str):
        return Address.from_string(graph_address, "graph_address")
    try:
        _, port = graph_address
        is_port = 0 <= int(port) < 1 << 16
    except (TypeError, ValueError):
        is_port = False
    if not is_port:
        raise ConfigError("graph_address", graph_address, "host:port, or a pair of a host and a port (0 to 65535)")
    return Address(*graph_address)


async def dial(address: Address, *, is_tcp: bool = False) -> tuple[socket.socket, PeerInfo]:
    """An authenticated connection to the GraphServer, through its door if there is one, and who it is.

    Args:
        address: Of the server.
        is_tcp: Over TCP in any case.

    Raises:
        ServerUnreachable: Nothing listens there, or it does not answer.
        HandshakeError: Something answers that is no GraphServer of ours.
    """
    key = load_key()
    try:
        if not is_tcp and (door := server_door(address)):
            with contextlib.suppress(CannotConnect):
                return await connect(door, key, DIAL_TIMEOUT_S, name=str(address))
        return await connect(address, key, DIAL_TIMEOUT_S)
    except HandshakeError:
        raise
    except ConnectionFailed as error:
        raise ServerUnreachable(str(address), str(error)) from error


class ControlClient:
    """A connection to the GraphServer, and whether it ended in order."""

    def __init__(self, address: Address, handler: ControlHandler) -> None:
        self.address = address
        self.is_goodbye = False
        self._handler = handler
        self._connection: Connection | None = None
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, graph_address: AddressType | None, handler: ControlHandler, *, name: str) -> ControlClient:
        """Connect and authenticate.

        Raises:
            ServerUnreachable: Nothing listens there, or it does not answer.
            HandshakeError: Something answers that is no GraphServer of ours.
        """
        self = cls(resolve(graph_address), handler)
        sock, peer = await dial(self.address)
        self._connection = await Connection.over(sock, peer, self, name=name)
        return self

    @property
    def connection(self) -> Connection:
        """The connection itself."""
        assert self._connection is not None
        return self._connection

    async def request(
        self,
        record: Record,
        reply: type[R] | None = None,
        timeout_s: float | None = None,
        *,
        revocable: bool = False,
    ) -> R:
        """Ask the server; the answer is checked to be a `reply`. More in `Connection.request`."""
        answer = await self.connection.request(record, timeout_s, revocable=revocable)
        if reply is not None and not isinstance(answer, reply):
            raise ConnectionFailed(f"{self.address} answered {type(record).__name__} with {answer!r}")
        return answer  # pyright: ignore[reportReturnType] - without `reply` the caller takes any record

    def notify(self, record: Record) -> None:
        """Tell the server."""
        self.connection.notify(record)

    # -- handler of the connection -----------------------------------------------------------------------------------

    def on_request(self, connection: Connection, record: Record) -> Record | Awaitable[Record]:
        """Pass it on."""
        return self._handler.on_request(connection, record)

    def on_notice(self, connection: Connection, record: Record) -> None:
        """Remember a goodbye; pass everything on."""
        if isinstance(record, Goodbye):
            self.is_goodbye = True
        self._handler.on_notice(connection, record)

    def on_closed(self, connection: Connection, error: Exception | None) -> None:
        """Pass it on."""
        self._handler.on_closed(connection, error)

    # -- the end ------------------------------------------------------------------------------------------------------

    def close_soon(self) -> None:
        """Begin to close; `wait_closed` waits for it."""
        if self._closing is None and self._connection is not None:
            self._closing = asyncio.create_task(self._connection.close())

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def close(self) -> None:
        """Close the connection and wait for it."""
        if self._connection is not None:
            await self._connection.close()

    async def abort(self) -> None:
        """End the connection without the server, which does not answer."""
        self.connection.abort()
        await self.close()
