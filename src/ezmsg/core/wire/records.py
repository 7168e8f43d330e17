"""The records of the control protocol and of the telemetry link, one table of them, and their encoding.

A record is a msgspec struct in msgpack. Its opcode is explicit and never reused. Bytes that belong to the user
(payloads of process requests) and columns of rows are opaque here. One long table on purpose: it is the protocol.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ezmsg.core.errors import InvalidRecord, ProtocolError
from ezmsg.core.wire.limits import CONTROL_FRAME_BYTES, NAME_LENGTH, SMALL_RECORD_BYTES
from ezmsg.core.wire.metadata import GraphRecord, SettingsValue

# What fields may be, where a peer could put something absurd: refused before a server gets to see it.
Name = Annotated[str, Meta(max_length=NAME_LENGTH)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Number = Annotated[int, Meta(ge=1, le=1 << 32)]
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Tally = Annotated[dict[Name, int], Meta(max_length=256)]
Timestamp = Annotated[float, Meta(ge=-1e12, le=1e12)]


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """Base of everything that travels as a record."""


# -- answers ------------------------------------------------------------------------------------------------------


class Done(Record, frozen=True):
    """A request took effect and has nothing to tell."""


class Refusal(Record, frozen=True):
    """A request was refused: an `EzmsgError.code`, its text, and its fields."""

    code: str
    message: str
    fields: dict[str, Any] = {}


class Goodbye(Record, frozen=True):
    """The server ends in order: do not reconnect."""

    reason: str = ""


class CancelRequest(Record, frozen=True):
    """A notice: nobody waits any more for the answer to the request of this id on this connection; stop working on it.

    Only for requests that say so where they are sent; an answer may still come, and is ignored.
    """

    request_id: int


class GetServerStatus(Record, frozen=True):
    """Ask the server how it is, on any connection. It answers at once, so this tells as well that it lives."""


class ServerStatus(Record, frozen=True):
    """How a server is: `unix_ns` and `mono_ns` are its clocks, read together; the others count what it holds now.

    `epoch` tells one server from its successor, `exporters` is how many take its telemetry.
    """

    epoch: str
    unix_ns: int
    mono_ns: int
    started_unix_ns: int
    sessions: int
    publishers: int
    subscribers: int
    processes: int
    exporters: int


# -- opening a role: the first request on a connection --------------------------------------------------------------


# Whoever opens a role that others know by an id gives a `token` with it. Opening it again, over another connection,
# needs the same token; it takes the place of the one before, and tells all that the peer owns: the server may be new.


class OpenSession(Record, frozen=True):
    """A GraphContext begins, or is back; it owns exactly these edges as long as this connection lives.

    `keeps_metadata`: what this session registered stays, where this server has it; RegisterMetadata follows.
    """

    session_id: str = ""
    token: str = ""
    edges: list[tuple[str, str]] = []
    keeps_metadata: bool = False


class SessionOpened(Record, frozen=True):
    """`session_id` owns what this connection connects; `epoch` tells one server from its successor.

    `refused`: which of the edges would close a cycle; the session does not own them.
    """

    session_id: str
    epoch: str
    refused: list[tuple[str, str]] = []


class RevertSession(Record, frozen=True):
    """Drop the edges, metadata and settings this session owns; it stays open. Answered when done."""


class CloseSession(Record, frozen=True):
    """Drop everything this session owns, now; answered when done."""


class PublisherOpened(Record, frozen=True):
    """The publisher is registered, every affected subscriber knows it; begin paused if the graph is."""

    epoch: str


class OpenSubscriber(Record, frozen=True):
    """A subscriber asks for a topic; answered with its first Routing."""

    subscriber_id: Name
    topic: Name
    pid: int
    boot_id: Name
    token: Name = ""


class PublisherRoute(Record, frozen=True):
    """Where one publisher is."""

    publisher_id: Name
    topic: Name
    pid: int
    boot_id: Name
    host: Name
    port: Port
    door: Name = ""
    num_buffers: Number = 32


class OpenPublisher(PublisherRoute, frozen=True):
    """A publisher offers a topic, reachable at `host:port` and, on its own host, at the Unix door `door`."""

    token: str = ""


class Routing(Record, frozen=True):
    """All publishers that now reach a subscriber. Sent as a request: the answer confirms that it was applied.

    `topics` are all that reach it. A publisher it hears on one of them that is not among `publishers` has ended, or is
    not back yet at a server that is new: it is heard to its end. Those on other topics are cut off at once.
    `is_partial`: the server is new and knows only part of the graph: others stay, except publishers on topics `cut`.
    """

    publishers: list[PublisherRoute]
    topics: list[str] = []
    is_partial: bool = False
    cut: list[str] = []


class OpenProcess(Record, frozen=True):
    """A ProcessControlClient connects, or is back; it owns exactly these `units` (None: it has not registered)."""

    pid: int
    host: Name
    client_id: Name = ""
    token: Name = ""
    units: list[Name] | None = None


class ProcessOpened(Record, frozen=True):
    """The id under which the process is known. `refused`: which of its units others own, and which process does."""

    client_id: str
    refused: dict[str, str] = {}


class CloseProcess(Record, frozen=True):
    """This process leaves; answered when its units are dropped."""


# -- the graph ----------------------------------------------------------------------------------------------------


class Connect(Record, frozen=True):
    """Add an edge, owned by this connection's session, or persistent when it has none."""

    from_topic: Name
    to_topic: Name


