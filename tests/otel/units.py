"""A run of two units in two processes, three messages long: `python units.py [fork|spawn]`.

With a start method it goes on until standard input ends.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import ezmsg.core as ez
from ezmsg.core import config

# `opentelemetry-instrument` puts a sitecustomize of its own before that of the tests.
config.GRAPHSERVER_PORT_DEFAULT = int(os.environ["TESTS_DEFAULT_PORT"])


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
            if len(sys.argv) > 1:
                await asyncio.to_thread(sys.stdin.read)
            raise ez.NormalTermination


if __name__ == "__main__":
    if len(sys.argv) > 1:
        multiprocessing.set_start_method(sys.argv[1])
    count, show = Count(), Show()
    ez.run(COUNT=count, SHOW=show, connections=[(count.OUTPUT, show.INPUT)], process_components=[count])
