"""What varies from span to span, as columns: from rows of the recorder to the bytes that fill the slots of a template.

Rows that say the same but for these bytes have the same shape, and share a template (`spantemplate.py`). Nothing here
knows a name: those come from `expand_spans`, which the native API uses as well.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.recorder.rows import (
    CHANNEL_MASK,
    CHANNEL_SHIFT,
    ERROR,
    FOREIGN,
    INDEX_SHIFT,
    KIND_MASK,
    LABEL_MASK,
    LABEL_SHIFT,
    PROCESS,
    PUBLISH,
    SPAN,
)
from ezmsg.core.wire.records import ClockAnchor
from ezmsg.otel.protobuf import VARINT_BYTES

RowArray = NDArray[Any]
Integers = NDArray[np.int64]

_PATCH: Final = np.dtype(
    [
        ("trace_hi", ">u8"),
        ("trace_lo", ">u8"),
        ("span", ">u8"),
        ("parent", ">u8"),
        ("start", "<u8"),
        ("end", "<u8"),
        ("first", "<f8"),
        ("second", "<f8"),
        ("third", "<f8"),
        ("message_id", "S20"),
        ("fanout", "u1", VARINT_BYTES),
        ("size", "u1", VARINT_BYTES),
    ]
)


def _slot(first: str, last: str = "") -> slice:
    """Where the bytes of a column (or of several) stand."""
    fields: Any = _PATCH.fields
    dtype, end = fields[last or first]
    return slice(fields[first][1], end + dtype.itemsize)


TRACE_ID: Final = _slot("trace_hi", "trace_lo")
SPAN_ID, PARENT_ID, START, END = _slot("span"), _slot("parent"), _slot("start"), _slot("end")
WAIT = QUEUE = _slot("first")
SERIALIZE = TRANSPORT = _slot("second")
AGE = _slot("third")
MESSAGE_ID, FANOUT, SIZE = _slot("message_id"), _slot("fanout"), _slot("size")

_META: Final = (
    KIND_MASK | CHANNEL_MASK << CHANNEL_SHIFT | ERROR | LABEL_MASK << LABEL_SHIFT | ((1 << 31) - 1) << INDEX_SHIFT
)
_DIGITS_BITS, _VARINT_BITS = 5, 4


class Shape(NamedTuple):
    """What rows of one shape have in common, unpacked from their key."""

    digits: int
    fanout_bytes: int
    size_bytes: int


class Columns(NamedTuple):
    """Columns of rows that can be read.

    Attributes:
        rows: The rows.
        patch: (row, byte) uint8, what fills the slots.
        meta: The first word of each row, without what makes no difference.
        shape: The rest of what tells shapes apart.
    """

    rows: RowArray
    patch: NDArray[np.uint8]
    meta: Integers
    shape: Integers

    def groups(self) -> list[Integers]:
        """Positions of rows by shape, each group in order."""
        order = np.lexsort((self.shape, self.meta))
        meta, shape = self.meta[order], self.shape[order]
        is_other = (meta[1:] != meta[:-1]) | (shape[1:] != shape[:-1])
        return np.split(order, np.flatnonzero(is_other) + 1)


def unpack_shape(key: int) -> Shape:
    """The lengths of what has no fixed length."""
    digits = key & (1 << _DIGITS_BITS) - 1
    key >>= _DIGITS_BITS
    return Shape(digits, key & (1 << _VARINT_BITS) - 1, key >> _VARINT_BITS & (1 << _VARINT_BITS) - 1)


def columns_of(rows: RowArray, anchor: ClockAnchor) -> Columns:
    """The columns of span rows; rows of no known kind, or from before 1970, are left out."""
    kind, start = rows["meta"] & KIND_MASK, np.where(rows["meta"] & KIND_MASK == PUBLISH, rows["b"], rows["d"])
    shift = anchor.unix_ns - anchor.mono_ns
    is_readable = ((kind == PUBLISH) | (kind == PROCESS) | (kind == SPAN)) & (start + shift > 0)
    if not is_readable.all():
        rows, kind, start = rows[is_readable], kind[is_readable], start[is_readable]
    meta, is_publish, is_process = rows["meta"], kind == PUBLISH, kind == PROCESS
    origin, published, channel = rows["a"], rows["b"], rows["c"]
    end = np.where(is_publish, rows["c"], rows["e"])

    patch = np.zeros(len(rows), _PATCH)
    for name, column in (
        ("trace_hi", "trace_hi"),
        ("trace_lo", "trace_lo"),
        ("span", "span_id"),
        ("parent", "parent_id"),
    ):
        patch[name] = rows[column]
    patch["start"], patch["end"] = start + shift, np.maximum(start, end) + shift
    first = np.where(is_publish, rows["d"], start - channel)
    second = np.where(is_publish, rows["e"], channel - published)
    third = start - origin
    for name, duration_ns in (("first", first), ("second", second), ("third", third)):
        patch[name] = duration_ns / 1e9
    patch["message_id"] = rows["message_id"].astype("S20")
    digits = np.strings.str_len(patch["message_id"])
    fanout_bytes = _varints(rows["fanout"], patch["fanout"])
    size_bytes = _varints(rows["f"], patch["size"])

    is_near = is_process & (meta & FOREIGN == 0)
    has_first = np.where(is_publish, first > 0, is_process & (first >= 0))
    parts = (
        (digits * (is_publish | is_process), _DIGITS_BITS),
        (fanout_bytes * is_publish, _VARINT_BITS),
        (size_bytes * (is_publish & (rows["f"] != 0)), _VARINT_BITS),
        (has_first, 1),
        (np.where(is_publish, second > 0, is_near & (second >= 0)), 1),
        (is_near & (origin >= 0) & (third >= 0), 1),
        (rows["parent_id"] != 0, 1),
        # The edge that held the slot: a label.
        (rows["blame"] * (is_publish & has_first), 0),
    )
    shape, at = np.zeros(len(rows), np.int64), 0
    for part, bits in parts:
        shape |= part.astype(np.int64) << at
        at += bits
    return Columns(rows, patch.view(np.uint8).reshape(len(rows), _PATCH.itemsize), meta & _META, shape)


def _varints(values: Integers, into: NDArray[np.uint8]) -> Integers:
    """Write varints, one in each row; returns how many bytes each takes."""
    rest = values.astype(np.uint64)
    lengths = np.ones(len(values), np.int64)
    for at in range(VARINT_BYTES):
        byte, rest = rest & np.uint64(0x7F), rest >> np.uint64(7)
        goes_on = rest > 0
        into[:, at] = byte | goes_on.astype(np.uint64) << np.uint64(7)
        if not goes_on.any():
            break
        lengths += goes_on
    return lengths
