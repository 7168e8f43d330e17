"""A place in the graph that outlives its connection: when the GraphServer is lost, it is taken again at the next."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable
from typing import Any, Protocol, Self, TypeVar

from ezmsg.core.control import ControlClient, resolve
from ezmsg.core.control.search import LOG, Search
from ezmsg.core.errors import ConnectionLost, ServerUnreachable
from ezmsg.core.net.address import AddressType
from ezmsg.core.wire.records import Goodbye, Record

R = TypeVar("R", bound=Record)

# Between attempts to take the place at a server that is there, but did not give it: doubled after each, up to the most.
RETRY_FIRST_S = 0.05
RETRY_MOST_S = 1.0
# How long a request without a time limit waits for a lost server, and how long a server may take to let us in again.
WAIT_S = 5.0


class LinkHandler(Protocol):
    """Whose place it is."""

    async def introduce(self, client: ControlClient, /) -> None:
        """Take the place at a server: say who this is and all that it owns. Called again for every new connection.

        Whatever it asks has a time limit of its own. When it fails, it is called again, with another connection.
        """
        ...

    def on_request(self, connection: Any, record: Record, /) -> Record | Awaitable[Record]:
        """The server asks something."""
        ...

    def on_notice(self, connection: Any, record: Record, /) -> None:
        """The server tells something."""
        ...

    def on_end(self, reason: str, /) -> None:
        """There will be no other connection: the server ended in order, or the link was closed. Called once."""
        ...


class ServerLink:
    """A connection to the GraphServer that is made anew when it is lost, and not when it ends in order.

    Requests fail while there is none, after waiting for it as long as their time limit says. Links of one loop hear of
    an orderly end together: a server does not wait for a peer that is slow to read, and cuts its connection.

    Attributes:
        address: Of the server.
        token: Proves to the server that a new connection is the same peer as the one before.
    """

    def __init__(self, graph_address: AddressType | None, handler: LinkHandler, name: str) -> None:
        self.address = resolve(graph_address)
        self.token = secrets.token_hex(16)
        self._handler = handler
        self._name = name
        # While it is lost there is none; `_back` then tells when there is one again.
        self._client: ControlClient | None = None
        self._back: asyncio.Future[None] | None = None
        self._returning: asyncio.Task[None] | None = None
        self._closing: asyncio.Future[Any] | None = None
        self._end = ""
        self._loop = asyncio.get_running_loop()
        self._since_s = self._loop.time()
        self._search = Search.of(self.address)

    @classmethod
    async def connect(cls, graph_address: AddressType | None, handler: LinkHandler, *, name: str) -> Self:
        """Connect and authenticate; `introduce` is next.

        Raises:
            ServerUnreachable: Nothing listens there, or it does not answer.
            HandshakeError: Something answers that is no GraphServer of ours.
        """
        self = cls(graph_address, handler, name)
        self._client = await ControlClient.connect(self.address, self, name=name)
        self._since_s = self._loop.time()
        return self

    async def introduce(self) -> None:
        """Take the place for the first time."""
        await self._handler.introduce(self._up())

    def __repr__(self) -> str:
        state = self._end or ("lost" if self._client is None else "connected")
        return f"<ServerLink {self._name} to {self.address} {state}>"

    @property
    def is_up(self) -> bool:
        """Whether there is a connection; if not, it was lost, or there will be no other."""
        return self._client is not None and not self._end

    # -- asking -------------------------------------------------------------------------------------------------------

    async def request(
        self,
        record: Record,
        reply: type[R] | None = None,
        timeout_s: float | None = None,
        *,
        revocable: bool = False,
    ) -> R:
        """Ask the server. What was being asked when it is lost fails; what is asked while it is lost waits for it.

        Raises:
            ConnectionLost: The server was lost, and is not back in time (`WAIT_S` without a time limit), or it ended.
            RequestTimeout: It did not answer in time.
            EzmsgError: It refused.
        """
        client = self._client
        if client is None or self._end:
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            client = await self._again(WAIT_S if timeout_s is None else timeout_s)
            if timeout_s is not None:
                timeout_s = max(0.0, timeout_s - (loop.time() - began_s))
        return await client.request(record, reply, timeout_s, revocable=revocable)

    async def _again(self, timeout_s: float) -> ControlClient:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        # More than once where a server is lost again before its first request is sent.
        while self._client is None and self._back is not None and not self._end:
            done, _ = await asyncio.wait([self._back], timeout=deadline_s - loop.time())
            if not done:
                raise ConnectionLost(str(self.address), f"the GraphServer is not back after {timeout_s:g} s")
        return self._up()

    def _up(self) -> ControlClient:
        if self._client is None or self._end:
            raise ConnectionLost(str(self.address), self._end or "the connection was closed")
        return self._client

    def notify(self, record: Record) -> bool:
        """Tell the server, if it is there; returns whether it is."""
        if self._client is None or self._end:
            return False
        self._client.notify(record)
        return True

    # -- handler of the connection ------------------------------------------------------------------------------------

    def on_request(self, connection: Any, record: Record) -> Record | Awaitable[Record]:
        """Pass it on."""
        return self._handler.on_request(connection, record)

    def on_notice(self, connection: Any, record: Record) -> None:
        """A goodbye ends it; pass everything else on."""
        if isinstance(record, Goodbye):
            self._ended(record.reason or "the GraphServer ended")
            self._search.goodbye(self._end)
        else:
            self._handler.on_notice(connection, record)

    def on_closed(self, connection: Any, error: Exception | None) -> None:
        """Begin to look for the next server."""
        client = self._client
        if self._end or client is None or client.connection is not connection:
            return
        self._client = None
        if reason := self._search.goodbye_since(self._since_s):
            self._cut_off(reason)
            return
        self._back = self._loop.create_future()
        self._returning = self._loop.create_task(self._return(error), name=f"{self._name} looks for {self.address}")
        self._search.looks(self._cut_off)

    def _cut_off(self, reason: str) -> None:
        """The server ended in order, as another link knows."""
        self._ended(f"{reason}, and did not wait until it had told all of it here")
        if self._returning is not None:
            self._returning.cancel()

    def _ended(self, reason: str) -> None:
        if self._end:
            return
        self._end = reason
        self._search.looks_no_more(self._cut_off)
        self._stop_waiting()
        self._handler.on_end(reason)

    def _stop_waiting(self) -> None:
        if self._back is not None and not self._back.done():
            self._back.set_result(None)

    # -- coming back --------------------------------------------------------------------------------------------------

    async def _return(self, error: Exception | None) -> None:
        """Take the place again, however long the server is gone."""
        LOG.warning(
            f"lost {self.address}",
            f"{self._name} lost the GraphServer at {self.address} ({error or 'it hung up'}): looking for it",
        )
        search = self._search
        search.lost()
        delay_s = RETRY_FIRST_S
        while not await self._retake(search):
            if self._end:
                return
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))
            delay_s = min(2 * delay_s, RETRY_MOST_S)
        LOG.warning(f"back {self.address}", f"{self._name} is back at the GraphServer at {self.address}")

    async def _retake(self, search: Search) -> bool:
        """Wait for a server, and try once; whether it knows us now."""
        client: ControlClient | None = None
        try:
            async with search.found():
                client = await ControlClient.connect(self.address, self, name=self._name)
            await self._handler.introduce(client)
            if not client.connection.closed and not self._end:
                self._client, self._since_s = client, self._loop.time()
                search.looks_no_more(self._cut_off)
                self._stop_waiting()
                return True
        except ServerUnreachable:
            search.lost()
        except Exception as error:
            LOG.warning(f"refused by {self.address}", f"{self._name} cannot come back to {self.address} yet: {error!r}")
        finally:
            if client is not None and self._client is not client:
                await client.abort()
        return False

    # -- the end ------------------------------------------------------------------------------------------------------

    def close_soon(self) -> None:
        """Begin to close; `wait_closed` waits for it."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())

    async def _close(self, *, is_abort: bool = False) -> None:
        client = self._client
        self._ended("it was closed")
        if self._returning is not None and not self._returning.done():
            self._returning.cancel()
            await asyncio.wait([self._returning])
            client = client or self._client
        if client is not None:
            await (client.abort() if is_abort else client.close())
        self._client = None

    @property
    def is_closing(self) -> bool:
        """Whether it was closed here."""
        return self._closing is not None

    @property
    def is_gone(self) -> bool:
        """Whether it was closed, and `wait_closed` has nothing to wait for."""
        return self._closing is not None and self._closing.done()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone."""
        if self._closing is not None:
            await asyncio.shield(self._closing)

    async def close(self) -> None:
        """Close the connection and wait for it."""
        self.close_soon()
        await self.wait_closed()

    def abort_soon(self) -> None:
        """Begin to end the connection, without a word to the server."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close(is_abort=True))

    async def abort(self) -> None:
        """End the connection without the server, which does not answer."""
        self.abort_soon()
        await self.wait_closed()
