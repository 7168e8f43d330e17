"""Arrays, piece by piece."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ezmsg.util.messages.axisarray import AxisArray
from ezmsg.util.messages.chunker import ArrayChunker, ArrayChunkerSettings, array_chunker
from tests.util.conftest import Run
from tests.util.messages.signals import SHAPES


@settings(max_examples=30)
@given(st.data(), hnp.arrays(np.int64, SHAPES), st.integers(1, 6))
def test_pieces_join_to_the_array_they_are_views_of(data: st.DataObject, array: Any, chunk_len: int) -> None:
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    chunks = list(array_chunker(array, chunk_len, axis, fs=4.0, tzero=2.0))
    joined = AxisArray.concatenate(*chunks, dim="time")
    assert np.array_equal(joined.data, array)
    assert joined.dims.index("time") == axis % array.ndim
    assert all(np.shares_memory(chunk.data, array) for chunk in chunks)
    assert [chunk.data.shape[axis] for chunk in chunks[:-1]] == [chunk_len] * (len(chunks) - 1)
    offsets = [2.0 + number * chunk_len / 4.0 for number in range(len(chunks))]
    assert [chunk.axes["time"] for chunk in chunks] == [AxisArray.TimeAxis(4.0, offset) for offset in offsets]


def test_lists_are_chunked_too() -> None:
    assert [chunk.data.tolist() for chunk in array_chunker([1, 2, 3], 2)] == [[1, 2], [3]]
    assert list(array_chunker([], 2)) == []


def test_a_piece_has_a_sample() -> None:
    with pytest.raises(ValueError, match="chunk_len"):
        next(array_chunker([1], 0))


async def test_the_unit_publishes_all_pieces_and_begins_anew_with_new_settings(run: Run) -> None:
    data = np.arange(5.0)
    async with run(ArrayChunker(data=data, chunk_len=2, fs=10.0)) as rig:
        first = await rig.receive("OUTPUT_SIGNAL", 3)
        assert first == list(array_chunker(data, 2, fs=10.0))
        await rig.send("INPUT_SETTINGS", ArrayChunkerSettings(data=data, chunk_len=5))
        assert await rig.receive("OUTPUT_SIGNAL") == list(array_chunker(data, 5))
