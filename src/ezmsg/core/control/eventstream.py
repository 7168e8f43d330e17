"""The client end of a stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Literal, TypeVar

from ezmsg.core.control import ControlClient
from ezmsg.core.errors import ConnectionLost, EzmsgError
from ezmsg.core.net.address import Address
from ezmsg.core.wire.records import Event, EventAck, OpenEventStream, Record

E = TypeVar("E", bound=Event)
V = TypeVar("V")

# Events are acknowledged so many at once. Less than the window of the server.
ACK_EVERY = 16


class EventReader:
    """Collects the events of one stream; the server sends a bounded number ahead."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._taken = 0

    def on_request(self, connection: object, record: Record) -> Record:
        """A server asks nothing of a stream."""
        raise EzmsgError(f"a stream of events has no answer to {type(record).__name__}")

    def on_notice(self, connection: object, record: Record) -> None:
        """An event, or goodbye."""
        if isinstance(record, Event):
            self.events.put_nowait(record)

    def on_closed(self, connection: object, error: Exception | None) -> None:
        """The stream ends, silently, as the server did."""
        self.events.put_nowait(None)

    async def next(self, client: ControlClient) -> Event | None:
        """The next event; None at the end."""
        # Acknowledged only when asked for the next: until then the reader is at work on it.
        if self._taken >= ACK_EVERY:
            client.notify(EventAck(self._taken))
            self._taken = 0
        event = await self.events.get()
        self._taken += 1
        return event


async def event_stream(
    address: Address,
    kind: Literal["topology", "settings"],
    after_seq: int,
    record_type: type[E],
    view: Callable[[E], V],
) -> AsyncGenerator[V, None]:
    """The events of one kind of the server at `address`; connects at the first `anext`."""
    reader = EventReader()
    client = await ControlClient.connect(address, reader, name=f"{kind} events")
    try:
        await client.request(OpenEventStream(kind, after_seq))
        while (event := await reader.next(client)) is not None:
            if isinstance(event, record_type):
                yield view(event)
    except ConnectionLost:
        # The server went away while we were asking it: that is the end, too.
        return
    finally:
        await client.close()
