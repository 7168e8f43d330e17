"""Measure one cell of `sigproc.py` once, with the ezmsg of this interpreter; print the result as one line of JSON.

python benchmarks/sigprocworker.py --cell WHERE-SAMPLES [--seconds S]

A source of 256 channels at 1 kHz publishes blocks of so many samples; units of ezmsg-sigproc make windows of 50 ms of
them, one for each block, filter them, and take their power. WHERE is `together` in one process, or `apart`, each unit
in its own, connected by shared memory. Only what upstream and this project have in common. Or it is `timers`: as
`apart`, but nothing is sent, and a timer of its own wakes each unit: no runtime would take less.

The runtime's share of the processor is what the graph takes beyond a loop that calls the same units one after the
other, at the same pace, without a graph.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import os
import time
from collections.abc import AsyncGenerator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from chain import run_chain
from ezmsg.sigproc.aggregate import AggregateSettings, AggregateUnit, AggregationFunction
from ezmsg.sigproc.butterworthfilter import ButterworthFilter, ButterworthFilterSettings
from ezmsg.sigproc.math.pow import Pow, PowSettings
from ezmsg.sigproc.window import Window, WindowSettings

import ezmsg.core as ez
from ezmsg.util.messages.axisarray import AxisArray

CHANNELS = 256
FS_HZ = 1000.0
WINDOW_S = 0.05
WARM_UP_S = 1.0
"""Once messages are young: the first ones wait until filters are compiled."""
YOUNG_S, PATIENCE_S = 0.02, 20.0
Load = tuple[Any, AxisArray | None]
"""A unit, and a message for it."""
NOTHING: Load = (None, None)
"""Source and sink only wake up."""
SENT = "sent"
"""Attribute of a message: when its last sample was published, in s of the monotonic clock."""


def cpu_s() -> float:
    """What all processes of this group have used: the units', the server's, and whoever helps them."""
    group, total_ns = os.getpgrp(), 0
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if os.getpgid(int(process.name)) != group:
                continue
            for thread in (process / "task").iterdir():
                total_ns += int((thread / "schedstat").read_text().split()[0])
        except (OSError, ValueError):
            continue  # it ended meanwhile
    return total_ns / 1e9


async def blocks(samples: int) -> AsyncGenerator[AxisArray, None]:
    """A block whenever its last sample is due."""
    data = np.random.default_rng(1).normal(size=(samples, CHANNELS)).astype(np.float32)
    names = AxisArray.CoordinateAxis(data=np.array([f"ch{n}" for n in range(CHANNELS)]), dims=["ch"])
    period_s = samples / FS_HZ
    begin_s, number = time.monotonic(), 0
    while True:
        await asyncio.sleep(begin_s + (number + 1) * period_s - time.monotonic())
        axes = {"time": AxisArray.TimeAxis(FS_HZ, offset=number * period_s), "ch": names}
        yield AxisArray(data, dims=["time", "ch"], axes=axes, attrs={SENT: time.monotonic()})
        number += 1


def stages(samples: int) -> list[Any]:
    """The units of ezmsg-sigproc."""
    window = WindowSettings(axis="time", window_dur=WINDOW_S, window_shift=samples / FS_HZ, zero_pad_until="none")
    band_pass = ButterworthFilterSettings(axis="time", coef_type="sos", order=4, cuton=5.0, cutoff=200.0)
    mean = AggregateSettings(axis="time", operation=AggregationFunction.MEAN)
    return [Window(window), ButterworthFilter(band_pass), Pow(PowSettings(exponent=2.0)), AggregateUnit(mean)]


class Measured:
    """From when on is measured, and since when; the same for both ways to run it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ages_s: list[float] = []
        self._first_s = self._young_s = self._begin_s = self._cpu_s = 0.0

    def take(self, message: AxisArray) -> dict[str, float] | None:
        """Note how old a message is; in the end, what was found."""
        now_s = time.monotonic()
        self._ages_s.append(now_s - message.attrs[SENT])
        self._first_s = self._first_s or now_s
        if not self._young_s and (self._ages_s[-1] < YOUNG_S or now_s > self._first_s + PATIENCE_S):
            self._young_s = now_s
        if not self._begin_s and self._young_s and now_s >= self._young_s + min(WARM_UP_S, self._seconds):
            self._ages_s.clear()
            self._cpu_s, self._begin_s = cpu_s(), time.monotonic()
        elif self._begin_s and now_s >= self._begin_s + self._seconds:
            elapsed_s = now_s - self._begin_s
            return {
                "cpu": 100 * (cpu_s() - self._cpu_s) / elapsed_s,
                "median": 1e3 * float(np.quantile(self._ages_s, 0.5)),
                "p99": 1e3 * float(np.quantile(self._ages_s, 0.99)),
                "rate": len(self._ages_s) / elapsed_s,
            }
        return None


