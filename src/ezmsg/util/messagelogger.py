"""A unit that logs messages to files; `messagereplay` publishes them again."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import ezmsg.core as ez
from ezmsg.util.logwriter import LogWriter
from ezmsg.util.messagecodec import log_line

logger = logging.getLogger("ezmsg")


def log_object(obj: Any) -> str:
    """A message as a line of a log, received now: `{"ts": Unix seconds, "obj": message}`."""
    return log_line(obj)


class MessageLoggerSettings(ez.Settings):
    """Settings of a MessageLogger."""

    output: Path | None = None
    """A log to begin with; None for none."""
    write_period: float = 0.0
    """Write every so many seconds; 0 for at once."""


class MessageLoggerState(ez.State):
    """State of a MessageLogger."""

    writer: LogWriter


class MessageLogger(ez.Unit):
    """Logs the messages it receives to one or more files, and publishes them.

    Files are written by a thread. Messages for which it has no time are lost, counted, and reported in the log of the
    program; publishing goes on. A file that is there already is replaced.

    INPUT_START begins a log, INPUT_STOP finishes one; OUTPUT_START and OUTPUT_STOP tell when that is done.
    """

    SETTINGS = MessageLoggerSettings
    STATE = MessageLoggerState

    INPUT_START = ez.InputStream(Path)
    INPUT_STOP = ez.InputStream(Path)
    INPUT_MESSAGE = ez.InputStream(Any)

    OUTPUT_MESSAGE = ez.OutputStream(Any)
    OUTPUT_START = ez.OutputStream(Path)
    OUTPUT_STOP = ez.OutputStream(Path)

    async def initialize(self) -> None:
        """Begin the log of the settings."""
        self.STATE.writer = LogWriter(self.address, self.SETTINGS.write_period)
        if self.SETTINGS.output is not None:
            await self._open(Path(self.SETTINGS.output))

    async def shutdown(self) -> None:
        """Finish all logs."""
        await self.STATE.writer.close()

    @property
    def lost(self) -> int:
        """Messages that were not written, or not to every file."""
        return self.STATE.writer.lost

    async def _open(self, path: Path) -> bool:
        try:
            return await self.STATE.writer.open(path)
        except OSError as error:
            logger.error("%s cannot log to %s: %s", self.address, path, error)
            return False

    @ez.subscriber(INPUT_START)
    @ez.publisher(OUTPUT_START)
    async def start_file(self, message: Path) -> AsyncIterator[Any]:
        """Begin a log."""
        if await self._open(Path(message)):
            yield self.OUTPUT_START, message

    @ez.subscriber(INPUT_STOP)
    @ez.publisher(OUTPUT_STOP)
    async def stop_file(self, message: Path) -> AsyncIterator[Any]:
        """Finish a log."""
        if await self.STATE.writer.end(Path(message)):
            yield self.OUTPUT_STOP, message

    @ez.subscriber(INPUT_MESSAGE)
    @ez.publisher(OUTPUT_MESSAGE)
    async def on_message(self, message: Any) -> AsyncIterator[Any]:
        """Log a message and publish it."""
        self.STATE.writer.write(message)
        yield self.OUTPUT_MESSAGE, message
