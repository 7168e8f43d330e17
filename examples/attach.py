"""Attaches to the graph of `metronome`, which runs: looks who is there, listens, and doubles the tempo meanwhile.

The metronome does not know of this program, and goes on when it is gone. How to run both stands in `metronome`:
python -m examples.metronome first, and then python -m examples.attach.
"""

from __future__ import annotations

import asyncio
import os
import sys

import ezmsg.core as ez

METRONOME = "METRONOME"
BEATS = 4


class Listen(ez.Unit):
    """Counts beats, and ends this run after a few: not the one it listens to."""

    INPUT = ez.InputStream(int)

    async def initialize(self) -> None:
        """Nothing was heard yet."""
        self._heard = 0
        self._half = asyncio.Event()

    @ez.subscriber(INPUT)
    async def listen(self, number: int) -> None:
        """Hear a beat."""
        self._heard += 1
        if self._heard == BEATS:
            self._half.set()

    @ez.task
    async def conduct(self) -> None:
        """Look around, wait for a few beats, and double the tempo."""
        async with ez.GraphContext(auto_start=False) as graph:
            processes = (await graph.snapshot()).processes.values()
            for process in (it for it in processes if it.pid != os.getpid()):
                print(f"process {process.pid} runs {', '.join(process.units)}")
            await self._half.wait()
            tempo = (await graph.settings_snapshot())[METRONOME].structured_value or {}
            # Returns when the unit has applied it; raises, and says why, where it must not or does not.
            wanted = min(2 * tempo["beats_per_minute"], 6000)
            await graph.update_setting(METRONOME, "beats_per_minute", wanted)
            print(f"{self._heard} beats heard, then {wanted:g} per minute instead of {tempo['beats_per_minute']:g}")
        raise ez.NormalTermination


async def is_running() -> bool:
    """Whether there is a metronome at the default address."""
    async with ez.GraphContext(auto_start=False) as graph:
        return METRONOME in await graph.settings_snapshot()


if __name__ == "__main__":
    try:
        if not asyncio.run(is_running()):
            sys.exit("there is no metronome: python -m examples.metronome")
    except ConnectionError as error:
        sys.exit(str(error))
    listen = Listen()
    # A topic of a graph that runs is known by its address.
    ez.run(LISTEN=listen, connections=[(f"{METRONOME}/BEAT", listen.INPUT)])
