"""Messages in the log."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import ezmsg.core as ez

logger = logging.getLogger("ezmsg")


class DebugLogSettings(ez.Settings):
    """Settings of a DebugLog."""

    name: str = "DEBUG"
    """How lines of the log begin."""
    max_length: int | None = 400
    """Characters of a line; None for all."""


class DebugLog(ez.Unit):
    """Logs what it receives, and publishes it."""

    SETTINGS = DebugLogSettings

    INPUT = ez.InputStream(Any)
    OUTPUT = ez.OutputStream(Any)

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def log(self, message: Any) -> AsyncIterator[Any]:
        """Log a message and publish it."""
        if logger.isEnabledFor(logging.INFO):
            line, limit = f"{self.SETTINGS.name} - msg={message!r}", self.SETTINGS.max_length
            logger.info("%s", line if limit is None or len(line) <= limit else f"{line[:limit]} ... [truncated]")
        yield self.OUTPUT, message
