"""Telemetry: the links of processes to the server, and an exporter's to it."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ezmsg.core.wire.records.fields import Count, Index, Moment, Name, Record, Tally, Word

__all__ = [
    "ClockAnchor",
    "CounterState",
    "DrainTelemetry",
    "EndpointRecord",
    "GraphState",
    "HistogramState",
    "OpenTelemetry",
    "OpenTelemetryReader",
    "ProcessTelemetry",
    "ServerTelemetry",
    "TelemetryAck",
    "TelemetryBatch",
    "TelemetryOpened",
    "process_key",
]


TraceId = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]


SpanId = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]


class ClockAnchor(Record, frozen=True):
    """One pair of clock readings per boot id, chosen by the server: unix = mono - mono_ns + unix_ns."""

    boot_id: str
    mono_ns: int
    unix_ns: int


class OpenTelemetry(Record, frozen=True):
    """A process opens its telemetry link. `mono_ns`/`unix_ns` are its own clocks, read together."""

    pid: Index
    host: Name
    boot_id: Name
    process_name: Name
    started_unix_ns: Moment
    mono_ns: Moment
    unix_ns: Moment
    link_id: Name
    runtime: Name = ""


class TelemetryOpened(Record, frozen=True):
    """The link is known; convert times with this anchor.

    `last_seq`: the last batch of this link that the server has, when the link was lost and is back; -1 for a new link.
    `epoch`: which server this is.
    """

    anchor: ClockAnchor
    last_seq: int = -1
    epoch: str = ""


class EndpointRecord(Record, frozen=True):
    """What is static about a publisher (`subscription` empty) or an edge, sent once; rows name it by `index`."""

    index: Index
    topic: Name
    subscription: Name
    endpoint_id: Name
    publisher_id: Name
    channel_kind: Index
    num_buffers: Count = 0
    unit: Name = ""
    task: Name = ""


class HistogramState(Record, frozen=True):
    """Cumulative base-2 exponential histogram in seconds; sums and extremes in ns.

    `exemplars`: (value_ns, mono_ns, trace id hex, span id hex). `label`: the error type of failed messages (`process`),
    the label of a span of the user (`span`).
    """

    index: Index
    name: Name
    count: Count
    sum_ns: int
    min_ns: int
    max_ns: int
    zero_count: Count
    scale: Annotated[int, Meta(ge=-10, le=20)]
    offset: Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
    counts: Annotated[list[Count], Meta(max_length=1024)]
    exemplars: Annotated[list[tuple[int, int, TraceId, SpanId]], Meta(max_length=256)] = []
    label: Name = ""


class CounterState(Record, frozen=True):
    """Cumulative counters (and last gauges) of one endpoint, by name."""

    index: Index
    values: Tally


class TelemetryBatch(Record, frozen=True):
    """What a process recorded since its last batch: new endpoints, changed state, rows in columns.

    `process_id` is the client id of its ProcessControlClient ("" before any). Counters, histograms, `recorded` and
    `dropped` are cumulative. `spans` and `samples` are rows of `SPAN_ROW` and `SAMPLE_ROW`; `selected` are rows that
    samples are made of (see `recorder.selected`), `unmade` rows that spans are made of (see `recorder.spanlog`) with
    `seeds`, by endpoint. `final` says goodbye.
    """

    seq: int
    process_id: Name
    mono_ns: int
    endpoints: list[EndpointRecord] = []
    closed: list[int] = []
    counters: list[CounterState] = []
    histograms: list[HistogramState] = []
    labels: dict[int, Name] = {}
    spans: bytes = b""
    samples: bytes = b""
    selected: bytes = b""
    unmade: bytes = b""
    seeds: dict[Index, tuple[Word, Word, Word, Word]] = {}
    recorded: Tally = {}
    dropped: Tally = {}
    final: bool = False


class OpenTelemetryReader(Record, frozen=True):
    """An exporter asks for the telemetry of the whole graph; one at a time per graph (`EXPORTER_LEASED` refuses).

    One that is back tells where it was (`positions`: by link, among its spans, and how many of them are still to be
    exported) at which server (`epoch`). Of what an exporter had that does not come back, nothing is sent again.
    """

    name: Name
    pid: int
    epoch: str = ""
    positions: dict[str, tuple[int, int]] = {}


class ProcessTelemetry(Record, frozen=True):
    """To a reader: what one process delivered. `hello` comes with the first, `gone` with the last.

    After it joined, a reader gets one with all endpoints, last counters and histograms, and retained span rows.
    `server_dropped` counts, by `kind:reason` and cumulatively, what of this process readers missed.
    `position`: where the reader is among the spans after these.
    """

    link_id: str
    anchor: ClockAnchor
    batch: TelemetryBatch
    hello: OpenTelemetry | None = None
    server_dropped: dict[str, int] = {}
    gone: bool = False
    position: int = 0


class GraphState(Record, frozen=True):
    """To a telemetry reader: nodes, edges and processes (`process_key`), whenever they changed."""

    nodes: list[str]
    edges: list[tuple[str, str]]
    processes: list[str]


def process_key(host: str, pid: int) -> str:
    """What tells the processes of graphs apart, also one that is in several graphs or is several clients of one."""
    return f"{host}:{pid}"


class ServerTelemetry(Record, frozen=True):
    """To a telemetry reader: what the server measured of its own work, cumulative."""

    histograms: list[HistogramState] = []
    counters: dict[Name, int] = {}


class TelemetryAck(Record, frozen=True):
    """A reader took `count` ProcessTelemetry records; the server keeps a bounded number unacknowledged.

    `settled`: how many spans of each link were exported, or dropped and counted, since the last acknowledgement.
    """

    count: int
    settled: dict[str, int] = {}


class DrainTelemetry(Record, frozen=True):
    """Server to reader before it ends in order: export what you have; the answer says it is done."""
