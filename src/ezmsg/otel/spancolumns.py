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
    CONTROL_CLIENT,
    CONTROL_SERVER,
    DELIVER,
    ERROR,
    FOLLOWERS,
    FOREIGN,
    INDEX_SHIFT,
    KIND_MASK,
    LABEL_MASK,
    LABEL_SHIFT,
    PROCESS,
    PUBLISH,
    SETTINGS,
    SPAN,
)
from ezmsg.core.recorder.rows import QUEUE as QUEUED
from ezmsg.core.wire.records import ClockAnchor
from ezmsg.otel.protobuf import VARINT_BYTES

RowArray = NDArray[Any]
Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]

_SPANS: Final = (PUBLISH, PROCESS, SPAN, CONTROL_CLIENT, CONTROL_SERVER, SETTINGS, DELIVER, QUEUED)
_PATCH: Final = np.dtype(
    [
        ("trace", "V16"),
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


def _slot(name: str) -> slice:
    """Where the bytes of a column stand."""
    fields: Any = _PATCH.fields
    dtype, start = fields[name]
    return slice(start, start + dtype.itemsize)


TRACE_ID, SPAN_ID, PARENT_ID = _slot("trace"), _slot("span"), _slot("parent")
START, END = _slot("start"), _slot("end")
WAIT = QUEUE = _slot("first")
SERIALIZE = TRANSPORT = _slot("second")
AGE = _slot("third")
MESSAGE_ID, FANOUT, SIZE = _slot("message_id"), _slot("fanout"), _slot("size")


def behind(slot: slice, number: int) -> slice:
    """The same slot of a row so many behind that of the span: its links are there."""
    shift = number * _PATCH.itemsize
    return slice(slot.start + shift, slot.stop + shift)


_META: Final = (
    KIND_MASK | CHANNEL_MASK << CHANNEL_SHIFT | ERROR | LABEL_MASK << LABEL_SHIFT | ((1 << 31) - 1) << INDEX_SHIFT
)
_DIGITS_BITS, _VARINT_BITS, _LINK_BITS = 5, 4, 16


class Shape(NamedTuple):
    """What has no fixed length in the spans of one shape: bytes of numbers, and how many links have rows."""

    digits: int
    fanout_bytes: int
    size_bytes: int
    links: int


class Columns(NamedTuple):
    """Columns of rows that can be read: each span's, and right behind it those of its links.

    Attributes:
        rows: The rows.
        patch: (row, byte) uint8, what fills the slots.
        spans: Positions of those rows that are spans.
        meta: By span: the first word of its row, without what makes no difference.
        shape: By span: the rest of what tells shapes apart.
        links: By span: how many rows of links follow.
    """

    rows: RowArray
    patch: Bytes
    spans: Integers
    meta: Integers
    shape: Integers
    links: Integers

    def groups(self) -> list[Integers]:
        """Numbers of spans by shape, each group in order."""
        order = np.lexsort((self.shape, self.meta))
        meta, shape = self.meta[order], self.shape[order]
        is_other = (meta[1:] != meta[:-1]) | (shape[1:] != shape[:-1])
        return np.split(order, np.flatnonzero(is_other) + 1)

    def patches(self, group: Integers) -> Bytes:
        """What fills the slots of the spans of a group, (span, byte)."""
        at, links = self.spans[group], int(self.links[group[0]])
        if not links:
            return self.patch[at]
        rows = at.reshape(-1, 1) + np.arange(links + 1)
        return self.patch[rows].reshape(len(group), -1)

    def rows_of(self, span: int) -> RowArray:
        """The row of a span, and those of its links."""
        at = int(self.spans[span])
        return self.rows[at : at + 1 + int(self.links[span])]

    def shape_of(self, span: int) -> Shape:
        """The shape of a span."""
        key = int(self.shape[span])
        sizes: list[int] = []
        for bits in (_DIGITS_BITS, _VARINT_BITS, _VARINT_BITS, _LINK_BITS):
            sizes.append(key & (1 << bits) - 1)
            key >>= bits
        return Shape(*sizes)


def columns_of(rows: RowArray, anchor: ClockAnchor) -> Columns:
    """The columns of span rows.

    Rows of no known kind, or from before 1970, are left out, and so are links that do not follow their span.
    """
    shift = anchor.unix_ns - anchor.mono_ns
    rows = readable_rows(rows, anchor)
    meta = rows["meta"]
    kind = meta & KIND_MASK
    is_publish, is_process = kind == PUBLISH, kind == PROCESS
    origin, published, channel = rows["a"], rows["b"], rows["c"]
    start, end = np.where(is_publish, published, rows["d"]), np.where(is_publish, channel, rows["e"])
    first = np.where(is_publish, rows["d"], start - channel)
    second = np.where(is_publish, rows["e"], channel - published)
    third = start - origin

    patch = np.empty(len(rows), _PATCH)
    patch["trace"], patch["span"], patch["parent"] = rows["trace_id"], rows["span_id"], rows["parent_id"]
    patch["start"], patch["end"] = start + shift, np.maximum(start, end) + shift
    patch["first"], patch["second"], patch["third"] = first / 1e9, second / 1e9, third / 1e9
    patch["message_id"] = rows["message_id"].astype("S20")
    fanout_bytes = _varints(rows["fanout"], patch["fanout"])
    size_bytes = _varints(rows["f"], patch["size"])

    spans = np.flatnonzero(~np.isin(kind, FOLLOWERS))
    links = np.diff(spans, append=len(rows)) - 1
    is_near = is_process & (meta & FOREIGN == 0)
    has_first = np.where(is_publish, first > 0, is_process & (first >= 0))
    shape = _packed(
        (np.strings.str_len(patch["message_id"])[spans] * (is_publish | is_process)[spans], _DIGITS_BITS),
        ((fanout_bytes * is_publish)[spans], _VARINT_BITS),
        ((size_bytes * (is_publish & (rows["f"] != 0)))[spans], _VARINT_BITS),
        (links, _LINK_BITS),
        (has_first[spans], 1),
        (np.where(is_publish, second > 0, is_near & (second >= 0))[spans], 1),
        ((is_near & (origin >= 0) & (third >= 0))[spans], 1),
        ((rows["parent_id"] != 0)[spans], 1),
        # The edge that held the slot, or what else is told there: a label.
        ((rows["blame"] * ((is_publish & has_first) | ~(is_publish | is_process)))[spans], 0),
    )
    bytes_of_rows = patch.view(np.uint8).reshape(len(rows), _PATCH.itemsize)
    return Columns(rows, bytes_of_rows, spans, meta[spans] & _META, shape, links)


def readable_rows(rows: RowArray, anchor: ClockAnchor) -> RowArray:
    """Rows of known kinds, from 1970 on; links and attributes right behind the span they belong to."""
    shift = anchor.unix_ns - anchor.mono_ns
    kind = rows["meta"] & KIND_MASK
    starts = np.where(kind == PUBLISH, rows["b"], rows["d"])
    is_link = np.isin(kind, FOLLOWERS)
    is_readable = np.isin(kind, _SPANS) & (starts + shift > 0) | is_link
    if not is_readable.all():
        rows, is_link = rows[is_readable], is_link[is_readable]
    if not is_link.any():
        return rows
    # By row: the last span up to there, and whether a link or attribute is one of that.
    last = np.maximum.accumulate(np.where(is_link, -1, np.arange(len(rows))))
    is_own = (last >= 0) & (rows["span_id"][last] == rows["parent_id"])
    return rows[~is_link | is_own]


def _packed(*parts: tuple[NDArray[Any], int]) -> Integers:
    """Columns of whole numbers in one, each in so many bits from the low end."""
    packed, at = np.zeros(len(parts[0][0]), np.int64), 0
    for part, bits in parts:
        packed |= part.astype(np.int64) << at
        at += bits
    return packed


def _varints(values: Integers, into: Bytes) -> Integers:
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
