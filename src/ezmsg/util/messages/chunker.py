"""An array, published piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from dataclasses import field
from typing import Any

import numpy as np
import numpy.typing as npt

import ezmsg.core as ez
from ezmsg.core.errors import ConfigError
from ezmsg.util.messages.axisarray import AxisArray, slice_along_axis


def array_chunker(
    data: npt.ArrayLike, chunk_len: int, axis: int = 0, fs: float = 1000.0, tzero: float = 0.0
) -> Generator[AxisArray, None, None]:
    """Pieces of an array along its time axis, as messages whose data are views of it.

    Args:
        data: (…, time, …).
        chunk_len: Samples of each piece; the last may have less.
        axis: Which dimension is time. It is called "time" in the messages, the others "d0", "d1" … by their number.
        fs: Sampling rate, in Hz.
        tzero: Time of the first sample, in s.

    Raises:
        ConfigError: `chunk_len` is less than 1.
    """
    if chunk_len < 1:
        raise ConfigError("chunk_len", chunk_len, "at least 1 sample")
    array: Any = data if hasattr(data, "ndim") else np.asarray(data)
    dims = [f"d{number}" for number in range(array.ndim)]
    dims[axis] = "time"
    for start in range(0, array.shape[axis], chunk_len):
        piece = slice_along_axis(array, slice(start, start + chunk_len), axis)
        yield AxisArray(piece, dims.copy(), axes={"time": AxisArray.TimeAxis(fs, offset=tzero + start / fs)})


class ArrayChunkerSettings(ez.Settings):
    """Arguments of `array_chunker`."""

    data: npt.ArrayLike
    """(…, time, …)"""
    chunk_len: int
    """Samples of each message."""
    axis: int = 0
    """Which dimension of the data is time."""
    fs: float = 1000.0
    """Sampling rate, in Hz."""
    tzero: float = 0.0
    """Time of the first sample, in s."""


class ArrayChunkerState(ez.State):
    """State of an ArrayChunker."""

    gen: Generator[AxisArray, None, None]
    renewed: asyncio.Event = field(default_factory=asyncio.Event)
    """Whether there are new settings to begin with."""


class ArrayChunker(ez.Unit):
    """Publishes an array in pieces, as fast as they are taken; new settings begin anew."""

    SETTINGS = ArrayChunkerSettings
    STATE = ArrayChunkerState

    INPUT_SETTINGS = ez.InputStream(ArrayChunkerSettings)
    OUTPUT_SIGNAL = ez.OutputStream(AxisArray)

    async def initialize(self) -> None:
        """Begin with the first piece."""
        self._begin()

    def _begin(self) -> None:
        settings = self.SETTINGS
        self.STATE.gen = array_chunker(
            settings.data, settings.chunk_len, axis=settings.axis, fs=settings.fs, tzero=settings.tzero
        )
        self.STATE.renewed.set()

    @ez.subscriber(INPUT_SETTINGS)
    async def on_settings(self, message: ArrayChunkerSettings) -> None:
        """Begin anew, with other data."""
        self.apply_settings(message)
        self._begin()

    @ez.publisher(OUTPUT_SIGNAL)
    async def send_chunk(self) -> AsyncIterator[Any]:
        """Publish all pieces; then wait for new settings."""
        while await self.STATE.renewed.wait():
            chunk = next(self.STATE.gen, None)
            if chunk is None:
                self.STATE.renewed.clear()
            else:
                yield self.OUTPUT_SIGNAL, chunk
