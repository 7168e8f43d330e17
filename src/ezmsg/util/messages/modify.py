"""Other names for the dimensions of signals."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from typing import Any

import ezmsg.core as ez
from ezmsg.util.messages.arrays import namespace_of
from ezmsg.util.messages.axes import AxisBase, CoordinateAxis
from ezmsg.util.messages.axisarray import AxisArray, replace


class ModifyAxisSettings(ez.Settings):
    """What to change."""

    name_map: dict[str, str | None] | None = None
    """New names of dimensions and their axes by the old ones; None drops a dimension, which must have size 1."""


class ModifyAxisTransformer:
    """Renames or drops dimensions of the messages it is called with.

    Args:
        settings: What to change.
    """

    def __init__(self, settings: ModifyAxisSettings = ModifyAxisSettings()) -> None:  # noqa: B008 - frozen
        self.settings = settings

    def __call__(self, message: AxisArray) -> AxisArray:
        """The message with its dimensions renamed; the very message if there is nothing to change.

        Raises:
            ValueError: A dimension to drop has not size 1, or two would have one name.
        """
        names = {old: new for old, new in (self.settings.name_map or {}).items() if old != new}
        if not any(name in names for name in (*message.dims, *message.axes)):
            return message
        data = message.data
        dropped = [dim for dim in message.dims if names.get(dim, "") is None]
        for dim in dropped:
            size = data.shape[message.dims.index(dim)]
            if size != 1:
                raise ValueError(f"cannot drop dimension {dim!r}, whose size is {size}, not 1")
        if dropped:
            data = namespace_of(data).squeeze(data, axis=tuple(map(message.dims.index, dropped)))
        axes: dict[str, AxisBase] = {}
        for name, axis in message.axes.items():
            if (renamed := names.get(name, name)) is not None:
                axes[renamed] = _renamed(axis, names, dropped)
        return replace(message, data=data, dims=_new(message.dims, names), axes=axes)

    def send(self, message: AxisArray) -> AxisArray:
        """Deprecated; call it."""
        text = "ModifyAxisTransformer.send() is deprecated. Use __call__() instead."
        warnings.warn(text, DeprecationWarning, stacklevel=2)
        return self(message)


def _new(dims: list[str], names: dict[str, str | None]) -> list[str]:
    renamed = (names.get(dim, dim) for dim in dims)
    return [dim for dim in renamed if dim is not None]


def _renamed(axis: AxisBase, names: dict[str, str | None], dropped: list[str]) -> AxisBase:
    for dim in dropped:
        axis = axis.without(dim, 0)
    if isinstance(axis, CoordinateAxis) and any(dim in names for dim in axis.dims):
        return replace(axis, dims=_new(axis.dims, names))
    return axis


def modify_axis(name_map: dict[str, str | None] | None = None) -> ModifyAxisTransformer:
    """A function that renames dimensions of messages; see `ModifyAxisSettings`."""
    return ModifyAxisTransformer(ModifyAxisSettings(name_map=name_map))


class ModifyAxis(ez.Unit):
    """Publishes what it receives, with dimensions renamed or dropped."""

    SETTINGS = ModifyAxisSettings

    INPUT_SIGNAL = ez.InputStream(AxisArray)
    OUTPUT_SIGNAL = ez.OutputStream(AxisArray)
    INPUT_SETTINGS = ez.InputStream(ModifyAxisSettings)

    @ez.subscriber(INPUT_SETTINGS)
    async def on_settings(self, message: ModifyAxisSettings) -> None:
        """Rename differently from now on."""
        self.apply_settings(message)

    @ez.subscriber(INPUT_SIGNAL)
    @ez.publisher(OUTPUT_SIGNAL)
    async def on_message(self, message: AxisArray) -> AsyncIterator[Any]:
        """Publish a message with its dimensions renamed."""
        yield self.OUTPUT_SIGNAL, ModifyAxisTransformer(self.SETTINGS)(message)
