"""The client end of a stream of events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Literal, TypeVar

from ezmsg.core.control import ControlClient
from ezmsg.core.control.link import ServerLink
from ezmsg.core.control.readerstream import ReaderStream
from ezmsg.core.errors import EzmsgError
from ezmsg.core.net.address import Address
from ezmsg.core.wire.records import Event, EventAck, OpenEventStream, Record, StreamOpened

E = TypeVar("E", bound=Event)
V = TypeVar("V")
Kind = Literal["topology", "settings"]

# Events are acknowledged so many at once. Less than the window of the server.
ACK_EVERY = 16
OPEN_TIMEOUT_S = 5.0


class EventReader:
    """Collects the events of one stream; the server sends a bounded number ahead.

    Attributes:
        ended: Why there will be no more; empty while there may.
    """

    def __init__(self, kind: Kind, after_seq: int) -> None:
        self._kind: Kind = kind
        self._after_seq = after_seq
        self._epoch = ""
        self._gap = ""
        # What came before the answer to our opening was read; None when that is known.
        self._early: list[Event] | None = []
        # With what happened before; None at the end.
        self._events: asyncio.Queue[tuple[Event, str] | None] = asyncio.Queue()
        # By the reader, and not acknowledged yet.
        self._taken = 0
        self.ended = ""

    async def introduce(self, client: ControlClient) -> None:
        """Open the stream at a server: where it was, or at the first event of another one."""
        self._early = []
        unacknowledged = self._taken + self._events.qsize()
        opening = OpenEventStream(self._kind, self._after_seq, self._epoch, unacknowledged)
        opened = await client.request(opening, StreamOpened, OPEN_TIMEOUT_S)
        if self._epoch not in ("", opened.epoch):
            self._gap = f"the GraphServer at {client.address} was lost; another one is there, which counts anew"
        self._epoch = opened.epoch
        early, self._early = self._early, None
        for event in early:
            self._take(event)
        if self._taken:
            # The reader took it while there was no connection, and may be waiting for more.
            client.notify(EventAck(self._taken))
            self._taken = 0

    def _take(self, event: Event) -> None:
        self._events.put_nowait((event, self._gap))
        self._after_seq, self._gap = event.seq, ""

    def on_request(self, connection: object, record: Record) -> Record:
        """A server asks nothing of a stream."""
        raise EzmsgError(f"a stream of events has no answer to {type(record).__name__}")

    def on_notice(self, connection: object, record: Record) -> None:
        """An event."""
        if not isinstance(record, Event):
            return
        if self._early is not None:
            self._early.append(record)
        else:
            self._take(record)

    def on_end(self, reason: str) -> None:
        """The stream ends, silently, as the server did."""
        self.ended = reason
        self._events.put_nowait(None)

    async def next(self, link: ServerLink) -> tuple[Event, str] | None:
        """The next event, and what happened before it; None at the end."""
        # Acknowledged only when asked for the next: until then the reader is at work on it.
        if self._taken >= ACK_EVERY and link.notify(EventAck(self._taken)):
            self._taken = 0
        entry = await self._events.get()
        if entry is not None:
            self._taken += 1
        return entry


def event_stream(
    address: Address,
    kind: Kind,
    after_seq: int,
    record_type: type[E],
    view: Callable[[E, str], V],
) -> ReaderStream[V]:
    """The events of one kind of the server at `address`; connects at the first `anext`."""
    reader = EventReader(kind, after_seq)

    async def events() -> AsyncGenerator[V, None]:
        link = await ServerLink.connect(address, reader, name=f"{kind} events")
        try:
            await link.introduce()
            while (entry := await reader.next(link)) is not None:
                event, gap = entry
                if isinstance(event, record_type):
                    yield view(event, gap)
        finally:
            await link.close()

    return ReaderStream(events(), reader, f"{kind} events of {address}")
