"""Spans of what lies between a publish and its processing, made of rows of messages where they are asked for."""

from __future__ import annotations

from typing import Final

import numpy as np

from ezmsg.core.recorder.ids import new_span_id
from ezmsg.core.recorder.labels import Labels
from ezmsg.core.recorder.rowlog import RowArray, joined, opaque
from ezmsg.core.recorder.rows import (
    DELIVER,
    ERROR,
    FOREIGN,
    HOP,
    KIND_MASK,
    LABEL_BITS,
    PROCESS,
    QUEUE,
    SPAN_ROW,
)

SAME_HOST: Final = "same_host"
OTHER_HOST: Final = "other_host"
"""Where the clock was that the first time of a delivery was read from."""
_NOT_TAKEN: Final = KIND_MASK | ERROR | HOP | LABEL_BITS


def with_details(rows: RowArray, labels: Labels) -> RowArray:
    """Rows of spans, and behind them a delivery and a time in a queue for each message that was processed.

    A delivery from one loop to itself takes no time, and one whose times run backwards cannot be shown: neither is
    there.
    """
    meta = rows["meta"]
    is_process = meta & KIND_MASK == PROCESS
    published, channel, start = rows["b"], rows["c"], rows["d"]
    is_delivered = is_process & (meta & HOP == 0) & (published >= 0) & (channel >= published)
    is_queued = is_process & (start >= channel)
    codes = np.array([labels.code(SAME_HOST), labels.code(OTHER_HOST)])
    delivered, queued = _taken(rows, is_delivered), _taken(rows, is_queued)
    delivered["blame"] = codes[(delivered["meta"] & FOREIGN != 0).astype(np.int64)]
    queued["blame"] = codes[0]
    for kind, made in ((DELIVER, delivered), (QUEUE, queued)):
        begin, end = ("b", "c") if kind == DELIVER else ("c", "d")
        made["e"], made["d"] = made[end].copy(), made[begin].copy()
        made["meta"] = made["meta"] & ~_NOT_TAKEN | kind
        made["span_id"] = np.array([new_span_id() for _ in range(len(made))], dtype=np.uint64)
    return joined([rows, delivered, queued], SPAN_ROW)


def _taken(rows: RowArray, which: RowArray) -> RowArray:
    """A copy of some rows."""
    return opaque(rows)[which].view(SPAN_ROW)
