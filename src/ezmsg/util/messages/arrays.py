"""Views of arrays: slices, windows and two dimensions made of many.

Arrays are of numpy, or of any library that keeps to the Python array API; the latter needs `array-api-compat`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def namespace_of(*arrays: Any) -> Any:
    """The functions for these arrays, named as in the array API.

    Raises:
        ImportError: They are not of numpy, and `array-api-compat` is not installed.
        TypeError: They are no arrays, or of several libraries.
    """
    if all(isinstance(array, (np.ndarray, np.generic)) for array in arrays):
        return np
    try:
        import array_api_compat
    except ImportError as error:
        kinds = ", ".join(sorted({type(array).__name__ for array in arrays}))
        raise ImportError(f"arrays of type {kinds} need array-api-compat: pip install 'ezmsg[axisarray]'") from error
    return array_api_compat.array_namespace(*arrays)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _checked(axis: int, ndim: int) -> int:
    """The number of a dimension, counted from the front."""
    if not -ndim <= axis < ndim:
        raise IndexError(f"axis {axis} is out of range for an array of {ndim} dimensions")
    return axis % ndim


def slice_along_axis(in_arr: Array, sl: slice | int, axis: int) -> Array:
    """A part of an array along one dimension, a view of it.

    Args:
        in_arr: (…, n, …).
        sl: What to take; an int drops the dimension.
        axis: Which dimension; negative numbers count from the last.

    Raises:
        ValueError: There is no such dimension.
        IndexError: An int is out of range.
    """
    if not -in_arr.ndim <= axis < in_arr.ndim:
        raise ValueError(f"axis {axis} is out of range for an array of {in_arr.ndim} dimensions")
    return in_arr[(slice(None),) * (axis % in_arr.ndim) + (sl, ...)]


def sliding_win_oneaxis(in_arr: Array, nwin: int, axis: int, step: int = 1) -> Array:
    """Windows that slide along one dimension.

    Args:
        in_arr: (…, n, …).
        nwin: Elements of a window.
        axis: The dimension they slide along; negative numbers count from the last.
        step: Elements from one window to the next; less than 1 counts as 1.

    Returns:
        (…, windows, nwin, …), windows = (n - nwin) // step + 1. Of a numpy array it is a view, which cannot be written
        to because windows overlap; others are copied.

    Raises:
        IndexError: There is no such dimension.
        ValueError: A window is longer than the dimension, or negative.
    """
    axis = _checked(axis, in_arr.ndim)
    if not isinstance(in_arr, np.ndarray):  # pyright: ignore[reportUnnecessaryIsInstance] - other libraries' arrays
        return sliding_win_generic(in_arr, nwin, axis, step, xp=namespace_of(in_arr))
    _check_window(nwin, in_arr.shape[axis])
    windows = np.lib.stride_tricks.sliding_window_view(in_arr, nwin, axis)
    return np.moveaxis(slice_along_axis(windows, slice(None, None, max(1, step)), axis), -1, axis + 1)


def sliding_win_generic(arr: Any, nwin: int, axis: int, step: int = 1, *, xp: Any) -> Any:
    """`sliding_win_oneaxis` with the functions of `xp` alone; a copy."""
    axis = _checked(axis, arr.ndim)
    size = arr.shape[axis]
    _check_window(nwin, size)
    starts = range(0, size - nwin + 1, max(1, step))
    indices = xp.asarray([start + number for start in starts for number in range(nwin)], dtype=xp.int64)
    shape = (*arr.shape[:axis], len(starts), nwin, *arr.shape[axis + 1 :])
    return xp.reshape(xp.take(arr, indices, axis=axis), shape)


def _check_window(nwin: int, size: int) -> None:
    if not 0 <= nwin <= size:
        raise ValueError(f"a window of {nwin} elements does not fit a dimension of {size}")


def shape2d(arr: Array, axis: int = 0) -> tuple[int, int]:
    """The shape that `as2d` gives an array: (size of the dimension, size of all others together)."""
    axis = _checked(axis, arr.ndim)
    others = 1
    for number, size in enumerate(arr.shape):
        others *= 1 if number == axis else size
    return arr.shape[axis], others


def as2d(in_arr: Array, axis: int = 0, *, xp: Any = None) -> Array:
    """An array in two dimensions: one of its own first, all others flattened into the second.

    Args:
        in_arr: (…, n, …).
        axis: The dimension that comes first.
        xp: The namespace of the array, if you have it at hand.

    Returns:
        (n, elements per n); a view of the array where its memory allows it, else a copy. An array of one dimension
        gets a second of size 1.
    """
    xp = namespace_of(in_arr) if xp is None else xp
    return xp.reshape(xp.moveaxis(in_arr, axis, 0), shape2d(in_arr, axis))


@contextmanager
def view2d(in_arr: Array, axis: int = 0) -> Generator[Array, None, None]:
    """An array as `as2d` gives it, to read and write: what is written is in the array afterwards.

    Inside the block the array itself may still be unchanged, if its memory does not allow such a view. What a read-only
    array gives cannot be written to.
    """
    xp = namespace_of(in_arr)
    flat = as2d(in_arr, axis, xp=xp)
    is_numpy = xp is np
    if is_numpy and np.may_share_memory(flat, in_arr):
        yield flat
    elif is_numpy and not in_arr.flags.writeable:
        flat.flags.writeable = False
        yield flat
    else:
        try:
            yield flat
        finally:
            moved_shape = xp.moveaxis(in_arr, axis, 0).shape
            in_arr[...] = xp.moveaxis(xp.reshape(flat, moved_shape), 0, axis)


def as_selection(index: Any, size: int) -> slice | Array:
    """What to take of a dimension, as one of two things: a slice, or an array of indices from 0 to size - 1.

    Args:
        index: An int, a slice, an array or list of ints or of as many booleans as there are elements.
        size: Elements of the dimension.

    Raises:
        ValueError: It is something else.
        IndexError: It is out of range.
    """
    if isinstance(index, slice):
        return cast(slice, index)
    if isinstance(index, (int, np.integer)) and not isinstance(index, bool):
        number = int(cast(int, index))
        if not -size <= number < size:
            raise IndexError(f"index {number} is out of range for a dimension of {size}")
        return slice(number % size, number % size + 1)
    array: Any = index
    if isinstance(index, (list, tuple)):
        array = np.asarray(cast(Sequence[Any], index), dtype=None if index else int)
    if getattr(array, "ndim", None) != 1:
        raise ValueError(f"isel only accepts arrays, ints, or slices, not {index!r:.100}")
    xp = namespace_of(array)
    if array.dtype == xp.bool:
        if array.shape[0] != size:
            raise IndexError(f"{array.shape[0]} booleans cannot select from a dimension of {size}")
        return xp.nonzero(array)[0]
    if not xp.isdtype(array.dtype, "integral"):
        raise ValueError(f"isel only accepts arrays of integers or booleans, not of {array.dtype}")
    array = xp.where(array < 0, array + size, array)
    if bool(xp.any((array < 0) | (array >= size))):
        raise IndexError(f"an index of {index!r:.100} is out of range for a dimension of {size}")
    return array


def selected(array: Array, selection: slice | Array, axis: int) -> Array:
    """Some elements of an array along one dimension, as `as_selection` names them; a copy."""
    xp = namespace_of(array)
    if isinstance(selection, slice):
        return xp.asarray(slice_along_axis(array, selection, axis), copy=True)
    return xp.take(array, xp.asarray(selection), axis=axis)


def are_equal(one: Any, other: Any) -> bool:
    """Whether two values are equal, arrays in them by their contents."""
    both = (one, other)
    if all(isinstance(it, Mapping) for it in both):
        return one.keys() == other.keys() and all(are_equal(value, other[key]) for key, value in one.items())
    if all(isinstance(it, (list, tuple)) for it in both):
        return type(one) is type(other) and len(one) == len(other) and all(map(are_equal, one, other))
    arrays = [it for it in both if hasattr(it, "ndim")]
    if not arrays:
        return bool(one == other)
    if getattr(one, "shape", ()) != getattr(other, "shape", ()):
        return False
    xp = namespace_of(*arrays)
    return bool(xp.all(xp.asarray(one == other)))
