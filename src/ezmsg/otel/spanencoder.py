"""From rows to what a sender takes: requests in the wire format of OTLP, or objects of the SDK for the console.

A request is made of templates (`spantemplate.py`), into which the rows of one shape are filled at once: about 1 µs a
span, where the SDK needs 50. Both give the same spans, byte for byte.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from ezmsg.core.graphmeta import TraceSpan
from ezmsg.core.recorder.rows import INDEX_SHIFT, KIND_MASK, LABEL_MASK, LABEL_SHIFT, SPAN
from ezmsg.core.telemetry.expand import expand_spans
from ezmsg.otel.protobuf import message, text
from ezmsg.otel.resource import ProcessResource
from ezmsg.otel.semconv import SCHEMA_URL
from ezmsg.otel.spancolumns import Columns, columns_of, readable_rows
from ezmsg.otel.spanrows import SpanRows, joined
from ezmsg.otel.spans import SCOPE, readable_span
from ezmsg.otel.spantemplate import Template
from ezmsg.otel.state import Process

MAX_TEMPLATES: Final = 4096
"""About 2 kB each. Some are never used again: ids of messages get longer now and then."""

# Fields of opentelemetry.proto.trace.v1.
_ANY_ENDPOINT: Final = (1 << INDEX_SHIFT) - 1
_RESOURCE_SPANS, _RESOURCE, _SCOPE_SPANS, _SCOPE, _SPANS, _SCHEMA_URL = 1, 1, 2, 1, 2, 3

ResourceOf = Callable[[Process], ProcessResource]
Payload = TypeVar("Payload")

logger = logging.getLogger("ezmsg.otel")


@dataclass(frozen=True, slots=True)
class SpanBatch(Generic[Payload]):
    """Spans as a sender takes them.

    Attributes:
        spans: The spans.
        count: How many they are: what follows a span in rows of its own is a part of it.
        size: Bytes of a request, 0 where nobody minds.
    """

    spans: Payload
    count: int
    size: int = 0


SpanRequest = SpanBatch[bytes]
"""An `ExportTraceServiceRequest` in the wire format."""


class SpanEncoder(Protocol[Payload]):
    """Makes of rows what a sender takes."""

    def encode(self, chunks: Sequence[SpanRows], resource_of: ResourceOf) -> SpanBatch[Payload]:
        """The spans of these rows, in order for each process; without those that cannot be read."""
        ...


def trace_spans(chunk: SpanRows) -> SpanBatch[list[TraceSpan]]:
    """Spans as the native API has them."""
    process = chunk.process
    rows = readable_rows(chunk.rows, chunk.anchor)
    spans = expand_spans(rows, process.endpoints, process.labels, chunk.anchor)
    return SpanBatch(spans, len(spans))


class ObjectEncoder:
    """Makes objects of the SDK."""

    def encode(self, chunks: Sequence[SpanRows], resource_of: ResourceOf) -> SpanBatch[list[ReadableSpan]]:
        """A span of the SDK for each."""
        made: list[ReadableSpan] = []
        for chunk in chunks:
            with readable(chunk):
                resource, of_chunk = resource_of(chunk.process), trace_spans(chunk)
                made += [readable_span(span, resource) for span in of_chunk.spans]
        return SpanBatch(made, len(made))


class RequestEncoder:
    """Makes requests. Used by one thread; it keeps the templates it made."""

    def __init__(self) -> None:
        self._templates: dict[tuple[Any, ...], Template] = {}
        self._envelopes: WeakKeyDictionary[ProcessResource, tuple[bytes, bytes]] = WeakKeyDictionary()

    def encode(self, chunks: Sequence[SpanRows], resource_of: ResourceOf) -> SpanRequest:
        """A request with the spans of these rows, grouped by process."""
        parts: list[bytes] = []
        count = 0
        for chunk in joined(chunks):
            with readable(chunk):
                columns = columns_of(chunk.rows, chunk.anchor)
                if len(columns.spans):
                    parts += self._resource_spans(chunk, columns, resource_of(chunk.process))
                    count += len(columns.spans)
        data = b"".join(parts)
        return SpanBatch(data, count, len(data))

    def _resource_spans(self, chunk: SpanRows, columns: Columns, resource: ProcessResource) -> list[bytes]:
        resource_bytes, scope_bytes = self._envelope(resource)
        schema = text(_SCHEMA_URL, SCHEMA_URL)
        scope_spans = message(_SCOPE_SPANS, *message(_SCOPE, scope_bytes), self._spans(chunk, columns), schema)
        return message(_RESOURCE_SPANS, *message(_RESOURCE, resource_bytes), *scope_spans, schema)

    def _spans(self, chunk: SpanRows, columns: Columns) -> bytes:
        """The spans of one process, in the order of their rows."""
        spans = np.empty(len(columns.spans), object)
        for group in columns.groups():
            if columns.links[group[0]] and int(columns.meta[group[0]]) & KIND_MASK == SPAN:
                # Attributes of the user may be anything.
                spans[group] = [self._span(chunk, columns, span) for span in group.tolist()]
                continue
            template = self._template(chunk, columns, int(group[0]))
            made = template.fill(columns.patches(group))
            spans[group] = made.view(f"V{template.size}")[:, 0].tolist()
        return b"".join(spans.tolist())

    def _span(self, chunk: SpanRows, columns: Columns, number: int) -> bytes:
        """One span, as the SDK encodes it."""
        process, rows = chunk.process, columns.rows_of(number)
        (span,) = expand_spans(rows, process.endpoints, process.labels, chunk.anchor)
        (encoded,) = encode_spans([readable_span(span, Resource.get_empty())]).resource_spans[0].scope_spans[0].spans
        return b"".join(message(_SPANS, encoded.SerializeToString()))  # pyright: ignore[reportArgumentType] - no slots

    def _template(self, chunk: SpanRows, columns: Columns, example: int) -> Template:
        """The template of the shape of a span, made from what `expand_spans` makes of that span."""
        process = chunk.process
        meta, rows = int(columns.meta[example]), columns.rows_of(example)
        # Not by number: another process may call something else by the same.
        label = process.labels.get(meta >> LABEL_SHIFT & LABEL_MASK)
        blame = process.labels.get(int(rows["blame"][0]))
        endpoint = process.endpoints.get(meta >> INDEX_SHIFT)
        key = (endpoint, meta & _ANY_ENDPOINT, label, blame, int(columns.shape[example]))
        template = self._templates.get(key)
        if template is None:
            if len(self._templates) >= MAX_TEMPLATES:
                self._templates.clear()
            (span,) = expand_spans(rows, process.endpoints, process.labels, chunk.anchor)
            template = self._templates[key] = Template(span, columns.shape_of(example))
        return template

    def _envelope(self, resource: ProcessResource) -> tuple[bytes, bytes]:
        """What goes around the spans of a process: its resource and the scope, as the SDK encodes them."""
        if resource not in self._envelopes:
            context = SpanContext(1, 1, is_remote=False)
            span = ReadableSpan("", context, resource=resource, instrumentation_scope=SCOPE, start_time=0, end_time=0)
            (of_resource,) = encode_spans([span]).resource_spans
            envelope = of_resource.resource.SerializeToString(), of_resource.scope_spans[0].scope.SerializeToString()
            self._envelopes[resource] = envelope
        return self._envelopes[resource]


@contextmanager
def readable(chunk: SpanRows) -> Generator[None]:
    """Rows that cannot be read must not hold up others."""
    try:
        yield
    except Exception:
        logger.exception("%d spans of process %s cannot be read", chunk.spans, chunk.process.link_id)
