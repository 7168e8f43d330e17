"""Telemetry as a server would hand it to the agent, made by hand."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.recorder.rows import EXTENDED, EXTRA, LINK, PROCESS, PUBLISH, SAMPLED, SPAN_ROW, meta_word
from ezmsg.core.wire.records import (
    ClockAnchor,
    CounterState,
    EndpointRecord,
    HistogramState,
    OpenTelemetry,
    ProcessTelemetry,
    TelemetryBatch,
)
from ezmsg.otel.outcome import TAKEN, Outcome
from ezmsg.otel.settings import OtlpSettings, Settings, SignalSettings
from ezmsg.otel.spanencoder import SpanRequest

MS = 1_000_000
STARTED_NS = time.time_ns() - 60 * 1_000_000_000
ANCHOR = ClockAnchor("boot", mono_ns=1_000, unix_ns=STARTED_NS)
LOCAL, SHM, TCP, UNKNOWN = range(4)

PUBLISHER = EndpointRecord(1, "ROOT/SOURCE/OUT", "", "pub-1", "pub-1", UNKNOWN, 32, "ROOT/SOURCE", "spin")
EDGE = EndpointRecord(2, "ROOT/SOURCE/OUT", "ROOT/SINK/IN", "sub-1", "pub-1", SHM, 0, "ROOT/SINK", "on_message")


def hello(link_id: str = "link-1", **changes: Any) -> OpenTelemetry:
    fields: dict[str, Any] = {
        "pid": 4711,
        "host": "lab",
        "boot_id": "boot",
        "process_name": "proc_0",
        "started_unix_ns": STARTED_NS,
        "mono_ns": ANCHOR.mono_ns,
        "unix_ns": ANCHOR.unix_ns,
        "link_id": link_id,
        "runtime": "CPython 3.11.7",
    }
    return OpenTelemetry(**fields | changes)


def telemetry(seq: int = 0, link_id: str = "link-1", process_id: str = "process-1", **what: Any) -> ProcessTelemetry:
    """A delivery; the one with `seq` 0 says hello."""
    shell = {name: what.pop(name) for name in ("server_dropped", "gone", "hello", "position") if name in what}
    if seq == 0:
        shell.setdefault("hello", hello(link_id))
    return ProcessTelemetry(link_id, ANCHOR, TelemetryBatch(seq, process_id, 0, **what), **shell)


def first(link_id: str = "link-1", process_id: str = "process-1", **what: Any) -> ProcessTelemetry:
    """The first delivery of a process with one publisher and one edge."""
    what = {
        "endpoints": [PUBLISHER, EDGE],
        "counters": [counters(1, sent=10, inflight=3), counters(2, consumed=9)],
        "recorded": {"span": 2},
    } | what
    return telemetry(0, link_id, process_id, **what)


def counters(index: int, **values: int) -> CounterState:
    return CounterState(index, values)


def histogram(index: int, name: str, counts: Sequence[int], offset: int = -80, **more: Any) -> HistogramState:
    """A histogram at scale 3; every value counts as 1 ms in sum and extremes."""
    count = sum(counts)
    return HistogramState(index, name, count, count * MS, MS, MS, 0, more.pop("scale", 3), offset, list(counts), **more)


def span_rows(count: int, first_id: int = 1, *, index: int = 1, trace: int = 0xABC) -> bytes:
    """Rows of `publish` spans (of index 1) or `process` spans (of index 2) that took 1 ms each, 2 ms apart."""
    rows = np.zeros(count, SPAN_ROW)
    numbers = np.arange(count)
    starts = ANCHOR.mono_ns + numbers * 2 * MS
    kind = PUBLISH if index == PUBLISHER.index else PROCESS
    channel = ProfileChannelType.UNKNOWN if kind == PUBLISH else ProfileChannelType.SHM
    rows["meta"] = meta_word(kind, index, channel, SAMPLED | EXTENDED)
    rows["message_id"] = numbers
    rows["a"] = starts
    if kind == PUBLISH:
        rows["b"], rows["c"], rows["f"] = starts, starts + MS, 800
    else:
        rows["b"], rows["c"], rows["d"], rows["e"] = starts, starts + 10, starts + 30, starts + 30 + MS
    rows["extra_meta"] = EXTRA
    traces = [(trace << 64 | first_id + number).to_bytes(16, "big") for number in range(count)]
    rows["trace_id"] = np.frombuffer(b"".join(traces), dtype="V16")
    rows["span_id"] = first_id + numbers
    rows["parent_id"] = 0 if kind == PUBLISH else 0xFFFF0000 + numbers
    rows["fanout"] = 1
    return rows.tobytes()


def linked_rows(links: int, span_id: int = 1) -> bytes:
    """Rows of one `publish` span with so many links."""
    rows = np.frombuffer(span_rows(1 + links, span_id), SPAN_ROW).copy()
    rows["meta"][1:] = meta_word(LINK, PUBLISHER.index, flags=SAMPLED | EXTENDED)
    rows["parent_id"][1:] = span_id
    return rows.tobytes()


def span_ids(count: int, first_id: int = 1) -> list[str]:
    """The ids of `span_rows(count, first_id)`, in hex."""
    return [f"{number:016x}" for number in range(first_id, first_id + count)]


def exported_spans(requests: Iterable[SpanRequest]) -> list[Span]:
    """The spans in requests."""
    return [
        span
        for request in requests
        for of_resource in ExportTraceServiceRequest.FromString(request.spans).resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def exported_ids(requests: Iterable[SpanRequest]) -> list[str]:
    """Their ids, in hex."""
    return [span.span_id.hex() for span in exported_spans(requests)]


def settings(protocol: Any = "http/protobuf", endpoint: str = "", **more: Any) -> Settings:
    """Settings for a receiver at `endpoint`, `http://host:port`; intervals too long for a test to wait for."""
    paths = ("", "") if protocol == "grpc" else ("/v1/traces", "/v1/metrics")
    timeout_s = more.pop("timeout_s", 5.0)
    traces, metrics = (OtlpSettings(endpoint + path, protocol, timeout_s) for path in paths)
    defaults = {"metric_interval_s": 3600.0, "span_delay_s": 3600.0}
    return Settings(
        SignalSettings("traces", "otlp", traces), SignalSettings("metrics", "otlp", metrics), **defaults | more
    )


class FakeSender:
    """A sender that keeps what it is given, and answers as told."""

    target = "nowhere"

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.batches: list[Any] = []
        self.is_closed = False

    def send(self, batch: Any) -> Outcome:
        self.batches.append(batch)
        return self.outcomes.pop(0) if self.outcomes else TAKEN

    def close(self) -> None:
        self.is_closed = True
