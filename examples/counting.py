"""Counts in one process and adds in another: units, settings, state, and how a run ends.

python -m examples.counting
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import ezmsg.core as ez


class CountSettings(ez.Settings):
    """It counts up to `until`."""

    until: int = 10


class Count(ez.Unit):
    """Publishes 1, 2, 3 …"""

    SETTINGS = CountSettings
    OUTPUT = ez.OutputStream(int)

    @ez.publisher(OUTPUT)
    async def count(self) -> AsyncIterator[Any]:
        """Publish all numbers; waits where the receiver is slower."""
        for number in range(1, self.SETTINGS.until + 1):
            yield self.OUTPUT, number
        # This task is done. What it published still arrives.
        raise ez.Complete


class AddState(ez.State):
    """What was received so far."""

    total: int = 0


class Add(ez.Unit):
    """Prints the sum of what it receives, and ends the run with the last number."""

    SETTINGS = CountSettings
    STATE = AddState
    INPUT = ez.InputStream(int)

    @ez.subscriber(INPUT)
    async def add(self, number: int) -> None:
        """Add a number."""
        self.STATE.total += number
        print(f"{number:2} received, together {self.STATE.total}")
        if number == self.SETTINGS.until:
            raise ez.NormalTermination


if __name__ == "__main__":
    settings = CountSettings(until=10)
    count, add = Count(settings), Add(settings)
    # `add` stays in this process.
    ez.run(COUNT=count, ADD=add, connections=[(count.OUTPUT, add.INPUT)], process_components=[count])
