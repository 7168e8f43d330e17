"""The protobuf wire format, as far as spans need it: messages of constant bytes with slots in between.

A message is a list of pieces. Lengths are known before a slot is filled, because a slot is as long as what fills it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, TypeVar

Piece = bytes | slice
"""Bytes that are always the same, or a slot: from where to where in a row of other bytes it is filled."""

AnyPiece = TypeVar("AnyPiece", bound=Piece)

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
VARINT_BYTES: Final = 10
"""The longest varint."""


def varint(value: int) -> bytes:
    """A whole number that is not negative, in as few bytes as there can be."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def size_of(pieces: Iterable[Piece]) -> int:
    """How many bytes pieces take."""
    return sum(len(piece) if isinstance(piece, bytes) else piece.stop - piece.start for piece in pieces)


def message(number: int, *pieces: AnyPiece) -> list[bytes | AnyPiece]:
    """A field that holds a message, a text or bytes."""
    return [_key(number, _LENGTH) + varint(size_of(pieces)), *pieces]


def text(number: int, value: str) -> bytes:
    """A field that holds a text; left out when it is empty."""
    encoded = value.encode()
    return _key(number, _LENGTH) + varint(len(encoded)) + encoded if encoded else b""


def fixed64(number: int, slot: slice) -> list[Piece]:
    """A field of eight bytes: a time, a double."""
    return [_key(number, _FIXED64), slot]


def fixed32(number: int, value: int) -> bytes:
    """A field of four bytes."""
    return _key(number, _FIXED32) + struct.pack("<I", value)


def integer(number: int, value: int | slice) -> list[Piece]:
    """A field that holds a whole number or an enumeration, or a slot for one."""
    return [_key(number, _VARINT), value if isinstance(value, slice) else varint(value)]


def _key(number: int, wire_type: int) -> bytes:
    return varint(number << 3 | wire_type)
