"""Rows into histograms, column by column: no Python object is made per row, except for exemplars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.recorder.distinct import distinct
from ezmsg.core.recorder.histograms import Column, Exemplar
from ezmsg.core.recorder.ids import hex_span_id
from ezmsg.core.recorder.intervals import STRETCHES, Stretch, Stretches
from ezmsg.core.recorder.labels import NO_LABEL, Labels
from ezmsg.core.recorder.processscope import ProcessScope
from ezmsg.core.recorder.ring import Rows
from ezmsg.core.recorder.rows import (
    CHANNEL_MASK,
    CHANNEL_SHIFT,
    CHANNELS,
    ERROR,
    EXTENDED,
    FIRST_TIME,
    FOREIGN,
    HOP,
    INDEX_SHIFT,
    INSTANT,
    KIND_MASK,
    LABEL_MASK,
    LABEL_SHIFT,
    LEASE,
    NO_PREVIOUS,
    PROCESS,
    PROCESS_END,
    PROCESS_INDEX,
    PUBLISH,
    PUBLISH_END,
    SAMPLED,
    SELECTED,
    SPAN,
    WAIT,
)
from ezmsg.core.recorder.runs import Durations, Published, Run, ids_in, process_run, publish_run
from ezmsg.core.recorder.series import NOWHERE, Mask, SeriesTable

EXEMPLARY: Final = frozenset({"age", "backpressure", "process", "publish", "queue", "serialize", "transport"})
"""Histograms of messages that have exemplars, as those of failures and of user spans do; an interval is of two."""
_NOT_ZERO: Final = frozenset({"backpressure", "serialize"})
"""Histograms that count only what happened."""


class Anomalies(NamedTuple):
    """Messages whose times could not be compared: another host's clock, or the later time the smaller."""

    foreign: int
    negative: int


@dataclass(slots=True)
class _Chunk:
    """Rows of one kind: their words, where they were among all rows, and the position of each's endpoint."""

    rows: Rows
    at: Column
    words: Rows
    positions: Column