class Disconnect(Record, frozen=True):
    """Give up this owner's share of an edge."""

    from_topic: Name
    to_topic: Name


class Pause(Record, frozen=True):
    """To the server: pause all publishers. To a publisher: pause."""


class Resume(Record, frozen=True):
    """To the server: resume all publishers. To a publisher: resume."""


class Sync(Record, frozen=True):
    """Pause, and answer when every outstanding message was released."""

    timeout_s: Seconds | None = None


class Shutdown(Record, frozen=True):
    """Ask the server to end in order."""


class GetGraph(Record, frozen=True):
    """Ask for the edges and their owners."""


class GraphEdges(Record, frozen=True):
    """Every node, and every edge with its owners."""

    nodes: list[str]
    edges: list[tuple[str, str, list[str]]]


class GetCounts(Record, frozen=True):
    """Ask what the server refused, dropped and gave up so far."""


class Counts(Record, frozen=True):
    """How often, by what; only what happened."""

    values: dict[str, int]


class GetSnapshot(Record, frozen=True):
    """Ask for the whole graph at this moment."""


class SessionState(Record, frozen=True):
    """One session in a snapshot. If its metadata `is_apart`, `GetMetadata` tells it, of this `version`."""

    session_id: str
    edges: list[tuple[str, str]]
    metadata: GraphRecord | None = None
    version: int = 0
    is_apart: bool = False


class ProcessState(Record, frozen=True):
    """One process in a snapshot; pid and host are None until it registers."""

    process_id: str
    pid: int | None
    host: str | None
    units: list[str]


class Snapshot(Record, frozen=True):
    """The whole graph at one moment."""

    graph: GraphEdges
    sessions: list[SessionState]
    processes: list[ProcessState]


class GetMetadata(Record, frozen=True):
    """Ask for metadata that a snapshot had no room for; refused if the session has another version by now."""

    session_id: str
    version: int


class Metadata(Record, frozen=True):
    """It."""

    metadata: GraphRecord


# -- metadata, settings and events ------------------------------------------------------------------------------------


class RegisterMetadata(Record, frozen=True):
    """Replace what this session says about the components it runs."""

    metadata: GraphRecord


class ReportSettings(Record, frozen=True):
    """A process tells the settings of a unit it owns; `timestamp` in Unix seconds."""

    component_address: Name
    value: SettingsValue
    timestamp: Timestamp


class GetSettings(Record, frozen=True):
    """Ask for the settings of every component, or of those whose address follows this one."""

    after: str | None = None


class Settings(Record, frozen=True):
    """The first of them, sorted by address, not more than a frame carries; `is_last` when there are no more."""

    values: dict[str, SettingsValue]
    is_last: bool = True


