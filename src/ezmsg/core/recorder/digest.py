"""What rows become: histograms, rows of spans and samples for readers, and a count of everything that was lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ezmsg.core import config
from ezmsg.core.recorder.aggregate import Aggregator
from ezmsg.core.recorder.calculated import (
    Seeds,
    TraceIds,
    are_calculated,
    is_calculated,
    owners_in,
    with_ids,
    without_labels,
)
from ezmsg.core.recorder.details import with_details
from ezmsg.core.recorder.distinct import counted
from ezmsg.core.recorder.edge import EdgeMetrics
from ezmsg.core.recorder.endpoints import Endpoint
from ezmsg.core.recorder.labels import Labels
from ezmsg.core.recorder.pending import Pending
from ezmsg.core.recorder.pieces import FEW, ROWS_AT_ONCE, Piece, parts, rows_in_ns
from ezmsg.core.recorder.publisher import PublisherMetrics
from ezmsg.core.recorder.ring import Rows, Taken
from ezmsg.core.recorder.rowlog import RowArray, opaque
from ezmsg.core.recorder.rows import EXTENDED, INDEX_SHIFT, ROW_WORDS, SAMPLE_ROW, SPAN_ROW, count_spans
from ezmsg.core.recorder.runs import Run, is_special, runs_of
from ezmsg.core.recorder.samples import merge_oldest, sample_rows, span_rows
from ezmsg.core.recorder.samplestore import SampleStore
from ezmsg.core.recorder.selected import (
    are_alone,
    are_current,
    forget_selection,
    have_others,
    owed_by,
    runs_alone,
    unselected,
    with_extra_rows,
)
from ezmsg.core.recorder.spanlog import SpanStore, UnmadeRows
from ezmsg.core.recorder.unmadelog import Part

SPANS: Final = 20_000
"""Span rows kept per graph for readers."""

Find = Callable[[int], Endpoint | None]
Pause = Callable[[], None]
"""Lets other threads go on."""


def no_pause() -> None:
    """Go on at once."""


class Digest:
    """Fed with what was read from rings. Callers take turns (see `Recorder.reading`).

    For each kind (row, span, sample) and every reader that has read to the end: recorded = delivered + dropped.

    Attributes:
        aggregator: Histograms by endpoint.
        spans: Rows of sampled messages, by graph.
        samples: Samples of the native trace, by endpoint.
        rows: Rows that were read.
        records: Records that were written to rings, read or lost; a row may be two (see `rows.HOP`).
        lost: What was lost before it came here, by `kind:reason`.
        pending: What was told of publishes before it was recorded.
        is_detailed: Whether deliveries and times in queues become spans as well.
    """

    def __init__(self, labels: Labels, sample_limit: int, span_limit: int = SPANS) -> None:
        """Make an empty one."""
        self.aggregator = Aggregator(labels)
        self.spans = SpanStore(span_limit)
        self.samples = SampleStore(sample_limit)
        self.rows = self.records = 0
        self.lost: Counter[str] = Counter()
        self.pending = Pending()
        self.is_detailed = config.trace_is_detailed()
        self._labels = labels
        self._stale = 0
        # Memory new for every piece would have to be zeroed by the system first.
        self._pairs = np.empty((2 * ROWS_AT_ONCE + FEW + 1, 2 * ROW_WORDS), dtype=np.int64)
        self._whole = np.empty((2 * len(self._pairs), ROW_WORDS), dtype=np.int64)
        self._spans = np.empty((2 * len(self._pairs), 2 * ROW_WORDS), dtype=np.int64)

    def add(self, taken: Taken, generation: int, find: Find, pause: Pause = no_pause) -> None:
        """Take in what was read from a ring.

        Args:
            taken: Rows, and what was lost before them.
            generation: The native trace that is on: samples of others are stale.
            find: The endpoint with an index, if it is still known.
            pause: Called between two steps.
        """
        self.rows += len(taken.rows)
        self.records += taken.records + taken.lost
        self.lost["row:ring_overrun"] += taken.lost
        self.lost["span:ring_overrun"] += taken.lost_spans
        self.lost["sample:ring_overrun"] += taken.lost_samples
        for part in parts(taken):
            pause()
            if taken.is_selected:
                if taken.is_plain and self._take_runs(part, generation, find, pause):
                    continue
                part = self._take_selected(part, generation, find)
            if taken.is_plain:
                piece = Piece(part, is_plain=True)
            else:
                part, told = self.pending.without_told(part)
                self.records -= told
                piece = self._traced(part, find)
            self.lost["row:unknown_endpoint"] += self._count(piece, pause)
            if len(piece.extended):
                pause()
                self._keep(piece.pairs_in_ns(self._pairs), generation, find)

    def _traced(self, rows: Rows, find: Find) -> Piece:
        """Rows, some of which belong to a trace; those whose ids are calculated are kept as they are, if all are."""
        seeds = None if self.is_detailed else self._keep_calculated(rows, find)
        if seeds is not None:
            return Piece(rows, seeds=seeds)
        whole, given_up = with_ids(rows, lambda index: _ids_of(find(index)), self._whole)
        self.lost["span:unknown_endpoint"] += given_up
        return Piece(whole)

    def _keep_calculated(self, rows: Rows, find: Find) -> dict[int, Seeds] | None:
        """Keep the rows that spans are made of; None where some have extra rows, or belong to nobody or to several."""
        words = counted(rows[:, 0])
        if any(word & EXTENDED for word in words):
            return None
        is_all = all(is_calculated(word) for word in words)
        kept = rows.copy() if is_all else rows.compress(are_calculated(rows), axis=0)
        owners = owners_in(kept)
        seeds: dict[int, Seeds] = {}
        graphs: set[str | None] = set()
        for index in owners | {word >> INDEX_SHIFT for word in words if is_calculated(word)}:
            if (endpoint := find(index)) is None:
                return None
            graphs.add(endpoint.graph)
            if index in owners:
                if (ids := _ids_of(endpoint)) is None:
                    return None
                seeds[index] = ids.seeds
        if len(graphs) != 1:
            return None
        (graph,) = graphs
        self.spans.add_unmade(graph or "", graph, Part(kept, seeds))
        # What is counted has no part in it, and rows of one endpoint are to be alike.
        without_labels(rows, words)
        return seeds

    def _count(self, piece: Piece, pause: Pause) -> int:
        """Rows into histograms; returns how many are of endpoints not known."""
        aggregator = self.aggregator
        by_endpoint = runs_of(piece)
        if by_endpoint is None:
            return aggregator.add(rows_in_ns(piece.whole))
        runs, others = by_endpoint
        unknown = aggregator.add(rows_in_ns(others)) if len(others) else 0
        for run in runs:
            pause()
            of_run = aggregator.add_run(run)
            unknown += aggregator.add(rows_in_ns(run.whole)) if of_run is None else of_run
        return unknown

    def _keep(self, pairs: Rows, generation: int, find: Find) -> None:
        """Rows with extra rows into spans and samples."""
        spans = span_rows(pairs, self._spans)
        if spans is not None:
            self._keep_spans(spans, find)
        sampled = sample_rows(pairs, generation)
        if sampled is not None:
            self._stale += sampled.stale
            self._keep_samples(sampled.rows, find)

    def _take_runs(self, rows: Rows, generation: int, find: Find, pause: Pause) -> bool:
        """Take in rows that are all selected, without extra rows, by endpoint; whether they are such rows."""
        runs = runs_alone(rows)
        if runs is None or any(is_special(unselected(int(run[0, 0]))) for run in runs):
            return False
        endpoints = [find(int(run[0, 0]) >> INDEX_SHIFT) for run in runs]
        owners = [endpoint.record.endpoint_id for endpoint in endpoints if endpoint is not None]
        if len(set(owners)) < len(owners):
            return False  # what was recorded for one shall stay in order
        for run, endpoint in zip(runs, endpoints, strict=True):
            pause()
            if not are_current(run[:1], generation).all():
                self._stale += int(owed_by(run[:1])[0]) * len(run)
            elif endpoint is None:
                self.lost["sample:unknown_endpoint"] += int(owed_by(run[:1])[0]) * len(run)
            else:
                self.samples.add_unmade(endpoint.record.endpoint_id, endpoint.graph, Part(run))
            meta = unselected(int(run[0, 0]))
            unknown = self.aggregator.add_run(Run(meta, Piece(run, is_plain=True), np.arange(len(run))))
            if unknown is None:
                plain = rows_in_ns(run)
                plain[:, 0] = meta
                unknown = self.aggregator.add(plain)
            self.lost["row:unknown_endpoint"] += unknown
        return True

    def _take_selected(self, rows: Rows, generation: int, find: Find) -> Rows:
        """Rows as they were written, after those without extra rows gave what they owe; it is made when it is read."""
        if have_others(rows):
            # In the order they were recorded: one way for all of them.
            return with_extra_rows(rows, generation)
        alone = are_alone(rows)
        selected = rows if alone.all() else rows.compress(alone, axis=0)
        if len(selected):
            self._keep_selected(selected, generation, find)
            forget_selection(rows, alone)
        return rows

    def _keep_selected(self, rows: Rows, generation: int, find: Find) -> None:
        owed, current = owed_by(rows), are_current(rows, generation)
        if not current.all():
            self._stale += int(owed[~current].sum())
            rows, owed = rows.compress(current, axis=0), owed[current]
        indices = rows[:, 0] >> INDEX_SHIFT
        endpoints, known = _known(indices, find)
        if known < len(rows):
            self.lost["sample:unknown_endpoint"] += int(owed[~np.isin(indices, list(endpoints))].sum())
        for owner in dict.fromkeys(endpoint.record.endpoint_id for endpoint in endpoints.values()):
            mine = [index for index, endpoint in endpoints.items() if endpoint.record.endpoint_id == owner]
            is_mine = indices == mine[0] if len(mine) == 1 else np.isin(indices, mine)
            self.samples.add_unmade(owner, endpoints[mine[0]].graph, Part(rows.compress(is_mine, axis=0)))

    def take_spans(self, reader: str, limit: int, graph: str | None = None) -> bytes:
        """At most `limit` span rows, and their links, of a graph or of all, that a reader has not had yet."""
        return self.spans.take(reader, limit, graph)

    def take_unmade_spans(self, reader: str, limit: int, graph: str | None = None) -> UnmadeRows | None:
        """As rows that spans are made of, at most `limit` of them; None where some are made already."""
        return self.spans.take_unmade(reader, limit, graph)

    def take_samples(self, reader: str, limit: int, graph: str | None = None) -> bytes:
        """The oldest sample rows, at most `limit`, of a graph or of all, that a reader has not had yet."""
        rows, counts = merge_oldest(self.samples.peek(reader, limit, graph), limit)
        for endpoint_id, count in counts.items():
            self.samples.advance(reader, endpoint_id, count)
        return rows.tobytes()

    def take_selected(self, reader: str, limit: int, graph: str | None = None) -> tuple[bytes, int] | None:
        """As rows that samples are made of, at most `limit` of them, and how many; None where some are made already."""
        return self.samples.take_selected(reader, limit, graph)

    def recorded(self, reader: str | None = None) -> dict[str, int]:
        """What was recorded, by kind; rows without those that were thinned. With a reader, what was for that one."""
        lost = self.lost
        spans = self.spans.added if reader is None else self.spans.added_for(reader)
        samples = self.samples.added if reader is None else self.samples.added_for(reader)
        return {
            "row": self.records,
            "span": spans + sum(lost[f"span:{why}"] for why in ("ring_overrun", "unknown_endpoint", "unread")),
            "sample": samples + lost["sample:ring_overrun"] + lost["sample:unknown_endpoint"] + self._stale,
        }

    def dropped(self, reader: str | None) -> dict[str, int]:
        """What of it was lost, by `kind:reason`; with a reader, also what that one came too late for."""
        if reader is None:
            return self._dropped(0, (0, 0))
        return self._dropped(self.spans.lost(reader)[0], self.samples.lost(reader))

    def dropped_to_all(self, role: str) -> dict[str, int]:
        """The same, with what all readers of a role came too late for, together."""
        return self._dropped(self.spans.lost_to(role)[0], self.samples.lost_to(role))

    def _dropped(self, spans: int, samples: tuple[int, int]) -> dict[str, int]:
        evicted, cleared = samples
        return {
            **self.lost, "span:span_store": spans,
            "sample:sample_store": evicted, "sample:cleared": self._stale + cleared,
        }  # fmt: skip

    def _keep_spans(self, rows: RowArray, find: Find) -> None:
        if self.is_detailed:
            rows = with_details(rows, self._labels)
        indices = rows["meta"] >> INDEX_SHIFT
        endpoints, known = _known(indices, find)
        if known < len(rows):
            unknown = ~np.isin(indices, list(endpoints))
            self.lost["span:unknown_endpoint"] += count_spans(rows[unknown])
        graphs = dict.fromkeys(endpoint.graph for endpoint in endpoints.values())
        if len(graphs) == 1 and known == len(rows):
            (graph,) = graphs
            self.spans.add(graph or "", graph, rows)
            return
        for graph in graphs:
            mine = [index for index, endpoint in endpoints.items() if endpoint.graph == graph]
            self.spans.add(graph or "", graph, opaque(rows)[np.isin(indices, mine)].view(SPAN_ROW))

    def _keep_samples(self, rows: RowArray, find: Find) -> None:
        indices = rows["index"]
        endpoints, known = _known(indices, find)
        self.lost["sample:unknown_endpoint"] += len(rows) - known
        for owner in dict.fromkeys(endpoint.record.endpoint_id for endpoint in endpoints.values()):
            mine = [index for index, endpoint in endpoints.items() if endpoint.record.endpoint_id == owner]
            is_mine = indices == mine[0] if len(mine) == 1 else np.isin(indices, mine)
            self.samples.add(owner, endpoints[mine[0]].graph, opaque(rows)[is_mine].view(SAMPLE_ROW))


def _ids_of(endpoint: Endpoint | None) -> TraceIds | None:
    metrics = None if endpoint is None else endpoint.metrics
    return metrics.ids if isinstance(metrics, PublisherMetrics | EdgeMetrics) else None


def _known(indices: NDArray[Any], find: Find) -> tuple[dict[int, Endpoint], int]:
    """The endpoints of rows, and how many rows are theirs: a lease may outlive its subscriber."""
    endpoints: dict[int, Endpoint] = {}
    known = 0
    for index, count in counted(indices).items():
        endpoint = find(index)
        if endpoint is not None:
            endpoints[index] = endpoint
            known += count
    return endpoints, known
