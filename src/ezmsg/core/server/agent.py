"""Starts and ends the telemetry agent that belongs to a server: a process of its own, never a fork."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
from typing import IO, TYPE_CHECKING

from ezmsg.core import config

if TYPE_CHECKING:
    from ezmsg.core.net.address import Address
    from ezmsg.core.server.telemetry import TelemetryDesk

logger = logging.getLogger("ezmsg")

# How long the end of a server waits for the agent to export what it has.
DRAIN_TIMEOUT_S = 2.0
POLL_S = 0.01


class AgentProcess:
    """The agent of one server, or nothing where none is configured."""

    def __init__(self, process: subprocess.Popen[bytes] | None) -> None:
        self._process = process
        self._logging = asyncio.create_task(self._log()) if process is not None else None

    @classmethod
    def launch(cls, address: Address) -> AgentProcess:
        """Start an agent when telemetry is to leave the graph (`EZMSG_OTEL`, `OTEL_EXPORTER_OTLP_ENDPOINT`).

        It ends at the end of file of its standard input, so also when this process is killed.
        """
        mode = config.otel_mode()
        if mode in {"off", "global"} or (mode == "auto" and not config.otlp_is_configured()):
            return cls(None)
        command = [sys.executable, "-m", "ezmsg.otel", "--graph", str(address), "--child"]
        return cls(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))

    async def _log(self) -> None:
        """Pass its log lines on."""
        assert self._process is not None
        pipe: IO[bytes] | None = self._process.stderr
        assert pipe is not None
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        try:
            while line := await reader.readline():
                logger.info("telemetry agent: %s", line.decode(errors="replace").rstrip())
        finally:
            transport.close()

    async def stop(self, desk: TelemetryDesk) -> None:
        """Let it export what it has, at most two seconds, then end it."""
        process = self._process
        if process is None or self._logging is None:
            return
        deadline = asyncio.get_running_loop().time() + DRAIN_TIMEOUT_S
        if process.poll() is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(desk.drain(), DRAIN_TIMEOUT_S)
        assert process.stdin is not None
        process.stdin.close()
        while process.poll() is None and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - no event
            await asyncio.sleep(POLL_S)
        if process.poll() is None:
            logger.warning("the telemetry agent did not end within %g s and is killed", DRAIN_TIMEOUT_S)
            process.kill()
        process.wait()
        self._logging.cancel()
        await asyncio.wait([self._logging])
