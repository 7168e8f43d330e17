"""AxisArray, the message that carries a signal: an array, the names of its dimensions, and where its values lie.

Arrays are of numpy, or of any library that keeps to the Python array API (then `array-api-compat` is needed: the extra
`axisarray` of this distribution).
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from ezmsg.core.util import either_dict_or_kwargs
from ezmsg.util.messages.arrays import (
    Array,
    as2d,
    as_selection,
    namespace_of,
    selected,
    shape2d,
    slice_along_axis,
    sliding_win_oneaxis,
    view2d,
)
from ezmsg.util.messages.arrays import sliding_win_generic as _sliding_win_generic
from ezmsg.util.messages.axes import ArrayWithNamedDims, AxisBase, CoordinateAxis, LinearAxis
from ezmsg.util.messages.util import replace

if TYPE_CHECKING:
    from xarray import DataArray

__all__ = [
    "ArrayWithNamedDims",
    "AxisArray",
    "AxisBase",
    "CoordinateAxis",
    "LinearAxis",
    "as2d",
    "replace",
    "shape2d",
    "slice_along_axis",
    "sliding_win_oneaxis",
    "view2d",
]

_ = _sliding_win_generic  # a name that programs import

T = TypeVar("T", bound="AxisArray")


@dataclass(eq=False)
class AxisArray(ArrayWithNamedDims):
    """A signal: an array with named dimensions, and an axis for those whose values lie somewhere.

        AxisArray(
            data,  # (time, channel) float64, in microvolts
            dims=["time", "ch"],
            axes={
                "time": AxisArray.TimeAxis(fs=1000.0, offset=12.5),
                "ch": AxisArray.CoordinateAxis(data=np.array(["C3", "C4"]), dims=["ch"]),
            },
            key="amplifier",
        )

    Attributes:
        data: Any number of dimensions, of any library that keeps to the array API.
        dims: A name for each dimension.
        axes: By the name of the dimension; those left out count elements. There may be more: a CoordinateAxis of any
            other name, along any of the dimensions.
        attrs: Whatever else belongs to it.
        key: Which signal this is, where several go over one stream.
    """

    axes: dict[str, AxisBase] = field(default_factory=dict[str, AxisBase])
    attrs: dict[str, Any] = field(default_factory=dict[str, Any])
    key: str = ""

    LinearAxis = LinearAxis
    CoordinateAxis = CoordinateAxis
    TimeAxis = LinearAxis.create_time_axis

    @dataclass
    class Axis(LinearAxis):
        """Deprecated; use `LinearAxis`."""

        def __post_init__(self) -> None:
            message = "AxisArray.Axis is a deprecated alias for LinearAxis"
            warnings.warn(message, DeprecationWarning, stacklevel=3)

        @classmethod
        def TimeAxis(cls, fs: float, offset: float = 0.0) -> LinearAxis:
            """Deprecated; use `AxisArray.TimeAxis`."""
            return cls.create_time_axis(fs, offset)

    @dataclass(frozen=True)
    class AxisInfo:
        """An axis, and how it lies in an array.

        Attributes:
            axis: The axis.
            idx: Which dimension it belongs to.
            size: Elements of that dimension; None for a CoordinateAxis, which knows.

        Raises:
            ValueError: A CoordinateAxis comes with a size, or another axis without.
        """

        axis: AxisBase
        idx: int
        size: int | None = None

        def __post_init__(self) -> None:
            if isinstance(self.axis, CoordinateAxis):
                if self.size is not None:
                    raise ValueError("must not define size if using CoordinateAxis")
            elif self.size is None:
                raise ValueError("must define size if not using CoordinateAxis")

        def __len__(self) -> int:
            return self.size if self.size is not None else cast(CoordinateAxis, self.axis).data.shape[0]

        @property
        def indices(self) -> Array:
            """0, 1, 2 … for each element."""
            return np.arange(len(self))

        @property
        def values(self) -> Any:
            """Where each element lies, in the unit of the axis."""
            return self.axis.data if isinstance(self.axis, CoordinateAxis) else self.axis.value(self.indices)

    # -- dimensions and axes ------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the data."""
        return self.data.shape

    def get_axis_name(self, dim: int) -> str:
        """The name of a dimension by its number."""
        return self.dims[dim]

    def get_axis_idx(self, dim: str) -> int:
        """The number of a dimension by its name.

        Raises:
            ValueError: There is none of this name.
        """
        try:
            return self.dims.index(dim)
        except ValueError:
            raise ValueError(f"{dim=} not present in object: its dims are {self.dims}") from None

    def axis_idx(self, dim: str | int) -> int:
        """The number of a dimension by its name or number.

        Raises:
            ValueError: There is none of this name.
        """
        return dim if isinstance(dim, int) else self.get_axis_idx(dim)

    def get_axis(self, dim: str | int) -> AxisBase:
        """The axis of a dimension; `LinearAxis()` if it has none.

        Raises:
            ValueError: There is no dimension of this name.
            IndexError: There is no dimension of this number.
        """
        name = self.dims[self.axis_idx(dim)]
        return self.axes[name] if name in self.axes else LinearAxis()

    def ax(self, dim: str | int) -> AxisInfo:
        """The axis of a dimension, together with number and size of the dimension; errors as of `get_axis`."""
        axis, idx = self.get_axis(dim), self.axis_idx(dim)
        return AxisArray.AxisInfo(axis, idx, None if isinstance(axis, CoordinateAxis) else self.shape[idx])

    # -- parts --------------------------------------------------------------------------------------------------------

    def isel(self: T, indexers: Mapping[str, Any] | None = None, **indexers_kwargs: Any) -> T:
        """A part of it, by indices.

            message.isel(time=slice(100, 200), ch=[0, 2])

        Args:
            indexers: What to take by the name of the dimension: an int, which keeps the dimension, with one element; a
                slice; an array or list of indices; an array of booleans.
            **indexers_kwargs: The same as keywords.

        Returns:
            With a copy of the data. Axes go along: the offset of a LinearAxis is that of the first element taken, its
            gain the distance of those taken (where this is not the same between all, it stays as it was).

        Raises:
            ValueError: There is no such dimension, or both ways to name it are used.
            IndexError: An index is out of range.
        """
        data, axes = self.data, self.axes
        for dim, index in either_dict_or_kwargs(indexers, indexers_kwargs, "isel").items():
            idx = self.get_axis_idx(dim)
            size = data.shape[idx]
            selection = as_selection(index, size)
            data = selected(data, selection, idx)
            axes = {name: axis.at(name, dim, selection, size) for name, axis in axes.items()}
        if data is self.data:
            data = namespace_of(data).asarray(data, copy=True)
        return replace(self, data=data, axes=dict(axes))

    def sel(self: T, indexers: Mapping[str, slice] | None = None, **indexers_kwargs: slice) -> T:
        """A part of it, by places on the axis; otherwise as `isel`.

            message.sel(time=slice(12.5, 13.0))

        Args:
            indexers: From where to where, by the name of the dimension, in the unit of its axis, which must be a
                LinearAxis. Each is rounded to the nearest element; the last is left out.
            **indexers_kwargs: The same as keywords.

        Raises:
            ValueError: It is no slice, no such dimension, or its axis is no LinearAxis.
        """
        slices: dict[str, slice] = {}
        for dim, index in either_dict_or_kwargs(indexers, indexers_kwargs, "sel").items():
            axis = self.get_axis(dim)
            if not isinstance(index, slice):  # pyright: ignore[reportUnnecessaryIsInstance] - programs pass anything
                raise ValueError(f"sel only supports slices, not {dim}={index!r:.100}")
            if not isinstance(axis, LinearAxis):
                raise ValueError(f"sel only supports LinearAxis, and the axis of {dim} is a {type(axis).__name__}")
            first, last = (None if end is None else max(0, axis.index(end)) for end in (index.start, index.stop))
            step = None if index.step is None else int(np.rint(index.step / axis.gain))
            slices[dim] = slice(first, last, step)
        return self.isel(slices)

    def iter_over_axis(self: T, axis: str | int) -> Generator[T, None, None]:
        """The parts of it along a dimension one after the other, without this dimension; their data are views.

        Raises:
            ValueError: There is no dimension of this name.
            IndexError: There is no dimension of this number.
        """
        idx = self.axis_idx(axis)
        dim = self.dims[idx]
        dims = [name for name in self.dims if name != dim]
        for number in range(self.shape[idx]):
            axes = {
                name: other.without(dim, number)
                for name, other in self.axes.items()
                if name != dim and not (isinstance(other, CoordinateAxis) and list(other.dims) == [dim])
            }
            part = slice_along_axis(self.data, number, idx)
            yield replace(self, data=part, dims=dims.copy(), axes=axes)

    # -- other shapes -------------------------------------------------------------------------------------------------

    def shape2d(self, dim: str | int) -> tuple[int, int]:
        """The shape of `as2d`."""
        return shape2d(self.data, self.axis_idx(dim))

    def as2d(self, dim: str | int) -> Array:
        """The data in two dimensions: `dim`, and all others flattened; a view where possible, else a copy."""
        return as2d(self.data, self.axis_idx(dim))

    @contextmanager
    def view2d(self, dim: str | int) -> Generator[Array, None, None]:
        """The data as `as2d` gives it, to read and write; what is written is in `data` after the block."""
        with view2d(self.data, self.axis_idx(dim)) as view:
            yield view

    @staticmethod
    def transpose(aa: T, dims: Iterable[str] | Iterable[int] | None = None) -> T:
        """It with its dimensions in another order; the data is a view.

        Args:
            aa: Any.
            dims: All dimensions by name or number, in the new order; without, the order is reversed.

        Raises:
            ValueError: These are not the dimensions of `aa`.
        """
        order = [aa.axis_idx(dim) for dim in (reversed(range(aa.data.ndim)) if dims is None else dims)]
        if sorted(number % len(aa.dims) for number in order) != list(range(len(aa.dims))):
            raise ValueError(f"axes don't match array: {order} is no order of the dimensions {aa.dims}")
        data = namespace_of(aa.data).permute_dims(aa.data, tuple(number % len(aa.dims) for number in order))
        return replace(aa, data=data, dims=[aa.dims[number] for number in order])

    @staticmethod
    def concatenate(*aas: T, dim: str, axis: AxisBase | None = None, filter_key: str | None = None) -> T:
        """Several as one, joined along a dimension.

        Args:
            *aas: With the same dimensions.
            dim: One of them, or the name of a new one, which becomes the first.
            axis: The axis of this dimension in the result. Without, a CoordinateAxis is joined from those of all, and a
                LinearAxis is that of the first.
            filter_key: Take only those with this key.

        Returns:
            Of the class of the first, with its attributes and its other axes; the key is "" unless all have the same.

        Raises:
            ValueError: There is nothing to join, their dimensions differ, or only some have a CoordinateAxis where the
                first has one.
        """
        parts = [aa for aa in aas if filter_key is None or aa.key == filter_key]
        if not parts:
            raise ValueError(f"there is nothing to concatenate among {len(aas)} objects, {filter_key=}")
        first = parts[0]
        if any(aa.dims != first.dims for aa in parts):
            raise ValueError(f"objects have incompatible dims: {[aa.dims for aa in parts]}")
        xp = namespace_of(*(aa.data for aa in parts))
        dims, axes = list(first.dims), dict(first.axes)
        if dim in dims:
            data = xp.concat([aa.data for aa in parts], axis=dims.index(dim))
            axes = {name: axis if axis and name == dim else _joined(name, dim, parts) for name in axes}
        else:
            data = xp.stack([aa.data for aa in parts])
            dims.insert(0, dim)
        if axis is not None:
            axes[dim] = axis
        key = first.key if all(aa.key == first.key for aa in parts) else ""
        return replace(first, data=data, dims=dims, axes=axes, key=key)

    def to_xr_dataarray(self) -> DataArray:
        """The same for xarray, which must be installed; the data is shared, axes become coordinates."""
        from xarray import DataArray

        coords: dict[str, Any] = {}
        for name, axis in self.axes.items():
            attrs = {"units": axis.unit} if axis.unit else {}
            if isinstance(axis, CoordinateAxis):
                coords[name] = (axis.dims, axis.data, attrs)
            elif name in self.dims:
                coords[name] = (name, self.ax(name).values, attrs)
        return DataArray(self.data, coords, self.dims, self.key or None, self.attrs)


def _joined(name: str, dim: str, parts: list[Any]) -> AxisBase:
    """An axis of several messages that are joined along a dimension."""
    axes = [aa.axes.get(name) for aa in parts]
    first = axes[0]
    if not isinstance(first, CoordinateAxis) or dim not in first.dims:
        return first
    if not all(isinstance(axis, CoordinateAxis) and axis.dims == first.dims for axis in axes):
        raise ValueError(f"only some objects have a CoordinateAxis {name!r} along {first.dims}: pass axis=")
    data = namespace_of(first.data).concat([axis.data for axis in axes], axis=first.dims.index(dim))
    return replace(first, data=data)


# Messages of this class travel without pickle; the module needs the classes above.
from ezmsg.util.messages import axisarraycodec as _codec  # noqa: E402

_ = _codec
