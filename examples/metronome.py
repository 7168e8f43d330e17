"""A graph that runs until it is told to end, for `attach` to look at: it beats, in a tempo that can be changed.

ezmsg start
python -m examples.metronome            # Ctrl-C ends it
python -m examples.attach               # in another terminal, as often as you like
ezmsg shutdown
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import ezmsg.core as ez


class Tempo(ez.Settings):
    """Beats per minute; other values are refused before they get here."""

    beats_per_minute: float = dataclasses.field(default=240.0, metadata={"ge": 30, "le": 6000})


class Metronome(ez.Unit):
    """Publishes the number of each beat."""

    SETTINGS = Tempo
    # A stream of this name makes settings changeable while the unit runs.
    INPUT_SETTINGS = ez.InputStream(Tempo)
    BEAT = ez.OutputStream(int)

    async def initialize(self) -> None:
        """Begin with the tempo it was made with."""
        self._tempo = self.SETTINGS

    @ez.subscriber(INPUT_SETTINGS)
    async def change(self, tempo: Tempo) -> None:
        """Take another tempo, from the next beat on."""
        self._tempo = tempo
        print(f"now {tempo.beats_per_minute:g} beats per minute", flush=True)

    @ez.publisher(BEAT)
    async def beat(self) -> AsyncIterator[Any]:
        """Beat without end; nobody has to listen."""
        print("beating", flush=True)
        number = 0
        while True:
            yield self.BEAT, number
            number += 1
            await asyncio.sleep(60 / self._tempo.beats_per_minute)


if __name__ == "__main__":
    ez.run(METRONOME=Metronome())
