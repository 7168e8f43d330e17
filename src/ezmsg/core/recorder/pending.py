"""Publishes of traced messages that were handed over and are not released yet.

Their receivers record them together with what they do themselves, when they are done. Readers do not wait for that:
what was published is told, and left out of what the receiver says of it later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np

from ezmsg.core.recorder.calculated import TraceIds
from ezmsg.core.recorder.handover import Holder, PendingMessage
from ezmsg.core.recorder.publisher import PublisherMetrics
from ezmsg.core.recorder.ring import Rows, Taken
from ezmsg.core.recorder.rows import (
    ERROR,
    EXTENDED,
    EXTRA,
    HOP,
    INDEX_SHIFT,
    KIND_MASK,
    NO_PREVIOUS_S,
    PROCESS,
    PUBLISH,
    ROW_BYTES,
    ROW_WORDS,
    SAMPLED,
    pack_pair,
)


class Pending:
    """Which publishes were told before their receivers recorded them. Callers take turns."""

    def __init__(self) -> None:
        """None."""
        # Numbers of messages, by the index of their publisher.
        self._told: dict[int, set[int]] = {}

    def look(self, publishers: Collection[PublisherMetrics]) -> Taken | None:
        """Rows of what is pending now and was not told yet. Call it after rings were read; then `note` them."""
        metas = {publisher.index: publisher.meta for publisher in publishers}
        fresh = [
            (meta, message)
            for message in _traced(publishers)
            # Asked once: the writer may record it at any moment, and then it is nobody's.
            if (meta := metas.get(message.publisher)) is not None
            and message.message_id not in self._told.get(meta >> INDEX_SHIFT, ())
        ]
        if not fresh:
            return None
        rows = np.frombuffer(_rows_of(fresh), dtype=np.int64).reshape(-1, ROW_WORDS)
        return Taken(rows, False, len(fresh), 0, 0, 0)

    def note(self, rows: Rows) -> None:
        """These rows were told."""
        for meta, message_id in rows[::2, :2].tolist():
            self._told.setdefault(meta >> INDEX_SHIFT, set()).add(message_id)

    def close(self, index: int) -> None:
        """Nothing more will be said of a publisher."""
        self._told.pop(index, None)

    def without_told(self, rows: Rows) -> tuple[Rows, int]:
        """Rows as they were written, without publishes that were told; and how many these are."""
        if not self._told:
            return rows, 0
        metas = rows[:, 0]
        kinds = metas & KIND_MASK
        is_hop = (kinds == PROCESS) & (metas & HOP != 0)
        # One that failed had the number of the message that came next.
        is_publish = (kinds == PUBLISH) & (metas & ERROR == 0)
        at = np.flatnonzero((metas & SAMPLED != 0) & (is_publish | is_hop))
        found: list[int] = []
        for row in at[np.isin(rows[at, 1], list(set[int]().union(*self._told.values())))].tolist():
            index = int(rows[row, 7] if is_hop[row] else metas[row] >> INDEX_SHIFT)
            if self._pop(index, int(rows[row, 1])):
                found.append(row)
        gone: list[int] = []
        for row in found:
            if not is_hop[row]:
                gone += (row, row + 1)
                continue
            rows[row, 0] &= ~HOP
            rows[row, 3] = rows[row, 4]  # what is left of it is a hand-over
            if rows[row, 0] & EXTENDED:
                rows[row, 7] = rows[row + 1, 6] = 0  # else it tells whose ids are calculated
        return np.delete(rows, gone, axis=0) if gone else rows, len(found)

    def forget(self, index: int, below: int) -> None:
        """Everything that was said of messages of a publisher, with numbers below this, was read."""
        told = self._told.get(index)
        if told is not None:
            told = {message_id for message_id in told if message_id >= below}
            if told:
                self._told[index] = told
            else:
                del self._told[index]

    def _pop(self, index: int, message_id: int) -> bool:
        told = self._told.get(index)
        if told is None or message_id not in told:
            return False
        told.discard(message_id)
        if not told:
            del self._told[index]
        return True


def _traced(publishers: Collection[PublisherMetrics]) -> Iterator[PendingMessage]:
    """Messages of traces that publishers left to others. Each queue is looked through once, whoever shares it."""
    holders: dict[int, Holder] = {}
    for publisher in publishers:
        holder = publisher.left_to()
        if holder is not None:
            holders.setdefault(id(holder.queue), holder)
    for holder in holders.values():
        # What is taken first: it was in the queue before.
        taken = holder.taken()
        waiting = () if holder.queue is None else holder.queue.copy()
        for messages in (taken, waiting):
            yield from [message for message in messages if message.trace is not None]


def _rows_of(messages: Sequence[tuple[int, PendingMessage]]) -> bytearray:
    """Rows of publishes, as publishers with these first words write them."""
    buffer = bytearray(2 * ROW_BYTES * len(messages))
    for number, (meta, message) in enumerate(messages):
        trace = message.trace
        if isinstance(trace, TraceIds):
            trace = trace.publish(message.message_id)
        pack_pair(
            buffer, 2 * ROW_BYTES * number, meta | EXTENDED | SAMPLED,
            message.message_id, message.origin_s, message.publish_s, message.channel_s, 0.0, 0.0, 0,
            EXTRA, trace[0], trace[1], trace[2], NO_PREVIOUS_S, 1, 0,
        )  # fmt: skip
    return buffer
