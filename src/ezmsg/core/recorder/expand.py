"""Rows into the spans and samples that people read. The native stream and the OTLP agent both expand here: same ids."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from ezmsg.core.graphmeta import ProfileChannelType, ProfilingTraceSample, TraceSpan
from ezmsg.core.recorder.distinct import distinct
from ezmsg.core.recorder.ids import hex_span_id
from ezmsg.core.recorder.rowlog import RowArray
from ezmsg.core.recorder.rows import (
    ATTRIBUTE,
    ATTRIBUTE_TYPES,
    CHANNEL_MASK,
    CHANNEL_SHIFT,
    CHANNELS,
    CONTROL_CLIENT,
    CONTROL_SERVER,
    DELIVER,
    ERROR,
    FOREIGN,
    INDEX_SHIFT,
    KIND_MASK,
    LABEL_MASK,
    LABEL_SHIFT,
    LINK,
    METRICS,
    NO_TRACE,
    PROCESS,
    PUBLISH,
    PUBLISHER_METRICS,
    QUEUE,
    SAMPLE_ROW,
    SEPARATOR,
    SETTINGS,
    SPAN,
    SPAN_ROW,
    USER_SPAN,
)
from ezmsg.core.wire.records import ClockAnchor, EndpointRecord

Attributes = dict[str, str | int | float | bool]
Labels = Mapping[int, str]
Row = tuple[Any, ...]
"""Whole numbers, but for the id of the trace, which is bytes."""

# The table of all names is TELEMETRY.md; these are the ones that spans carry.
SYSTEM: Final = "messaging.system"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
SUBSCRIPTION: Final = "messaging.destination.subscription.name"
MESSAGE_ID: Final = "messaging.message.id"
CLIENT_ID: Final = "messaging.client.id"
BODY_SIZE: Final = "messaging.message.body.size"
FANOUT: Final = "ezmsg.fanout"
BACKPRESSURE_WAIT: Final = "ezmsg.backpressure.wait"
BACKPRESSURE_BLAME: Final = "ezmsg.backpressure.blame"
SERIALIZE_TIME: Final = "ezmsg.serialize.time"
CHANNEL_KIND: Final = "ezmsg.channel.kind"
QUEUE_TIME: Final = "ezmsg.queue.time"
TRANSPORT_TIME: Final = "ezmsg.transport.time"
MESSAGE_AGE: Final = "ezmsg.message.age"
UNIT_ADDRESS: Final = "ezmsg.unit.address"
TASK_NAME: Final = "ezmsg.task.name"
SPAN_LABEL: Final = "ezmsg.span.label"
CONTROL_OPERATION: Final = "ezmsg.control.operation"
PROCESS_ID: Final = "ezmsg.process.id"
SETTINGS_FIELD: Final = "ezmsg.settings.field"
CLOCK_SOURCE: Final = "ezmsg.clock.source"

_UNKNOWN: Final = EndpointRecord(
    index=0, topic="unknown", subscription="unknown", endpoint_id="", publisher_id="", channel_kind=3
)


def expand_spans(
    rows: bytes | memoryview | RowArray,
    endpoints: Mapping[int, EndpointRecord],
    labels: Labels,
    anchor: ClockAnchor,
) -> list[TraceSpan]:
    """The spans in SPAN_ROW rows.

    Args:
        rows: The rows, as they travel or as an array.
        endpoints: What their indices mean.
        labels: What their label numbers mean.
        anchor: Turns PROFILE_TIME into Unix time, at both ends of a span alike.
    """
    spans: list[TraceSpan] = []
    shift = anchor.unix_ns - anchor.mono_ns
    for row in _array(rows, SPAN_ROW).tolist():
        kind = row[0] & KIND_MASK
        expand = _EXPANDERS.get(kind)
        if kind == LINK:
            _link(spans, row)
        elif kind == ATTRIBUTE:
            _attribute(spans, row, labels)
        elif expand is not None:
            spans.append(expand(row, endpoints.get(row[0] >> INDEX_SHIFT, _UNKNOWN), labels, shift))
    return spans


def expand_samples(
    rows: bytes | memoryview | RowArray, endpoints: Mapping[int, EndpointRecord], labels: Labels
) -> list[ProfilingTraceSample]:
    """The native samples in SAMPLE_ROW rows; their times stay PROFILE_TIME nanoseconds."""
    array = np.ascontiguousarray(_array(rows, SAMPLE_ROW))
    # Many samples, and few things that they are of: those have a word of their own.
    about = array.view(np.int64).reshape(-1, SAMPLE_ROW.itemsize // 8)[:, 3]
    described = {code: _described(code, endpoints, labels) for code in distinct(about)}
    return [
        ProfilingTraceSample(
            time, endpoint_id, topic, metric, value, channel, None if seq < 0 else seq,
            None if trace_id == NO_TRACE else trace_id.hex(), hex_span_id(span_id) if span_id else None,
        )
        for time, value, seq, (endpoint_id, topic, metric, channel), trace_id, span_id in zip(
            array["time_ns"].astype(np.float64).tolist(), array["value_ns"].astype(np.float64).tolist(),
            array["seq"].tolist(), map(described.__getitem__, about.tolist()),
            array["trace_id"].tolist(), array["span_id"].tolist(), strict=True,
        )
    ]  # fmt: skip


def _described(
    code: int, endpoints: Mapping[int, EndpointRecord], labels: Labels
) -> tuple[str, str, str, ProfileChannelType | None]:
    """What samples of the same are told of alike: endpoint, topic, metric, channel kind."""
    index, metric, channel, label = code & 0xFFFFFFFF, code >> 32 & 0xFF, code >> 40 & 0xFF, code >> 48 & 0xFFFF
    endpoint = endpoints.get(index, _UNKNOWN)
    of_publisher = bool(1 << metric & PUBLISHER_METRICS)
    topic = endpoint.topic if of_publisher else endpoint.subscription
    if metric == USER_SPAN and label:
        topic = f"{topic}:{labels.get(label, '')}"
    return endpoint.endpoint_id, topic, METRICS[metric], None if of_publisher else CHANNELS[channel]


def _link(spans: list[TraceSpan], row: Row) -> None:
    """Add a link to the span before it."""
    if spans and spans[-1].span_id == hex_span_id(row[11]):
        spans[-1].links.append((row[9].hex(), hex_span_id(row[10])))


def _attribute(spans: list[TraceSpan], row: Row, labels: Labels) -> None:
    """Add what the user says to the span before it; what we say of it ourselves stays as it is."""
    if not spans or spans[-1].span_id != hex_span_id(row[11]) or not 0 <= row[7] < len(ATTRIBUTE_TYPES):
        return
    value: str | int | float | bool
    match ATTRIBUTE_TYPES[int(row[7])]:
        case "str":
            value = labels.get(row[14], "")
        case "float":
            (value,) = struct.unpack("<d", row[1].to_bytes(8, "little", signed=True))
        case "bool":
            value = bool(row[13])
        case "int":
            value = int(row[13])
    spans[-1].attributes.setdefault(labels.get(row[0] >> LABEL_SHIFT & LABEL_MASK, ""), value)


def _array(rows: bytes | memoryview | RowArray, dtype: np.dtype[Any]) -> RowArray:
    return rows if isinstance(rows, np.ndarray) else np.frombuffer(rows, dtype=dtype)


def _seconds(duration_ns: int) -> float:
    return duration_ns / 1e9


def _client(endpoint: EndpointRecord) -> str:
    return endpoint.endpoint_id.rpartition(":")[2]


def _common(name: str, kind: str, row: Row, start: int, end: int, shift: int) -> TraceSpan:
    parent = row[11]
    return TraceSpan(
        trace_id=row[9].hex(),
        span_id=hex_span_id(row[10]),
        parent_span_id=hex_span_id(parent) if parent else None,
        name=name,
        kind=kind,
        start_unix_ns=start + shift,
        end_unix_ns=max(start, end) + shift,
        attributes={SYSTEM: "ezmsg"},
    )


def _describe_task(attributes: Attributes, endpoint: EndpointRecord) -> None:
    if endpoint.unit:
        attributes[UNIT_ADDRESS] = endpoint.unit
    if endpoint.task:
        attributes[TASK_NAME] = endpoint.task


def _publish(row: Row, endpoint: EndpointRecord, labels: Labels, shift: int) -> TraceSpan:
    message_id, _, start, end, wait, serialize, size = row[1:8]
    fanout, blame = row[13], row[14]
    span = _common(f"publish {endpoint.topic}", "PRODUCER", row, start, end, shift)
    span.attributes |= {
        OPERATION_NAME: "publish",
        OPERATION_TYPE: "send",
        DESTINATION: endpoint.topic,
        MESSAGE_ID: str(message_id),
        CLIENT_ID: _client(endpoint),
        FANOUT: fanout,
    }
    if size:
        span.attributes[BODY_SIZE] = size
    if wait > 0:
        span.attributes[BACKPRESSURE_WAIT] = _seconds(wait)
        if blame:
            span.attributes[BACKPRESSURE_BLAME] = labels.get(blame, "")
    if serialize > 0:
        span.attributes[SERIALIZE_TIME] = _seconds(serialize)
    _describe_task(span.attributes, endpoint)
    if row[0] & ERROR:
        span.error = labels.get(row[0] >> LABEL_SHIFT & LABEL_MASK, "")
    return span


def _process(row: Row, endpoint: EndpointRecord, labels: Labels, shift: int) -> TraceSpan:
    meta, message_id, origin, publish, channel, start, end = row[:7]
    span = _common(f"process {endpoint.topic}", "CONSUMER", row, start, end, shift)
    span.attributes |= {
        OPERATION_NAME: "process",
        OPERATION_TYPE: "process",
        DESTINATION: endpoint.topic,
        SUBSCRIPTION: endpoint.subscription,
        MESSAGE_ID: str(message_id),
        CLIENT_ID: _client(endpoint),
        CHANNEL_KIND: CHANNELS[int(meta) >> CHANNEL_SHIFT & CHANNEL_MASK].value.lower(),
    }
    if start >= channel:
        span.attributes[QUEUE_TIME] = _seconds(start - channel)
    if not meta & FOREIGN:
        if 0 <= publish <= channel:
            span.attributes[TRANSPORT_TIME] = _seconds(channel - publish)
        if 0 <= origin <= start:
            span.attributes[MESSAGE_AGE] = _seconds(start - origin)
    _describe_task(span.attributes, endpoint)
    if span.parent_span_id is not None:
        span.links.append((span.trace_id, span.parent_span_id))
    if meta & ERROR:
        span.error = labels.get(meta >> LABEL_SHIFT & LABEL_MASK, "")
    return span


def _user_span(row: Row, endpoint: EndpointRecord, labels: Labels, shift: int) -> TraceSpan:
    label = labels.get(row[0] >> LABEL_SHIFT & LABEL_MASK, "")
    span = _common(label or "span", "INTERNAL", row, row[5], row[6], shift)
    if label:
        span.attributes[SPAN_LABEL] = label
    if endpoint.topic:
        span.attributes[DESTINATION] = endpoint.topic
    span.attributes[SUBSCRIPTION] = endpoint.subscription
    _describe_task(span.attributes, endpoint)
    if row[0] & ERROR:
        span.error = labels.get(row[14], "")
    return span


def _way(row: Row, endpoint: EndpointRecord, labels: Labels, shift: int) -> TraceSpan:
    what = "deliver" if row[0] & KIND_MASK == DELIVER else "queue"
    span = _common(f"{what} {endpoint.topic}", "INTERNAL", row, row[5], row[6], shift)
    span.attributes |= {
        DESTINATION: endpoint.topic,
        SUBSCRIPTION: endpoint.subscription,
        CHANNEL_KIND: CHANNELS[int(row[0]) >> CHANNEL_SHIFT & CHANNEL_MASK].value.lower(),
        CLOCK_SOURCE: labels.get(row[14], ""),
    }
    return span


def _control(row: Row, endpoint: EndpointRecord, labels: Labels, shift: int) -> TraceSpan:
    operation = labels.get(row[0] >> LABEL_SHIFT & LABEL_MASK, "")
    kind = "CLIENT" if row[0] & KIND_MASK == CONTROL_CLIENT else "SERVER"
    span = _common(f"control {operation}", kind, row, row[5], row[6], shift)
    span.attributes[CONTROL_OPERATION] = operation
    _describe_operation(span, row, labels, PROCESS_ID)
    return span


def _settings(row: Row, endpoint: EndpointRecord, labels: Labels, shift: int) -> TraceSpan:
    event = labels.get(row[0] >> LABEL_SHIFT & LABEL_MASK, "")
    span = _common(f"settings {event}", "INTERNAL", row, row[5], row[6], shift)
    _describe_operation(span, row, labels, SETTINGS_FIELD)
    return span


def _describe_operation(span: TraceSpan, row: Row, labels: Labels, detail_name: str) -> None:
    error, detail, unit = (*labels.get(row[14], "").split(SEPARATOR, 2), "", "", "")[:3]
    if unit:
        span.attributes[UNIT_ADDRESS] = unit
    if detail:
        span.attributes[detail_name] = detail
    if row[0] & ERROR:
        span.error = error


_EXPANDERS: Final[dict[int, Callable[[Row, EndpointRecord, Labels, int], TraceSpan]]] = {
    PUBLISH: _publish,
    PROCESS: _process,
    SPAN: _user_span,
    CONTROL_CLIENT: _control,
    CONTROL_SERVER: _control,
    SETTINGS: _settings,
    DELIVER: _way,
    QUEUE: _way,
}
