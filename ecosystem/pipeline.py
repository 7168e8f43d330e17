"""The demo's electrocardiogram through units of ezmsg-sigproc, in three processes.

A recording is cut into blocks by the first, band-pass filtered by the second; the third (this one) takes windows and
their power.

    python -m ecosystem.pipeline energy.npz           # 20 s of it, as fast as it goes
    python -m ecosystem.pipeline --live HOST:PORT     # in real time, until it is interrupted
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
from ezmsg.sigproc.aggregate import AggregateSettings, AggregateUnit, AggregationFunction
from ezmsg.sigproc.butterworthfilter import ButterworthFilter, ButterworthFilterSettings
from ezmsg.sigproc.window import Window, WindowSettings

import ezmsg.core as ez
from examples.ecg.signal import BLOCK_SAMPLES, FS_HZ, load_recording
from ezmsg.util.messagereplay import MessageCollector
from ezmsg.util.messages.axisarray import AxisArray
from ezmsg.util.messages.chunker import array_chunker
from ezmsg.util.terminate import TerminateOnTotal, TerminateOnTotalSettings

SECONDS = 20
WINDOW_S, SHIFT_S = 0.2, 0.1
BAND_PASS = ButterworthFilterSettings(axis="time", coef_type="sos", order=4, cuton=5.0, cutoff=15.0)


def recording(seconds: float = SECONDS) -> np.ndarray[Any, Any]:
    """(time, channel) float64, in millivolts; one channel."""
    ecg_mv, _ = load_recording()
    return ecg_mv[: int(seconds * FS_HZ), np.newaxis].astype(np.float64)


class PlayerSettings(ez.Settings):
    """Settings of a Player."""

    is_live: bool = False
    """Play in real time, over and over."""


class Player(ez.Unit):
    """Plays the recording in blocks of 100 ms."""

    SETTINGS = PlayerSettings
    OUTPUT_SIGNAL = ez.OutputStream(AxisArray)

    @ez.publisher(OUTPUT_SIGNAL)
    async def play(self) -> AsyncIterator[Any]:
        """Publish all blocks."""
        print("the player plays", flush=True)
        while True:
            for block in array_chunker(recording(), BLOCK_SAMPLES, fs=FS_HZ):
                if self.SETTINGS.is_live:
                    await asyncio.sleep(BLOCK_SAMPLES / FS_HZ)
                yield self.OUTPUT_SIGNAL, block
            if not self.SETTINGS.is_live:
                return


class Energy(ez.Collection):
    """The energy of windows: what comes of two units of ezmsg-sigproc."""

    INPUT = ez.InputTopic(AxisArray)
    OUTPUT = ez.OutputTopic(AxisArray)

    WINDOW = Window(WindowSettings(axis="time", window_dur=WINDOW_S, window_shift=SHIFT_S, zero_pad_until="none"))
    POWER = AggregateUnit(AggregateSettings(axis="time", operation=AggregationFunction.STD))

    def network(self) -> ez.NetworkDefinition:
        """From window to energy."""
        return (
            (self.INPUT, self.WINDOW.INPUT_SIGNAL),
            (self.WINDOW.OUTPUT_SIGNAL, self.POWER.INPUT_SIGNAL),
            (self.POWER.OUTPUT_SIGNAL, self.OUTPUT),
        )


def windows_of(samples: int) -> int:
    """How many windows there are in so many samples."""
    return (samples - round(WINDOW_S * FS_HZ)) // round(SHIFT_S * FS_HZ) + 1


def play(address: str | None, is_live: bool) -> list[AxisArray]:
    """Run the graph; the energy of all windows."""
    player, band_pass, energy = Player(PlayerSettings(is_live)), ButterworthFilter(BAND_PASS), Energy()
    collector = MessageCollector()
    total = TerminateOnTotal(TerminateOnTotalSettings(None if is_live else windows_of(len(recording()))))
    ez.run(
        PLAYER=player,
        BAND_PASS=band_pass,
        ENERGY=energy,
        COLLECTOR=collector,
        TOTAL=total,
        connections=[
            (player.OUTPUT_SIGNAL, band_pass.INPUT_SIGNAL),
            (band_pass.OUTPUT_SIGNAL, energy.INPUT),
            (energy.OUTPUT, collector.INPUT_MESSAGE),
            (collector.OUTPUT_MESSAGE, total.INPUT_MESSAGE),
        ],
        process_components=[player, band_pass],
        graph_address=address,
    )
    return collector.messages


def main() -> None:
    """Run it once, or live."""
    parser = argparse.ArgumentParser(prog="python -m ecosystem.pipeline", description=__doc__)
    parser.add_argument("output", nargs="?", type=Path)
    parser.add_argument("--live", metavar="HOST:PORT")
    options = parser.parse_args()
    messages = play(options.live, is_live=options.live is not None)
    if options.output:
        np.savez(
            options.output,
            energy=np.stack([message.data for message in messages]),
            pid=os.getpid(),
        )


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    main()
