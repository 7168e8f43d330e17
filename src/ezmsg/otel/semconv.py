"""Every name this project exports: spans, metrics and attributes, with types, units and what feeds them.

The names follow the semantic conventions for messaging 1.44 (status: development), so they stand here and
nowhere else, and the scope of everything exported carries that schema. Dashboards, alerts and documents are
checked against these tables. Nothing here knows how telemetry arrives or leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ezmsg.core._version import __version__

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SCOPE_NAME = "ezmsg.core"
SCOPE_VERSION = __version__

AttributeType = Literal["string", "int", "double", "boolean"]
MetricKind = Literal["counter", "updowncounter", "gauge", "histogram"]
Constants = tuple[tuple[str, str], ...]

# -- attributes --------------------------------------------------------------------------------------------

SYSTEM = "messaging.system"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
SUBSCRIPTION = "messaging.destination.subscription.name"
MESSAGE_ID = "messaging.message.id"
CLIENT_ID = "messaging.client.id"
BODY_SIZE = "messaging.message.body.size"
CHANNEL_KIND = "ezmsg.channel.kind"
IO_DIRECTION = "network.io.direction"
CLOCK_SOURCE = "ezmsg.clock.source"
CLOCK_REASON = "ezmsg.clock.reason"
UNIT_ADDRESS = "ezmsg.unit.address"
TASK_NAME = "ezmsg.task.name"
SPAN_LABEL = "ezmsg.span.label"
ERROR_TYPE = "error.type"
OVERFLOW = "otel.metric.overflow"
NODE_ID = "ezmsg.graph.node.id"
NODE_KIND = "ezmsg.graph.node.kind"
EDGE_SOURCE = "ezmsg.graph.edge.source"
EDGE_TARGET = "ezmsg.graph.edge.target"
PROCESS_NAME = "ezmsg.process.name"
TELEMETRY_KIND = "ezmsg.telemetry.kind"
TELEMETRY_REASON = "ezmsg.telemetry.reason"
TELEMETRY_SIGNAL = "ezmsg.telemetry.signal"
CONTROL_OPERATION = "ezmsg.control.operation"
PROCESS_ID = "ezmsg.process.id"
SETTINGS_FIELD = "ezmsg.settings.field"
SETTINGS_EVENT = "ezmsg.settings.event"
LOOP_NAME = "ezmsg.event_loop.name"
CPU_MODE = "cpu.mode"
GC_GENERATION = "cpython.gc.generation"

ATTRIBUTES: dict[str, tuple[AttributeType, str]] = {
    SYSTEM: ("string", "The messaging system: always ezmsg."),
    OPERATION_NAME: ("string", "What was done: publish or process."),
    OPERATION_TYPE: ("string", "Which kind of operation that is: send or process."),
    DESTINATION: ("string", "The topic of the publisher."),
    SUBSCRIPTION: ("string", "The topic of the subscriber; with the destination it names an edge."),
    MESSAGE_ID: ("string", "The number the publisher gave the message."),
    CLIENT_ID: ("string", "The id of the publisher or subscriber."),
    BODY_SIZE: ("int", "Bytes of the serialized message; absent where it was passed by reference."),
    CHANNEL_KIND: ("string", "The transport: local, shm or tcp."),
    IO_DIRECTION: ("string", "transmit at a publisher, receive at a channel."),
    CLOCK_SOURCE: ("string", "Whose clock told when it began: same_host or other_host."),
    CLOCK_REASON: ("string", "Why two times were not compared: foreign or negative."),
    UNIT_ADDRESS: ("string", "The unit a publisher or subscriber belongs to."),
    TASK_NAME: ("string", "The task of that unit."),
    SPAN_LABEL: ("string", "The label of a span opened by a user."),
    ERROR_TYPE: ("string", "The class of error an operation ended with."),
    OVERFLOW: ("boolean", "True on the one series that stands for all beyond the limit of attribute sets."),
    "ezmsg.fanout": ("int", "Channels the message was sent to."),
    "ezmsg.backpressure.wait": ("double", "Seconds `broadcast` waited for a free slot."),
    "ezmsg.backpressure.blame": ("string", "The edge that held the slot last."),
    "ezmsg.serialize.time": ("double", "Seconds spent to serialize the message."),
    "ezmsg.transport.time": ("double", "Seconds from the publisher's send to the channel."),
    "ezmsg.queue.time": ("double", "Seconds from the channel to the hand-over."),
    "ezmsg.message.age": ("double", "Seconds from the first publish of the (oldest) data to the hand-over."),
    NODE_ID: ("string", "The topic a node of the graph stands for."),
    NODE_KIND: ("string", "publisher, subscriber, both, or topic for one without clients."),
    EDGE_SOURCE: ("string", "The topic an edge of the graph leaves."),
    EDGE_TARGET: ("string", "The topic an edge of the graph enters."),
    PROCESS_NAME: ("string", "The name of an operating-system process of the graph."),
    TELEMETRY_KIND: (
        "string",
        "What was counted: span, row, trace, sample, duration, endpoint, label or metric_point.",
    ),
    TELEMETRY_REASON: ("string", "Why items were dropped."),
    TELEMETRY_SIGNAL: ("string", "traces or metrics."),
    CONTROL_OPERATION: ("string", "What the GraphServer, or a process by way of it, was asked to do."),
    PROCESS_ID: ("string", "The process that is asked, as the control plane knows it."),
    SETTINGS_FIELD: ("string", "The path of a field of settings; never its value."),
    SETTINGS_EVENT: ("string", "INITIAL_SETTINGS or SETTINGS_UPDATED."),
    LOOP_NAME: ("string", "The event loop: main, or the name of its thread without numbers."),
    CPU_MODE: ("string", "What the time was spent in: user or system."),
    GC_GENERATION: ("int", "The generation that the garbage collector looked at."),
}

# -- spans -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpanSpec:
    """One kind of span: its name (with placeholders), its kind, when it runs, the attributes it may carry."""

    name: str
    kind: Literal["PRODUCER", "CONSUMER", "INTERNAL", "CLIENT", "SERVER"]
    description: str
    attributes: tuple[str, ...]


_MESSAGE = (SYSTEM, OPERATION_NAME, OPERATION_TYPE, DESTINATION, MESSAGE_ID, CLIENT_ID)
_WHERE = (UNIT_ADDRESS, TASK_NAME)
_WAY = (SYSTEM, DESTINATION, SUBSCRIPTION, CHANNEL_KIND, CLOCK_SOURCE)

SPANS: tuple[SpanSpec, ...] = (
    SpanSpec(
        "publish {topic}",
        "PRODUCER",
        "From the entry of `broadcast` to its return; child of the `process` span it is in, linked to other inputs.",
        (
            *(*_MESSAGE, BODY_SIZE, "ezmsg.fanout", "ezmsg.backpressure.wait", "ezmsg.backpressure.blame"),
            *("ezmsg.serialize.time", *_WHERE, ERROR_TYPE),
        ),
    ),
    SpanSpec(
        "process {topic}",
        "CONSUMER",
        "From the hand-over of a message to the release of its lease; of a leaky task, which works on a copy, to its "
        "end. Child of its `publish` span and linked to it, and to the other inputs of what was published meanwhile.",
        (
            *(*_MESSAGE, SUBSCRIPTION, CHANNEL_KIND, "ezmsg.queue.time", "ezmsg.transport.time"),
            *("ezmsg.message.age", *_WHERE, ERROR_TYPE),
        ),
    ),
    SpanSpec(
        "{label}",
        "INTERNAL",
        "A span that user code opened while it processed a message.",
        (SYSTEM, SPAN_LABEL, DESTINATION, SUBSCRIPTION, *_WHERE, ERROR_TYPE),
    ),
    SpanSpec(
        "deliver {topic}",
        "INTERNAL",
        "From a publisher's send to the channel; only with EZMSG_TRACE_DETAIL=detailed.",
        _WAY,
    ),
    SpanSpec(
        "queue {topic}",
        "INTERNAL",
        "From the channel to the hand-over; only with EZMSG_TRACE_DETAIL=detailed.",
        _WAY,
    ),
    SpanSpec(
        "control {op}",
        "CLIENT",
        "From a request to a process to its answer, at who asks.",
        (SYSTEM, CONTROL_OPERATION, UNIT_ADDRESS, PROCESS_ID, ERROR_TYPE),
    ),
    SpanSpec(
        "control {op}",
        "SERVER",
        "The same at the process that is asked; child of the span above.",
        (SYSTEM, CONTROL_OPERATION, UNIT_ADDRESS, PROCESS_ID, ERROR_TYPE),
    ),
    SpanSpec(
        "settings {event}",
        "INTERNAL",
        "Settings that a unit takes over; child of the `control` span.",
        (SYSTEM, UNIT_ADDRESS, SETTINGS_FIELD, ERROR_TYPE),
    ),
)

# -- metrics -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric.

    `feed` says where its values come from: `publisher.X` and `edge.X` are a counter X of a publisher's or an
    edge's CounterState, `histogram.X` a HistogramState called X, `scope.X` and `server.X` a counter or histogram of the
    process itself and of the GraphServer, `process.X` a field of a process's batches, `graph.X` the state of the graph,
    `agent.X` the exporter itself; `per_unit` of its values make one unit.
    `label` is the attribute that takes the label of a histogram, or what follows the colon in the name of a counter
    (`errors:ValueError`); of `scope.X` and `server.X`, `attributes` are taken from there as well, before it.
    `constants` are attributes that every point of this feed carries.
    """

    name: str
    kind: MetricKind
    unit: str
    feed: str
    attributes: tuple[str, ...]
    description: str
    per_unit: int = 1
    constants: Constants = ()
    label: str = ""


