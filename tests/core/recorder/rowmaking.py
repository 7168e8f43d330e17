"""Rows as endpoints write them, made by hand."""

from collections.abc import Sequence

import numpy as np

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.recorder.rows import (
    EXTENDED,
    EXTRA,
    INDEX_SHIFT,
    LABEL_SHIFT,
    LINK,
    NO_PREVIOUS,
    PROCESS,
    PUBLISH,
    SAMPLED,
    SPAN,
    meta_word,
)

SHM, TCP, UNKNOWN = ProfileChannelType.SHM, ProfileChannelType.TCP, ProfileChannelType.UNKNOWN
TRACE_ID = 0x0123456789ABCDEF_FEDCBA9876543210

Row = Sequence[int]


def publish(
    index: int,
    number: int,
    start: int,
    end: int | None = None,
    *,
    wait: int = 0,
    serialize: int = 0,
    size: int = 0,
    flags: int = 0,
    way: ProfileChannelType = UNKNOWN,
) -> Row:
    end = start if end is None else end
    return (meta_word(PUBLISH, index, way) | flags, number, start, start, end, wait, serialize, size)


def process(
    index: int,
    number: int,
    *,
    origin: int = 0,
    published: int = 0,
    channel: int = 0,
    start: int = 0,
    end: int = 0,
    flags: int = 0,
    label: int = 0,
) -> Row:
    meta = meta_word(PROCESS, index, SHM) | flags | label << LABEL_SHIFT
    return (meta, number, origin, published, channel, start, end, 0)


def user_span(index: int, start: int, end: int, label: int) -> Row:
    return (meta_word(SPAN, index, SHM) | label << LABEL_SHIFT, 0, 0, 0, 0, start, end, 0)


def link(index: int, number: int, span_id: int, linked_id: int, trace_id: int = TRACE_ID) -> list[Row]:
    """What stands behind a publish with that span, and its extra row."""
    return sampled((meta_word(LINK, index), number, 0, 0, 0, 0, 0, 0), linked_id, span_id, trace_id=trace_id)


def sampled(
    row: Row,
    span_id: int,
    parent_id: int = 0,
    *,
    previous: int = NO_PREVIOUS,
    fanout: int = 0,
    blame: int = 0,
    emit: int = 0,
    generation: int = 0,
    flags: int = SAMPLED,
    trace_id: int = TRACE_ID,
) -> list[Row]:
    """A row and its extra row."""
    meta = EXTRA | emit << LABEL_SHIFT | generation << INDEX_SHIFT
    ids = trace_id.to_bytes(16, "big") + b"".join(value.to_bytes(8, "little") for value in (span_id, parent_id))
    extra = (meta, *np.frombuffer(ids, dtype=np.int64).tolist(), previous, fanout, blame)
    return [(row[0] | EXTENDED | flags, *row[1:]), extra]


def table(*rows: Row | list[Row]) -> np.ndarray:
    """Rows as they come from a ring."""
    flat: list[Row] = []
    for row in rows:
        flat.extend(row if isinstance(row, list) else [row])
    return np.array(flat, dtype=np.int64).reshape(-1, 8)


def pairs(*rows: Row | list[Row]) -> np.ndarray:
    """Those of the rows that have an extra row, with it at their side."""
    made = table(*rows)
    at = np.flatnonzero(made[:, 0] & EXTENDED)
    return np.concatenate((made[at], made[at + 1]), axis=1)
