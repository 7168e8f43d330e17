"""The graph the stack is tested with: `python -m deploy.testing.graph`, four processes and faults on purpose.

It prints the address of its server, and ends, in order, when its standard input does. What is planted:

    SLOW   takes longer for a message than the source leaves it: backpressure, and blame
    LEAKY  drops what it cannot take
    SINK   fails at every tenth message, and at logging something
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import ezmsg.core as ez
from ezmsg.util.logwriter import LogWriter

Samples = npt.NDArray[np.float32]


class SourceSettings(ez.Settings):
    """Messages a second; 0 for none."""

    rate_hz: float = 100.0


class Source(ez.Unit):
    """Publishes arrays that grow."""

    SETTINGS = SourceSettings
    INPUT_SETTINGS = ez.InputStream(SourceSettings)
    OUTPUT = ez.OutputStream(Samples)

    async def initialize(self) -> None:
        """Begin with the rate of the settings."""
        self._rate_hz = self.SETTINGS.rate_hz
        self._changed = asyncio.Event()

    @ez.subscriber(INPUT_SETTINGS)
    async def change(self, settings: SourceSettings) -> None:
        """Go on at another rate."""
        self._rate_hz = settings.rate_hz
        self._changed.set()

    @ez.publisher(OUTPUT)
    async def play(self) -> AsyncIterator[Any]:
        """Publish until the run is over."""
        number = 0
        while True:
            if self._rate_hz == 0:
                self._changed.clear()
                await self._changed.wait()
                continue
            await asyncio.sleep(1 / self._rate_hz)
            yield self.OUTPUT, np.full((1 + number // 100) * 4096, number, np.float32)
            number += 1


class Check(ez.Unit):
    """Looks at messages in the process of the source, which is the first one; ends the run with standard input."""

    INPUT = ez.InputStream(Samples)

    @ez.subscriber(INPUT)
    async def check(self, samples: Samples) -> None:
        """Look at one."""
        assert samples[0] == samples[-1]

    @ez.task
    async def end(self) -> None:
        """Wait for the end of standard input."""
        await asyncio.to_thread(sys.stdin.read)
        raise ez.NormalTermination


class Slow(ez.Unit):
    """Thinks for 25 ms."""

    INPUT = ez.InputStream(Samples)
    OUTPUT = ez.OutputStream(float)

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def think(self, samples: Samples) -> AsyncIterator[Any]:
        """Think about a message."""
        with ez.profile("think"):
            await asyncio.sleep(0.025)
        yield self.OUTPUT, float(samples.mean())


class Leaky(ez.Unit):
    """Keeps the newest message only, and computes for 50 ms."""

    INPUT = ez.InputStream(Samples, leaky=True)

    @ez.subscriber(INPUT)
    async def compute(self, samples: Samples) -> None:
        """Keep the processor busy."""
        until_s = time.monotonic() + 0.05
        while time.monotonic() < until_s:
            float(samples.sum())


class Sink(ez.Unit):
    """Fails at every tenth message, and logs what cannot be logged."""

    INPUT = ez.InputStream(float)

    async def initialize(self) -> None:
        """Nothing came yet."""
        self._count = 0
        self._directory = tempfile.TemporaryDirectory()
        self._log = LogWriter(self.address)
        await self._log.open(Path(self._directory.name) / "log")

    async def shutdown(self) -> None:
        """Leave nothing."""
        await self._log.close()
        self._directory.cleanup()

    @ez.subscriber(INPUT)
    async def take(self, _mean: float) -> None:
        """Take a message, or fail."""
        self._count += 1
        if self._count % 10 == 0:
            self._log.write(threading.Lock())
            raise ValueError("planted")


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """A server of its own, whose address is printed."""
    server = ez.GraphServer()
    server.start("127.0.0.1:0")
    print(server.address, flush=True)
    try:
        yield str(server.address)
    finally:
        server.stop()


def main() -> None:
    """Run it."""
    source, check, slow, leaky, sink = Source(), Check(), Slow(), Leaky(), Sink()
    with serving() as address:
        ez.run(
            SOURCE=source,
            CHECK=check,
            SLOW=slow,
            LEAKY=leaky,
            SINK=sink,
            connections=[
                (source.OUTPUT, check.INPUT),
                (source.OUTPUT, slow.INPUT),
                (source.OUTPUT, leaky.INPUT),
                (slow.OUTPUT, sink.INPUT),
            ],
            process_components=[slow, leaky, sink],
            graph_address=address,
        )


if __name__ == "__main__":
    main()