class GetSettingsInputTopic(Record, frozen=True):
    """Ask where a component takes new settings."""

    component_address: Name


class SettingsInputTopic(Record, frozen=True):
    """There."""

    topic: str


class Event(Record, frozen=True, kw_only=True):
    """Base of what a stream of events carries; `timestamp` in Unix seconds.

    `seq` counts the events of one kind from 1. `missed`: how many this reader did not get before this one.
    """

    seq: int = 0
    timestamp: float
    source_session_id: str | None = None
    source_process_id: str | None = None
    missed: int = 0


class TopologyEvent(Event, frozen=True, kw_only=True):
    """Edges or processes changed; `event_type` names a TopologyEventType."""

    event_type: str
    changed_topics: list[str] = []


class SettingsEvent(Event, frozen=True, kw_only=True):
    """Settings of a component changed; `event_type` names a SettingsEventType."""

    event_type: str
    component_address: str
    value: SettingsValue


class GetSettingsEvents(Record, frozen=True):
    """Ask for the settings events after `after_seq` that the server still has."""

    after_seq: int


class SettingsEvents(Record, frozen=True):
    """The oldest of them, not more than a frame carries; `is_last` when there are no more."""

    events: list[SettingsEvent]
    is_last: bool


class OpenEventStream(Record, frozen=True):
    """Opens a role: this connection gets all events of a kind after `after_seq`, and then each as it happens.

    `epoch`: of the server that counted to `after_seq`; another begins with its first event.
    `unacknowledged`: events that came over connections before, and count as if they had come over this one.
    """

    kind: Literal["topology", "settings"]
    after_seq: int
    epoch: str = ""
    unacknowledged: int = 0


class StreamOpened(Record, frozen=True):
    """The stream has begun; `epoch` tells one server from its successor, which counts anew."""

    epoch: str


class EventAck(Record, frozen=True):
    """A reader of events took `count` of them; the server keeps a bounded number unacknowledged."""

    count: int


# -- process control ----------------------------------------------------------------------------------------------


class ProcessRegister(Record, frozen=True):
    """Replace the set of units this process owns."""

    pid: int
    host: Name
    units: list[Name]


class ProcessUpdateOwnership(Record, frozen=True):
    """Claim and give up units."""

    added_units: list[Name]
    removed_units: list[Name]


class ProcessRequest(Record, frozen=True):
    """An operation for the process that owns `unit_address`, or for process `process_id`; `payload` is opaque.

    `reader` names who keeps its own place in what is measured, `request_id` this request, from end to end;
    `traceparent` is the W3C header of who asks, if that is sampled.
    """

    unit_address: Name
    operation: Name
    payload: bytes | None = None
    timeout_s: float = 2.0
    process_id: Name = ""
    reader: Name = ""
    request_id: Name = ""
    traceparent: Name = ""


class ProcessResponse(Record, frozen=True):
    """The answer of a process, or of the server when none could be had."""

    ok: bool
    payload: bytes | None = None
    error: str | None = None
    error_code: str | None = None
    process_id: str | None = None


# -- named shared memory ----------------------------------------------------------------------------------------------


class CreateShm(Record, frozen=True):
    """Opens a role: this connection holds new shared memory, which it enlarges itself from 0 bytes.

    `as_file`: the memory has a name in the file system, for a holder that cannot open a descriptor of the server.
    """

    num_buffers: int
    buf_size: int
    as_file: bool = False


class AttachShm(Record, frozen=True):
    """Opens a role: this connection holds the shared memory of that name, too."""

    name: Name


class ShmOpened(Record, frozen=True):
    """The memory is held. It is at `path` for who finds `device` and `inode` there; else that is something else."""

    name: str
    num_buffers: int
    buf_size: int
    path: str
    device: int
    inode: int


# -- telemetry ----------------------------------------------------------------------------------------------------


class ClockAnchor(Record, frozen=True):
    """One pair of clock readings per boot id, chosen by the server: unix = mono - mono_ns + unix_ns."""

    boot_id: str
    mono_ns: int
    unix_ns: int


