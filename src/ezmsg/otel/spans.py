"""A `TraceSpan` of the native API becomes a span of the SDK, with the same ids."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from ezmsg.core.graphmeta import TraceSpan
from ezmsg.otel.semconv import ERROR_TYPE, SCHEMA_URL, SCOPE_NAME, SCOPE_VERSION

SCOPE = InstrumentationScope(SCOPE_NAME, SCOPE_VERSION, SCHEMA_URL)

UNKNOWN_ERROR = "_OTHER"
"""The `error.type` of the conventions for an error without a name."""

FROM_ELSEWHERE = frozenset({"CONSUMER", "SERVER"})
"""Kinds of spans whose parent may be in another process."""

_KINDS = {kind.name: kind for kind in SpanKind}
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET = Status(StatusCode.UNSET)
_PLAIN = frozenset({str, int, float, bool})


def readable_span(span: TraceSpan, resource: Resource) -> ReadableSpan:
    """The span as the exporters want it.

    Raises:
        ValueError: An id is not hexadecimal.
        KeyError: The kind is not one of OpenTelemetry's.
    """
    trace_id = int(span.trace_id, 16)
    attributes = {name: plain(value) for name, value in span.attributes.items()}
    parent = None
    if span.parent_span_id:
        # A message, or a request, brings its context from wherever that is; what happens inside a task is local.
        parent = _context(trace_id, span.parent_span_id, is_remote=span.kind in FROM_ELSEWHERE)
    status, events = _UNSET, ()
    if span.error is not None:
        error_type = span.error or UNKNOWN_ERROR
        attributes[ERROR_TYPE] = error_type
        status = Status(StatusCode.ERROR)
        events = (Event("exception", {"exception.type": error_type}, timestamp=int(span.end_unix_ns)),)
    return ReadableSpan(
        name=span.name,
        context=_context(trace_id, span.span_id, is_remote=False),
        parent=parent,
        resource=resource,
        attributes=attributes,
        events=events,
        links=[Link(_context(int(trace, 16), link, is_remote=True)) for trace, link in span.links],
        kind=_KINDS[span.kind],
        status=status,
        start_time=int(span.start_unix_ns),
        end_time=int(span.end_unix_ns),
        instrumentation_scope=SCOPE,
    )


def plain(value: Any) -> str | int | float | bool:
    """A value as Python knows it: the encoders take numpy's integers for doubles."""
    return value if type(value) in _PLAIN else value.item() if hasattr(value, "item") else str(value)


def _context(trace_id: int, span_id: str, *, is_remote: bool) -> SpanContext:
    return SpanContext(trace_id, int(span_id, 16), is_remote, _SAMPLED)