NS_PER_S = 1_000_000_000
_PUBLISH = ((SYSTEM, "ezmsg"), (OPERATION_NAME, "publish"))
_PROCESS = ((SYSTEM, "ezmsg"), (OPERATION_NAME, "process"))
_TRANSMIT, _RECEIVE = ((IO_DIRECTION, "transmit"),), ((IO_DIRECTION, "receive"),)
_D = (DESTINATION,)
_DK = (DESTINATION, CHANNEL_KIND)
_DS = (DESTINATION, SUBSCRIPTION)
_DSK = (DESTINATION, SUBSCRIPTION, CHANNEL_KIND)
_TASK = (UNIT_ADDRESS, TASK_NAME)


def _counter(
    name: str,
    unit: str,
    feed: str,
    attributes: tuple[str, ...],
    text: str,
    constants: Constants = (),
    *,
    per_unit: int = 1,
    label: str = "",
) -> MetricSpec:
    return MetricSpec(name, "counter", unit, feed, attributes, text, per_unit, constants, label)


def _level(name: str, unit: str, feed: str, attributes: tuple[str, ...], text: str) -> MetricSpec:
    return MetricSpec(name, "updowncounter", unit, feed, attributes, text)


def _gauge(name: str, unit: str, feed: str, attributes: tuple[str, ...], text: str, *, per_unit: int = 1) -> MetricSpec:
    return MetricSpec(name, "gauge", unit, feed, attributes, text, per_unit)


