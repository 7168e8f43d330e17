"""Where the values along a dimension lie."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezmsg.util.messages.axisarray import ArrayWithNamedDims, AxisArray, AxisBase, CoordinateAxis, LinearAxis

GAINS = st.sampled_from((-2.0, 0.001, 0.25, 1.0, 512.0))
OFFSETS = st.floats(-1e6, 1e6)


@given(GAINS, OFFSETS, st.integers(-1000, 1000))
def test_the_index_of_a_value_is_where_it_came_from(gain: float, offset: float, index: int) -> None:
    axis = LinearAxis(gain=gain, offset=offset)
    assert axis.index(axis.value(index)) == index
    assert np.array_equal(axis.index(axis.value(np.arange(5))), np.arange(5))


def test_an_index_is_rounded_as_asked() -> None:
    axis = LinearAxis(gain=0.5, offset=2.0)
    assert axis.index(3.3) == 3
    assert axis.index(3.3, fn=np.floor) == 2
    assert axis.index(3.3, fn=round) == 3


def test_a_time_axis_is_in_seconds() -> None:
    assert LinearAxis.create_time_axis(4.0, 3.0) == LinearAxis("s", 0.25, 3.0)
    assert AxisArray.TimeAxis(fs=4.0) == LinearAxis("s", 0.25, 0.0)


def test_the_old_name_of_a_linear_axis_still_works_with_a_warning() -> None:
    with pytest.warns(DeprecationWarning, match="deprecated alias for LinearAxis"):
        axis = AxisArray.Axis(unit="s", gain=2.0)
    assert isinstance(axis, LinearAxis)
    assert axis.value(2) == 4.0
    with pytest.warns(DeprecationWarning, match="deprecated"):
        assert AxisArray.Axis.TimeAxis(10.0).gain == 0.1


def test_coordinates_are_looked_up() -> None:
    axis = CoordinateAxis(data=np.array([3, 5, 9]), dims=["f"], unit="Hz")
    assert axis.value(1) == 5
    assert axis.value(np.array([0, 2])).tolist() == [3, 9]


@pytest.mark.parametrize(
    "other",
    [
        CoordinateAxis(data=np.array([1, 3]), dims=["f"], unit="Hz"),
        CoordinateAxis(data=np.array([1, 2, 3]), dims=["f"], unit="Hz"),
        CoordinateAxis(data=np.array([1, 2]), dims=["g"], unit="Hz"),
        CoordinateAxis(data=np.array([1, 2]), dims=["f"]),
        ArrayWithNamedDims(np.array([1, 2]), ["f"]),
        LinearAxis(),
    ],
)
def test_coordinates_are_equal_when_all_of_them_is(other: Any) -> None:
    axis = CoordinateAxis(data=np.array([1, 2]), dims=["f"], unit="Hz")
    assert axis == CoordinateAxis(data=np.array([1, 2]), dims=["f"], unit="Hz")
    assert axis != other


def test_named_dimensions_must_fit_the_array() -> None:
    with pytest.raises(ValueError, match="dims must be same length"):
        ArrayWithNamedDims(np.zeros((2, 3)), ["a"])
    with pytest.raises(ValueError, match="repeated dim names"):
        CoordinateAxis(np.zeros((2, 3)), ["a", "a"])


def test_an_axis_of_no_kind_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        AxisBase()  # type: ignore[abstract]


@pytest.mark.parametrize("axis", [LinearAxis("s", 0.5), CoordinateAxis(np.arange(3), ["a"])])
def test_pickles_name_axes_where_programs_import_them_from(axis: AxisBase) -> None:
    pickled = pickle.dumps(axis)
    assert b"ezmsg.util.messages.axisarray" in pickled
    assert pickle.loads(pickled) == axis
