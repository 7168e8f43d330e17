"""The client end of a profiling stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from uuid import UUID

from ezmsg.core.control import ControlClient
from ezmsg.core.control.link import ServerLink
from ezmsg.core.control.readerstream import ReaderStream
from ezmsg.core.errors import EzmsgError
from ezmsg.core.graphmeta import (
    ProcessProfilingTraceBatch,
    ProfilingStreamControl,
    ProfilingTraceStreamBatch,
)
from ezmsg.core.net.address import Address
from ezmsg.core.telemetry.expand import Columns
from ezmsg.core.wire.records import (
    EndpointRecord,
    EventAck,
    OpenProfilingStream,
    ProcessSamples,
    ProfilingStreamBatch,
    Record,
    StreamOpened,
)

# Batches are acknowledged so many at once. Less than the server sends ahead.
ACK_EVERY = 16
# What a server may take to open a stream.
OPEN_TIMEOUT_S = 5.0
# Processes that are remembered: the longest known are forgotten first, they explain themselves again.
PROCESSES = 4096


class StreamReader:
    """Collects the batches of one stream.

    Attributes:
        ended: Why there will be no more; empty while there may.
    """

    def __init__(self, control: ProfilingStreamControl) -> None:
        self._control = control
        self._batches: asyncio.Queue[tuple[ProfilingStreamBatch, str] | None] = asyncio.Queue()
        self._endpoints: dict[str, dict[int, EndpointRecord]] = {}
        self._labels: dict[str, dict[int, str]] = {}
        self._positions: dict[str, tuple[int, int]] = {}
        self._epoch = ""
        self._gap = ""
        # What came before the answer to our opening was read; None when that is known.
        self._early: list[ProfilingStreamBatch] | None = []
        # By the reader, and not acknowledged yet.
        self._taken = 0
        self.ended = ""

    async def introduce(self, client: ControlClient) -> None:
        """Open the stream at a server: where it was, or with what another one has."""
        control, self._early = self._control, []
        ids = None if control.process_ids is None else [str(process_id) for process_id in control.process_ids]
        opened = await client.request(
            OpenProfilingStream(
                control.interval, control.max_samples, ids, control.include_empty_batches, control.include_spans,
                self._epoch, self._positions, self._taken + self._batches.qsize(),
            ),
            StreamOpened,
            OPEN_TIMEOUT_S,
        )  # fmt: skip
        if self._epoch not in ("", opened.epoch):
            self._gap = f"the GraphServer at {client.address} was lost; another one is there"
            self._positions = {}
        self._epoch = opened.epoch
        early, self._early = self._early, None
        for batch in early:
            self._take(batch)
        if self._taken:
            # The reader took it while there was no connection, and may be waiting for more.
            client.notify(EventAck(self._taken))
            self._taken = 0

    def _take(self, batch: ProfilingStreamBatch) -> None:
        self._batches.put_nowait((batch, self._gap))
        self._gap = ""
        self._positions.update((process.process_id, process.positions) for process in batch.processes)
        for known in (self._positions, self._endpoints, self._labels):
            while len(known) > PROCESSES:
                del known[next(iter(known))]

    def on_request(self, connection: object, record: Record) -> Record:
        """A server asks nothing of a stream."""
        raise EzmsgError(f"a profiling stream has no answer to {type(record).__name__}")

    def on_notice(self, connection: object, record: Record) -> None:
        """A batch."""
        if not isinstance(record, ProfilingStreamBatch):
            return
        if self._early is not None:
            self._early.append(record)
        else:
            self._take(record)

    def on_end(self, reason: str) -> None:
        """The stream ends, silently, as the server did."""
        self.ended = reason
        self._batches.put_nowait(None)

    async def next(self, link: ServerLink) -> ProfilingTraceStreamBatch | None:
        """The next batch; None at the end."""
        # Acknowledged only when asked for the next: until then the reader is at work on it.
        if self._taken >= ACK_EVERY and link.notify(EventAck(self._taken)):
            self._taken = 0
        entry = await self._batches.get()
        if entry is None:
            return None
        self._taken += 1
        return self.expand(*entry)

    def expand(self, batch: ProfilingStreamBatch, gap: str = "") -> ProfilingTraceStreamBatch:
        """The batch as users know it; `gap`: what happened to the stream before it."""
        return ProfilingTraceStreamBatch(
            batch.unix_s, {UUID(process.process_id): self._expand(process) for process in batch.processes}, gap
        )

    def _expand(self, process: ProcessSamples) -> ProcessProfilingTraceBatch:
        endpoints = self._endpoints.setdefault(process.process_id, {})
        endpoints.update((endpoint.index, endpoint) for endpoint in process.endpoints)
        labels = self._labels.setdefault(process.process_id, {})
        labels.update(process.labels)
        anchor = process.anchor
        return ProcessProfilingTraceBatch(
            process_id=UUID(process.process_id),
            pid=process.pid,
            host=process.host,
            timestamp=float(process.mono_ns),
            samples=[],
            dropped=dict(process.dropped),
            anchor_mono_ns=0 if anchor is None else anchor.mono_ns,
            anchor_unix_ns=0 if anchor is None else anchor.unix_ns,
            boot_id="" if anchor is None else anchor.boot_id,
        ).fill_later(Columns(process.samples, process.spans, endpoints, labels, anchor))


def profiling_stream(address: Address, control: ProfilingStreamControl) -> ReaderStream[ProfilingTraceStreamBatch]:
    """The batches of a profiling stream of the server at `address`; connects at the first `anext`."""
    reader = StreamReader(control)

    async def batches() -> AsyncGenerator[ProfilingTraceStreamBatch, None]:
        link = await ServerLink.connect(address, reader, name="profiling stream")
        try:
            await link.introduce()
            while (batch := await reader.next(link)) is not None:
                yield batch
        finally:
            await link.close()

    return ReaderStream(batches(), reader, f"profiling stream of {address}")