class OpenTelemetry(Record, frozen=True):
    """A process opens its telemetry link. `mono_ns`/`unix_ns` are its own clocks, read together."""

    pid: int
    host: Name
    boot_id: Name
    process_name: Name
    started_unix_ns: int
    mono_ns: int
    unix_ns: int
    link_id: Name
    runtime: Name = ""


class TelemetryOpened(Record, frozen=True):
    """The link is known; convert times with this anchor.

    `last_seq`: the last batch of this link that the server has, when the link was lost and is back; -1 for a new link.
    """

    anchor: ClockAnchor
    last_seq: int = -1


class EndpointRecord(Record, frozen=True):
    """What is static about a publisher (`subscription` empty) or an edge, sent once; rows name it by `index`."""

    index: int
    topic: Name
    subscription: Name
    endpoint_id: Name
    publisher_id: Name
    channel_kind: int
    num_buffers: int = 0
    unit: Name = ""
    task: Name = ""


class HistogramState(Record, frozen=True):
    """Cumulative base-2 exponential histogram in seconds; sums and extremes in ns.

    `exemplars`: (value_ns, mono_ns, trace id hex, span id hex). `label`: the error type of failed messages (`process`),
    the label of a span of the user (`span`).
    """

    index: int
    name: Name
    count: int
    sum_ns: int
    min_ns: int
    max_ns: int
    zero_count: int
    scale: int
    offset: int
    counts: Annotated[list[int], Meta(max_length=1024)]
    exemplars: Annotated[list[tuple[int, int, Name, Name]], Meta(max_length=256)] = []
    label: Name = ""


class CounterState(Record, frozen=True):
    """Cumulative counters (and last gauges) of one endpoint, by name."""

    index: int
    values: Tally


