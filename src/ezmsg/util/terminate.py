"""Units that end a run."""

from __future__ import annotations

import logging
import time
from typing import Any

import ezmsg.core as ez
from ezmsg.util.rate import Rate

logger = logging.getLogger("ezmsg")


class TerminateOnTimeoutSettings(ez.Settings):
    """Settings of TerminateOnTimeout."""

    time: float = 2.0
    """Seconds without a message."""
    poll_rate: float = 4.0
    """How often to look, in Hz."""


class TerminateOnTimeoutState(ez.State):
    """State of TerminateOnTimeout."""

    last_msg_timestamp: float | None = None
    """When the last message came, in s of the monotonic clock; None before the first."""


class TerminateOnTimeout(ez.Unit):
    """Ends the run when nothing more is received; it waits for the first message without end."""

    SETTINGS = TerminateOnTimeoutSettings
    STATE = TerminateOnTimeoutState

    INPUT = ez.InputStream(Any)

    @ez.subscriber(INPUT)
    async def keepalive(self, message: Any) -> None:
        """Note that there was a message."""
        self.STATE.last_msg_timestamp = time.monotonic()

    @ez.task
    async def poll_terminate(self) -> None:
        """End the run when there was none for long enough."""
        rate = Rate(self.SETTINGS.poll_rate)
        while True:
            await rate.sleep()
            last = self.STATE.last_msg_timestamp
            if last is not None and time.monotonic() - last > self.SETTINGS.time:
                logger.info("%s ends the run: no message for %g s", self.address, self.SETTINGS.time)
                raise ez.NormalTermination


class TerminateOnTotalSettings(ez.Settings):
    """Settings of TerminateOnTotal."""

    total: int | None = None
    """Messages to wait for; None to be told by a message."""


class TerminateOnTotalState(ez.State):
    """State of TerminateOnTotal."""

    total: int | None = None
    """Messages to wait for."""
    n_messages: int = 0
    """Messages received."""


class TerminateOnTotal(ez.Unit):
    """Ends the run after so many messages."""

    SETTINGS = TerminateOnTotalSettings
    STATE = TerminateOnTotalState

    INPUT_MESSAGE = ez.InputStream(Any)
    INPUT_TOTAL = ez.InputStream(int)

    async def initialize(self) -> None:
        """Take the total from the settings."""
        self.STATE.total = self.SETTINGS.total

    @ez.subscriber(INPUT_TOTAL)
    async def on_total(self, message: int) -> None:
        """Wait for another number of messages; those received before count."""
        self.STATE.total = message
        self._look()

    @ez.subscriber(INPUT_MESSAGE)
    async def on_message(self, message: Any) -> None:
        """Count a message."""
        self.STATE.n_messages += 1
        self._look()

    def _look(self) -> None:
        if self.STATE.total is not None and self.STATE.n_messages >= self.STATE.total:
            raise ez.NormalTermination
