"""Axes: where the values along a dimension lie.

Programs import them from `ezmsg.util.messages.axisarray`, and so their pickles and logs name them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ezmsg.util.messages.arrays import Array, are_equal, selected, slice_along_axis
from ezmsg.util.messages.util import replace


@dataclass(eq=False)
class AxisBase(ABC):
    """Where the values along a dimension lie.

    Attributes:
        unit: Of these places, such as "s" or "Hz".
    """

    unit: str = ""

    @abstractmethod
    def value(self, x: Any) -> Any:
        """Where the element with index `x` lies, in `unit`."""

    def at(self, name: str, dim: str, selection: slice | Array, size: int) -> AxisBase:
        """This axis, which is called `name`, when only some of the `size` elements along `dim` are left."""
        return self

    def without(self, dim: str, index: int) -> AxisBase:
        """This axis at one element of a dimension that is dropped."""
        return self


@dataclass
class LinearAxis(AxisBase):
    """Values at equal distances, such as the samples of a signal.

    Attributes:
        gain: From one to the next, in `unit`.
        offset: Where the first one lies, in `unit`.
    """

    gain: float = 1.0
    offset: float = 0.0

    @classmethod
    def create_time_axis(cls, fs: float, offset: float = 0.0) -> LinearAxis:
        """The axis of samples in time.

        Args:
            fs: Samples per second, in Hz.
            offset: Time of the first one, in s.
        """
        return cls(unit="s", gain=1.0 / fs, offset=offset)

    def value(self, x: Any) -> Any:
        """Where the element with index `x` lies, or each of an array of indices, in `unit`."""
        return x * self.gain + self.offset

    def index(self, v: Any, fn: Callable[[Any], Any] = np.rint) -> Any:
        """The index of the element at `v`, or of each of an array of places; it may lie outside of the array.

        Args:
            v: In `unit`.
            fn: How to round; the nearest by default.
        """
        rounded = fn((v - self.offset) / self.gain)
        return rounded.astype(int) if hasattr(rounded, "astype") else int(rounded)

    def at(self, name: str, dim: str, selection: slice | Array, size: int) -> LinearAxis:
        """As said there; its offset is that of the first element left, its gain their distance, if that is one."""
        if name != dim:
            return self
        if isinstance(selection, slice):
            start, _, step = selection.indices(size)
        elif selection.shape[0]:
            steps = {int(step) for step in np.diff(np.asarray(selection))}
            start, step = int(selection[0]), steps.pop() if len(steps) == 1 else 1
        else:
            return self
        return replace(self, offset=self.value(start), gain=self.gain * step)


@dataclass(eq=False)
class ArrayWithNamedDims:
    """An array whose dimensions have names.

    Attributes:
        data: Any number of dimensions.
        dims: A name for each, no two alike.

    Raises:
        ValueError: There are more or fewer names than dimensions, or two are alike.
    """

    data: Array
    dims: list[str]

    def __post_init__(self) -> None:
        if len(self.dims) != self.data.ndim:
            raise ValueError(
                f"dims must be same length as data.shape: {self.dims} cannot name the dimensions of {self.data.shape}"
            )
        if len(set(self.dims)) != len(self.dims):
            raise ValueError(f"dims contains repeated dim names: {self.dims}")

    def __eq__(self, other: object) -> bool:
        """Whether the other is of the same class and all its fields are equal, arrays by their contents."""
        if type(other) is not type(self):
            return NotImplemented
        return all(
            are_equal(getattr(self, field.name), getattr(other, field.name))
            # Cheap ones first.
            for field in reversed(fields(self))
            if field.compare
        )

    __hash__ = None  # type: ignore[assignment] - it can be changed


@dataclass(eq=False)
class CoordinateAxis(AxisBase, ArrayWithNamedDims):
    """Values at places of their own, such as channels with names, or times at which something happened.

    Attributes:
        data: Where they lie, in `unit`: (n) for the dimension of that size, or more dimensions if it depends on others.
        dims: The dimensions it goes along.
        unit: Of `data`; "" for names.
    """

    unit: str = ""

    def value(self, x: Any) -> Any:
        """Where the element with index `x` lies, or each of an array of indices or a slice."""
        return self.data[x]

    def at(self, name: str, dim: str, selection: slice | Array, size: int) -> CoordinateAxis:
        """As said there."""
        if dim not in self.dims:
            return self
        return replace(self, data=selected(self.data, selection, self.dims.index(dim)))

    def without(self, dim: str, index: int) -> CoordinateAxis:
        """As said there."""
        if dim not in self.dims:
            return self
        data = slice_along_axis(self.data, index, self.dims.index(dim))
        return replace(self, data=data, dims=[name for name in self.dims if name != dim])


# Not in their bodies: dataclass looks there for the names in annotations, and it may not be imported yet.
for _axis in (AxisBase, LinearAxis, ArrayWithNamedDims, CoordinateAxis):
    _axis.__module__ = "ezmsg.util.messages.axisarray"