def _seconds(
    name: str,
    feed: str,
    attributes: tuple[str, ...],
    text: str,
    constants: Constants = (),
    *,
    label: str = "",
) -> MetricSpec:
    return MetricSpec(name, "histogram", "s", feed, attributes, text, NS_PER_S, constants, label)


_IO = "Bytes of messages that crossed a channel."
# One row a metric and feed; a table is read by its columns.
# fmt: off
ENDPOINT_METRICS: tuple[MetricSpec, ...] = (
    _counter("messaging.client.sent.messages", "{message}", "publisher.sent", _D,
             "Messages handed to `broadcast`.", _PUBLISH),
    _counter("messaging.client.consumed.messages", "{message}", "edge.consumed", _DSK,
             "Messages handed to a subscriber.", _PROCESS),
    _seconds("messaging.client.operation.duration", "histogram.publish", _D,
             "Duration of `broadcast`.", _PUBLISH),
    _seconds("messaging.process.duration", "histogram.process", _DS,
             "From the hand-over of a message to the release of its lease; of a leaky task, which works on a copy, "
             "to its end.", _PROCESS, label=ERROR_TYPE),
    _seconds("ezmsg.publisher.backpressure.duration", "histogram.backpressure", _D,
             "Waits of `broadcast` for a free slot."),
    _counter("ezmsg.publisher.backpressure.time", "s", "publisher.backpressure_ns", _D,
             "Time `broadcast` spent waiting for a free slot, up to now.", per_unit=NS_PER_S),
    _counter("ezmsg.publisher.backpressure.blame", "s", "publisher.blame_ns", _D,
             "That time, by the subscriber that held the slot last; of a wait that is on, by who holds it.",
             per_unit=NS_PER_S, label=SUBSCRIPTION),
    _seconds("ezmsg.publisher.serialize.duration", "histogram.serialize", _D,
             "Time to serialize a message, once for all channels; shm if some of them see shared memory.",
             label=CHANNEL_KIND),
    _seconds("ezmsg.publisher.interval", "histogram.interval", _D,
             "Time between two messages of a publisher."),
    _level("ezmsg.publisher.message.inflight", "{message}", "publisher.inflight", _D,
           "Messages not yet released by every channel."),
    _level("ezmsg.publisher.buffer.limit", "{buffer}", "publisher.num_buffers", _D,
           "Messages that may be in flight."),
    _counter("ezmsg.publisher.shm.reallocations", "{reallocation}", "publisher.shm_reallocations", _D,
             "Times a segment of shared memory had to grow."),
    _counter("ezmsg.channel.io", "By", "publisher.bytes_by", _D, _IO, _TRANSMIT, label=CHANNEL_KIND),
    _counter("ezmsg.channel.io", "By", "edge.bytes", _DK, _IO, _RECEIVE),
    _seconds("ezmsg.channel.transport.duration", "histogram.transport", _DK,
             "From a publisher's send to a channel."),
    _counter("ezmsg.channel.clock.anomalies", "{message}", "edge.clock_anomalies", (CHANNEL_KIND,),
             "Messages whose times could not be compared.", label=CLOCK_REASON),
    _seconds("ezmsg.subscriber.queue.duration", "histogram.queue", _DS,
             "From a channel to the hand-over."),
    _gauge("ezmsg.subscriber.queue.depth", "{message}", "edge.queue_depth", (SUBSCRIPTION,),
           "Messages that wait to be handed over."),
    _counter("ezmsg.subscriber.dropped.messages", "{message}", "edge.dropped", _DS,
             "Messages a leaky subscriber gave up."),
    _seconds("ezmsg.message.age", "histogram.age", _DS,
             "From the first publish of the data to the hand-over."),
    _counter("ezmsg.task.busy.time", "s", "edge.busy_ns", _TASK,
             "Time a task spent with messages.", per_unit=NS_PER_S),
    _counter("ezmsg.task.errors", "{error}", "edge.errors", _TASK,
             "Exceptions that tasks raised.", label=ERROR_TYPE),
    _seconds("ezmsg.task.span.duration", "histogram.span", _TASK,
             "Spans that user code opened, of messages that are traced.", label=SPAN_LABEL),
)

