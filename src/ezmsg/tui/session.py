"""A session with a graph that whoever watches keeps, however often its server ends and another one comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from ezmsg.core.errors import ConnectionLost, EzmsgError, RequestTimeout, ServerUnreachable
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.net.address import AddressType

E = TypeVar("E")

# Between attempts to open a session where no server answers, or one refuses.
RETRY_S = 0.5
# The loss of a server is told so late at most.
HEED_S = 0.25
CONNECTED = ""
ENDED = "the GraphServer ended: waiting for another"
LOST = "lost the GraphServer: waiting for it"
NONE = "no GraphServer answers: waiting for one (ezmsg start)"

Tell = Callable[[str], None]


class SessionOver(Exception):
    """The server ended in order; another session is needed for its successor."""


async def watch(address: AddressType | None, follow: Callable[[GraphContext], Awaitable[None]], tell: Tell) -> None:
    """Follow a graph for ever, with a new session for every server that ended in order.

    A server that is lost without a word costs no session: a GraphContext and its streams find its successor themselves.

    Args:
        address: Of the GraphServer; None for the default. None is started.
        follow: Called with each session; ends, or raises an EzmsgError, when it is over.
        tell: Called with what is wrong now, and with nothing (`CONNECTED`) once a session is there.
    """
    while True:
        try:
            async with GraphContext(address, auto_start=False) as context:
                tell(CONNECTED)
                heeding = asyncio.create_task(_heed(context, tell), name="heeds the loss of the server")
                try:
                    await follow(context)
                finally:
                    heeding.cancel()
                    await asyncio.wait([heeding])
            tell(ENDED)
        except SessionOver:
            tell(ENDED)
        except (EzmsgError, OSError) as error:
            tell(trouble(error))
        await asyncio.sleep(RETRY_S)


async def _heed(context: GraphContext, tell: Tell) -> None:
    """Tell a loss when it happens: a request waits for the return of the server before it fails."""
    while True:
        await asyncio.sleep(HEED_S)
        if not context.is_connected:
            tell(LOST)


def trouble(error: Exception) -> str:
    """What is wrong, in few words where they say it all."""
    if isinstance(error, ServerUnreachable):
        return NONE
    if isinstance(error, ConnectionLost):
        return LOST
    return " ".join(str(error).split())


async def each(stream: AsyncGenerator[E, None], take: Callable[[E], None]) -> None:
    """Take what a stream brings.

    Raises:
        SessionOver: The stream ended, as its server did.
    """
    async with aclosing(stream):
        async for item in stream:
            take(item)
    raise SessionOver


async def sentinel(context: GraphContext) -> None:
    """Wait for the end of the server: only a stream tells one that ends in order from one that is lost.

    Raises:
        SessionOver: It has come.
    """
    await each(context.subscribe_topology_events(), lambda _event: None)


async def repeatedly(ask: Callable[[], Awaitable[None]], interval_s: float, tell: Tell) -> None:
    """Ask again and again, also while the server is lost, which is told."""
    while True:
        try:
            await ask()
            tell(CONNECTED)
        except (ConnectionLost, RequestTimeout) as error:
            tell(trouble(error))
            await asyncio.sleep(RETRY_S)
        await asyncio.sleep(interval_s)


async def together(*parts: Coroutine[Any, Any, None]) -> None:
    """Run all parts of a session until one fails, as itself and not in a group, or all have ended."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            # Only once: a second time would interrupt how it closes what it opened.
            if not task.cancelling():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
