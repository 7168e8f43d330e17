"""Streams of samples and spans for the native profiling API."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ezmsg.core.wire.records.fields import Name, Record
from ezmsg.core.wire.records.telemetry import ClockAnchor, EndpointRecord

__all__ = ["OpenProfilingStream", "ProcessSamples", "ProfilingStreamBatch"]


class OpenProfilingStream(Record, frozen=True):
    """A GraphContext reads samples and spans as they arrive; times in seconds.

    Spans ride along with samples; with `spans`, new spans alone are reason enough for a batch. A stream that is back
    tells where it was (`positions`, by process) at which server (`epoch`); another server begins with what it has.
    `unacknowledged`: batches that came over connections before, and count as if they had come over this one.
    """

    interval_s: float
    max_samples: int
    process_ids: Annotated[list[Name], Meta(max_length=10_000)] | None
    include_empty_batches: bool
    spans: bool = False
    epoch: str = ""
    positions: dict[str, tuple[int, int]] = {}
    unacknowledged: int = 0


class ProcessSamples(Record, frozen=True):
    """Samples and spans of one process in a profiling stream, as columns with what is needed to expand them.

    `positions`: where the stream is after these, in the samples and in the spans; one that comes back goes on there.
    """

    process_id: str
    pid: int
    host: str
    mono_ns: int
    anchor: ClockAnchor | None = None
    endpoints: list[EndpointRecord] = []
    labels: dict[int, str] = {}
    samples: bytes = b""
    spans: bytes = b""
    dropped: dict[str, int] = {}
    positions: tuple[int, int] = (0, 0)


class ProfilingStreamBatch(Record, frozen=True):
    """One delivery of a profiling stream; `unix_s` in Unix seconds."""

    unix_s: float
    processes: list[ProcessSamples]