_GC = (GC_GENERATION,)
_USER, _SYSTEM = ((CPU_MODE, "user"),), ((CPU_MODE, "system"),)
_CPU = "Time the process has run."
SCOPE_METRICS: tuple[MetricSpec, ...] = (
    _seconds("ezmsg.event_loop.lag", "scope.loop_lag", (LOOP_NAME,),
             "How late a timer of an event loop is."),
    _counter("process.cpu.time", "s", "scope.cpu_user_ns", (), _CPU, _USER, per_unit=NS_PER_S),
    _counter("process.cpu.time", "s", "scope.cpu_system_ns", (), _CPU, _SYSTEM, per_unit=NS_PER_S),
    _level("process.memory.usage", "By", "scope.memory_bytes", (), "Physical memory in use."),
    _level("process.thread.count", "{thread}", "scope.threads", (), "Threads of the process."),
    _level("process.unix.file_descriptor.count", "{file_descriptor}", "scope.descriptors", (),
           "File descriptors in use."),
    _counter("cpython.gc.collections", "{collection}", "scope.gc_collections", _GC,
             "Times a generation was collected."),
    _counter("cpython.gc.collected_objects", "{object}", "scope.gc_collected", _GC,
             "Objects that were collected."),
    _counter("cpython.gc.uncollectable_objects", "{object}", "scope.gc_uncollectable", _GC,
             "Objects that could not be collected."),
    _counter("ezmsg.logger.dropped.messages", "{message}", "scope.unlogged", (UNIT_ADDRESS,),
             "Messages that a message logger did not write."),
    _gauge("ezmsg.telemetry.overhead", "1", "scope.overhead_ppm", (TELEMETRY_SIGNAL,),
           "Share of one core that telemetry takes in the process.", per_unit=1_000_000),
)

