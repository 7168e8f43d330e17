"""Samples and spans by client, and the streams that read them, each with its own cursor."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

import numpy as np
from msgspec import structs

from ezmsg.core.recorder.distinct import distinct
from ezmsg.core.recorder.rowlog import Read, RowArray
from ezmsg.core.recorder.rows import INDEX_SHIFT, LABEL_MASK, LABEL_SHIFT, SAMPLE_ROW, SPAN_ROW
from ezmsg.core.recorder.samplelog import SampleLog
from ezmsg.core.recorder.spanlog import SpanLog
from ezmsg.core.recorder.unmadelog import Part
from ezmsg.core.server.books.telemetrylink import TelemetryLink
from ezmsg.core.wire.records import OpenProfilingStream, ProcessSamples, ProfilingStreamBatch

ROWS_AT_ONCE: Final = 20_000
"""Rows of one process in one batch, whatever a stream asks for: a batch must fit a frame."""
BATCH_ROWS: Final = 200_000
UNKNOWN_PID: Final = -1
LINGER_S: Final = 1.0
"""How long rows of a client that left may still come: they take another connection than its goodbye."""


class StreamClient:
    """A connected ProcessControlClient, or the telemetry link of a process without one: what that process measured.

    Args:
        client_id: Its id.
        pid: Its process.
        host: Where that is.
        limit: Rows that are kept.
        begin: The first position of its rows: after all that had this id before, where streams may still be.
        is_link: It is a link, which has spans alone, and only streams that ask for these are told of.
    """

    def __init__(self, client_id: str, pid: int, host: str, limit: int, begin: int, *, is_link: bool = False) -> None:
        self.client_id, self.pid, self.host, self.begin, self.is_link = client_id, pid, host, begin, is_link
        self.samples = SampleLog(limit, begin)
        self.spans = SpanLog(limit, begin)
        self.link: TelemetryLink | None = None
        self.left_s = math.inf
        """Since when, in Unix seconds, it is gone."""

    def take_spans(self, made: RowArray, unmade: Part) -> None:
        """It delivered."""
        if len(made):
            self.spans.append(made)
        self.spans.append_unmade(unmade)


class _Cursor:
    """Where a stream is in the rows of one client, and what it missed."""

    def __init__(self, client: StreamClient, positions: tuple[int, int]) -> None:
        self._samples, self._spans = (max(position, client.begin) for position in positions)
        self._missed: Counter[str] = Counter()

    def read(self, client: StreamClient, limit: int, *, with_spans_alone: bool) -> tuple[RowArray, RowArray]:
        """New samples and spans. Spans come with samples, or when they are reason enough."""
        samples = client.samples.read(self._samples, limit)
        self._samples = self._count(samples, "sample")
        if not len(samples.rows) and not with_spans_alone:
            return samples.rows, np.empty(0, dtype=SPAN_ROW)
        spans = client.spans.read(self._spans, limit)
        self._spans = self._count(spans, "span")
        return samples.rows, spans.rows

    def give_up(self, client: StreamClient) -> None:
        """Go on after everything that is here: it will not be told any more."""
        rows = client.samples, client.spans
        for kind, log, position in zip(("sample", "span"), rows, self.positions, strict=True):
            self._missed[f"{kind}:server_stopped"] += max(0, log.end - max(position, log.oldest))
            self._missed[f"{kind}:server_ring"] += max(0, log.oldest - position)
        self._samples, self._spans = client.samples.end, client.spans.end

    @property
    def positions(self) -> tuple[int, int]:
        """Where it is, in samples and spans."""
        return self._samples, self._spans

    def dropped(self, client: StreamClient) -> dict[str, int]:
        """Samples and spans this stream will never see, lost at the process or here."""
        dropped = {} if client.link is None else dict(client.link.dropped)
        dropped.update((reason, count) for reason, count in self._missed.items() if count)
        return dropped

    def _count(self, read: Read, kind: str) -> int:
        self._missed[f"{kind}:server_ring"] += read.evicted + read.cleared
        return read.position


class ProfileStream:
    """One reader of samples and spans."""

    def __init__(self, record: OpenProfilingStream) -> None:
        self._record = record
        self._cursors: dict[str, _Cursor] = {}
        # Clients that left, and that it has not read to the end.
        self._leaving: dict[str, StreamClient] = {}

    def left(self, client: StreamClient) -> None:
        """A client is gone; what it measured and this stream has not had is still to be told."""
        if self._wants(client):
            self._leaving[client.client_id] = client

    def back(self, client_id: str) -> None:
        """A client that left is here again, and goes on."""
        self._leaving.pop(client_id, None)

    def keeps(self, client_id: str) -> bool:
        """Whether it still reads a client that left."""
        return client_id in self._leaving

    def forget(self, client_id: str) -> None:
        """Nothing more is to be told of a client."""
        self._cursors.pop(client_id, None)
        self._leaving.pop(client_id, None)

    def take(self, clients: dict[str, StreamClient], unix_s: float, mono_ns: int) -> ProfilingStreamBatch | None:
        """What is new; None when there is nothing to tell."""
        record = self._record
        known = {client.client_id: client for client in (clients | self._leaving).values() if self._wants(client)}
        wanted = list(known) if record.process_ids is None else list(dict.fromkeys(record.process_ids))
        processes: list[ProcessSamples] = []
        room = BATCH_ROWS
        for client_id in wanted:
            client = known.get(client_id)
            if client is not None:
                told = self._process(client, min(record.max_samples, ROWS_AT_ONCE, room), mono_ns)
            else:
                told = ProcessSamples(client_id, UNKNOWN_PID, "", mono_ns)
            is_new = bool(told.samples) or (record.spans and bool(told.spans))
            if client is not None and client.left_s < math.inf and not is_new:
                if unix_s >= client.left_s + LINGER_S:
                    self.forget(client_id)
                continue
            if is_new or record.include_empty_batches:
                processes.append(told)
                room -= len(told.samples) // SAMPLE_ROW.itemsize + len(told.spans) // SPAN_ROW.itemsize
        return ProfilingStreamBatch(unix_s, processes) if processes else None

    def last(self, clients: dict[str, StreamClient], unix_s: float, mono_ns: int) -> ProfilingStreamBatch | None:
        """As `take`, with how much there is behind it that will not be told any more."""
        told = self.take(clients, unix_s, mono_ns)
        if told is None:
            return None
        known = clients | self._leaving
        processes: list[ProcessSamples] = []
        for process in told.processes:
            if (client := known.get(process.process_id)) is not None:
                cursor = self._cursor(client)
                cursor.give_up(client)
                process = structs.replace(process, dropped=cursor.dropped(client), positions=cursor.positions)
            processes.append(process)
        return structs.replace(told, processes=processes)

    def _wants(self, client: StreamClient) -> bool:
        ids = self._record.process_ids
        return self._record.spans or not client.is_link if ids is None else client.client_id in ids

    def _cursor(self, client: StreamClient) -> _Cursor:
        cursor = self._cursors.get(client.client_id)
        if cursor is None:
            positions = self._record.positions.get(client.client_id, (0, 0))
            cursor = self._cursors[client.client_id] = _Cursor(client, positions)
        return cursor

    def _process(self, client: StreamClient, limit: int, mono_ns: int) -> ProcessSamples:
        record = self._record
        cursor = self._cursor(client)
        alone = record.spans or record.include_empty_batches
        samples, spans = cursor.read(client, max(0, limit), with_spans_alone=alone)
        link = client.link
        if link is None:
            return ProcessSamples(client.client_id, client.pid, client.host, mono_ns)
        indices = np.concatenate((samples["index"].astype(np.int64), spans["meta"] >> INDEX_SHIFT))
        label = spans["meta"] >> LABEL_SHIFT & LABEL_MASK
        labels = distinct(np.concatenate((samples["label"].astype(np.int64), label, spans["blame"])))
        return ProcessSamples(
            process_id=client.client_id,
            pid=client.pid,
            host=client.host,
            mono_ns=link.mono_ns,
            anchor=link.anchor,
            endpoints=link.explain(indices),
            labels={code: link.labels[code] for code in labels if code in link.labels},
            samples=samples.tobytes(),
            spans=spans.tobytes(),
            dropped=cursor.dropped(client),
            positions=cursor.positions,
        )
