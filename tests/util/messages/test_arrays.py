"""Views of arrays, compared with what plain numpy gives."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ezmsg.util.messages import arrays
from ezmsg.util.messages.arrays import as2d, shape2d, slice_along_axis, sliding_win_oneaxis, view2d
from tests.util.messages.signals import SHAPES

FEW = settings(max_examples=30)
ARRAYS = hnp.arrays(np.int64, SHAPES, elements=st.integers(0, 1000))


@FEW
@given(st.data(), ARRAYS)
def test_a_slice_along_an_axis_is_a_view_of_what_numpy_takes(data: st.DataObject, array: Any) -> None:
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    size = array.shape[axis]
    chosen = data.draw(st.one_of(st.slices(size), st.integers(-size, size - 1)))
    taken = slice_along_axis(array, chosen, axis)
    indices = np.arange(size)[chosen]
    assert np.array_equal(taken, np.take(array, indices, axis))
    assert taken.size == 0 or np.shares_memory(taken, array)


@pytest.mark.parametrize("axis", [2, -3])
def test_a_slice_along_an_axis_that_is_not_there_is_refused(axis: int) -> None:
    with pytest.raises(ValueError, match=f"axis {axis} is out of range"):
        slice_along_axis(np.zeros((2, 3)), slice(1), axis)


@FEW
@given(st.data(), ARRAYS, st.integers(0, 5), st.integers(1, 3))
def test_windows_are_views_that_slide_along_an_axis(data: st.DataObject, array: Any, nwin: int, step: int) -> None:
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    if nwin > array.shape[axis]:
        with pytest.raises(ValueError, match="does not fit"):
            sliding_win_oneaxis(array, nwin, axis, step)
        return
    windows = sliding_win_oneaxis(array, nwin, axis, step)
    axis %= array.ndim
    starts = range(0, array.shape[axis] - nwin + 1, step)
    expected = np.stack([slice_along_axis(array, slice(at, at + nwin), axis) for at in starts], axis)
    assert np.array_equal(windows, expected)
    assert nwin == 0 or np.shares_memory(windows, array)
    other = sliding_win_oneaxis(array_api_strict.asarray(array), nwin, axis, step)  # type: ignore[arg-type]
    assert np.array_equal(np.asarray(other), expected)


def test_windows_need_an_axis_that_is_there() -> None:
    with pytest.raises(IndexError, match="axis 2 is out of range"):
        sliding_win_oneaxis(np.zeros((2, 3)), 1, 2)


@FEW
@given(st.data(), ARRAYS)
def test_two_dimensions_have_one_axis_first_and_the_others_flattened(data: st.DataObject, array: Any) -> None:
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    flat = as2d(array, axis)
    assert flat.shape == shape2d(array, axis)
    for number, row in enumerate(flat):
        assert np.array_equal(row, np.take(array, number, axis).ravel())


@FEW
@given(st.data(), ARRAYS, st.booleans())
def test_what_is_written_to_a_view_of_two_dimensions_is_in_the_array(
    data: st.DataObject, array: Any, is_strict: bool
) -> None:
    axis = data.draw(st.integers(-array.ndim, array.ndim - 1))
    expected = array * 2
    subject = array_api_strict.asarray(array, copy=True) if is_strict else array
    with view2d(subject, axis) as flat:
        flat *= 2
    assert np.array_equal(np.asarray(subject), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_view_of_a_read_only_array_can_only_be_read(axis: int) -> None:
    array = np.arange(24).reshape(2, 3, 4)
    array.flags.writeable = False
    with view2d(array, axis) as flat:
        assert flat.sum() == array.sum()
        with pytest.raises(ValueError, match="read-only"):
            flat[0, 0] = 1


def test_arrays_of_another_library_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "array_api_compat", None)
    assert arrays.namespace_of(np.zeros(1)) is np
    with pytest.raises(ImportError, match=r"ezmsg\[axisarray\]"):
        arrays.namespace_of(array_api_strict.zeros(1))


def test_values_with_arrays_in_them_are_compared_by_contents() -> None:
    value = {"a": [np.arange(3), "x"], "b": (1.0, np.float64(2.0))}
    assert arrays.are_equal(value, {"a": [np.arange(3), "x"], "b": (1.0, 2.0)})
    assert not arrays.are_equal(value, {"a": [np.arange(4), "x"], "b": (1.0, 2.0)})
    assert not arrays.are_equal(value, {"a": (np.arange(3), "x"), "b": (1.0, 2.0)})
    assert not arrays.are_equal(np.arange(3), 1)
    assert not arrays.are_equal(np.array([np.nan]), np.array([np.nan]))