SERVER_METRICS: tuple[MetricSpec, ...] = (
    _seconds("ezmsg.graph.operation.duration", "server.graph_operation", (CONTROL_OPERATION,),
             "What the GraphServer took for a request.", label=ERROR_TYPE),
    _seconds("ezmsg.process.control.duration", "server.process_control", (CONTROL_OPERATION,),
             "From a request to a process, at the GraphServer, to its answer.", label=ERROR_TYPE),
    _counter("ezmsg.settings.updates", "{update}", "server.settings", (UNIT_ADDRESS,),
             "Settings that were told, at first and when they changed.", label=SETTINGS_EVENT),
)

RECORDED = _counter("ezmsg.telemetry.recorded", "{item}", "process.recorded", (TELEMETRY_KIND,),
                    "Items a process recorded.")
DROPPED = _counter("ezmsg.telemetry.dropped", "{item}", "process.dropped", (TELEMETRY_KIND, TELEMETRY_REASON),
                   "Items that were recorded and lost, by reason.")
EXPORTED = _counter("ezmsg.telemetry.exported", "{item}", "agent.exported", (TELEMETRY_KIND,),
                    "Items a receiver took.")
EXPORT_DURATION = _seconds("ezmsg.telemetry.export.duration", "agent.export_duration", (TELEMETRY_SIGNAL,),
                           "Duration of an export, successful or not.")
QUEUE_USAGE = _level("ezmsg.telemetry.queue.usage", "{row}", "agent.queue_usage", (TELEMETRY_SIGNAL,),
                     "Rows that wait for export: one for each span, and one for each of its links and user attributes.")
QUEUE_LIMIT = _level("ezmsg.telemetry.queue.limit", "{row}", "agent.queue_limit", (TELEMETRY_SIGNAL,),
                     "Rows that may wait for export.")
PROCESS_COUNT = _level("ezmsg.graph.process.count", "{process}", "graph.processes", (),
                       "Processes of the graph.")
NODE_INFO = _gauge("ezmsg.graph.node.info", "{node}", "graph.nodes", (NODE_ID, NODE_KIND, PROCESS_NAME),
                   "1 for every node of the graph, 0 for one that is gone.")
EDGE_INFO = _gauge("ezmsg.graph.edge.info", "{edge}", "graph.edges", (EDGE_SOURCE, EDGE_TARGET),
                   "1 for every edge of the graph, 0 for one that is gone.")
CULPRIT = _counter("ezmsg.graph.backpressure.culprit", "s", "graph.culprits", (SUBSCRIPTION,),
                   "Time that publishers waited, by who caused it in the end, through others that waited.",
                   per_unit=NS_PER_S)
# fmt: on

METRICS: tuple[MetricSpec, ...] = (
    *ENDPOINT_METRICS,
    *SCOPE_METRICS,
    *SERVER_METRICS,
    *(RECORDED, DROPPED, EXPORTED, EXPORT_DURATION, QUEUE_USAGE, QUEUE_LIMIT),
    *(PROCESS_COUNT, NODE_INFO, EDGE_INFO, CULPRIT),
)


OF_SERVER = tuple(spec.name for spec in METRICS if spec.feed.startswith(("server.", "graph.")) and spec is not CULPRIT)
"""What the GraphServer knows: an agent exports it, or in `global` mode the process of the server."""


def fed_by(source: Literal["publisher", "edge", "histogram", "scope", "server"]) -> dict[str, MetricSpec]:
    """The metrics of endpoints, processes and the server fed by `source`, by the name of the counter or histogram."""
    prefix = source + "."
    specs = (*ENDPOINT_METRICS, *SCOPE_METRICS, *SERVER_METRICS)
    return {spec.feed.removeprefix(prefix): spec for spec in specs if spec.feed.startswith(prefix)}
