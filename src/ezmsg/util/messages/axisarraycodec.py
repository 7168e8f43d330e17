"""How an AxisArray travels between processes: see `ezmsg.core.compositecodec`.

Constant are names, units, key and attributes. With each message go its array, attributes that are floats (times, most
often), gain and offset of linear axes, and the coordinates of others. What is not as plain as that needs pickle:
subclasses, arrays of other libraries, attributes that are neither text nor numbers, coordinates that are large, or
objects.

Importing `ezmsg.util.messages.axisarray` makes it so.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from math import prod
from typing import Any, Final

import msgspec
import numpy as np

from ezmsg.core.compositecodec import Data, Form, Join, register
from ezmsg.util.messages.axes import CoordinateAxis, LinearAxis
from ezmsg.util.messages.axisarray import AxisArray

COORDINATES_MAX: Final = 16384
"""Bytes of the coordinates of an axis, such as the names of some hundred channels: more are better not copied into
every message. To copy so many some times takes less than half of what pickle does."""
_KNOWN: Final = 64
"""Constant parts remembered: several signals may take turns on one stream."""
_PLAIN_KINDS: Final = frozenset("biufcSU")
_ATTRIBUTES: Final = frozenset({str, int, float, bool, bytes, type(None)})
_FIELDS: Final = 5
_AXIS_FIELDS: Final = 3

_LINEAR: Final = struct.Struct("<dd")
_FLOAT: Final = struct.Struct("<d")
_encode = msgspec.msgpack.Encoder().encode

Outline = list[Any]
"""What is constant of the axes, each a tuple that begins with its name and unit. A linear axis: the types of gain and
offset, or the value of what is an int. Another: its dimensions, dtype and shape."""


class Splitter:
    """Takes the messages of one publisher apart."""

    __slots__ = ("_known", "_last", "_outline", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._outline: Outline | None = None
        self._last: bytes | None = None
        self._known: dict[Any, bytes | None] = {}

    def __call__(self, message: AxisArray) -> tuple[bytes, bytes, Any] | None:
        """Constant part, variable part and array of a message; None if it needs pickle."""
        try:
            data, dims, axes, attrs, key = message.data, message.dims, message.axes, message.attrs, message.key
            if type(data) is not np.ndarray or len(message.__dict__) != _FIELDS:
                return None
            if type(dims) is not list or type(axes) is not dict or type(attrs) is not dict or type(key) is not str:
                return None
            variable = b""
            fixed: list[Any] = []
            for name, value in attrs.items():
                if type(value) is float and type(name) is str:
                    fixed.append(name)
                    variable += _FLOAT.pack(value)
                elif type(value) in _ATTRIBUTES:
                    fixed.append((name, value))
                else:
                    return None
            outline: Outline = []
            for name, axis in axes.items():
                if len(axis.__dict__) != _AXIS_FIELDS:
                    return None
                if type(axis) is LinearAxis:
                    gain, offset = axis.gain, axis.offset
                    kind, other = type(gain), type(offset)
                    outline.append((name, axis.unit, gain if kind is int else kind, offset if other is int else other))
                    variable += _LINEAR.pack(gain, offset)
                elif type(axis) is CoordinateAxis:
                    array, along = axis.data, axis.dims
                    if type(array) is not np.ndarray or type(along) is not list or array.nbytes > COORDINATES_MAX:
                        return None
                    outline.append((name, axis.unit, tuple(along), array.dtype, array.shape))
                    variable += array.tobytes()
                else:
                    return None
            # As bytes, 1, 1.0 and True are different, and what is changed in place is noticed.
            rest = _encode((dims, key, fixed))
            if rest != self._rest or outline != self._outline:
                self._last = self._constant(message, outline, fixed, rest)
                self._rest, self._outline = rest, outline
        except (TypeError, ValueError, OverflowError, AttributeError, struct.error):
            return None  # whatever it is, it is no plain message
        return None if self._last is None else (self._last, variable, data)

    def _constant(self, message: AxisArray, outline: Outline, fixed: list[Any], rest: bytes) -> bytes | None:
        """The constant part of a message; None if it needs pickle."""
        known = self._known
        key = (rest, tuple(outline))
        if key not in known:
            if len(known) >= _KNOWN:
                known.clear()
            is_plain = _is_plain(message.dims, message.attrs, outline)
            part = (message.dims, message.key, fixed, outline)
            known[key] = pickle.dumps(part, protocol=5) if is_plain else None
        return known[key]


def _is_plain(dims: list[Any], attrs: dict[Any, Any], outline: Outline) -> bool:
    """Whether a message with this constant part is the same after its travel."""
    texts = [*dims, *attrs]
    for name, unit, *rest in outline:
        texts += [name, unit]
        if len(rest) == 2:
            if any(it is not float and it is not np.float64 and type(it) is not int for it in rest):
                return False
            continue
        axis_dims, dtype, _ = rest
        texts += axis_dims
        if dtype.kind not in _PLAIN_KINDS or dtype.metadata is not None:
            return False
    return all(type(text) is str for text in texts)


# -- at the receiver ----------------------------------------------------------------------------------------------

Make = Callable[[Data, int], Any]
"""Makes an axis of what lies in memory at an offset."""


def _join(part: bytes) -> Join:
    dims, key, fixed, outline = pickle.loads(part)
    floats = [name for name in fixed if type(name) is str]
    attrs = dict((name, 0.0) if type(name) is str else name for name in fixed)
    read_floats = struct.Struct(f"<{len(floats)}d").unpack_from
    makers: list[tuple[str, int, Make]] = []
    place = len(floats) * _FLOAT.size
    for name, unit, *rest in outline:
        if len(rest) == 2:
            makers.append((name, place, _linear(unit, *rest)))
            place += _LINEAR.size
        else:
            make, size = _coordinates(unit, *rest)
            makers.append((name, place, make))
            place += size
    new = object.__new__

    def join(memory: Data, start: int, array: Any) -> AxisArray:
        message = new(AxisArray)
        message.data = array
        message.dims = dims.copy()
        message.axes = {name: make(memory, start + at) for name, at, make in makers}
        message.attrs = attrs.copy()
        if floats:
            message.attrs.update(zip(floats, read_floats(memory, start), strict=True))
        message.key = key
        return message

    return join


def _linear(unit: str, gain_is: Any, offset_is: Any) -> Make:
    new, unpack = object.__new__, _LINEAR.unpack_from

    def make(memory: Data, at: int) -> LinearAxis:
        axis = new(LinearAxis)
        axis.unit = unit
        axis.gain, axis.offset = unpack(memory, at)
        return axis

    if gain_is is float and offset_is is float:
        return make

    def make_exactly(memory: Data, at: int) -> LinearAxis:
        axis = make(memory, at)
        axis.gain = gain_is(axis.gain) if isinstance(gain_is, type) else gain_is
        axis.offset = offset_is(axis.offset) if isinstance(offset_is, type) else offset_is
        return axis

    return make_exactly


def _coordinates(unit: str, dims: tuple[str, ...], dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[Make, int]:
    size = prod(shape) * dtype.itemsize
    new, names = object.__new__, list(dims)

    def make(memory: Data, at: int) -> CoordinateAxis:
        axis = new(CoordinateAxis)
        # A copy: the memory is not aligned for it, and may be used again.
        axis.data = np.ndarray(shape, dtype, bytearray(memory[at : at + size]))
        axis.dims = names.copy()
        axis.unit = unit
        return axis

    return make, size


register(AxisArray, Form(__name__, Splitter, _join))
