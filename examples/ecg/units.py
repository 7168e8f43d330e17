"""The units of the demo: a source, a filter and a detector, each in a process of its own, and a display in this one."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live

import ezmsg.core as ez
from examples.ecg.messages import EcgBlock, Heart
from examples.ecg.screen import edge_table
from examples.ecg.signal import BLOCK_SAMPLES, BandPass, BeatDetector, blocks, load_recording
from ezmsg.core.graphmeta import ProfilingStreamControl, TraceSpan

REFRESH_S = 0.5
# What was recorded last is on its way so long.
LINGER_S = 1.0


class SourceSettings(ez.Settings):
    """`seconds` of the recording are played."""

    seconds: float


class Source(ez.Unit):
    """Plays the recording in real time, a block every 100 ms."""

    SETTINGS = SourceSettings
    OUTPUT = ez.OutputStream(EcgBlock)

    @ez.publisher(OUTPUT)
    async def play(self) -> AsyncIterator[Any]:
        """Publish each block when its last sample was taken."""
        ecg_mv, fs_hz = load_recording()
        pieces = blocks(ecg_mv[: int(self.SETTINGS.seconds * fs_hz)])
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        for number, piece in enumerate(pieces):
            await asyncio.sleep(begin_s + (number + 1) * BLOCK_SAMPLES / fs_hz - loop.time())
            is_last = number == len(pieces) - 1
            yield self.OUTPUT, EcgBlock(piece, number * BLOCK_SAMPLES, fs_hz, is_last)


class Filter(ez.Unit):
    """Keeps what a heart beat is made of: 5 to 15 Hz."""

    INPUT = ez.InputStream(EcgBlock)
    OUTPUT = ez.OutputStream(EcgBlock)

    async def initialize(self) -> None:
        """Begin without a past."""
        self._band_pass = BandPass()

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def filter(self, block: EcgBlock) -> AsyncIterator[Any]:
        """Filter a block."""
        filtered = self._band_pass.process(block.data_mv)
        yield self.OUTPUT, EcgBlock(filtered, block.first_sample, block.fs_hz, block.is_last)


class Detector(ez.Unit):
    """Finds heart beats and counts them per minute."""

    INPUT = ez.InputStream(EcgBlock)
    OUTPUT = ez.OutputStream(Heart)

    async def initialize(self) -> None:
        """Begin to learn."""
        self._beats = BeatDetector(BandPass().delay_s)

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def detect(self, block: EcgBlock) -> AsyncIterator[Any]:
        """Tell the beats that are certain now."""
        found = self._beats.process(block.data_mv)
        if block.is_last:
            found += self._beats.flush()
        yield self.OUTPUT, Heart(found, self._beats.heart_rate_bpm, block.is_last)


@dataclass
class Seen:
    """What the display saw of the run."""

    beats_s: list[float] = field(default_factory=list[float])
    heart_rate_bpm: float | None = None
    is_complete: bool = False
    spans: dict[str, list[TraceSpan]] = field(default_factory=lambda: defaultdict[str, list[TraceSpan]](list))
    process_of: dict[str, str] = field(default_factory=dict[str, str])


class Display(ez.Unit):
    """Shows every edge while the graph runs, and keeps what is said of its messages; ends the run with the recording.

    Args:
        address: Of the GraphServer, which is asked.
        console: Where to show it.
        seen: Where to keep it.
    """

    INPUT = ez.InputStream(Heart)

    def __init__(self, address: str, console: Console, seen: Seen) -> None:
        super().__init__()
        self._address, self._console, self._seen = address, console, seen

    async def initialize(self) -> None:
        """Nothing is over yet."""
        self._is_over = asyncio.Event()

    @ez.subscriber(INPUT)
    async def watch_heart(self, heart: Heart) -> None:
        """Follow the heart until the last message."""
        self._seen.beats_s += heart.beats_s
        self._seen.heart_rate_bpm = heart.heart_rate_bpm
        if heart.is_last:
            self._is_over.set()

    @ez.task
    async def watch_spans(self) -> None:
        """Collect every span of the native stream."""
        async with ez.GraphContext(self._address) as context:
            names = {entry.pid: ", ".join(entry.units) for entry in (await context.snapshot()).processes.values()}
            stream = context.subscribe_profiling_trace(ProfilingStreamControl(interval=0.1, include_spans=True))
            async with contextlib.aclosing(stream):
                async for delivery in stream:
                    for batch in delivery.batches.values():
                        for span in batch.spans:
                            self._seen.spans[span.trace_id].append(span)
                            self._seen.process_of[span.span_id] = names.get(batch.pid, "")

    @ez.task
    async def show(self) -> None:
        """Show the edges until the last message came."""
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        async with ez.GraphContext(self._address) as context:
            with Live(console=self._console, auto_refresh=False, transient=False) as live:
                while not self._is_over.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._is_over.wait(), REFRESH_S)
                    snapshots = await context.profiling_snapshot_all()
                    table = edge_table(snapshots.values(), loop.time() - begin_s, self._seen.heart_rate_bpm)
                    live.update(table, refresh=True)
        await asyncio.sleep(LINGER_S)
        self._seen.is_complete = True
        raise ez.NormalTermination
