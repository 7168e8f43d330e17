"""The agent's connection: what the GraphServer tells goes into an `AgentCore`.

Reconnects when the connection is lost, ends when the server says goodbye.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable

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

logger = logging.getLogger("ezmsg.otel")


class AgentClient:
    """Feeds a core from the GraphServer at `address` (`host:port`)."""

    def __init__(self, core: AgentCore, address: str) -> None:
        self._core = core
        self._address = address

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
            self._core.rejoined()
            asyncio.get_running_loop().call_later(MISSING_AFTER_S, self._core.end_missing)
            logger.info("connected to the graph at %s again", self._address)

    async def _join(self, patience_s: float, lease_patience_s: float) -> Link:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        wait_s = FIRST_WAIT_S
        while True:
            try:
                return await Link.open(self._core, self._address)
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


class Link:
    """One connection, as long as it lasts."""

    def __init__(self, core: AgentCore) -> None:
        self._core = core
        self._ended = asyncio.Event()
        self._client: ControlClient | None = None
        self._unacknowledged = 0

    @classmethod
    async def open(cls, core: AgentCore, address: str) -> Link:
        """Connect, and ask for the telemetry of the whole graph."""
        self = cls(core)
        client = await ControlClient.connect(address, self, name="telemetry agent")
        try:
            await client.request(OpenTelemetryReader(READER_NAME, os.getpid()), timeout_s=REQUEST_TIMEOUT_S)
        except BaseException:
            await client.close()
            raise
        self._client = client
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
        if isinstance(record, (ProcessTelemetry, GraphState)):
            self._core.feed(record)
        if isinstance(record, ProcessTelemetry):
            if not self._unacknowledged:
                asyncio.get_running_loop().call_soon(self._acknowledge)
            self._unacknowledged += 1
        if isinstance(record, Goodbye):
            self._ended.set()

    def on_closed(self, connection: object, error: Exception | None) -> None:
        """The connection is gone."""
        self._ended.set()

    async def _drain(self) -> Record:
        # In a thread: the connection must go on answering meanwhile.
        if not await asyncio.to_thread(self._core.drain):
            logger.warning("not everything could be exported before the graph ended")
        return Done()

    def _acknowledge(self) -> None:
        count, self._unacknowledged = self._unacknowledged, 0
        if self._client is not None:
            self._client.notify(TelemetryAck(count))