class TelemetryBatch(Record, frozen=True):
    """What a process recorded since its last batch: new endpoints, changed state, rows in columns.

    `process_id` is the client id of its ProcessControlClient ("" before any). Counters, histograms, `recorded` and
    `dropped` are cumulative. `spans` and `samples` are rows of `SPAN_ROW` and `SAMPLE_ROW`. `final` says goodbye.
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
    """To a telemetry reader: nodes, edges and processes, whenever they changed."""

    nodes: list[str]
    edges: list[tuple[str, str]]
    processes: int


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


class OpenProfilingStream(Record, frozen=True):
    """A GraphContext reads samples and spans as they arrive; times in seconds.

    Spans ride along with samples; with `spans`, new spans alone are reason enough for a batch. A stream that is back
    tells where it was (`positions`, by process) at which server (`epoch`); another server begins with what it has.
    """

    interval_s: float
    max_samples: int
    process_ids: Annotated[list[Name], Meta(max_length=10_000)] | None
    include_empty_batches: bool
    spans: bool = False
    epoch: str = ""
    positions: dict[str, tuple[int, int]] = {}


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


# -- the message path: first frames of a channel's connection --------------------------------------------------------


class OpenChannel(Record, frozen=True):
    """A channel asks a publisher for its messages, in one process and event loop."""

    channel_id: str
    publisher_id: str
    pid: int
    boot_id: str
    topic: str


class ChannelOpened(Record, frozen=True):
    """The publisher will send; `next_message_id` is the first that may come."""

    topic: str
    num_buffers: int
    next_message_id: int


class SlotHolder(Record, frozen=True):
    """To a publisher: what is acknowledged from here on was held last by a subscriber on this topic."""

    topic: str


# The table. Numbers are part of the protocol: append, never renumber, never reuse.
OPCODES: dict[int, type[Record]] = {
    1: Done,
    2: Refusal,
    3: Goodbye,
    4: CancelRequest,
    8: GetServerStatus,
    9: ServerStatus,
    10: OpenSession,
    11: SessionOpened,
    12: CloseSession,
    13: OpenPublisher,
    14: PublisherOpened,
    15: OpenSubscriber,
    16: Routing,
    17: OpenProcess,
    18: ProcessOpened,
    19: RevertSession,
    20: CloseProcess,
    21: StreamOpened,
    30: Connect,
    31: Disconnect,
    32: Pause,
    33: Resume,
    34: Sync,
    35: Shutdown,
    36: GetGraph,
    37: GraphEdges,
    38: GetSnapshot,
    39: Snapshot,
    40: RegisterMetadata,
    41: ReportSettings,
    42: GetSettings,
    43: Settings,
    44: GetSettingsInputTopic,
    45: SettingsInputTopic,
    46: GetSettingsEvents,
    47: SettingsEvents,
    48: OpenEventStream,
    49: TopologyEvent,
    50: ProcessRegister,
    51: ProcessUpdateOwnership,
    52: ProcessRequest,
    53: ProcessResponse,
    60: CreateShm,
    61: AttachShm,
    62: ShmOpened,
    70: OpenTelemetry,
    71: TelemetryOpened,
    72: TelemetryBatch,
    73: OpenTelemetryReader,
    74: ProcessTelemetry,
    75: GraphState,
    76: TelemetryAck,
    77: DrainTelemetry,
    78: OpenProfilingStream,
    79: ProfilingStreamBatch,
    80: SettingsEvent,
    81: EventAck,
    82: GetMetadata,
    83: Metadata,
    84: GetCounts,
    85: Counts,
    86: ServerTelemetry,
    90: OpenChannel,
    91: ChannelOpened,
    92: SlotHolder,
}
# Frames of the message path that are no records (see `wire.messages`).
MESSAGE_OPCODE = 100
ACK_OPCODE = 101

OPCODE_OF: dict[type[Record], int] = {record: opcode for opcode, record in OPCODES.items()}
_ENCODER = msgspec.msgpack.Encoder()
_DECODERS = {opcode: msgspec.msgpack.Decoder(record) for opcode, record in OPCODES.items()}
# What holds raw values refers to the bytes it was decoded from: they must not be those of a buffer that is used again.
_REFERRING = frozenset(
    OPCODE_OF[record]
    for record in (RegisterMetadata, ReportSettings, Snapshot, Metadata, Settings, SettingsEvent, SettingsEvents)
)
# The records that may be large, in bytes; all others are small. What a peer says it will send is allocated.
LARGE_RECORDS: dict[int, int] = {
    OPCODE_OF[record]: size
    for size, records in {
        CONTROL_FRAME_BYTES: (
            Routing, GraphEdges, Snapshot, RegisterMetadata, ReportSettings, Settings, SettingsEvents, SettingsEvent,
            TopologyEvent, ProcessRequest, ProcessResponse, TelemetryBatch, ProcessTelemetry, GraphState,
            ServerTelemetry, ProfilingStreamBatch,
        ),
        CONTROL_FRAME_BYTES + SMALL_RECORD_BYTES: (Metadata,),
        4 * SMALL_RECORD_BYTES: (ProcessRegister, ProcessUpdateOwnership),
    }.items()
    for record in records
}  # fmt: skip


def encode_record(record: Record) -> tuple[int, bytes]:
    """The opcode and the body of a record."""
    return OPCODE_OF[type(record)], _ENCODER.encode(record)


def decode_record(opcode: int, body: bytes | bytearray | memoryview) -> Record:
    """The record in a frame's body.

    Raises:
        InvalidRecord: It is none, although the body is well formed.
        ProtocolError: The opcode is unknown, or the body is not well formed.
    """
    decoder = _DECODERS.get(opcode)
    if decoder is None:
        raise ProtocolError(f"unknown opcode {opcode}")
    try:
        return decoder.decode(bytes(body) if opcode in _REFERRING else body)
    except msgspec.ValidationError as error:
        raise InvalidRecord(OPCODES[opcode].__name__, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the body of {OPCODES[opcode].__name__} cannot be read: {error}") from None


def name_of(opcode: int) -> str:
    """How the record with an opcode is called."""
    record = OPCODES.get(opcode)
    return f"opcode {opcode}" if record is None else record.__name__