class Aggregator:
    """Cumulative histograms of every known endpoint. Callers take turns (the registry holds a lock)."""

    def __init__(self, labels: Labels) -> None:
        """Make an aggregator that knows no endpoint."""
        self.series = SeriesTable(labels)
        self._labels = labels
        self.turn = 0
        # By position: anomalies, messages that may be under way, and which were published when.
        self._foreign = np.zeros(0, dtype=np.int64)
        self._negative = np.zeros(0, dtype=np.int64)
        self._room = np.zeros(0, dtype=np.int64)
        self._published: dict[int, Stretches] = {}
        self.open(PROCESS_INDEX)

    def count_process(self, scope: ProcessScope) -> None:
        """Count what was measured of the process itself."""
        if scope.has_durations:
            self.turn += 1
            scope.count_durations(self.series, self.turn)

    def open(self, index: int, num_buffers: int = 0) -> None:
        """Know an endpoint, with so many messages under way at most; rows of others are counted as unknown."""
        position = self.series.open(index)
        more = len(self.series) - len(self._foreign)
        if more:
            self._foreign = np.append(self._foreign, np.zeros(more, dtype=np.int64))
            self._negative = np.append(self._negative, np.zeros(more, dtype=np.int64))
            self._room = np.append(self._room, np.zeros(more, dtype=np.int64))
        self._published.pop(position, None)
        self._room[position] = num_buffers
        self._foreign[position] = self._negative[position] = 0

    def close(self, index: int) -> None:
        """Forget an endpoint."""
        self.series.close(index)

    def anomalies(self, index: int) -> Anomalies:
        """The clock anomalies of an endpoint."""
        position = self.series.position(index)
        if position == NOWHERE:
            return Anomalies(0, 0)
        return Anomalies(int(self._foreign[position]), int(self._negative[position]))

    def add(self, rows: Rows) -> int:
        """Count rows, in the order they were written; returns how many are of endpoints not known."""
        self.turn += 1
        kinds = rows[:, 0] & KIND_MASK
        hops = np.flatnonzero(rows[:, 0] & HOP)
        return (
            # Those that failed sent nothing.
            self._hand_publishes(rows, np.flatnonzero((kinds == PUBLISH) & (rows[:, 0] & ERROR == 0)), hops)
            + self._hand(rows, kinds == PROCESS, self._process)
            + self._hand(rows, kinds == WAIT, self._wait)
            + self._hand(rows, (kinds == LEASE) | (kinds == SPAN), self._lease)
        )

    def add_run(self, run: Run) -> int | None:
        """Count a run of rows as they were written.

        Returns how many are of an endpoint not known; None if they need a closer look and nothing was counted.
        """
        is_publish, is_hop = run.meta & KIND_MASK == PUBLISH, bool(run.meta & HOP)
        processed = None if is_publish else process_run(run)
        published = self._publish_run(run) if is_publish or is_hop else None
        if (processed is None and not is_publish) or (published is None and (is_publish or is_hop)):
            return None
        self.turn += 1
        unknown = 0
        if processed is not None:
            unknown += self._count_run(run.meta >> INDEX_SHIFT, processed, run, PROCESS_END)
        if published is not None:
            index = self._publisher_of(run)
            unknown += self._count_run(index, published.durations, run, PUBLISH_END)
            position = self.series.position(index)
            if position != NOWHERE:
                closed = self._closed_by(position, published.stretch)
                self.series.count("interval", np.full(len(closed), position), np.array(closed), self.turn)
        return unknown

    def _publish_run(self, run: Run) -> Published | None:
        known = self._published.get(self.series.position(self._publisher_of(run)))
        return publish_run(run, None if known is None else known.start_before(int(run.ids[0])))

    @staticmethod
    def _publisher_of(run: Run) -> int:
        return int(run.piece.rows[run.at[0], 7]) if run.meta & HOP else run.meta >> INDEX_SHIFT

    def _count_run(self, index: int, durations: Durations, run: Run, end: int) -> int:
        """Count what a run says of an endpoint; the word `end` tells when what is sampled of it ended."""
        position = self.series.position(index)
        if position == NOWHERE:
            return len(run.at)
        labels: dict[str, int] = {}
        if "serialize" in durations.histograms:
            labels["serialize"] = self._way(run.meta >> CHANNEL_SHIFT & CHANNEL_MASK)
        self.series.count_run(position, durations.histograms, labels, self.turn)
        sampled = run.sampled
        if sampled is not None:
            are_all = len(sampled) == len(run.at)
            for name in EXEMPLARY & durations.by_row.keys():
                of_sampled, rows = durations.by_row[name], sampled
                if not are_all:
                    of_sampled = of_sampled[sampled]
                if name in _NOT_ZERO:
                    happened = of_sampled > 0
                    of_sampled, rows = of_sampled[happened], rows[happened]
                if len(rows):
                    make = _RunExemplars(run, rows, of_sampled, end)
                    self.series.offer(position, name, of_sampled, make, labels.get(name, NO_LABEL))
        return 0

    def _hand_publishes(self, rows: Rows, at: Column, hops: Column) -> int:
        """Count publishes, also those that receivers recorded; each publisher's in the order of its messages."""
        words = rows[at]
        if len(hops):
            told = rows[hops]
            # Still hops: their extra rows are not those of a publish.
            told[:, 0] = PUBLISH | told[:, 0] & (HOP | SAMPLED) | told[:, 7] << INDEX_SHIFT
            told[:, 5:] = 0
            if len(at):
                words, at = np.concatenate((words, told)), np.concatenate((at, hops))
                order = np.lexsort((words[:, 1], words[:, 0] >> INDEX_SHIFT))
                words, at = words[order], at[order]
            else:
                words, at = told, hops
        return self._hand_words(rows, at, words, self._publish)

    def _hand(self, rows: Rows, of_kind: Mask, handle: Callable[[_Chunk], None]) -> int:
        at = np.flatnonzero(of_kind)
        return self._hand_words(rows, at, rows[at], handle)

    def _hand_words(self, rows: Rows, at: Column, words: Rows, handle: Callable[[_Chunk], None]) -> int:
        positions = self.series.positions(words[:, 0] >> INDEX_SHIFT)
        known = positions != NOWHERE
        unknown = len(at) - int(np.count_nonzero(known))
        if unknown:
            at, words, positions = at[known], words[known], positions[known]
        if len(at):
            handle(_Chunk(rows, at, words, positions))
        return unknown

    # -- kinds of rows ------------------------------------------------------------------------------------------------

    def _publish(self, chunk: _Chunk) -> None:
        words = chunk.words
        self._count("publish", chunk, words[:, 4] - words[:, 3], words[:, 0] & INSTANT == 0, end=PUBLISH_END)
        self._count("backpressure", chunk, words[:, 5], words[:, 5] > 0, end=PUBLISH_END)
        serialized = words[:, 6] > 0
        if serialized.any():
            ways = np.array([self._way(code) for code in range(len(CHANNELS))])
            ways = ways[words[:, 0] >> CHANNEL_SHIFT & CHANNEL_MASK]
            self._count_labelled("serialize", chunk, words[:, 6], serialized, ways, end=PUBLISH_END)
        self._intervals(chunk)

    def _process(self, chunk: _Chunk) -> None:
        words = chunk.words
        origin, publish, channel, start, end = (words[:, column] for column in range(2, 7))
        # A hand-over takes no time: what lies between is the publish.
        publish = np.where(words[:, 0] & HOP, channel, publish)
        foreign = words[:, 0] & FOREIGN != 0
        ageless = foreign | (origin < 0)
        age, transport, queue, process = start - origin, channel - publish, start - channel, end - start
        # What is before the beginning of the clock is no time of it: a peer may say anything.
        transported = (transport >= 0) & (publish >= 0)
        aged, queued, processed = age >= 0, queue >= 0, process >= 0
        self._count("age", chunk, age, aged & ~ageless, end=PROCESS_END)
        self._count("transport", chunk, transport, transported & ~foreign, end=PROCESS_END)
        self._count("queue", chunk, queue, queued, end=PROCESS_END)
        failed = words[:, 0] & ERROR != 0
        self._count("process", chunk, process, processed & ~failed, end=PROCESS_END)
        self._count_labelled("process", chunk, process, processed & failed, _labels(words), end=PROCESS_END)
        backwards = (~aged & ~ageless) | (~transported & ~foreign) | ~queued | ~processed
        np.add.at(self._foreign, chunk.positions[ageless], 1)
        np.add.at(self._negative, chunk.positions[backwards], 1)

    def _wait(self, chunk: _Chunk) -> None:
        waits = chunk.words[:, 5]
        self._count("backpressure", chunk, waits, waits > 0)

    def _lease(self, chunk: _Chunk) -> None:
        words = chunk.words
        durations = words[:, 6] - words[:, 5]
        is_span = words[:, 0] & KIND_MASK == SPAN
        self._count("process", chunk, durations, ~is_span & (durations >= 0))
        self._count_labelled("span", chunk, durations, is_span & (durations >= 0), _labels(words), end=PROCESS_END)

    def _intervals(self, chunk: _Chunk) -> None:
        """From the start of one message to the start of the next, where both are known."""
        order = np.argsort(chunk.positions, kind="stable")
        positions, ids = chunk.positions[order], chunk.words[order, 1]
        is_first = np.append(True, positions[1:] != positions[:-1])
        if not (is_first[1:] | (ids[1:] > ids[:-1])).all():
            by_number = np.lexsort((chunk.words[:, 1], chunk.positions))
            sorted_ids = chunk.words[by_number, 1]
            # Numbers that come again are those of a program that counts from the beginning again: it is in order.
            if (is_first[1:] | (sorted_ids[1:] > sorted_ids[:-1])).all():
                order, ids = by_number, sorted_ids
        starts = chunk.words[order, 3]
        starts_before = np.roll(starts, 1)
        joins = ~is_first & (np.roll(ids, 1) == ids - 1)
        known = joins.copy()
        # A row whose predecessor may have been left out carries that one's start with it.
        metas = chunk.words[order, 0]
        carrying = np.flatnonzero(metas & EXTENDED)
        carried = chunk.rows[chunk.at[order[carrying]] + 1, 5]
        usable = carried > NO_PREVIOUS
        starts_before[carrying[usable]] = carried[usable]
        known[carrying[usable]] = True
        intervals = starts - starts_before
        counted = known & (intervals >= 0)
        # Where rows are thinned, nothing more will be heard of those between; else, of hops.
        joins |= ~is_first & (metas & (EXTENDED | SAMPLED | SELECTED) == EXTENDED)
        firsts = np.flatnonzero(~joins)
        lasts = np.append(firsts[1:], len(ids)) - 1
        columns = (positions[firsts], ids[firsts], starts[firsts], known[firsts], ids[lasts], starts[lasts])
        whose: list[int] = []
        closed: list[int] = []
        for position, *stretch in zip(*(column.tolist() for column in columns), strict=True):
            found = self._closed_by(position, Stretch(*stretch))
            closed += found
            whose += [position] * len(found)
        all_positions = np.append(positions[counted], np.array(whose, dtype=np.int64))
        self.series.count("interval", all_positions, np.append(intervals[counted], closed).astype(np.int64), self.turn)

    def _closed_by(self, position: int, stretch: Stretch) -> list[int]:
        """The intervals to messages that were known before."""
        known = self._published.get(position)
        if known is None:
            known = self._published[position] = Stretches(STRETCHES + int(self._room[position]))
        return [interval for interval in known.add(stretch) if interval >= 0]

    # -- beneath ------------------------------------------------------------------------------------------------------

    def _count(self, name: str, chunk: _Chunk, durations: Column, valid: Mask, end: int | None = None) -> None:
        """Count durations; with `end`, the word with the end time, offer the sampled ones as exemplars."""
        if end is not None:
            sampled = np.flatnonzero((chunk.words[:, 0] & SAMPLED != 0) & valid)
            if len(sampled):
                self.series.offer_exemplars(
                    name, chunk.positions[sampled], durations[sampled], _Exemplars(chunk, sampled, durations, end)
                )
        if valid.all():
            self.series.count(name, chunk.positions, durations, self.turn)
        else:
            self.series.count(name, chunk.positions[valid], durations[valid], self.turn)

    def _way(self, channel: int) -> int:
        """The label of a way that messages leave the process."""
        kind = CHANNELS[channel]
        return NO_LABEL if kind is ProfileChannelType.UNKNOWN else self._labels.code(kind.value.lower())

    def _count_labelled(
        self, name: str, chunk: _Chunk, durations: Column, valid: Mask, labels: Column, end: int
    ) -> None:
        if not valid.any():
            return
        self.series.count_labelled(name, chunk.positions[valid], labels[valid], durations[valid], self.turn)
        sampled = np.flatnonzero((chunk.words[:, 0] & SAMPLED != 0) & valid)
        for label in distinct(labels[sampled]):
            rows = sampled[labels[sampled] == label]
            make = _Exemplars(chunk, rows, durations, end)
            self.series.offer_exemplars(name, chunk.positions[rows], durations[rows], make, label)


