"""Starts and ends the telemetry agent that belongs to a server: a process of its own, never a fork."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from ezmsg.core import config
from ezmsg.core.net.forking import held_back, no_fork, track

if TYPE_CHECKING:
    from ezmsg.core.net.address import Address
    from ezmsg.core.server.telemetry import TelemetryDesk

logger = logging.getLogger("ezmsg")

# How long the end of a server waits for the agent to export what it has; of this, for one that is still starting.
DRAIN_TIMEOUT_S: Final = 2.0
JOIN_TIMEOUT_S: Final = 1.5
LAST_WORDS_S: Final = 0.2
POLL_S: Final = 0.01
# Between a crash and the next start; twice as long after each further one. One that lasted starts from the first.
FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 30.0
FAILED: Final = 1
"""The exit code of an agent that gave up for a reason it did not expect; with others it means to stay away."""

_LEVELS: Final = logging.getLevelNamesMapping()


class AgentProcess:
    """The agent of one server, or nothing where none is configured. One that crashes is started again."""

    def __init__(self, command: list[str] | None) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._deadline_s: float | None = None
        if command is not None:
            self._start()
            self._watching = asyncio.create_task(self._watch(), name="telemetry agent")

    @classmethod
    def launch(cls, address: Address) -> AgentProcess:
        """Start an agent when telemetry is to leave the graph (`EZMSG_OTEL`, `OTEL_EXPORTER_OTLP_ENDPOINT`).

        It ends at the end of file of its standard input, so also when this process is killed.
        """
        if not config.agent_exports():
            return cls(None)
        return cls([sys.executable, "-m", "ezmsg.otel", "--graph", str(address), "--child"])

    @property
    def is_wanted(self) -> bool:
        """Whether the server has one, be it running or not."""
        return self._command is not None

    async def joined(self, desk: TelemetryDesk) -> None:
        """The server is about to end: let an agent that is still starting join first, if there is something to export.

        A short program is over before its agent is there.
        """
        loop = asyncio.get_running_loop()
        self._deadline_s = loop.time() + DRAIN_TIMEOUT_S
        until_s = loop.time() + JOIN_TIMEOUT_S
        while self._is_running() and desk.has_telemetry and not desk.has_exporter and loop.time() < until_s:  # noqa: ASYNC110 - no event
            await asyncio.sleep(POLL_S)

    async def stop(self, desk: TelemetryDesk) -> None:
        """Let it export what it has, at most two seconds since `joined`, then end it."""
        loop = asyncio.get_running_loop()
        self._deadline_s = deadline_s = self._deadline_s or loop.time() + DRAIN_TIMEOUT_S
        if self._watching is None or self._process is None:
            return
        if self._is_running():
            if not desk.has_exporter and (lost := desk.unexported):
                logger.warning("the graph ended before its telemetry agent was there: %d spans are not exported", lost)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(desk.drain(), max(0.0, deadline_s - loop.time()))
        process = self._process
        assert process.stdin is not None
        process.stdin.close()
        while process.poll() is None and loop.time() < deadline_s:  # noqa: ASYNC110 - no event
            await asyncio.sleep(POLL_S)
        if process.poll() is None:
            logger.warning(
                "the telemetry agent did not end within %g s and is killed: what became of %d spans is not known",
                DRAIN_TIMEOUT_S, desk.unexported,
            )  # fmt: skip
            process.kill()
        process.wait()
        # What it said last is passed on.
        await asyncio.wait([self._watching], timeout=LAST_WORDS_S)
        self._watching.cancel()
        await asyncio.wait([self._watching])

    def _start(self) -> None:
        assert self._command is not None
        # What reaches the whole process group shall not find an interpreter that is still starting. And a forked child
        # that held the other end of its standard input would hide the death of this process from it.
        with held_back(), no_fork():
            self._process = process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            for pipe in filter(None, (process.stdin, process.stderr)):
                track(pipe)

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def _watch(self) -> None:
        """Pass its log lines on, and start it again when it has crashed."""
        loop = asyncio.get_running_loop()
        wait_s = FIRST_WAIT_S
        while True:
            process, began_s = self._process, loop.time()
            assert process is not None
            await _pass_log_on(process)
            while (code := process.poll()) is None:  # noqa: ASYNC110 - no event
                await asyncio.sleep(POLL_S)
            if self._deadline_s is not None or not (code < 0 or code == FAILED):
                return
            if loop.time() - began_s > LONGEST_WAIT_S:
                wait_s = FIRST_WAIT_S
            logger.warning("the telemetry agent crashed (exit code %d), starting it again in %g s", code, wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            if self._deadline_s is not None:
                return
            assert process.stdin is not None
            process.stdin.close()
            self._start()


async def _pass_log_on(process: subprocess.Popen[bytes]) -> None:
    """Pass on what it writes to standard error, until it closes that."""
    pipe = process.stderr
    assert pipe is not None
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        while part := await _next_part(reader):
            _pass_on(part.decode(errors="replace"))
    finally:
        transport.close()


async def _next_part(reader: asyncio.StreamReader) -> bytes:
    """The next line, a piece of one that is longer than the reader keeps, or nothing at the end."""
    try:
        return await reader.readuntil()
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await reader.readexactly(error.consumed)


def _pass_on(line: str) -> None:
    """Log a line of its log at its level; what else it writes, as to its console, goes to standard error as it is."""
    level, colon, message = line.partition(": ")
    if colon and level in _LEVELS:
        logger.log(_LEVELS[level], "telemetry agent: %s", message.rstrip())
        return
    with contextlib.suppress(OSError, ValueError):  # closed
        sys.stderr.write(line)
        sys.stderr.flush()
