"""The agent's connection: what the GraphServer tells goes into an `AgentCore`.

Reconnects when the connection is lost, ends when the server says goodbye.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Mapping

from ezmsg.core.control import ControlClient
from ezmsg.core.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    ExporterLeased,
    EzmsgError,
    Refused,
    RequestTimeout,
    TlsFailed,
    VersionMismatch,
)
from ezmsg.core.wire.records import (
    Done,
    DrainTelemetry,
    Goodbye,
    GraphState,
    OpenTelemetryReader,
    ProcessTelemetry,
    Record,
    ServerTelemetry,
    StreamOpened,
    TelemetryAck,
)
from ezmsg.otel.agent import AgentCore

READER_NAME = "ezmsg.otel"
REQUEST_TIMEOUT_S = 5.0
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 5.0
MISSING_AFTER_S = 15.0
"""When processes that did not show up after a reconnection count as ended; they reconnect as we do."""
LEASE_PATIENCE_S = 10.0
"""A server that has not noticed yet that we were cut off still holds our own lease."""
MAX_GONE = 1024
"""Ended processes that are remembered while spans of theirs wait for export."""

logger = logging.getLogger("ezmsg.otel")


class AgentClient:
    """Feeds a core from the GraphServer at `address` (`host:port`)."""

    def __init__(self, core: AgentCore, address: str) -> None:
        self._core = core
        self._address = address
        self._place = Place()

    async def run(self, patience_s: float) -> None:
        """Stay with the graph until its server ends in order.

        Args:
            patience_s: How long to try in the beginning; a connection that was lost is tried again for ever.

        Raises:
            ConnectionFailed: There is no server, or it does not let us in.
            ExporterLeased: It has an exporter already.
            EzmsgError: It refuses us for another reason.
        """
        link = await self._join(patience_s, lease_patience_s=0.0)
        logger.info("exporting the telemetry of the graph at %s", self._address)
        while not await link.stay():
            logger.warning("the connection to the graph at %s was lost, reconnecting", self._address)
            link = await self._join(float("inf"), LEASE_PATIENCE_S)
            asyncio.get_running_loop().call_later(MISSING_AFTER_S, self._core.end_missing)
            logger.info("connected to the graph at %s again", self._address)

    async def _join(self, patience_s: float, lease_patience_s: float) -> Link:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        wait_s = FIRST_WAIT_S
        while True:
            try:
                link = await Link.open(self._core, self._address, self._place)
                self._place = link.place
                return link
            except (AuthenticationFailed, VersionMismatch, TlsFailed):
                raise
            except EzmsgError as error:
                limit_s = lease_patience_s if isinstance(error, ExporterLeased) else patience_s
                may_pass = isinstance(error, (ConnectionFailed, RequestTimeout, ExporterLeased))
                if not may_pass or loop.time() - began_s + wait_s > limit_s:
                    raise
                logger.debug("waiting for the graph at %s: %s", self._address, error)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)


class Place:
    """Where the agent is among the spans of every process, at which server."""

    def __init__(self) -> None:
        self.epoch = ""
        self._positions: dict[str, int] = {}
        self._gone: dict[str, None] = {}

    def note(self, record: ProcessTelemetry) -> None:
        """A record came."""
        self._positions[record.link_id] = record.position
        self._gone.pop(record.link_id, None)  # it may be back
        if record.gone:
            self._gone[record.link_id] = None
            if len(self._gone) > MAX_GONE:
                self._forget(next(iter(self._gone)))

    def told(self, unsettled: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """What a server is told by an agent that is back."""
        for link_id in self._gone.keys() - unsettled.keys():
            self._forget(link_id)
        return {link_id: (position, unsettled.get(link_id, 0)) for link_id, position in self._positions.items()}

    def continued(self, before: Place) -> None:
        """We are at the server where `before` ended."""
        self._positions = before._positions | self._positions
        self._gone = before._gone | self._gone

    def _forget(self, link_id: str) -> None:
        del self._gone[link_id]
        self._positions.pop(link_id, None)


class Link:
    """One connection, as long as it lasts."""

    def __init__(self, core: AgentCore) -> None:
        self._core = core
        self.place = Place()
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._is_acknowledging = False
        self._client: ControlClient | None = None
        self._unacknowledged = 0
        # What came before it was known which server this is.
        self._early: list[Record] | None = []

    @classmethod
    async def open(cls, core: AgentCore, address: str, before: Place) -> Link:
        """Connect, and ask for the telemetry of the whole graph, from where we were."""
        self = cls(core)
        self._client = client = await ControlClient.connect(address, self, name="telemetry agent")
        try:
            opening = OpenTelemetryReader(READER_NAME, os.getpid(), before.epoch, before.told(core.unsettled()))
            opened = await client.request(opening, StreamOpened, REQUEST_TIMEOUT_S)
        except BaseException:
            await client.close()
            raise
        self.place.epoch = opened.epoch
        if before.epoch == opened.epoch:
            self.place.continued(before)
        if before.epoch:
            core.rejoined(is_new_server=before.epoch != opened.epoch)
        core.on_settled = self._acknowledge_soon
        early, self._early = self._early, None
        for record in early or ():
            self.on_notice(client, record)
        return self

    async def stay(self) -> bool:
        """Wait for the end; tells whether the server announced it."""
        assert self._client is not None
        try:
            await self._ended.wait()
            return self._client.is_goodbye
        finally:
            await self._client.close()

    def on_request(self, connection: object, record: Record) -> Record | Awaitable[Record]:
        """The server asks to export everything before it ends."""
        if isinstance(record, DrainTelemetry):
            return self._drain()
        raise Refused(f"a telemetry agent has no answer to {type(record).__name__}")

    def on_notice(self, connection: object, record: Record) -> None:
        """What processes delivered, what the graph looks like, or goodbye."""
        if self._early is not None:
            self._early.append(record)
            return
        if isinstance(record, (ProcessTelemetry, GraphState, ServerTelemetry)):
            self._core.feed(record)
        if isinstance(record, ProcessTelemetry):
            self.place.note(record)
            self._unacknowledged += 1
            self._acknowledge_soon()
        if isinstance(record, Goodbye):
            self._ended.set()

    def on_closed(self, connection: object, error: Exception | None) -> None:
        """The connection is gone."""
        self._ended.set()

    async def _drain(self) -> Record:
        # In a thread: the connection must go on answering meanwhile.
        if not await asyncio.to_thread(self._core.drain, is_last=True):
            logger.warning("not everything could be exported before the graph ended")
        return Done()

    def _acknowledge_soon(self) -> None:
        """Say what was taken and exported, all of it at once. From any thread."""
        if not self._is_acknowledging:
            self._is_acknowledging = True
            with contextlib.suppress(RuntimeError):  # a pipeline outlives the loop
                self._loop.call_soon_threadsafe(self._acknowledge)

    def _acknowledge(self) -> None:
        self._is_acknowledging = False
        count, self._unacknowledged = self._unacknowledged, 0
        if self._client is not None and not self._ended.is_set():
            self._client.notify(TelemetryAck(count, self._core.take_settled()))
