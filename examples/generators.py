"""A graph of generators: plain functions that know nothing of units, each made a unit that keeps where it stands.

python -m examples.generators
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import numpy as np

import ezmsg.core as ez

Array = np.ndarray[Any, np.dtype[Any]]
Transform = Generator[Array | None, Array, None]
"""Gets chunks with `send`, and yields what becomes of each; None where nothing does."""

CHUNKS, CHUNK_SAMPLES = 20, 50


def difference() -> Transform:
    """The step from each sample to the next, also from one chunk to the next."""
    result, last = None, np.zeros(1)
    while True:
        chunk = yield result
        result, last = np.diff(chunk, prepend=last), chunk[-1:]


def windows(samples: int) -> Transform:
    """Chunks of another length, as soon as there are enough samples."""
    result, kept = None, np.zeros(0)
    while True:
        chunk = yield result
        kept = np.concatenate([kept, chunk])
        result, kept = (kept[:samples], kept[samples:]) if len(kept) >= samples else (None, kept)


class TransformSettings(ez.Settings):
    """`make` begins a generator, in the process of the unit: generators themselves do not travel, functions do."""

    make: Callable[..., Transform]
    arguments: tuple[Any, ...] = ()


class TransformState(ez.State):
    """The generator, which keeps where it stands."""

    generator: Transform


class Transformer(ez.Unit):
    """Sends every message into a generator, and publishes what comes out."""

    SETTINGS = TransformSettings
    STATE = TransformState
    INPUT = ez.InputStream(np.ndarray)
    OUTPUT = ez.OutputStream(np.ndarray)

    async def initialize(self) -> None:
        """Begin the generator: it waits for its first chunk."""
        self.STATE.generator = self.SETTINGS.make(*self.SETTINGS.arguments)
        next(self.STATE.generator)

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def transform(self, chunk: Array) -> AsyncIterator[Any]:
        """Handle a chunk."""
        result = self.STATE.generator.send(chunk)
        if result is not None:
            yield self.OUTPUT, result


class Ramp(ez.Unit):
    """Publishes chunks of samples that grow by a tenth."""

    OUTPUT = ez.OutputStream(np.ndarray)

    @ez.publisher(OUTPUT)
    async def play(self) -> AsyncIterator[Any]:
        """Publish all chunks, and complete."""
        for chunk in np.split(np.arange(1, 1 + CHUNKS * CHUNK_SAMPLES) * 0.1, CHUNKS):
            yield self.OUTPUT, chunk
        raise ez.Complete


class Show(ez.Unit):
    """Prints what it receives, and ends the run when all samples have come."""

    INPUT = ez.InputStream(np.ndarray)

    async def initialize(self) -> None:
        """Nothing has come yet."""
        self._samples = 0

    @ez.subscriber(INPUT)
    async def show(self, chunk: Array) -> None:
        """Print a line for a chunk."""
        self._samples += len(chunk)
        print(f"{len(chunk)} samples, mean {chunk.mean():.3f}")
        if self._samples == CHUNKS * CHUNK_SAMPLES:
            raise ez.NormalTermination


if __name__ == "__main__":
    ramp, show = Ramp(), Show()
    steps, chunks = Transformer(TransformSettings(difference)), Transformer(TransformSettings(windows, (250,)))
    ez.run(
        RAMP=ramp,
        STEPS=steps,
        WINDOWS=chunks,
        SHOW=show,
        connections=[(ramp.OUTPUT, steps.INPUT), (steps.OUTPUT, chunks.INPUT), (chunks.OUTPUT, show.INPUT)],
        process_components=[steps],
    )
