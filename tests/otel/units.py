"""A run of two units in two processes, three messages long."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import ezmsg.core as ez


class Count(ez.Unit):
    OUTPUT = ez.OutputStream(int)

    @ez.publisher(OUTPUT)
    async def count(self) -> AsyncIterator[Any]:
        for number in range(3):
            yield self.OUTPUT, number
        raise ez.Complete


class Show(ez.Unit):
    INPUT = ez.InputStream(int)

    @ez.subscriber(INPUT)
    async def show(self, number: int) -> None:
        if number == 2:
            raise ez.NormalTermination


if __name__ == "__main__":
    count, show = Count(), Show()
    ez.run(COUNT=count, SHOW=show, connections=[(count.OUTPUT, show.INPUT)], process_components=[count])
