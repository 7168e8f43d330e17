"""What an exporter has not been told yet. It is sent changes, coalesced while it is slow, and every span row once."""

from __future__ import annotations

from typing import Final

from msgspec import structs

from ezmsg.core.server.books.telemetrylink import HistogramKey, TelemetryLink
from ezmsg.core.wire.records import (
    CounterState,
    EndpointRecord,
    HistogramState,
    OpenTelemetryReader,
    ProcessTelemetry,
    TelemetryBatch,
)

UNACKNOWLEDGED: Final = 64
"""Records an exporter is sent before it acknowledges the first."""
SPANS_AT_ONCE: Final = 4096
HISTOGRAMS_AT_ONCE: Final = 2000
CLOSED_AT_ONCE: Final = 200


class _View:
    """What one exporter has not been told of one process."""

    def __init__(self, link: TelemetryLink, position: int, *, knows_past: bool) -> None:
        self._link = link
        self._past = [] if knows_past else link.closed.past.values()
        self.is_told = False
        self.is_dirty = True
        # Those that closed as well: rows may name them before their last values are told. They have no buffers now.
        self._endpoints: dict[int, EndpointRecord] = {
            endpoint.index: structs.replace(endpoint, num_buffers=0) for endpoint in link.closed.records()
        }
        self._endpoints |= link.endpoints
        self._endpoints |= {last.endpoint.index: last.endpoint for last in self._past}
        self._closed: dict[int, None] = dict.fromkeys(link.closed)
        self._counters: dict[int, None] = dict.fromkeys(link.counters)
        self._histograms: dict[tuple[int, HistogramKey], None] = dict.fromkeys(
            (index, key) for index, known in link.histograms.items() for key in known
        )
        self._labels = dict(link.labels)
        self._position = position

    @property
    def has_news(self) -> bool:
        """Whether there is something to tell. Of a process that has said no more than hello there is not."""
        return self.is_dirty and (self._link.last_seq >= 0 or self._link.is_gone)

    def note(self, batch: TelemetryBatch) -> None:
        """Something changed."""
        self.is_dirty = True
        for endpoint in batch.endpoints:
            self._endpoints[endpoint.index] = endpoint
        self._closed.update(dict.fromkeys(batch.closed))
        self._counters.update((counters.index, None) for counters in batch.counters)
        self._histograms.update(((state.index, (state.name, state.label)), None) for state in batch.histograms)
        self._labels.update(batch.labels)

    def greet_again(self) -> None:
        """The process lost its link and is back."""
        self.is_told, self.is_dirty = False, True

    def take(self) -> ProcessTelemetry:
        """The next record; `is_dirty` tells whether there is more."""
        link = self._link
        read = link.spans.read(self._position, SPANS_AT_ONCE)
        link.lost["span:server_ring"] += read.evicted + read.cleared
        self._position = read.position
        link.exported = max(link.exported, read.position)
        histograms = self._take_histograms()
        self.is_dirty = self._position < link.spans.end or bool(self._histograms)
        # An endpoint is closed when its last rows have been told.
        closed = [] if self.is_dirty else self._take_closed()
        told = [link.closed.last(index) for index in closed]
        # Those that had to give way are told to the next exporter, together.
        link.lost["endpoint:closed"] += told.count(None)
        last = [*self._past, *(values for values in told if values is not None)]
        self.is_dirty = self.is_dirty or bool(self._closed)
        is_last = link.is_gone and not self.is_dirty
        telemetry = ProcessTelemetry(
            link_id=link.hello.link_id,
            anchor=link.anchor,
            batch=TelemetryBatch(
                seq=link.last_seq,
                process_id=link.process_id,
                mono_ns=link.mono_ns,
                endpoints=list(self._endpoints.values()),
                closed=closed,
                counters=[
                    *(CounterState(index, link.counters[index]) for index in self._counters if index in link.counters),
                    *(CounterState(values.endpoint.index, values.counters) for values in last if values.counters),
                ],
                histograms=[*histograms, *(state for values in last for state in values.histograms)],
                labels=self._labels,
                spans=read.rows.tobytes(),
                recorded=link.recorded,
                dropped=link.dropped,
                final=link.is_final and is_last,
            ),
            hello=None if self.is_told else link.hello,
            server_dropped=link.losses(),
            gone=is_last,
            position=self._position,
        )
        self.is_told = True
        self._endpoints, self._counters, self._labels, self._past = {}, {}, {}, []
        return telemetry

    def _take_histograms(self) -> list[HistogramState]:
        taken: list[HistogramState] = []
        for index, key in list(self._histograms)[:HISTOGRAMS_AT_ONCE]:
            del self._histograms[index, key]
            # It may have closed meanwhile.
            if (state := self._link.histograms.get(index, {}).get(key)) is not None:
                taken.append(state)
        return taken

    def _take_closed(self) -> list[int]:
        taken = list(self._closed)[:CLOSED_AT_ONCE]
        for index in taken:
            del self._closed[index]
        return taken


class Exporter:
    """The one exporter of a graph, and a view of every process."""

    def __init__(self, reader_id: str, record: OpenTelemetryReader, links: dict[str, TelemetryLink]) -> None:
        self.reader_id, self.record = reader_id, record
        self._views = {link_id: self._view(link_id, link) for link_id, link in links.items()}
        self._unacknowledged = 0

    def link_opened(self, link_id: str, link: TelemetryLink) -> None:
        """A process appeared, or is back."""
        if link_id in self._views:
            self._views[link_id].greet_again()
        else:
            # Of one whose end was told nothing is known any more.
            self._views[link_id] = _View(link, link.exported, knows_past=False)

    def _view(self, link_id: str, link: TelemetryLink) -> _View:
        position, _ = self.record.positions.get(link_id, (-1, 0))
        if position >= link.begin:
            return _View(link, position, knows_past=True)
        # What came before may have been exported by one that is gone, and shall not be exported twice.
        return _View(link, link.exported, knows_past=False)

    def changed(self, link_id: str, batch: TelemetryBatch) -> None:
        """A process delivered."""
        self._views[link_id].note(batch)

    def link_gone(self, link_id: str) -> None:
        """A process ended."""
        self._views[link_id].is_dirty = True

    def forget(self, link_id: str) -> None:
        """Nothing more will be told of a process."""
        self._views.pop(link_id, None)

    def acknowledged(self, count: int) -> None:
        """The exporter took so many records."""
        self._unacknowledged = max(0, self._unacknowledged - count)

    def take(self, limit: int) -> list[ProcessTelemetry]:
        """What to send now: a record of each process in turn, as far as the exporter keeps up."""
        taken: list[ProcessTelemetry] = []
        room = min(limit, UNACKNOWLEDGED - self._unacknowledged)
        while room > len(taken):
            dirty = [link_id for link_id, view in self._views.items() if view.has_news]
            if not dirty:
                break
            for link_id in dirty[: room - len(taken)]:
                view = self._views[link_id]
                taken.append(view.take())
                # To the end of the line.
                self._views[link_id] = self._views.pop(link_id)
        self._unacknowledged += len(taken)
        return taken
