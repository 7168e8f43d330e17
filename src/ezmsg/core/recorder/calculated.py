"""Ids that are calculated from the number of a message, by whoever asks for them.

A message that begins a trace need not carry ids that nobody may ever look at: it and its rows say only that it is
sampled, and the readers of the rings add the ids, of many rows at once: of a publish, and of its processing by the only
subscriber of its loop, or of a channel that was told how the publisher calculates. Whatever happens within the message
(another publish, a user span, a log record) asks `TraceIds` for the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.recorder.distinct import counted, distinct
from ezmsg.core.recorder.ids import random_bits
from ezmsg.core.recorder.ring import Rows
from ezmsg.core.recorder.rows import (
    BLAME,
    CHANNEL_BITS,
    EXTENDED,
    EXTRA,
    FANOUT,
    HOP,
    INDEX_SHIFT,
    KIND_MASK,
    LABEL_BITS,
    LABEL_MASK,
    LABEL_SHIFT,
    LOCAL_BITS,
    NO_PREVIOUS_S,
    ORIGIN,
    PREVIOUS,
    PROCESS,
    PUBLISH,
    PUBLISH_START,
    ROW_WORDS,
    SAMPLED,
)

_MASK: Final = (1 << 64) - 1
# Odd, so that an id comes again after 2^64 messages only; and such that the ids of messages one after another, and each
# part of them, are as evenly spread as random ones: samplers and shards of backends go by them.
_STEP: Final = 0x9E3779B97F4A7C15
_HIGH_STEP: Final = 0xD1B54A32D192ED03
_PROCESS_LOCAL: Final = KIND_MASK | CHANNEL_BITS


class Seeds(NamedTuple):
    """What ids are calculated from: both halves of the id of a trace, and those of a publish and of its processing."""

    high: int
    low: int
    publish: int
    process: int


@final
class TraceIds:
    """Ids for the messages of one publisher: random numbers, and a step from each message to the next."""

    __slots__ = ("_high", "_low", "_process", "_publish")

    def __init__(self, told: tuple[int, int, int] | None = None) -> None:
        """Begin somewhere; or as the publisher does that told so, which the processing is no part of."""
        self._high, self._low, self._publish = told or (random_bits(64), random_bits(64), random_bits(64))
        self._process = random_bits(64)

    @classmethod
    def of(cls, seeds: Seeds) -> TraceIds:
        """Those that are calculated from these."""
        ids = cls(seeds[:3])
        ids._process = seeds.process
        return ids

    @property
    def seeds(self) -> Seeds:
        """What the ids of both ends are calculated from."""
        return Seeds(self._high, self._low, self._publish, self._process)

    @property
    def told(self) -> tuple[int, int, int]:
        """What a channel must know to calculate the ids of the publishes."""
        return self._high, self._low, self._publish

    def publish(self, message_id: int) -> tuple[bytes, int, int, tuple[tuple[bytes, int], ...]]:
        """The ids of a publish that begins a trace (see `PublishTrace`)."""
        return self._trace(message_id), (self._publish + message_id * _STEP) & _MASK or 1, 0, ()

    def process(self, message_id: int) -> tuple[bytes, int]:
        """Trace and span id of the processing of the message, of which there is only one."""
        return self._trace(message_id), (self._process + message_id * _STEP) & _MASK or 1

    def _trace(self, message_id: int) -> bytes:
        high, low = self._high + message_id * _HIGH_STEP, self._low + message_id * _STEP
        return ((high & _MASK) << 64 | low & _MASK).to_bytes(16, "big")


def with_ids(rows: Rows, ids_of: Callable[[int], TraceIds | None], into: Rows) -> tuple[Rows, int]:
    """Rows as they were written, with an extra row behind each whose ids are calculated.

    Args:
        rows: The rows. Those whose publisher is not known are sampled no more.
        ids_of: The ids of the publisher with an index, if it is still known.
        into: Memory for twice as many rows.

    Returns:
        The rows, and how many spans were given up.
    """
    at = np.flatnonzero(are_calculated(rows))
    if not len(at):
        return rows, 0
    metas = rows[:, 0]
    first = int(metas[0])
    owners = _owners_of(rows) if len(at) == len(rows) else _owners_of(rows[at])
    if len(at) == len(rows) and (metas == first).all() and (owners == owners[0]).all():
        # What a busy process writes nearly all the time.
        known = ids_of(int(owners[0]))
        if known is not None:
            made = into[: 2 * len(rows)]
            pairs = made.reshape(len(rows), 2 * ROW_WORDS)
            _put(np.array(known.seeds, dtype=np.uint64), rows, pairs[:, ROW_WORDS:])
            pairs[:, :ROW_WORDS] = rows
            return made, 0
    known_ids = {owner: ids_of(owner) for owner in distinct(owners)}
    unknown = at[np.isin(owners, [owner for owner, ids in known_ids.items() if ids is None])]
    if len(unknown):
        # Without HOP, the publish was told before, or is not this process's.
        lost = len(unknown) + int(np.count_nonzero(metas[unknown] & HOP))
        rows[unknown, 0] &= ~SAMPLED
        return with_ids(rows, ids_of, into)[0], lost
    known_seeds = np.array([ids.seeds for ids in known_ids.values() if ids is not None], dtype=np.uint64)
    seeds = known_seeds[np.searchsorted(list(known_ids), owners)].T
    extras = np.empty((len(at), ROW_WORDS), dtype=np.int64)
    # Not by owner and word, of which there may be as many as rows.
    kinds = metas[at] & (KIND_MASK | CHANNEL_BITS | HOP)
    for kind in distinct(kinds):
        chosen = np.flatnonzero(kinds == kind)
        mine, made = rows[at[chosen]], extras[chosen]
        _put(seeds[:, chosen], mine, made)
        rows[at[chosen]], extras[chosen] = mine, made
    return np.insert(rows, at + 1, extras, axis=0), 0


def complete(rows: Rows, seeds: Mapping[int, Seeds]) -> Rows:
    """A copy of rows as they were written, with an extra row behind each whose ids are calculated from these."""
    ids = {index: TraceIds.of(of_index) for index, of_index in seeds.items()}
    return with_ids(rows.copy(), ids.get, np.empty((2 * len(rows), ROW_WORDS), dtype=np.int64))[0]


def without_labels(rows: Rows, words: Iterable[int]) -> None:
    """Take from publishes whose ids are calculated, which have some of these first words, who made them wait."""
    for word in words:
        if word & LABEL_BITS and word & KIND_MASK == PUBLISH and is_calculated(word):
            rows[rows[:, 0] == word, 0] = word & ~LABEL_BITS


def is_calculated(word: int) -> bool:
    """Whether a row with this first word belongs to a trace whose ids it does not have."""
    return word & (SAMPLED | EXTENDED) == SAMPLED


def are_calculated(rows: Rows) -> NDArray[np.bool_]:
    """Which rows do."""
    return rows[:, 0] & (SAMPLED | EXTENDED) == SAMPLED


def owner_of(row: Rows) -> int:
    """The endpoint whose ids a row has: its own; of what was handed over, whose its last word is."""
    word = int(row[0])
    return int(row[7]) if word & _PROCESS_LOCAL == PROCESS | LOCAL_BITS else word >> INDEX_SHIFT


def owners_in(rows: Rows) -> set[int]:
    """The owners of all rows."""
    return set(counted(_owners_of(rows)))


def _owners_of(rows: Rows) -> NDArray[np.int64]:
    """The owner of each row."""
    metas = rows[:, 0]
    return np.where(metas & _PROCESS_LOCAL == PROCESS | LOCAL_BITS, rows[:, 7], metas >> INDEX_SHIFT)


def _put(seeds: NDArray[np.uint64], rows: Rows, into: Rows) -> None:
    """Write the extra rows of rows of one kind, channel and way to be told, and make these what others are.

    Args:
        seeds: Of all of these rows, or (4, row) of each; as `Seeds`.
        rows: The rows.
        into: Memory for the extra rows.
    """
    kind = int(rows[0, 0])
    rows[:, 0] |= EXTENDED
    _calculate(seeds, rows[:, 1], into)
    if kind & KIND_MASK == PUBLISH:
        _make_publishes(rows, into)
    elif kind & (CHANNEL_BITS | HOP) == LOCAL_BITS:
        rows[:, 7] = 0


def _calculate(seeds: NDArray[np.uint64], message_ids: NDArray[np.int64], into: Rows) -> None:
    """Write the ids that `TraceIds` has, as extra rows of the processing of these messages."""
    high, low, publish, process = seeds
    numbers = message_ids.astype(np.uint64)
    steps = numbers * np.uint64(_STEP)
    words = into.view(np.uint64)
    words[:, 0] = EXTRA
    words[:, 1] = (numbers * np.uint64(_HIGH_STEP) + high).byteswap(inplace=True)
    words[:, 2] = (steps + low).byteswap(inplace=True)
    np.maximum(steps + process, 1, out=words[:, 3])
    np.maximum(steps + publish, 1, out=words[:, 4])
    words[:, 5:] = 0


def _make_publishes(rows: Rows, into: Rows) -> None:
    # The one of the publish is that of the parent of its processing; it has none itself.
    into[:, 3], into[:, 4] = into[:, 4], 0
    into[:, PREVIOUS].view(np.float64)[:] = NO_PREVIOUS_S
    into[:, FANOUT] = rows[:, ORIGIN].view(np.float64)
    rows[:, ORIGIN] = rows[:, PUBLISH_START]
    into[:, BLAME] = rows[:, 0] >> LABEL_SHIFT & LABEL_MASK
    rows[:, 0] &= ~LABEL_BITS
