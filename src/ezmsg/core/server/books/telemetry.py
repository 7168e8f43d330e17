"""The telemetry of a graph at its server: what processes deliver, and what exporters and streams get of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Final

from ezmsg.core.errors import ExporterLeased, IdentityTaken
from ezmsg.core.recorder.rows import count_spans
from ezmsg.core.recorder.selected import owed_by
from ezmsg.core.recorder.unmadelog import Part
from ezmsg.core.server.books.exporter import Exporter
from ezmsg.core.server.books.profilestreams import ProfileStream, StreamClient
from ezmsg.core.server.books.telemetrylink import TelemetryLink, sample_rows, selected_rows, span_rows, unmade_rows
from ezmsg.core.wire.records import (
    ClockAnchor,
    OpenProfilingStream,
    OpenTelemetry,
    OpenTelemetryReader,
    ProcessTelemetry,
    ProfilingStreamBatch,
    TelemetryBatch,
    TelemetryOpened,
    process_key,
)

GONE: Final = 64
"""Processes that ended whose last values wait for an exporter."""
LEFT: Final = 64
"""Clients that left of which streams may still read."""
ANCHORS: Final = 1024
"""Boots of hosts whose clocks are remembered; more of them than there are hosts means that somebody makes them up."""


class TelemetryBook:
    """Links, one exporter, any number of streams.

    Links are keyed by their link id and known to exporters; clients by the id of their ProcessControlClient and known
    to streams. A batch says which client its process has.

    Args:
        limit: Span rows kept per process, and samples per client.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._links: dict[str, TelemetryLink] = {}
        self._anchors: dict[str, ClockAnchor] = {}
        self._clients: dict[str, StreamClient] = {}
        # Clients that are gone, while streams read what they measured.
        self._left: dict[str, StreamClient] = {}
        self._streams: dict[str, ProfileStream] = {}
        self._exporter: Exporter | None = None
        # Spans by link that an exporter was sent and has not settled, and those of links that are no more.
        self._unsettled: Counter[str] = Counter()
        self._orphaned = 0
        self._next_stream = 0
        # After all rows of clients that are gone.
        self._next_position = 0
        # The same of links that were forgotten, where exporters may still be.
        self._next_span = 0
        self.clock_offsets_ns: dict[str, int] = {}
        """By boot id: our wall clock minus that of the process that said hello first, the way there included."""

    @property
    def has_links(self) -> bool:
        """Whether a process delivers, or did so and an exporter has not heard all of it."""
        return not all(link.is_end_told for link in self._links.values())

    @property
    def unexported(self) -> int:
        """Spans that an exporter has not been sent, or has and did not say what became of them."""
        waiting = sum(link.spans.end - link.exported for link in self._links.values())
        return waiting + self._unsettled.total()

    def processes(self) -> list[str]:
        """The processes of the graph: those on its control plane, and those that deliver."""
        clients = {process_key(client.host, client.pid) for client in self._clients.values()}
        links = (link.hello for link in self._links.values() if not link.is_gone)
        return sorted(clients | {process_key(hello.host, hello.pid) for hello in links})

    def links_without_client(self) -> list[str]:
        """The links of processes of which no client is here."""
        links = self._links.items()
        return [link_id for link_id, link in links if not link.is_gone and link.process_id not in self._clients]

    # -- processes ----------------------------------------------------------------------------------------------------

    def client_connected(self, client_id: str, pid: int, host: str) -> None:
        """A ProcessControlClient connected: streams know it, even if it never measures anything."""
        self._add_client(client_id, pid, host, is_link=False)

    def _add_client(self, client_id: str, pid: int, host: str, *, is_link: bool) -> StreamClient:
        self._forget_left(client_id)
        client = StreamClient(client_id, pid, host, self._limit, self._next_position, is_link=is_link)
        self._clients[client_id] = client
        return client

    def client_gone(self, client_id: str, unix_s: float) -> None:
        """It left, at that time: streams that are open read it to the end, later ones do not know it."""
        client = self._clients.pop(client_id, None)
        if client is None:
            return
        client.left_s = unix_s
        self._left[client_id] = client
        for stream in self._streams.values():
            stream.left(client)
        for old in list(self._left)[:-LEFT]:
            self._forget_left(old)
        self._forget_read()

    def link_opened(self, hello: OpenTelemetry, mono_ns: int, unix_ns: int) -> TelemetryOpened:
        """A process begins to deliver, or goes on after its connection was lost.

        Others read its id, but not when it started.

        Args:
            hello: Who it is, with a reading of its clocks.
            mono_ns: Our monotonic clock now.
            unix_ns: Our wall clock now.

        Raises:
            IdentityTaken: It is the link of another process; nothing was changed.
        """
        link = self._links.get(hello.link_id)
        if link is not None and (link.hello.pid, link.hello.started_unix_ns) != (hello.pid, hello.started_unix_ns):
            raise IdentityTaken(type(hello).__name__, hello.link_id)
        anchor = self._anchors.get(hello.boot_id)
        if anchor is None:
            # Its own pair of readings: right also where its monotonic clock is not ours.
            mono, unix = (hello.mono_ns, hello.unix_ns) if hello.unix_ns else (mono_ns, unix_ns)
            anchor = self._anchors[hello.boot_id] = ClockAnchor(hello.boot_id, mono, unix)
            self.clock_offsets_ns[hello.boot_id] = unix_ns - unix
            self._forget_anchors()
        if link is None:
            link = self._links[hello.link_id] = TelemetryLink(hello, anchor, self._limit, self._next_span)
        elif link.is_end_told:
            # Told with its end.
            link.lost.clear()
        link.hello, link.is_final, link.is_end_told = hello, False, False
        link.connections += 1
        if self._exporter is not None:
            self._exporter.link_opened(hello.link_id, link)
        return TelemetryOpened(anchor, link.last_seq)

    def batch(self, link_id: str, batch: TelemetryBatch) -> None:
        """A process delivered.

        Raises:
            ProtocolError: Its columns are no rows; nothing was changed.
        """
        link = self._links[link_id]
        samples, selected, spans = sample_rows(batch.samples), selected_rows(batch.selected), span_rows(batch.spans)
        unmade = unmade_rows(batch.unmade, batch.seeds)
        link.apply(batch, spans, unmade)
        client = self._clients.get(batch.process_id) or self._left.get(batch.process_id)
        if client is None or client.is_link:
            # No client yet, or one that closed while this was on its way: streams of samples do not know it.
            link.lost["sample:no_client"] += len(samples) + int(owed_by(selected).sum())
            if not batch.process_id and (len(spans) or len(unmade.rows)):
                self._client_of(link_id, link).take_spans(spans, unmade)
        else:
            client.link = link
            if len(samples):
                client.samples.append(samples)
            client.samples.append_unmade(Part(selected))
            client.take_spans(spans, unmade)
        if self._exporter is not None:
            self._exporter.changed(link_id, batch)

    def _client_of(self, link_id: str, link: TelemetryLink) -> StreamClient:
        """What streams of spans know a process without a client by."""
        client = self._clients.get(link_id)
        if client is None and (client := self._left.pop(link_id, None)) is not None:
            # It is back under its id: streams may still read what it said before.
            client.left_s = math.inf
            self._clients[link_id] = client
            for stream in self._streams.values():
                stream.back(link_id)
        if client is None:
            client = self._add_client(link_id, link.hello.pid, link.hello.host, is_link=True)
        client.link = link
        return client

    def link_closed(self, link_id: str) -> bool:
        """A connection of a process ended, in order if its last batch said so; returns whether it was its last."""
        link = self._links[link_id]
        link.connections -= 1
        if not link.is_gone:
            return False
        if self._exporter is not None:
            self._exporter.link_gone(link_id)
        self._forget_links()
        return True

    # -- exporters ----------------------------------------------------------------------------------------------------

    def reader_open(self, reader_id: str, record: OpenTelemetryReader) -> None:
        """An exporter takes the lease of this graph; it will be told everything that is known.

        Raises:
            ExporterLeased: Another exporter has it.
        """
        if self._exporter is not None:
            raise ExporterLeased(self._exporter.record.name, self._exporter.record.pid)
        for link_id, count in self._unsettled.items():
            if link_id not in record.positions:
                self._write_off(link_id, count)
        self._unsettled = Counter({link_id: count for link_id, (_, count) in record.positions.items() if count})
        links = {link_id: link for link_id, link in self._links.items() if not link.is_end_told}
        self._exporter = Exporter(reader_id, record, links)

    def reader_close(self, reader_id: str) -> None:
        """An exporter gives back the lease."""
        if self._exporter is not None and self._exporter.reader_id == reader_id:
            self._exporter = None

    def reader_acknowledged(self, reader_id: str, count: int, settled: Mapping[str, int]) -> None:
        """An exporter took so many records, and exported or gave up so many spans of each link."""
        if self._exporter is not None and self._exporter.reader_id == reader_id:
            self._exporter.acknowledged(count)
            self._unsettled.subtract(settled)
            self._unsettled = +self._unsettled

    def reader_take(self, reader_id: str, limit: int = 1 << 30) -> list[ProcessTelemetry]:
        """What to send an exporter now, at most `limit` records; nothing while it does not acknowledge."""
        if self._exporter is None or self._exporter.reader_id != reader_id:
            return []
        if self._orphaned and self._links:
            next(iter(self._links.values())).lost["span:exporter_gone"] += self._orphaned
            self._orphaned = 0
        taken = self._exporter.take(limit)
        for telemetry in taken:
            self._unsettled[telemetry.link_id] += count_spans(span_rows(telemetry.batch.spans))
        for link_id in [telemetry.link_id for telemetry in taken if telemetry.gone]:
            self._links[link_id].is_end_told = True
            self._exporter.forget(link_id)
            self._forget_links()
        return taken

    # -- profiling streams --------------------------------------------------------------------------------------------

    def stream_open(self, record: OpenProfilingStream) -> str:
        """A stream begins, at the oldest samples that are here; returns its id."""
        self._next_stream += 1
        stream_id = str(self._next_stream)
        self._streams[stream_id] = ProfileStream(record)
        return stream_id

    def stream_close(self, stream_id: str) -> None:
        """A stream ended."""
        self._streams.pop(stream_id, None)
        self._forget_read()

    def stream_take(self, stream_id: str, unix_s: float, mono_ns: int = 0) -> ProfilingStreamBatch | None:
        """What a stream has not had yet; None when there is nothing to send.

        Args:
            stream_id: The stream.
            unix_s: The time now, in Unix seconds.
            mono_ns: Our monotonic clock now, as the time of processes that have measured nothing.
        """
        told = self._streams[stream_id].take(self._clients, unix_s, mono_ns or int(unix_s * 1e9))
        self._forget_read()
        return told

    def stream_last(self, stream_id: str, unix_s: float) -> ProfilingStreamBatch | None:
        """As `stream_take`, with how much there is that the stream will not have any more."""
        return self._streams[stream_id].last(self._clients, unix_s, int(unix_s * 1e9))

    # -- beneath ------------------------------------------------------------------------------------------------------

    def _forget_read(self) -> None:
        """Let go of clients that left and that no stream reads any more."""
        for client_id in list(self._left):
            if not any(stream.keeps(client_id) for stream in self._streams.values()):
                self._forget_left(client_id)

    def _forget_left(self, client_id: str) -> None:
        client = self._left.pop(client_id, None)
        if client is None:
            return
        self._next_position = max(self._next_position, client.samples.end, client.spans.end)
        for stream in self._streams.values():
            stream.forget(client_id)

    def _forget_anchors(self) -> None:
        while len(self._anchors) > ANCHORS:
            oldest = next(iter(self._anchors))
            del self._anchors[oldest], self.clock_offsets_ns[oldest]

    def _write_off(self, link_id: str, count: int) -> None:
        """An exporter is gone with spans, some of which it may have exported."""
        if (link := self._links.get(link_id)) is None:
            self._orphaned += count
        else:
            link.lost["span:exporter_gone"] += count

    def _forget_link(self, link_id: str) -> None:
        self._next_span = max(self._next_span, self._links.pop(link_id).spans.end + 1)

    def _forget_links(self) -> None:
        """Keep of the processes that ended those an exporter must still hear of, and not too many."""
        told = [link_id for link_id, link in self._links.items() if link.is_end_told]
        # One that only lost its connection may be back, and shall not deliver again what it did.
        lost = [link_id for link_id in told if not self._links[link_id].is_final]
        for link_id in {*told} - {*lost[-GONE:]}:
            self._forget_link(link_id)
        gone = [link_id for link_id, link in self._links.items() if link.is_gone and not link.is_end_told]
        for link_id in gone[:-GONE]:
            self._forget_link(link_id)
            if self._exporter is not None:
                self._exporter.forget(link_id)
            # Told with the next process that ended: nobody else can say it.
            self._links[gone[-1]].lost["link:forgotten"] += 1
