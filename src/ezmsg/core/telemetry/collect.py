"""What one telemetry link tells its server next: new endpoints, what changed, and rows not sent yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from msgspec import structs

from ezmsg.core import config
from ezmsg.core.profiling import PROFILE_TIME, ProfileRegistry
from ezmsg.core.recorder.calculated import Seeds
from ezmsg.core.recorder.digest import Pause, no_pause
from ezmsg.core.recorder.endpoints import Endpoint
from ezmsg.core.recorder.past import LastValues, Tally, is_past
from ezmsg.core.recorder.processscope import GAUGES as PROCESS_GAUGES
from ezmsg.core.recorder.rows import PROCESS_INDEX, SAMPLE_ROW, SPAN_ROW
from ezmsg.core.recorder.rowstore import Places
from ezmsg.core.recorder.spanlog import UnmadeRows, spans_of
from ezmsg.core.recorder.unmadelog import Part
from ezmsg.core.telemetry.busy import BusyTimes
from ezmsg.core.telemetry.closing import Closing
from ezmsg.core.wire.records import ClockAnchor, CounterState, EndpointRecord, HistogramState, TelemetryBatch

UNMADE_AT_ONCE: Final = 20_000
"""Rows of a batch that spans are made of. Whoever handles a batch lets go of the interpreter in every step, and gets it
back when the message path is willing: that takes longer than the steps, so they are few."""
REMEMBERED: Final = 256
"""Batches whose place among the rows is known, should the link be lost before the server had them."""
LINK_READERS: Final = "link"
"""The role of links among the readers of rows."""
GAUGES: Final = frozenset({"inflight", "queue_depth", "holding_ns"}) | PROCESS_GAUGES


NOTHING_UNMADE: Final = UnmadeRows(b"", 0, {})


class _State(NamedTuple):
    """What a batch tells beside rows: endpoints that are new to the server, and what became of them and of others."""

    endpoints: list[EndpointRecord]
    counters: list[CounterState]
    histograms: list[HistogramState]
    closed: list[int]
    closed_again: list[LastValues]


class _Rows(NamedTuple):
    """The rows of a batch."""

    spans: bytes
    samples: bytes
    selected: bytes
    unmade: bytes
    seeds: dict[int, Seeds]


class _Sent(NamedTuple):
    """Where the rows of a batch ended."""

    seq: int
    spans: Places
    samples: Places


class Collector:
    """Reads a registry for the link to one graph. Used by one thread.

    Everything but rows is cumulative, so a new connection begins by telling all of it again (`begin`).

    Args:
        registry: What to read.
        graph: `host:port` of its GraphServer.
        with_system: Tell what the operating system says of the process, too, which is something new all the time.
        pause: Called between two steps.
    """

    def __init__(
        self, registry: ProfileRegistry, graph: str, *, with_system: bool = False, pause: Pause = no_pause
    ) -> None:
        self._registry, self._graph, self._with_system, self._pause = registry, graph, with_system, pause
        # Also when the registry begins anew: what this link told of was there.
        self._recorder = registry.recorder
        self._reader = f"{LINK_READERS} {graph}"
        self._rows_at_once = config.trace_push_max_samples()
        self._sent: deque[_Sent] = deque(maxlen=REMEMBERED)
        self._busy = BusyTimes(self._recorder.digest.aggregator.series)
        self._closing = Closing(self._recorder.pasts, graph)
        # Whether the last batch left rows for another one.
        self.has_more = False
        self._forget()
        self._recorder.linked.add(graph)
        with self._recorder.reading:
            # From now on, or for the same client again from when it had its first link: what was before was for others.
            self._before = self._recorder.pasts.begin_tally(graph, self._client, self._tally_so_far())

    @property
    def link_id(self) -> str:
        """The id of the link."""
        return self._recorder.pasts.link_id(self._graph)

    @property
    def anchor(self) -> ClockAnchor:
        """How times become Unix time where no server has said so yet."""
        return self._registry.anchor

    @property
    def is_stale(self) -> bool:
        """Whether the registry began anew."""
        return self._registry.recorder is not self._recorder

    def begin(self, last_seq: int, *, is_new_server: bool) -> None:
        """A connection was opened.

        Args:
            last_seq: The last batch of this link that the server has; -1 for none.
            is_new_server: An earlier connection of this link was to another server, which is gone without goodbye.
        """
        self._forget()
        recorder = self._recorder
        with recorder.reading:
            if is_new_server:
                recorder.digest.spans.rewind_all(self._reader)
                recorder.digest.samples.rewind_all(self._reader)
                self._sent.clear()
            # Also for the next connection: this one may be lost before the server has anything of it.
            self._closing.begin(last_seq, self._client)
            for sent in [sent for sent in self._sent if sent.seq == last_seq]:
                recorder.digest.spans.rewind(self._reader, sent.spans)
                recorder.digest.samples.rewind(self._reader, sent.samples)
            # That it has may be a batch of an earlier link, or none: the next connection is to know where this began.
            self._sent.clear()
            self._note_sent(last_seq)

    def collect(self, *, rows_only: bool = False, reads: bool = True) -> TelemetryBatch | None:
        """The next batch, taken as sent; None when there is nothing to tell.

        Args:
            rows_only: Leave counters, histograms and closed endpoints for a later batch.
            reads: Read rings before. Without, the batch has rows that the last one left (`has_more`).
        """
        recorder = self._recorder
        recorder.expire_trace()
        if reads:
            with recorder.reading:
                recorder.drain(self._pause)
        self._pause()
        with recorder.reading:
            client = self._client
            state = self._state(client, rows_only=rows_only)
            rows = self._rows()
            recorded, dropped = self._tally_of(client)
            labels = recorder.labels.since(self._labels)
            self._labels += len(labels)
            tally = recorded, dropped
            # A busy process has a new tally all the time: alone, it waits for the counters.
            is_tally_due = not rows_only and tally != self._tally
            if not (any(state) or any(rows) or is_tally_due):
                return None
            self._tally = tally
            batch = TelemetryBatch(
                seq=self._recorder.pasts.take_seq(self._graph),
                process_id=client,
                mono_ns=PROFILE_TIME(),
                endpoints=state.endpoints,
                closed=[*state.closed, *(last.endpoint.index for last in state.closed_again)],
                counters=state.counters,
                histograms=state.histograms,
                labels=labels,
                spans=rows.spans,
                samples=rows.samples,
                selected=rows.selected,
                unmade=rows.unmade,
                seeds={**rows.seeds},
                recorded=recorded,
                dropped=dropped,
            )
            self._note_sent(batch.seq)
            self._closing.note(batch.seq, client, [*state.closed_again, *self._close(state.closed)])
        self._pause()
        return batch

    def told_by_all(self, batch: TelemetryBatch) -> TelemetryBatch:
        """The batch for who hears all links of this process: what was for them and what they lost together.

        Nor is there anything that it was not told before. Its spans are made.
        """
        if batch.unmade:
            made = spans_of(Part.read(batch.unmade, batch.seeds))
            batch = structs.replace(batch, spans=batch.spans + made.tobytes(), unmade=b"", seeds={})
        if past := {endpoint.index for endpoint in batch.endpoints if is_past(endpoint)}:
            batch = structs.replace(
                batch,
                endpoints=[endpoint for endpoint in batch.endpoints if endpoint.index not in past],
                counters=[counters for counters in batch.counters if counters.index not in past],
                histograms=[histogram for histogram in batch.histograms if histogram.index not in past],
            )
        if not batch.recorded:
            return batch
        with self._recorder.reading:
            recorded, dropped = self._recorder.tally_of_all(LINK_READERS)
        return structs.replace(batch, recorded=recorded, dropped=dropped)

    def last(self) -> TelemetryBatch:
        """The goodbye: gauges of what is still open at 0. Collect until there is nothing more, first."""
        recorder = self._recorder
        with recorder.lock:
            opened = [endpoint for endpoint in recorder.endpoints.open.values() if endpoint.graph == self._graph]
        counters = [CounterState(endpoint.index, _at_rest(endpoint.counters())) for endpoint in opened]
        if of_process := self._counters.get(PROCESS_INDEX):
            counters.append(CounterState(PROCESS_INDEX, _at_rest(of_process)))
        return TelemetryBatch(
            seq=recorder.pasts.take_seq(self._graph),
            process_id=self._client,
            mono_ns=PROFILE_TIME(),
            counters=counters,
            final=True,
        )

    def end(self, *, is_goodbye: bool, is_abandoned: bool = False) -> None:
        """The link is over; with `is_goodbye`, so is the graph, and a successor shall not hear of it.

        What was recorded lately is read first, unless the link `is_abandoned` and nobody wants to know.
        """
        recorder = self._recorder
        if is_goodbye and not self.is_stale:
            self._registry.forget_graph(self._graph)
        with recorder.reading:
            if not (is_goodbye or is_abandoned):
                # Of what closed just now its link is the only one to know, as long as it is linked.
                recorder.drain(self._pause)
            recorder.linked.discard(self._graph)
            if is_goodbye:
                recorder.digest.spans.skip(self._reader, self._graph)
                recorder.digest.samples.skip(self._reader, self._graph)
            else:
                with recorder.lock:
                    left = [index for index, at in recorder.settled.items() if at.graph == self._graph]
                    closed = [recorder.endpoints.closed[index] for index in left]
                self._changed_counters(closed, set(left))
                self._closing.end(self._client, self._close(left))

    def forget(self) -> None:
        """What this graph was told, or was to be told, is told to no other one at its address."""
        if not self.is_stale and not self._registry.has_endpoints(self._graph):
            self._registry.forget_graph(self._graph)
        with self._recorder.reading:
            self._recorder.pasts.forget(self._graph)

    # -- beneath ------------------------------------------------------------------------------------------------------

    @property
    def _client(self) -> str:
        return str(self._registry.client_of(self._graph) or "")

    def _state(self, client: str, *, rows_only: bool) -> _State:
        endpoints, settled = self._endpoints()
        new = [endpoint for endpoint in endpoints if endpoint.index not in self._told]
        self._told.update(endpoint.index for endpoint in new)
        state = _State([endpoint.record for endpoint in new], [], [], [], [])
        if rows_only:
            return state
        state.closed.extend(settled)
        state.counters.extend(self._changed_counters(endpoints, set(settled)))
        state.histograms.extend(self._changed_histograms(endpoints))
        state.closed_again.extend(self._closing.take_untold())
        for last in (*state.closed_again, *self._closing.take_past(client)):
            state.endpoints.append(last.endpoint)
            state.counters.append(CounterState(last.endpoint.index, last.counters))
            state.histograms.extend(last.histograms)
        self._pause()
        return state

    def _tally_of(self, client: str) -> Tally:
        recorded, dropped = map(_since, self._before, self._recorder.tally(self._reader))
        self._recorder.pasts.begin_tally(self._graph, client, self._before)
        return recorded, {what: count for what, count in dropped.items() if count}

    def _tally_so_far(self) -> Tally:
        digest = self._recorder.digest
        # Of this graph from now on.
        digest.take_spans(self._reader, 0, self._graph)
        digest.samples.peek(self._reader, 0, self._graph)
        return self._recorder.tally(self._reader)

    def _forget(self) -> None:
        self._told: set[int] = set()
        self._labels = 0
        self._turn = -1
        self._counters: dict[int, dict[str, int]] = {}
        self._tally: tuple[dict[str, int], dict[str, int]] = ({}, {})

    def _endpoints(self) -> tuple[list[Endpoint], list[int]]:
        """Endpoints of this graph that may have something to tell, and which of them will have nothing more."""
        recorder = self._recorder
        with recorder.lock:
            known = (*recorder.endpoints.closed.values(), *recorder.endpoints.open.values())
            mine = [endpoint for endpoint in known if endpoint.graph == self._graph]
            return mine, [endpoint.index for endpoint in mine if endpoint.index in recorder.settled]

    def _changed_counters(self, endpoints: Iterable[Endpoint], closed: set[int]) -> list[CounterState]:
        changed: list[CounterState] = []
        anomalies_of = self._recorder.digest.aggregator.anomalies
        for endpoint in endpoints:
            values = endpoint.counters()
            if endpoint.record.subscription:
                for reason, count in anomalies_of(endpoint.index)._asdict().items():
                    if count:
                        values[f"clock_anomalies:{reason}"] = count
                if endpoint.record.unit:
                    values["busy_ns"] = self._busy.of(endpoint)
            if endpoint.index in closed:
                values = _at_rest(values)
            if values != self._counters.get(endpoint.index):
                self._counters[endpoint.index] = values
                changed.append(CounterState(endpoint.index, values))
        of_process = self._recorder.process.counters(with_system=self._with_system)
        if of_process != self._counters.get(PROCESS_INDEX, {}):
            self._counters[PROCESS_INDEX] = of_process
            changed.append(CounterState(PROCESS_INDEX, of_process))
        return changed

    def _changed_histograms(self, endpoints: Iterable[Endpoint]) -> list[HistogramState]:
        aggregator = self._recorder.digest.aggregator
        table = aggregator.series.histograms
        changed: list[HistogramState] = []
        for index in (PROCESS_INDEX, *(endpoint.index for endpoint in endpoints)):
            for series in aggregator.series.of(index):
                if table.changed_since(series, self._turn):
                    changed.append(table.state(series))
                    series.forget_exemplars()
        self._turn = aggregator.turn
        return changed

    def _rows(self) -> _Rows:
        digest, limit = self._recorder.digest, self._rows_at_once
        unmade, spans = digest.take_unmade_spans(self._reader, UNMADE_AT_ONCE, self._graph), b""
        if unmade is None:
            spans = digest.take_spans(self._reader, limit, self._graph)
        taken = digest.take_selected(self._reader, limit, self._graph)
        if taken is None:
            samples, selected = digest.take_samples(self._reader, limit, self._graph), b""
            is_full = len(samples) // SAMPLE_ROW.itemsize >= limit
        else:
            samples, (selected, count) = b"", taken
            is_full = count >= limit
        rows, number, seeds = unmade or NOTHING_UNMADE
        self.has_more = is_full or len(spans) // SPAN_ROW.itemsize >= limit or number >= UNMADE_AT_ONCE
        return _Rows(spans, samples, selected, rows, seeds)

    def _note_sent(self, seq: int) -> None:
        recorder = self._recorder
        places = recorder.digest.spans.places(self._reader), recorder.digest.samples.places(self._reader)
        self._sent.append(_Sent(seq, *places))

    def _close(self, indices: list[int]) -> list[LastValues]:
        """Endpoints will have nothing more to tell; returns what they told last."""
        recorder, series = self._recorder, self._recorder.digest.aggregator.series
        lasts: list[LastValues] = []
        for index in indices:
            with recorder.lock:
                record = recorder.endpoints.closed[index].record
            states = [series.histograms.state(of_one) for of_one in series.of(index)]
            lasts.append(LastValues(record, self._counters.pop(index, {}), states))
            self._told.discard(index)
            self._busy.forget(index)
        recorder.retire(indices)
        return lasts


def _since(before: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    return {what: max(0, count - before.get(what, 0)) for what, count in now.items()}


def _at_rest(values: dict[str, int]) -> dict[str, int]:
    return {name: 0 if name.partition(":")[0] in GAUGES else value for name, value in values.items()}