async def without_graph(samples: int, seconds: float) -> dict[str, float]:
    """One unit after the other, called for each block."""
    units, measured = stages(samples), Measured(seconds)
    for unit in units:
        await unit.initialize()

    async def hand_on(position: int, message: AxisArray) -> dict[str, float] | None:
        if position == len(units):
            return measured.take(message)
        found = None
        async for _, output in units[position].on_signal(message):
            found = await hand_on(position + 1, output)
        return found

    async for block in blocks(samples):
        if (found := await hand_on(0, block)) is not None:
            return found
    raise AssertionError("blocks do not end")


async def loads(samples: int) -> list[Load]:
    """What each process of the graph has to do for a block."""
    units = stages(samples)
    for unit in units:
        await unit.initialize()
    async for block in blocks(samples):
        found: list[Load] = []
        message: AxisArray | None = block
        for unit in units:
            if message is not None:
                found.append((unit, message))
                message = await output(unit, message)
        if message is not None:
            return [NOTHING, *found, NOTHING]
    raise AssertionError("blocks do not end")


async def output(unit: Any, message: AxisArray | None) -> AxisArray | None:
    """What a unit makes of a message."""
    found = [made async for _, made in unit.on_signal(message)]
    return found[-1] if found else None


async def live(load: Load, period_s: float) -> None:
    """Do it whenever there would be a block."""
    unit, message = load
    begin_s, number = time.monotonic(), 0
    while True:
        number += 1
        await asyncio.sleep(begin_s + number * period_s - time.monotonic())
        if unit is not None:
            await output(unit, message)


def by_timers(samples: int, seconds: float) -> dict[str, float]:
    """Each unit in a process of its own, called with a message that it has."""
    fork = multiprocessing.get_context("fork")
    processes = [
        fork.Process(target=lambda load=load: asyncio.run(live(load, samples / FS_HZ)), daemon=True)
        for load in asyncio.run(loads(samples))
    ]
    for process in processes:
        process.start()
    try:
        time.sleep(min(WARM_UP_S, seconds))
        used_s, begin_s = cpu_s(), time.monotonic()
        time.sleep(seconds)
        return {"cpu": 100 * (cpu_s() - used_s) / (time.monotonic() - begin_s)}
    finally:
        for process in processes:
            process.kill()
            process.join()


class Plan(ez.Settings):
    """What is done, and where it is told what was found."""

    path: str
    samples: int
    seconds: float


class Source(ez.Unit):
    SETTINGS = Plan
    OUTPUT_SIGNAL = ez.OutputStream(AxisArray)

    @ez.publisher(OUTPUT_SIGNAL)
    async def publish(self) -> AsyncGenerator[Any, None]:
        async for block in blocks(self.SETTINGS.samples):
            yield self.OUTPUT_SIGNAL, block


class Sink(ez.Unit):
    """Ends the run, and tells what it saw."""

    SETTINGS = Plan
    INPUT_SIGNAL = ez.InputStream(AxisArray)

    async def initialize(self) -> None:
        self._measured = Measured(self.SETTINGS.seconds)

    @ez.subscriber(INPUT_SIGNAL)
    async def take(self, message: AxisArray) -> None:
        if (found := self._measured.take(message)) is not None:
            Path(self.SETTINGS.path).write_text(json.dumps(found))
            raise ez.NormalTermination


def with_graph(where: str, samples: int, seconds: float) -> dict[str, float]:
    """The same as a graph."""

    def make(path: str) -> list[Any]:
        plan = Plan(path=path, samples=samples, seconds=seconds)
        return [Source(plan), *stages(samples), Sink(plan)]

    return run_chain(make, where, "OUTPUT_SIGNAL", "INPUT_SIGNAL").found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cell", required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    logging.getLogger("ezmsg").setLevel(logging.ERROR)
    where, samples = options.cell.split("-")
    # Before and after: what else the machine does changes how much the same work takes.
    before = asyncio.run(without_graph(int(samples), options.seconds / 2))
    found = (by_timers if where == "timers" else partial(with_graph, where))(int(samples), options.seconds)
    after = asyncio.run(without_graph(int(samples), options.seconds / 2))
    bare = (before["cpu"] + after["cpu"]) / 2
    metrics = {**found, "bare": bare, "runtime": found["cpu"] - bare}
    print(json.dumps({"metrics": metrics, "versions": {"ezmsg": version("ezmsg")}}))


if __name__ == "__main__":
    main()
