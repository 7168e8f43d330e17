"""The client end of a profiling stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from uuid import UUID

from ezmsg.core.control import ControlClient
from ezmsg.core.errors import EzmsgError
from ezmsg.core.graphmeta import (
    ProcessProfilingTraceBatch,
    ProfilingStreamControl,
    ProfilingTraceStreamBatch,
)
from ezmsg.core.net.address import Address
from ezmsg.core.net.connection import Connection
from ezmsg.core.telemetry.expand import expand_samples, expand_spans
from ezmsg.core.wire.records import (
    EndpointRecord,
    OpenProfilingStream,
    ProcessSamples,
    ProfilingStreamBatch,
    Record,
)

# Batches a reader may lag behind before its connection stops reading; the server then holds them back.
QUEUE_BATCHES = 64
# What a server may take to open a stream.
OPEN_TIMEOUT_S = 5.0


class StreamReader:
    """Collects the batches of one stream, and expands their columns."""

    def __init__(self) -> None:
        self.batches: asyncio.Queue[ProfilingStreamBatch | None] = asyncio.Queue()
        self._endpoints: dict[str, dict[int, EndpointRecord]] = {}
        self._labels: dict[str, dict[int, str]] = {}

    def on_request(self, connection: object, record: Record) -> Record:
        """A server asks nothing of a stream."""
        raise EzmsgError(f"a profiling stream has no answer to {type(record).__name__}")

    def on_notice(self, connection: Connection, record: Record) -> None:
        """A batch, or goodbye."""
        if isinstance(record, ProfilingStreamBatch):
            self.batches.put_nowait(record)
            if self.batches.qsize() >= QUEUE_BATCHES:
                connection.pause_reading()

    def on_closed(self, connection: object, error: Exception | None) -> None:
        """The stream ends, silently, as the server did."""
        self.batches.put_nowait(None)

    async def next(self, client: ControlClient) -> ProfilingStreamBatch | None:
        """The next batch; None at the end."""
        batch = await self.batches.get()
        if self.batches.empty():
            client.connection.resume_reading()
        return batch

    def expand(self, batch: ProfilingStreamBatch) -> ProfilingTraceStreamBatch:
        """The batch as users know it."""
        return ProfilingTraceStreamBatch(
            batch.unix_s, {UUID(process.process_id): self._expand(process) for process in batch.processes}
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
            samples=expand_samples(process.samples, endpoints, labels),
            spans=[] if anchor is None else expand_spans(process.spans, endpoints, labels, anchor),
            dropped=dict(process.dropped),
            anchor_mono_ns=0 if anchor is None else anchor.mono_ns,
            anchor_unix_ns=0 if anchor is None else anchor.unix_ns,
            boot_id="" if anchor is None else anchor.boot_id,
        )


async def profiling_stream(
    address: Address, control: ProfilingStreamControl
) -> AsyncGenerator[ProfilingTraceStreamBatch, None]:
    """The batches of a profiling stream of the server at `address`; connects at the first `anext`."""
    reader = StreamReader()
    client = await ControlClient.connect(address, reader, name="profiling stream")
    try:
        ids = None if control.process_ids is None else [str(process_id) for process_id in control.process_ids]
        await client.request(
            OpenProfilingStream(
                control.interval, control.max_samples, ids, control.include_empty_batches, control.include_spans
            ),
            timeout_s=OPEN_TIMEOUT_S,
        )
        while (batch := await reader.next(client)) is not None:
            yield reader.expand(batch)
    finally:
        await client.close()
