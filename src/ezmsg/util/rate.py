"""Loops that run so many times per second."""

from __future__ import annotations

import asyncio
import time

from ezmsg.core.errors import ConfigError


class Rate:
    """Sleeps in a loop so that it runs at a steady rate, whatever its body takes.

        rate = Rate(50.0)
        while True:
            await rate.sleep()
            ...

    A body that took too long is made up for by not sleeping; one that took more than two periods too long is not.

    Args:
        hz: How often the loop is to run, in Hz.

    Raises:
        ConfigError: It is not above 0.
    """

    def __init__(self, hz: float) -> None:
        if not hz > 0:
            raise ConfigError("hz", hz, "a number above 0")
        self.sleep_dur = 1.0 / hz
        self.last_time = time.monotonic()

    def remaining(self) -> float:
        """Seconds until the next run is due; negative when it is late."""
        return self.last_time + self.sleep_dur - time.monotonic()

    async def sleep(self) -> None:
        """Wait until the next run is due; others get their turn also when it is late."""
        await asyncio.sleep(max(0.0, self.remaining()))
        self._advance()

    def sleep_sync(self) -> None:
        """Block the thread until the next run is due."""
        time.sleep(max(0.0, self.remaining()))
        self._advance()

    def _advance(self) -> None:
        self.last_time += self.sleep_dur
        if -self.remaining() > self.sleep_dur:
            self.last_time = time.monotonic()
