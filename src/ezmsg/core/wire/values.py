"""Values of any type, as far as msgpack can carry them: the defaults, choices and settings inside of metadata.

What msgpack knows travels as it is; tuples and large integers as extensions of ours, which the server passes on
unread. Everything else is reduced to something readable, and never refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Set
from enum import Enum
from typing import Any, Final, cast

import msgspec
import numpy as np
from msgspec import Raw
from msgspec.msgpack import Ext

# Codes of msgpack extensions. Part of the protocol: append, never renumber.
TUPLE: Final = 1
LARGE_INTEGER: Final = 2

# Deeper values are shown as text; one that contains itself ends there, too.
_DEPTH: Final = 32

_ENCODER: Final = msgspec.msgpack.Encoder()

NONE: Final = Raw(b"\xc0")


def plain(value: Any, depth: int = _DEPTH) -> Any:
    """The value in terms of msgpack.

    Comes back from `restored` equal where it is made of None, booleans, numbers, text, bytes, lists, tuples and
    dictionaries. An Enum is reduced to its value, a dataclass and any mapping to a dictionary, a set to a list, and
    anything else to its `repr`.
    """
    try:
        return _plain(value, depth)
    except Exception:  # whatever a foreign class makes of being looked at
        return _shown(value)


def restored(value: Any) -> Any:
    """The value that `plain` was given, as far as it was carried.

    Raises:
        ValueError: It holds an extension that is none of ours.
    """
    if isinstance(value, list):
        return [restored(item) for item in cast(list[Any], value)]
    if isinstance(value, dict):
        return {key: restored(item) for key, item in cast(dict[Any, Any], value).items()}
    if isinstance(value, Ext):
        if value.code == TUPLE:
            return tuple(restored(item) for item in msgspec.msgpack.decode(value.data, type=list[Any]))
        if value.code == LARGE_INTEGER:
            return int.from_bytes(value.data, "big", signed=True)
        raise ValueError(f"a value has the unknown extension {value.code}")
    return value


def packed(value: Any) -> Raw:
    """The value as bytes that whoever passes it on need not read."""
    return Raw(_ENCODER.encode(plain(value)))


def unpacked(raw: Raw) -> Any:
    """The value in such bytes; what no one of ours can have written is shown as text, as it must disturb nobody."""
    try:
        return restored(msgspec.msgpack.decode(raw))
    except (msgspec.DecodeError, ValueError, RecursionError, TypeError) as error:
        return f"<unreadable value: {error}>"


def is_mapping(raw: Raw) -> bool:
    """Whether these bytes hold a dictionary."""
    first = memoryview(raw)[0]
    return first & 0xF0 == 0x80 or first in (0xDE, 0xDF)


def _plain(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value, depth - 1) if depth else _shown(value)
    for kind, carry in _SCALARS:
        if isinstance(value, kind):
            return carry(value)
    if depth:
        for kind, carry in _CONTAINERS:
            if isinstance(value, kind):
                return carry(value, depth - 1)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name), depth - 1) for field in dataclasses.fields(value)}
    return _shown(value)


def _integer(value: int) -> int | Ext:
    number = int(value)
    if -(1 << 63) <= number < 1 << 64:
        return number
    return Ext(LARGE_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def _text(value: str) -> str:
    return str.__str__(value).encode(errors="backslashreplace").decode()


def _numpy_scalar(value: np.generic) -> Any:
    item = value.item()
    return _shown(value) if isinstance(item, np.generic) else plain(item)


def _tuple(value: tuple[Any, ...], depth: int) -> Ext:
    return Ext(TUPLE, _ENCODER.encode([plain(item, depth) for item in value]))


def _list(value: Iterable[Any], depth: int) -> list[Any]:
    return [plain(item, depth) for item in value]


def _dictionary(value: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
    return {_key(key): plain(item, depth) for key, item in value.items()}


def _key(key: Any) -> Any:
    carried = plain(key)
    return carried if carried is None or isinstance(carried, (str, bytes, int, float)) else _text(str(key))


def _shown(value: Any) -> str:
    try:
        return _text(repr(value))
    except Exception:
        return f"<{type(value).__qualname__}>"


# The first that fits counts.
_SCALARS: Final[list[tuple[type[Any] | tuple[type[Any], ...], Callable[[Any], Any]]]] = [
    (int, _integer),
    (float, float),
    (str, _text),
    ((bytes, bytearray, memoryview), bytes),
    (np.generic, _numpy_scalar),
]
_CONTAINERS: Final[list[tuple[type[Any] | tuple[type[Any], ...], Callable[[Any, int], Any]]]] = [
    (tuple, _tuple),
    ((list, Set), _list),
    (Mapping, _dictionary),
]
