"""Measure one cell of `sigproc.py` once, with the ezmsg of this interpreter; print the result as one line of JSON.

python benchmarks/sigprocworker.py --cell WHERE-SAMPLES [--seconds S]

A source of 256 channels at 1 kHz publishes blocks of so many samples; units of ezmsg-sigproc make windows of 50 ms of
them, one for each block, filter them, and take their power. WHERE is `together` in one process, or `apart`, each unit
in its own, connected by shared memory. Only what upstream and this project have in common.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import mmap
import os
import struct
import tempfile
import time
from collections.abc import AsyncGenerator
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
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
YOUNG_S, PATIENCE_S = 0.1, 20.0
SENT = "sent"
"""Attribute of a message: when its last sample was published, in s of the monotonic clock."""


class Meter:
    """Seconds of the processor that units spend in their own code; each has a slot in a file that all map."""

    def __init__(self, path: str, slots: int = 8) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8 * slots)
        self._slots = slots

    def add(self, slot: int, seconds: float) -> None:
        struct.pack_into("<d", self._map, 8 * slot, struct.unpack_from("<d", self._map, 8 * slot)[0] + seconds)

    def total(self) -> float:
        return sum(struct.unpack_from(f"<{self._slots}d", self._map))

    @staticmethod
    def make(path: Path, slots: int = 8) -> None:
        path.write_bytes(bytes(8 * slots))


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


class Metered(ez.Unit):
    """A unit whose own code is timed; `METER` names the file, `SLOT` its place there."""

    METER = ""
    SLOT = 0

    async def metered(self, outputs: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
        if not hasattr(self, "_meter"):
            self._meter = Meter(self.METER)
        began = time.thread_time()
        async for output in outputs:
            self._meter.add(self.SLOT, time.thread_time() - began)
            yield output
            began = time.thread_time()
        self._meter.add(self.SLOT, time.thread_time() - began)


def metered(unit: type[Any]) -> type[Any]:
    """The class of a unit of ezmsg-sigproc, as a timed one."""

    class Timed(unit, Metered):  # type: ignore[misc, valid-type]
        INPUT_SIGNAL = ez.InputStream(AxisArray)
        OUTPUT_SIGNAL = ez.OutputStream(AxisArray)

        @ez.subscriber(INPUT_SIGNAL)
        @ez.publisher(OUTPUT_SIGNAL)
        async def on_signal(self, message: AxisArray) -> AsyncGenerator[Any, None]:
            async for output in self.metered(unit.on_signal(self, message)):
                yield output

    Timed.__name__ = Timed.__qualname__ = f"Timed{unit.__name__}"
    return Timed


TimedWindow, TimedFilter, TimedPow, TimedPower = map(metered, (Window, ButterworthFilter, Pow, AggregateUnit))


class Plan(ez.Settings):
    """What is done, and where it is told what was found."""

    directory: str
    samples: int
    seconds: float


class Source(Metered):
    """Publishes a block whenever its last sample is due."""

    SETTINGS = Plan
    OUTPUT_SIGNAL = ez.OutputStream(AxisArray)

    @ez.publisher(OUTPUT_SIGNAL)
    async def publish(self) -> AsyncGenerator[Any, None]:
        samples, meter = self.SETTINGS.samples, Meter(self.METER)
        data = np.random.default_rng(1).normal(size=(samples, CHANNELS)).astype(np.float32)
        names = AxisArray.CoordinateAxis(data=np.array([f"ch{n}" for n in range(CHANNELS)]), dims=["ch"])
        period_s = samples / FS_HZ
        begin_s, number = time.monotonic(), 0
        while True:
            number += 1
            await asyncio.sleep(begin_s + number * period_s - time.monotonic())
            began = time.thread_time()
            axes = {"time": AxisArray.TimeAxis(FS_HZ, offset=(number - 1) * period_s), "ch": names}
            attrs = {SENT: time.monotonic()}
            message = AxisArray(data, dims=["time", "ch"], axes=axes, attrs=attrs)
            meter.add(self.SLOT, time.thread_time() - began)
            yield self.OUTPUT_SIGNAL, message


class Sink(Metered):
    """Notes how old messages are; ends the run, and tells what it saw."""

    SETTINGS = Plan
    INPUT_SIGNAL = ez.InputStream(AxisArray)

    async def initialize(self) -> None:
        self._ages_s: list[float] = []
        self._first_s = self._young_s = self._begin_s = self._cpu_s = self._own_s = 0.0

    @ez.subscriber(INPUT_SIGNAL)
    async def take(self, message: AxisArray) -> None:
        began, now_s = time.thread_time(), time.monotonic()
        plan = self.SETTINGS
        self._ages_s.append(now_s - message.attrs[SENT])
        if not self._first_s:
            self._first_s, self._meter = now_s, Meter(self.METER)
        if not self._young_s and (self._ages_s[-1] < YOUNG_S or now_s > self._first_s + PATIENCE_S):
            self._young_s = now_s
        if not self._begin_s and self._young_s and now_s >= self._young_s + min(WARM_UP_S, plan.seconds):
            self._ages_s.clear()
            self._cpu_s, self._own_s, self._begin_s = cpu_s(), self._meter.total(), time.monotonic()
        elif self._begin_s and now_s >= self._begin_s + plan.seconds:
            self._tell(now_s - self._begin_s)
            raise ez.NormalTermination
        self._meter.add(self.SLOT, time.thread_time() - began)

    def _tell(self, elapsed_s: float) -> None:
        own_s = self._meter.total() - self._own_s
        runtime_s = cpu_s() - self._cpu_s - own_s
        found = {
            "runtime": 100 * runtime_s / elapsed_s,
            "own": 100 * own_s / elapsed_s,
            "median": 1e3 * float(np.quantile(self._ages_s, 0.5)),
            "p99": 1e3 * float(np.quantile(self._ages_s, 0.99)),
            "rate": len(self._ages_s) / elapsed_s,
        }
        Path(self.SETTINGS.directory, "found.json").write_text(json.dumps(found))


def measure(cell: str, seconds: float) -> dict[str, float]:
    """Run the graph of a cell once."""
    where, samples = cell.split("-")
    with tempfile.TemporaryDirectory() as directory:
        meter = Path(directory, "meter")
        Meter.make(meter)
        plan = Plan(directory=directory, samples=int(samples), seconds=seconds)
        units: dict[str, Any] = {
            "SOURCE": Source(plan),
            "WINDOW": TimedWindow(WindowSettings(
                axis="time", window_dur=WINDOW_S, window_shift=int(samples) / FS_HZ, zero_pad_until="none")),
            "FILTER": TimedFilter(ButterworthFilterSettings(
                axis="time", coef_type="sos", order=4, cuton=5.0, cutoff=200.0)),
            "SQUARE": TimedPow(PowSettings(exponent=2.0)),
            "POWER": TimedPower(AggregateSettings(axis="time", operation=AggregationFunction.MEAN)),
            "SINK": Sink(plan),
        }  # fmt: skip
        chain = list(units.values())
        for slot, unit in enumerate(chain):
            unit.METER, unit.SLOT = str(meter), slot
        edges = [(a.OUTPUT_SIGNAL, b.INPUT_SIGNAL) for a, b in pairwise(chain)]
        ez.run(components=units, connections=edges, process_components=chain if where == "apart" else None)
        return json.loads(Path(directory, "found.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cell", required=True)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    logging.getLogger("ezmsg").setLevel(logging.ERROR)
    metrics = measure(options.cell, options.seconds)
    print(json.dumps({"metrics": metrics, "versions": {"ezmsg": version("ezmsg")}}))


if __name__ == "__main__":
    main()
