"""Signals for tests, and strategies that make them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ezmsg.util.messages.axisarray import AxisArray, AxisBase

NAMES = ("time", "ch", "freq", "trial")
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5)


def signal(shape: tuple[int, ...] = (4, 3), fs: float = 10.0, offset: float = 1.0, key: str = "eeg") -> AxisArray:
    """(time, channel, …) float64, 0, 1, 2 …; the first dimension is linear, the second has coordinates."""
    axes: dict[str, AxisBase] = {"time": AxisArray.TimeAxis(fs, offset)}
    if len(shape) > 1:
        names = np.array([f"C{number}" for number in range(shape[1])])
        axes["ch"] = AxisArray.CoordinateAxis(data=names, dims=["ch"])
    data = np.arange(float(np.prod(shape))).reshape(shape)
    return AxisArray(data, list(NAMES[: len(shape)]), axes, {"device": "amplifier"}, key)


@st.composite
def signals(draw: st.DrawFn, max_dims: int = 4) -> AxisArray:
    """Signals of one to four dimensions with axes of all kinds, some along two dimensions."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=max_dims, min_side=1, max_side=5))
    dims = list(draw(st.permutations(NAMES)))[: len(shape)]
    axes: dict[str, AxisBase] = {}
    for dim, size in zip(dims, shape, strict=True):
        axis = draw(st.sampled_from(("none", "linear", "coordinates")))
        if axis == "linear":
            gain, offset = draw(st.sampled_from((0.25, 1.0, 2.0))), draw(st.sampled_from((-1.5, 0.0, 12.0)))
            axes[dim] = AxisArray.LinearAxis("s", gain, offset)
        elif axis == "coordinates":
            axes[dim] = AxisArray.CoordinateAxis(data=np.arange(size) ** 2, dims=[dim], unit="Hz")
    if len(shape) > 1 and draw(st.booleans()):
        axes["place"] = AxisArray.CoordinateAxis(data=np.arange(shape[0] * shape[1]).reshape(shape[:2]), dims=dims[:2])
    return AxisArray(np.arange(float(np.prod(shape))).reshape(shape), dims, axes, {"n": 1}, "key")


def selections(size: int) -> st.SearchStrategy[Any]:
    """What `isel` takes of a dimension."""
    index = st.integers(-size, size - 1)
    return st.one_of(
        index,
        index.map(np.int64),
        st.slices(size).filter(lambda chosen: chosen.step is None or chosen.step > 0),
        st.lists(index, max_size=4),
        st.lists(index, min_size=1, max_size=4).map(np.array),
        st.lists(st.booleans(), min_size=size, max_size=size).map(np.array),
    )
