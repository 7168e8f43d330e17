"""A leaky subscriber: one that is too slow gets what is newest, and holds nobody up; one that is not leaky gets it all.

python -m examples.leaky
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import ezmsg.core as ez

MESSAGES = 30
PAUSE_S = 0.01
SLOW_S = 0.1


class Fast(ez.Unit):
    """Publishes a number every hundredth of a second."""

    OUTPUT = ez.OutputStream(int)

    @ez.publisher(OUTPUT)
    async def publish(self) -> AsyncIterator[Any]:
        """Publish all numbers, and complete."""
        for number in range(MESSAGES):
            yield self.OUTPUT, number
            await asyncio.sleep(PAUSE_S)
        raise ez.Complete


class Every(ez.Unit):
    """Receives everything: were it too slow, the publisher would wait for it."""

    INPUT = ez.InputStream(int)

    async def initialize(self) -> None:
        """Nothing has come yet."""
        self._count = 0

    @ez.subscriber(INPUT)
    async def receive(self, number: int) -> None:
        """Count a message."""
        self._count += 1
        if number == MESSAGES - 1:
            print(f"every: received {self._count} of {MESSAGES}")
            raise ez.Complete


class Newest(ez.Unit):
    """Takes ten times as long as a message is new, and looks at the newest each time: older ones are dropped."""

    # So many may wait; keep it below `num_buffers` of the publisher, or that may have to wait after all.
    INPUT = ez.InputStream(int, leaky=True, max_queue=1)

    async def initialize(self) -> None:
        """Nothing has come yet."""
        self._count = 0

    @ez.subscriber(INPUT)
    async def receive(self, number: int) -> None:
        """Work on a message, which is a copy of its own: the publisher does not wait for it to be done."""
        self._count += 1
        await asyncio.sleep(SLOW_S)
        if number == MESSAGES - 1:
            print(f"newest: received {self._count} of {MESSAGES}, the last of them too")
            raise ez.Complete


if __name__ == "__main__":
    fast, every, newest = Fast(), Every(), Newest()
    # No unit ends the run: it ends when every task has.
    ez.run(
        FAST=fast,
        EVERY=every,
        NEWEST=newest,
        connections=[(fast.OUTPUT, every.INPUT), (fast.OUTPUT, newest.INPUT)],
        process_components=[newest],
    )
