"""Templates: a span in the wire format of OTLP, with slots for what varies between spans of one shape."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import numpy as np
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status

from ezmsg.core.graphmeta import TraceSpan
from ezmsg.core.recorder import expand
from ezmsg.otel import spancolumns as columns
from ezmsg.otel.protobuf import Piece, fixed32, fixed64, integer, message, size_of, text
from ezmsg.otel.semconv import ERROR_TYPE
from ezmsg.otel.spancolumns import Bytes, Shape
from ezmsg.otel.spans import FROM_ELSEWHERE, UNKNOWN_ERROR, plain

# Fields of opentelemetry.proto.trace.v1.
_SPANS = 2
_TRACE_ID, _SPAN_ID, _PARENT_ID, _NAME, _KIND, _START, _END, _ATTRIBUTES = 1, 2, 4, 5, 6, 7, 8, 9
_EVENTS, _LINKS, _STATUS, _FLAGS = 11, 13, 15, 16
_EVENT_TIME, _EVENT_NAME, _EVENT_ATTRIBUTES = 1, 2, 3
_LINK_TRACE_ID, _LINK_SPAN_ID, _LINK_FLAGS = 1, 2, 6
_KEY, _VALUE = 1, 2
_STRING_VALUE, _INT_VALUE, _DOUBLE_VALUE = 1, 3, 4

_KNOWN: Final = int(SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK)
_REMOTE: Final = _KNOWN | int(SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
_DOUBLES: Final = {
    expand.BACKPRESSURE_WAIT: columns.WAIT,
    expand.SERIALIZE_TIME: columns.SERIALIZE,
    expand.QUEUE_TIME: columns.QUEUE,
    expand.TRANSPORT_TIME: columns.TRANSPORT,
    expand.MESSAGE_AGE: columns.AGE,
}


class Template:
    """Makes spans of one shape.

    Attributes:
        size: Bytes of a span, with what goes before it in a `ScopeSpans`.
    """

    def __init__(self, example: TraceSpan, shape: Shape) -> None:
        """Make the template of which `example` is a span."""
        pieces = message(_SPANS, *_span(example, shape))
        self.size = size_of(pieces)
        self._constant = np.zeros(self.size, np.uint8)
        self._moves: list[tuple[slice, slice]] = []
        at = 0
        for is_constant, run in groupby(pieces, lambda piece: isinstance(piece, bytes)):
            for piece in [b"".join(run)] if is_constant else run:  # pyright: ignore[reportArgumentType] - all bytes
                end = at + size_of([piece])
                if isinstance(piece, bytes):
                    self._constant[at:end] = np.frombuffer(piece, np.uint8)
                else:
                    self._moves.append((slice(at, end), piece))
                at = end

    def fill(self, patch: Bytes) -> Bytes:
        """Spans, (span, byte), for the patches of their rows."""
        spans = np.empty((len(patch), self.size), np.uint8)
        spans[:] = self._constant
        for to, source in self._moves:
            spans[:, to] = patch[:, source]
        return spans


def _span(example: TraceSpan, shape: Shape) -> Iterator[Piece]:
    yield from message(_TRACE_ID, columns.TRACE_ID)
    yield from message(_SPAN_ID, columns.SPAN_ID)
    flags = _KNOWN
    if example.parent_span_id is not None:
        yield from message(_PARENT_ID, columns.PARENT_ID)
        # A message, or a request, brings its context from wherever that is; what happens inside a task is local.
        flags = _REMOTE if example.kind in FROM_ELSEWHERE else _KNOWN
    yield text(_NAME, example.name)
    yield from integer(_KIND, Span.SpanKind.Value(f"SPAN_KIND_{example.kind}"))
    yield from fixed64(_START, columns.START)
    yield from fixed64(_END, columns.END)
    for name, value in example.attributes.items():
        yield from _attribute(name, value, shape)
    if example.error is not None:
        error_type = example.error or UNKNOWN_ERROR
        yield from _constant(_ATTRIBUTES, ERROR_TYPE, error_type)
        event = [*fixed64(_EVENT_TIME, columns.END), text(_EVENT_NAME, "exception")]
        yield from message(_EVENTS, *event, *_constant(_EVENT_ATTRIBUTES, "exception.type", error_type))
    yield from _links(example, shape)
    status = Status() if example.error is None else Status(code=Status.STATUS_CODE_ERROR)
    yield from message(_STATUS, status.SerializeToString())
    yield fixed32(_FLAGS, flags)


def _links(example: TraceSpan, shape: Shape) -> Iterator[Piece]:
    """Links: one to the parent, if that is more than have rows of their own, and those."""
    linked = [
        (columns.behind(columns.TRACE_ID, n), columns.behind(columns.SPAN_ID, n)) for n in range(1, 1 + shape.links)
    ]
    if len(example.links) > len(linked):
        linked.insert(0, (columns.TRACE_ID, columns.PARENT_ID))
    if len(linked) != len(example.links):
        raise ValueError(f"{example.name!r} has {len(example.links)} links, and rows for {shape.links}")
    for trace_id, span_id in linked:
        ids = [*message(_LINK_TRACE_ID, trace_id), *message(_LINK_SPAN_ID, span_id)]
        yield from message(_LINKS, *ids, fixed32(_LINK_FLAGS, _REMOTE))


def _attribute(name: str, value: Any, shape: Shape) -> Sequence[Piece]:
    match name:
        case expand.MESSAGE_ID:
            return _pair(name, message(_STRING_VALUE, _head(columns.MESSAGE_ID, shape.digits)))
        case expand.FANOUT:
            return _pair(name, integer(_INT_VALUE, _head(columns.FANOUT, shape.fanout_bytes)))
        case expand.BODY_SIZE:
            return _pair(name, integer(_INT_VALUE, _head(columns.SIZE, shape.size_bytes)))
        case _ if name in _DOUBLES:
            return _pair(name, fixed64(_DOUBLE_VALUE, _DOUBLES[name]))
        case _:
            return _constant(_ATTRIBUTES, name, value)


def _pair(name: str, value: list[Piece]) -> list[Piece]:
    return message(_ATTRIBUTES, text(_KEY, name), *message(_VALUE, *value))


def _constant(number: int, name: str, value: Any) -> Sequence[Piece]:
    value = plain(value)
    kind = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}[type(value)]
    return message(number, KeyValue(key=name, value=AnyValue(**{kind: value})).SerializeToString())


def _head(slot: slice, length: int) -> slice:
    return slice(slot.start, slot.start + length)
