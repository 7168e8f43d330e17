"""Ids that are calculated from the number of a message, by whoever asks for them.

A message that begins a trace, and is handed to the only subscriber of its loop, need not carry ids that nobody may ever
look at: its row says only that it is sampled, and the reader of the ring adds the ids, of many rows at once. Whatever
happens within the message (another publish, a user span, a log record) asks `TraceIds` for the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.recorder.distinct import distinct
from ezmsg.core.recorder.ids import random_bits
from ezmsg.core.recorder.ring import Rows
from ezmsg.core.recorder.rows import EXTENDED, EXTRA, HOP, ROW_WORDS, SAMPLED

_MASK: Final = (1 << 64) - 1
# Odd, so that an id comes again after 2^64 messages only; and such that the ids of messages one after another, and each
# part of them, are as evenly spread as random ones: samplers and shards of backends go by them.
_STEP: Final = 0x9E3779B97F4A7C15
_HIGH_STEP: Final = 0xD1B54A32D192ED03


@final
class TraceIds:
    """Ids for the messages of one publisher: random numbers, and a step from each message to the next."""

    __slots__ = ("_high", "_low", "_process", "_publish")

    def __init__(self) -> None:
        """Begin somewhere."""
        self._high, self._low, self._publish, self._process = (random_bits(64) for _ in range(4))

    def publish(self, message_id: int) -> tuple[bytes, int, int, tuple[tuple[bytes, int], ...]]:
        """The ids of a publish that begins a trace (see `PublishTrace`)."""
        return self._trace(message_id), (self._publish + message_id * _STEP) & _MASK or 1, 0, ()

    def process(self, message_id: int) -> tuple[bytes, int]:
        """Trace and span id of the processing of the message, of which there is only one."""
        return self._trace(message_id), (self._process + message_id * _STEP) & _MASK or 1

    def _trace(self, message_id: int) -> bytes:
        high, low = self._high + message_id * _HIGH_STEP, self._low + message_id * _STEP
        return ((high & _MASK) << 64 | low & _MASK).to_bytes(16, "big")

    def put(self, message_ids: NDArray[np.int64], into: Rows) -> None:
        """Write the same ids, as extra rows of hops of these messages."""
        numbers = message_ids.astype(np.uint64)
        steps = numbers * np.uint64(_STEP)
        words = into.view(np.uint64)
        words[:, 0] = EXTRA
        words[:, 1] = (numbers * np.uint64(_HIGH_STEP) + np.uint64(self._high)).byteswap(inplace=True)
        words[:, 2] = (steps + np.uint64(self._low)).byteswap(inplace=True)
        np.maximum(steps + np.uint64(self._process), 1, out=words[:, 3])
        np.maximum(steps + np.uint64(self._publish), 1, out=words[:, 4])
        words[:, 5:] = 0


def with_ids(rows: Rows, ids_of: Callable[[int], TraceIds | None], into: Rows) -> tuple[Rows, int]:
    """Rows as they were written, with an extra row behind each whose ids are calculated.

    Args:
        rows: The rows. Those whose publisher is not known are sampled no more.
        ids_of: The ids of the publisher with an index, if it is still known.
        into: Memory for twice as many rows.

    Returns:
        The rows, and how many spans were given up.
    """
    at = np.flatnonzero(rows[:, 0] & (SAMPLED | EXTENDED) == SAMPLED)
    if not len(at):
        return rows, 0
    publishers = rows[at, 7]
    first = int(publishers[0])
    if len(at) == len(rows) and (publishers == first).all() and (known := ids_of(first)) is not None:
        # What a busy process writes nearly all the time.
        rows[:, 0] |= EXTENDED
        rows[rows[:, 0] & HOP == 0, 7] = 0
        made = into[: 2 * len(rows)]
        pairs = made.reshape(len(rows), 2 * ROW_WORDS)
        pairs[:, :ROW_WORDS] = rows
        known.put(rows[:, 1], pairs[:, ROW_WORDS:])
        return made, 0
    extras = np.empty((len(at), ROW_WORDS), dtype=np.int64)
    lost = 0
    for index in distinct(publishers):
        ids, of_publisher = ids_of(index), publishers == index
        mine = at[of_publisher]
        if ids is None:
            # Without HOP, the publish was told before.
            lost += int((1 + (rows[mine, 0] & HOP != 0)).sum())
            rows[mine, 0] &= ~SAMPLED
        else:
            made = np.empty((len(mine), ROW_WORDS), dtype=np.int64)
            ids.put(rows[mine, 1], made)
            extras[of_publisher] = made
    if lost:
        return with_ids(rows, ids_of, into)[0], lost
    rows[at, 0] |= EXTENDED
    rows[at[rows[at, 0] & HOP == 0], 7] = 0
    return np.insert(rows, at + 1, extras, axis=0), 0
