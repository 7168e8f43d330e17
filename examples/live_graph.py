"""A graph to look at: a source, a filter and a slow unit in three processes, with settings that change while it runs.

    ezmsg start
    python -m examples.live_graph

The slow unit takes 15 ms for a message, and there is one every 10 ms: it holds up everybody. Find it with `ezmsg top`,
set its `work_ms` to 2 with `python -m examples.settings_tui`, and see the graph flow.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import AsyncIterator
from dataclasses import field
from typing import Any, Literal

import numpy as np

import ezmsg.core as ez

BLOCK = 64


class SourceSettings(ez.Settings):
    """What the source makes."""

    rate_hz: float = field(default=100.0, metadata={"description": "blocks per second", "ge": 1, "le": 500})
    shape: Literal["sine", "square", "noise"] = field(default="sine", metadata={"description": "of the wave"})
    amplitude: float = field(default=1.0, metadata={"description": "in volts", "ge": 0, "le": 10})
    muted: bool = field(default=False, metadata={"description": "send zeros"})


class FilterSettings(ez.Settings):
    """What the filter does."""

    gain: float = field(default=2.0, metadata={"description": "factor", "ge": 0, "le": 10})
    taps: int = field(default=5, metadata={"description": "length of the mean", "ge": 1, "le": BLOCK})
    channels: list[str] = field(default_factory=lambda: ["C3", "C4"], metadata={"description": "names"})
    label: str = field(default="moving mean", metadata={"description": "free text"})


class SlowSettings(ez.Settings):
    """What the slow unit takes."""

    work_ms: float = field(default=15.0, metadata={"description": "time for a message", "ge": 0, "le": 50})


class Source(ez.Unit):
    """Publishes blocks of a wave."""

    SETTINGS = SourceSettings
    INPUT_SETTINGS = ez.InputStream(SourceSettings)
    OUTPUT = ez.OutputStream(np.ndarray)

    async def initialize(self) -> None:
        """Begin with what it was made with."""
        self._settings = self.SETTINGS

    @ez.subscriber(INPUT_SETTINGS)
    async def change(self, settings: SourceSettings) -> None:
        """Go on with other settings."""
        self._settings = settings

    @ez.publisher(OUTPUT)
    async def publish(self) -> AsyncIterator[Any]:
        """One block after the other."""
        number = 0
        while True:
            await asyncio.sleep(1 / self._settings.rate_hz)
            yield self.OUTPUT, self._block(number)
            number += 1

    def _block(self, number: int) -> np.ndarray[Any, Any]:
        settings = self._settings
        wave = np.sin(2 * math.pi * (np.arange(BLOCK) / BLOCK + number / 7))
        if settings.shape == "square":
            wave = np.sign(wave)
        elif settings.shape == "noise":
            wave = np.random.default_rng(number).standard_normal(BLOCK)
        return wave * (0.0 if settings.muted else settings.amplitude)


class Filter(ez.Unit):
    """A moving mean."""

    SETTINGS = FilterSettings
    INPUT_SETTINGS = ez.InputStream(FilterSettings)
    INPUT = ez.InputStream(np.ndarray)
    OUTPUT = ez.OutputStream(np.ndarray)

    async def initialize(self) -> None:
        """Begin with what it was made with."""
        self._settings = self.SETTINGS

    @ez.subscriber(INPUT_SETTINGS)
    async def change(self, settings: FilterSettings) -> None:
        """Go on with other settings."""
        self._settings = settings

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def smooth(self, block: np.ndarray[Any, Any]) -> AsyncIterator[Any]:
        """Smooth a block."""
        taps = self._settings.taps
        yield self.OUTPUT, np.convolve(block, np.full(taps, self._settings.gain / taps), mode="same")


class Slow(ez.Unit):
    """Takes its time for every message, as a device does that has to answer."""

    SETTINGS = SlowSettings
    INPUT_SETTINGS = ez.InputStream(SlowSettings)
    INPUT = ez.InputStream(np.ndarray)

    async def initialize(self) -> None:
        """Begin with what it was made with."""
        self._settings = self.SETTINGS

    @ez.subscriber(INPUT_SETTINGS)
    async def change(self, settings: SlowSettings) -> None:
        """Go on with other settings."""
        self._settings = settings

    @ez.subscriber(INPUT)
    async def work(self, block: np.ndarray[Any, Any]) -> None:
        """Take a while."""
        await asyncio.sleep(self._settings.work_ms / 1e3)


class Monitor(ez.Unit):
    """Looks at what comes, and has no settings."""

    INPUT = ez.InputStream(np.ndarray, leaky=True, max_queue=4)

    @ez.subscriber(INPUT)
    async def look(self, block: np.ndarray[Any, Any]) -> None:
        """Look at a block."""


def run(address: str) -> None:
    """Run it in the graph at an address until it is interrupted."""
    source, smooth, slow, monitor = Source(), Filter(), Slow(), Monitor()
    print(f"SOURCE, FILTER, SLOW and MONITOR run in the graph at {address}. Ctrl-C ends them.", flush=True)
    ez.run(
        SOURCE=source,
        FILTER=smooth,
        SLOW=slow,
        MONITOR=monitor,
        connections=[
            (source.OUTPUT, smooth.INPUT),
            (smooth.OUTPUT, slow.INPUT),
            (source.OUTPUT, monitor.INPUT),
        ],
        process_components=[smooth, slow],
        graph_address=address,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = str(ez.GraphService.default_address())
    parser.add_argument("--address", metavar="HOST:PORT", default=default, help="of the GraphServer (%(default)s)")
    try:
        run(parser.parse_args().address)
    except OSError as error:
        sys.exit(str(error))
