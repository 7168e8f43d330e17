"""The records of the control plane: what a graph, a process, its settings and its timings look like from outside.

Plain mutable dataclasses, compared by value, picklable. They know nothing of the wire. One long table on
purpose: users import everything of it from here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID


@dataclass
class DynamicSettingsMetadata:
    """Whether and where a component takes new settings while it runs."""

    enabled: bool
    input_topic: str | None
    settings_type: str | None


@dataclass
class StreamMetadata:
    """One stream of a unit."""

    name: str
    address: str
    msg_type: str


@dataclass
class InputStreamMetadata(StreamMetadata):
    """A stream a unit receives from."""

    leaky: bool = False
    max_queue: int | None = None


@dataclass
class OutputStreamMetadata(StreamMetadata):
    """A stream a unit publishes on."""

    host: str | None = None
    port: int | None = None
    num_buffers: int | None = None
    buf_size: int | None = None
    force_tcp: bool | None = None


@dataclass
class TopicMetadata:
    """A topic of a collection."""

    name: str
    address: str
    msg_type: str


@dataclass
class InputTopicMetadata(TopicMetadata):
    """A topic through which a collection receives."""


@dataclass
class OutputTopicMetadata(TopicMetadata):
    """A topic through which a collection publishes."""


@dataclass
class InputRelayMetadata(InputTopicMetadata):
    """An input topic behind which a hidden unit republishes."""

    leaky: bool = False
    max_queue: int | None = None
    copy_on_forward: bool = True


@dataclass
class OutputRelayMetadata(OutputTopicMetadata):
    """An output topic behind which a hidden unit republishes."""

    host: str | None = None
    port: int | None = None
    num_buffers: int | None = None
    buf_size: int | None = None
    force_tcp: bool | None = None
    copy_on_forward: bool = True


@dataclass
class TaskMetadata:
    """One task of a unit: what it subscribes to and publishes on, by address."""

    name: str
    subscribes: str | None = None
    publishes: list[str] = field(default_factory=list[str])


@dataclass
class SettingsFieldMetadata:
    """One field of a settings class, enough to draw a form without importing the class."""

    name: str
    field_type: str
    required: bool
    default: Any
    description: str | None
    bounds: tuple[float | None, float | None] | None
    choices: list[Any] | None
    widget_hint: str | None


@dataclass
class SettingsSchemaMetadata:
    """The fields of a settings class, and the family (`provider`) it belongs to.

    `json_schema` (draft 2020-12) tells what the rows of `fields` cannot: nested classes, items, exclusive bounds. It
    follows from the class, so it takes no part in comparison.
    """

    provider: str
    settings_type: str
    fields: list[SettingsFieldMetadata]
    json_schema: dict[str, Any] | None = field(default=None, compare=False, repr=False)


@dataclass
class ComponentMetadata:
    """What is known of a component before it runs."""

    address: str
    name: str
    component_type: str
    settings_type: str
    initial_settings: tuple[bytes | None, dict[str, Any] | str]
    dynamic_settings: DynamicSettingsMetadata
    settings_schema: SettingsSchemaMetadata | None


@dataclass
class CollectionMetadata(ComponentMetadata):
    """A component that holds others."""

    topics: dict[str, TopicMetadata | InputTopicMetadata | OutputTopicMetadata]
    relays: dict[str, InputRelayMetadata | OutputRelayMetadata]
    children: list[str]


@dataclass
class UnitMetadata(ComponentMetadata):
    """A component that runs."""

    streams: dict[str, StreamMetadata | InputStreamMetadata | OutputStreamMetadata]
    tasks: list[TaskMetadata]
    main: str | None
    threads: list[str]


@dataclass
class GraphMetadata:
    """Everything one session runs, keyed by component address."""

    schema_version: int
    root_name: str | None
    components: dict[str, ComponentMetadata | CollectionMetadata | UnitMetadata]


@dataclass
class ProcessRegistration:
    """A process claims units."""

    pid: int
    host: str
    units: list[str]


@dataclass
class ProcessOwnershipUpdate:
    """A process claims or gives up units."""

    added_units: list[str] = field(default_factory=list[str])
    removed_units: list[str] = field(default_factory=list[str])


@dataclass
class SettingsSnapshotValue:
    """Current settings of a component, opaque (`serialized`) and readable."""

    serialized: bytes | None
    repr_value: dict[str, Any] | str
    structured_value: dict[str, Any] | None = None
    settings_schema: SettingsSchemaMetadata | None = None


class SettingsEventType(Enum):
    """Why a settings event was sent."""

    INITIAL_SETTINGS = "INITIAL_SETTINGS"
    SETTINGS_UPDATED = "SETTINGS_UPDATED"


@dataclass
class SettingsChangedEvent:
    """Settings of a component changed; `timestamp` in Unix seconds.

    `missed`: events that a reader who was too slow, or came too late, did not get before this one.
    `gap`: in the first event of a stream that lost its server and found another, which counts anew: what happened.
    Between the two anything may have changed.
    """

    seq: int
    event_type: SettingsEventType
    component_address: str
    timestamp: float
    source_session_id: str | None
    source_process_id: UUID | None
    value: SettingsSnapshotValue
    missed: int = 0
    gap: str = ""


class TopologyEventType(Enum):
    """What kind of topology changed."""

    GRAPH_CHANGED = "GRAPH_CHANGED"
    PROCESS_CHANGED = "PROCESS_CHANGED"


@dataclass
class TopologyChangedEvent:
    """Edges or processes changed; `timestamp` in Unix seconds.

    `missed`: events that a reader who was too slow, or came too late, did not get before this one.
    `gap`: in the first event of a stream that lost its server and found another, which counts anew: what happened.
    Between the two anything may have changed.
    """

    seq: int
    event_type: TopologyEventType
    timestamp: float
    changed_topics: list[str]
    source_session_id: str | None
    source_process_id: UUID | None
    missed: int = 0
    gap: str = ""


@dataclass
class ProcessSettingsUpdate:
    """A process reports the settings of one of its units; `timestamp` in Unix seconds."""

    component_address: str
    value: SettingsSnapshotValue
    timestamp: float


@dataclass
class ProcessControlRequest:
    """An operation asked of the process that owns a unit. `payload` is opaque to the server."""

    request_id: str
    unit_address: str
    operation: ProcessControlOperation | str
    payload: bytes | None = None


class ProcessControlOperation(Enum):
    """The built-in operations."""

    PING = "PING"
    GET_PROCESS_STATS = "GET_PROCESS_STATS"
    GET_PROFILING_SNAPSHOT = "GET_PROFILING_SNAPSHOT"
    SET_PROFILING_TRACE = "SET_PROFILING_TRACE"
    GET_PROFILING_TRACE_BATCH = "GET_PROFILING_TRACE_BATCH"
    UPDATE_SETTING_FIELD = "UPDATE_SETTING_FIELD"


# Answered by the process itself, at once; all others are for its handler.
BUILTIN_OPERATIONS = frozenset(
    operation.value for operation in ProcessControlOperation if operation.value != "UPDATE_SETTING_FIELD"
)


class ProcessControlErrorCode(Enum):
    """Why an operation failed."""

    UNROUTABLE_UNIT = "UNROUTABLE_UNIT"
    ROUTE_WRITE_FAILED = "ROUTE_WRITE_FAILED"
    TIMEOUT = "TIMEOUT"
    PROCESS_DISCONNECTED = "PROCESS_DISCONNECTED"
    UNSUPPORTED_OPERATION = "UNSUPPORTED_OPERATION"
    HANDLER_NOT_CONFIGURED = "HANDLER_NOT_CONFIGURED"
    HANDLER_ERROR = "HANDLER_ERROR"
    INVALID_RESPONSE = "INVALID_RESPONSE"
    TOO_MANY_REQUESTS = "TOO_MANY_REQUESTS"


@dataclass
class ProcessControlResponse:
    """The answer to a ProcessControlRequest. `payload` is opaque to the server."""

    request_id: str
    ok: bool
    payload: bytes | None = None
    error: str | None = None
    error_code: ProcessControlErrorCode | None = None
    process_id: UUID | None = None


@dataclass
class SettingsFieldUpdateRequest:
    """Change one field of the settings of a unit; `field_path` is dotted."""

    field_path: str
    value: Any


@dataclass
class ProcessPing:
    """A process answers; `timestamp` in Unix seconds."""

    process_id: UUID
    pid: int
    host: str
    timestamp: float


@dataclass
class ProcessStats:
    """A process answers, with the units it owns; `timestamp` in Unix seconds."""

    process_id: UUID
    pid: int
    host: str
    owned_units: list[str]
    timestamp: float


class ProfileChannelType(Enum):
    """The transport a message came through."""

    LOCAL = "LOCAL"
    SHM = "SHM"
    TCP = "TCP"
    UNKNOWN = "UNKNOWN"


@dataclass
class PublisherProfileSnapshot:
    """Totals of a publisher, and what changed since this reader looked last; `timestamp` in PROFILE_TIME ns."""

    endpoint_id: str
    topic: str
    messages_published_total: int
    messages_published_window: int
    publish_rate_hz_window: float
    inflight_messages_current: int
    num_buffers: int
    timestamp: float


@dataclass
class SubscriberProfileSnapshot:
    """Totals of a subscriber, and what changed since this reader looked last; `timestamp` in PROFILE_TIME ns."""

    endpoint_id: str
    topic: str
    messages_received_total: int
    messages_received_window: int
    channel_kind_last: ProfileChannelType
    timestamp: float


@dataclass
class HistogramValue:
    """A base-2 exponential histogram of durations in seconds, cumulative since the endpoint opened.

    Bucket `i` of `counts` covers `(base ** (offset + i), base ** (offset + i + 1)]` with `base = 2 ** (2 ** -scale)`.
    """

    count: int
    sum: float
    min: float
    max: float
    zero_count: int
    scale: int
    offset: int
    counts: list[int]

    def quantile(self, q: float) -> float:
        """The duration below which a share `q` (0 to 1) of the values lies, in seconds; 0.0 when there are none.

        Interpolates within a bucket, so it is right to within the width of one (9 % at scale 3).
        """
        if not self.count:
            return 0.0
        rank = q * self.count
        seen: float = self.zero_count
        if rank <= seen:
            return 0.0
        step: float = 2.0**-self.scale
        for index, bucket in enumerate(self.counts):
            if bucket and seen + bucket >= rank:
                value = 2.0 ** ((self.offset + index + (rank - seen) / bucket) * step)
                return min(max(value, self.min), self.max)
            seen += bucket
        return self.max


@dataclass
class EdgeProfile:
    """What a process measured on one edge, or (with `subscription` None) on one publisher, since it opened.

    `histograms` by name: `publish`, `backpressure`, `serialize`, `interval` of a publisher; `age`, `transport`,
    `queue`, `process` of an edge. `counters` by name: `sent`, `bytes`, `backpressure_ns` of a publisher, the last also
    by the subscriber that was waited for (`blame_ns:TOPIC`), both also of a wait that is on; `consumed`, `dropped`,
    `bytes`, `clock_anomalies` of an edge, and `holding_ns`: how long the message that is handled now has been.
    """

    topic: str
    subscription: str | None
    endpoint_id: str
    channel_kind: ProfileChannelType
    counters: dict[str, int]
    histograms: dict[str, HistogramValue]


@dataclass
class ProcessProfile:
    """What a process says of itself, since it began: time it ran, what it holds, how late its event loops are.

    `memory_bytes` and `descriptors` are None where the operating system does not tell. `loop_lag` by the name of the
    event loop; `overhead` is what telemetry takes of one core (0 to 1), by signal; `task_errors` are exceptions of
    tasks that were not handling a message, by unit, task and type.
    """

    cpu_user_seconds: float
    cpu_system_seconds: float
    threads: int
    memory_bytes: int | None = None
    descriptors: int | None = None
    gc_collections: dict[int, int] = field(default_factory=dict[int, int])
    loop_lag: dict[str, HistogramValue] = field(default_factory=dict[str, HistogramValue])
    overhead: dict[str, float] = field(default_factory=dict[str, float])
    task_errors: dict[tuple[str, str, str], int] = field(default_factory=dict[tuple[str, str, str], int])


@dataclass
class ProcessProfilingSnapshot:
    """Totals of all endpoints of a process; `window_seconds` since this reader looked last, 0.0 the first time."""

    process_id: UUID
    pid: int
    host: str
    window_seconds: float
    timestamp: float
    publishers: dict[str, PublisherProfileSnapshot]
    subscribers: dict[str, SubscriberProfileSnapshot]
    edges: list[EdgeProfile] = field(default_factory=list[EdgeProfile])
    recorded: dict[str, int] = field(default_factory=dict[str, int])
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    process: ProcessProfile | None = None


@dataclass
class BackpressureWait:
    """How long publishers on `topic` waited for subscribers on `subscription` to let go of messages."""

    topic: str
    subscription: str
    wait_seconds: float


@dataclass
class BackpressureCulprit:
    """How much waiting in the graph a subscriber has caused itself, not by waiting for others in turn.

    `share`: of all the waiting there was, 0 to 1.
    """

    subscription: str
    wait_seconds: float
    share: float


@dataclass
class BackpressureReport:
    """Who waited for whom within `window_seconds`, longest first, and who is to blame in the end, worst first."""

    window_seconds: float
    waits: list[BackpressureWait]
    culprits: list[BackpressureCulprit]


@dataclass
class ProfilingTraceControl:
    """Which samples a process collects, one in `sample_mod`, until `ttl_seconds` have passed.

    `trace_rate` (traces a second and publisher), `trace_ratio` (share of messages that begin one, 0 to 1; it wins) and
    `level` (`off`, `metrics` or `trace`) replace what the process was started with, for the endpoints that are selected
    and for the same time. A control that sets one of them and collects nothing (`metrics=[]`) leaves the samples, and
    the control that collects them, as they are.
    """

    enabled: bool
    sample_mod: int = 1
    publisher_topics: list[str] | None = None
    subscriber_topics: list[str] | None = None
    publisher_endpoint_ids: list[str] | None = None
    subscriber_endpoint_ids: list[str] | None = None
    metrics: list[str] | None = None
    ttl_seconds: float | None = None
    trace_rate: float | None = None
    trace_ratio: float | None = None
    level: str | None = None


@dataclass
class ProfilingTraceSample:
    """One measurement of one message; `timestamp` and `value` in ns."""

    timestamp: float
    endpoint_id: str
    topic: str
    metric: str
    value: float
    channel_kind: ProfileChannelType | None = None
    sample_seq: int | None = None
    trace_id: str | None = None
    span_id: str | None = None


@dataclass
class TraceSpan:
    """One span in the shape of OpenTelemetry: ids in lower-case hex, times in Unix nanoseconds.

    `kind` is `PRODUCER`, `CONSUMER`, `INTERNAL`, `CLIENT` or `SERVER`; `links` are `(trace_id, span_id)` pairs; `error`
    is the `error.type` of a failed operation. The same span leaves over OTLP with the same ids.
    """

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    kind: str
    start_unix_ns: int
    end_unix_ns: int
    attributes: dict[str, str | int | float | bool] = field(default_factory=dict[str, str | int | float | bool])
    links: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    error: str | None = None


@dataclass
class ProcessProfilingTraceBatch:
    """Samples and spans of one process; `timestamp` in PROFILE_TIME ns."""

    process_id: UUID
    pid: int
    host: str
    timestamp: float
    samples: list[ProfilingTraceSample]
    spans: list[TraceSpan] = field(default_factory=list[TraceSpan])
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    anchor_mono_ns: int = 0
    anchor_unix_ns: int = 0
    boot_id: str = ""


@dataclass
class ProfilingTraceStreamBatch:
    """What a profiling stream delivers at once, by process; `timestamp` in Unix seconds.

    `gap`: in the first batch of a stream that lost its server and found another: what happened. What processes measured
    while there was none is missing where they could not keep it; what they kept may be told twice.
    """

    timestamp: float
    batches: dict[UUID, ProcessProfilingTraceBatch]
    gap: str = ""


@dataclass
class ProfilingStreamControl:
    """How a profiling stream is served: seconds between batches, samples per process and batch.

    Spans come along with samples; with `include_spans` they come as soon as they are there, also without any sample.
    """

    interval: float = 0.05
    max_samples: int = 1000
    process_ids: list[UUID] | None = None
    include_empty_batches: bool = False
    include_spans: bool = False


class Edge(NamedTuple):
    """A directed connection between two topics."""

    from_topic: str
    to_topic: str


@dataclass
class SnapshotSession:
    """One session: its edges (sorted) and metadata."""

    edges: list[Edge]
    metadata: GraphMetadata | None


@dataclass
class SnapshotProcess:
    """One process; `pid` and `host` are None until it registers."""

    process_id: UUID
    pid: int | None
    host: str | None
    units: list[str]


@dataclass
class GraphSnapshot:
    """The whole graph at one moment."""

    graph: dict[str, list[str]]
    edge_owners: dict[Edge, list[str]]
    sessions: dict[str, SnapshotSession]
    processes: dict[UUID, SnapshotProcess] = field(default_factory=dict[UUID, SnapshotProcess])


StreamMetadataType = StreamMetadata | InputStreamMetadata | OutputStreamMetadata
TopicMetadataType = TopicMetadata | InputTopicMetadata | OutputTopicMetadata
RelayMetadataType = InputRelayMetadata | OutputRelayMetadata
SettingsReprType = dict[str, Any] | str
SerializedSettingsType = bytes | None
InitialSettingsType = tuple[bytes | None, dict[str, Any] | str]
ComponentMetadataType = ComponentMetadata | CollectionMetadata | UnitMetadata