@dataclass(slots=True)
class _Exemplars:
    """Makes exemplars of sampled rows, once it is known of which."""

    chunk: _Chunk
    sampled: Column
    durations: Column
    end: int

    def __call__(self, n: int) -> Exemplar:
        row = int(self.sampled[n])
        meta, end_ns = int(self.chunk.words[row, 0]), int(self.chunk.words[row, self.end])
        is_publish = meta & KIND_MASK == PUBLISH
        trace_id, span_id = ids_in(self.chunk.rows[self.chunk.at[row] + 1], is_parent=is_publish and bool(meta & HOP))
        return int(self.durations[row]), end_ns, trace_id.hex(), hex_span_id(span_id)


@dataclass(slots=True)
class _RunExemplars:
    """The same of a run, whose times are still seconds."""

    run: Run
    sampled: Column
    durations: NDArray[np.float64]
    end: int

    def __call__(self, n: int) -> Exemplar:
        row = int(self.sampled[n])
        end_s = float(self.run.times[self.end - FIRST_TIME, row])
        trace_id, span_id = self.run.ids_of(row, is_publish=self.end == PUBLISH_END)
        return int(self.durations[n]), round(end_s * 1e9), trace_id.hex(), hex_span_id(span_id)


def _labels(words: Rows) -> Column:
    return words[:, 0] >> LABEL_SHIFT & LABEL_MASK
