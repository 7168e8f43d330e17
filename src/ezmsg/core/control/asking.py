"""Requests on a connection of their own: what GraphService asks of a server, and the bounds of what takes longer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from ezmsg.core import config
from ezmsg.core.control import GRAPH_TIMEOUT_S, ControlClient
from ezmsg.core.control.link import ServerLink
from ezmsg.core.control.processrequests import SERVER_TIMEOUT_S
from ezmsg.core.errors import ConnectionLost, EzmsgError, RequestTimeout
from ezmsg.core.net.address import Address
from ezmsg.core.wire.limits import PUBLISHER_FLOW_TIMEOUT_S
from ezmsg.core.wire.records import Done, GetServerStatus, Record, Shutdown, Sync

# Where an answer may take any time, the server is asked this often whether it still lives.
ALIVE_INTERVAL_S = 2.0
# Pausing or resuming all publishers, as seen by who asks for it.
FLOW_TIMEOUT_S = PUBLISHER_FLOW_TIMEOUT_S + SERVER_TIMEOUT_S
# The end of a server: its telemetry agent has two seconds to export what it has.
SHUTDOWN_TIMEOUT_S = 5.0


class _Asker:
    """Handler of a client that only asks.

    Attributes:
        closed: Set when its connection is gone.
    """

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def on_request(self, connection: object, record: Record) -> Record:
        raise EzmsgError(f"{type(record).__name__} cannot be answered here")

    def on_notice(self, connection: object, record: Record) -> None:
        pass

    def on_closed(self, connection: object, error: Exception | None) -> None:
        self.closed.set()


@contextlib.asynccontextmanager
async def _connected(address: Address, asker: _Asker) -> AsyncGenerator[ControlClient]:
    client = await ControlClient.connect(address, asker, name="service")
    try:
        yield client
    finally:
        await client.close()


async def probe(address: Address) -> None:
    """See whether a server is there.

    Raises:
        ServerUnreachable: None answers.
        HandshakeError: What answers is no GraphServer of ours.
    """
    async with _connected(address, _Asker()):
        pass


async def ask(address: Address, record: Record, timeout_s: float = GRAPH_TIMEOUT_S) -> Any:
    """The answer to one request.

    Raises:
        ServerUnreachable: No server answers.
        RequestTimeout: It does not answer in time.
    """
    async with _connected(address, _Asker()) as client:
        return await client.request(record, timeout_s=timeout_s)


def routing_timeout_s() -> float:
    """What a server may take to answer when it has to tell subscribers first."""
    return GRAPH_TIMEOUT_S + config.subscriber_update_timeout_s()


async def sync_all(server: ControlClient | ServerLink, timeout_s: float | None) -> None:
    """Pause all publishers, and wait until every message was released.

    Args:
        server: Whom to ask.
        timeout_s: How long to wait; None waits as long as the server lives.

    Raises:
        RequestTimeout: It took longer, or the server stands still.
    """
    if timeout_s is not None:
        await server.request(Sync(timeout_s), timeout_s=timeout_s + SERVER_TIMEOUT_S)
        return
    syncing = asyncio.ensure_future(server.request(Sync(), Done))
    try:
        while not (await asyncio.wait([syncing], timeout=ALIVE_INTERVAL_S))[0]:
            await _require_alive(server)
        await syncing
    finally:
        syncing.cancel()


async def _require_alive(server: ControlClient | ServerLink) -> None:
    try:
        await server.request(GetServerStatus(), timeout_s=GRAPH_TIMEOUT_S)
    except RequestTimeout as error:
        raise RequestTimeout("Sync", error.peer, error.timeout_s) from error


async def ask_to_sync(address: Address, timeout_s: float | None) -> None:
    """As `sync_all`, on a connection of its own."""
    async with _connected(address, _Asker()) as client:
        await sync_all(client, timeout_s)


async def ask_to_end(address: Address) -> None:
    """End the server in order, and wait until it listens no more.

    Raises:
        ServerUnreachable: No server answers.
        RequestTimeout: It does not end.
    """
    asker = _Asker()
    async with _connected(address, asker) as client:
        with contextlib.suppress(ConnectionLost):  # it may end before it has answered
            await client.request(Shutdown(), timeout_s=GRAPH_TIMEOUT_S)
        try:
            # Its connections end after its listener.
            await asyncio.wait_for(asker.closed.wait(), SHUTDOWN_TIMEOUT_S)
        except TimeoutError:
            raise RequestTimeout("Shutdown", f"GraphServer {address}", SHUTDOWN_TIMEOUT_S) from None
