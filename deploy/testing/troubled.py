"""A graph with worse faults than `deploy.testing.graph` has: `python -m deploy.testing.troubled [HOST:PORT]`.

Without an address it serves the graph, prints the address, and runs

    HOLDER   never lets go of a message: its publisher stalls
    LATE     takes messages that have waited for seconds, and so does ARCHIVE, which has a limit of its own

With the address of that server it adds one process more, to be killed

    DOOMED   blocks its event loop for longer than it leaves it alone

It runs until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import ezmsg.core as ez
from deploy.testing.graph import serving


class Ticker(ez.Unit):
    """Publishes numbers, as fast as they are taken and not faster than 50 a second."""

    OUTPUT = ez.OutputStream(int)

    @ez.publisher(OUTPUT)
    async def tick(self) -> AsyncIterator[Any]:
        """Publish for ever."""
        number = 0
        while True:
            yield self.OUTPUT, number
            number += 1
            await asyncio.sleep(0.02)


class Holder(ez.Unit):
    """Keeps its first message."""

    INPUT = ez.InputStream(int)

    @ez.subscriber(INPUT)
    async def hold(self, _number: int) -> None:
        """Never end."""
        await asyncio.Event().wait()


class Late(ez.Unit):
    """Takes a fifth of a second for a message, while all buffers of the publisher wait in its queue."""

    INPUT = ez.InputStream(int)

    @ez.subscriber(INPUT)
    async def take(self, _number: int) -> None:
        """Take one, slowly."""
        await asyncio.sleep(0.2)


class Blocking(ez.Unit):
    """Does not let others have the event loop."""

    INPUT = ez.InputStream(int)

    @ez.subscriber(INPUT)
    async def compute(self, _number: int) -> None:
        """Block the loop."""
        time.sleep(0.7)


def serve() -> None:
    """Run the graph and its server."""
    stuck, fast, holder, late, archive = Ticker(), Ticker(), Holder(), Late(), Late()
    with serving() as address:
        ez.run(
            STUCK=stuck,
            FAST=fast,
            HOLDER=holder,
            LATE=late,
            ARCHIVE=archive,
            connections=[(stuck.OUTPUT, holder.INPUT), (fast.OUTPUT, late.INPUT), (fast.OUTPUT, archive.INPUT)],
            graph_address=address,
        )


def join(address: str) -> None:
    """Run the process that is to be killed."""
    source, doomed = Ticker(), Blocking()
    ez.run(BUSY=source, DOOMED=doomed, connections=[(source.OUTPUT, doomed.INPUT)], graph_address=address)


if __name__ == "__main__":
    join(sys.argv[1]) if len(sys.argv) > 1 else serve()
