"""From rows to what a sender takes: requests in the wire format of OTLP, or objects of the SDK for the console.

A request is made of templates (`spantemplate.py`), into which the rows of one shape are filled at once: about 1 µs a
span, where the SDK needs 50. Both give the same spans, byte for byte.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext

from ezmsg.core.recorder.rows import INDEX_SHIFT, LABEL_MASK, LABEL_SHIFT
from ezmsg.core.telemetry.expand import expand_spans
from ezmsg.otel.protobuf import message, text
from ezmsg.otel.resource import ProcessResource
from ezmsg.otel.semconv import SCHEMA_URL
from ezmsg.otel.spancolumns import Columns, columns_of, unpack_shape
from ezmsg.otel.spanrows import SpanRows, joined
from ezmsg.otel.spans import SCOPE, readable_span
from ezmsg.otel.spantemplate import Template
from ezmsg.otel.state import Process

MAX_TEMPLATES: Final = 4096
"""About 2 kB each. Some are never used again: ids of messages get longer now and then."""

# Fields of opentelemetry.proto.trace.v1.
_ANY_ENDPOINT: Final = (1 << INDEX_SHIFT) - 1
_RESOURCE_SPANS, _RESOURCE, _SCOPE_SPANS, _SCOPE, _SCHEMA_URL = 1, 1, 2, 1, 3

ResourceOf = Callable[[Process], ProcessResource]
AnyBatch = TypeVar("AnyBatch", bound=Sized)

logger = logging.getLogger("ezmsg.otel")


@dataclass(frozen=True, slots=True)
class SpanRequest:
    """An `ExportTraceServiceRequest` in the wire format, with `count` spans."""

    data: bytes
    count: int

    def __len__(self) -> int:
        return self.count


class SpanEncoder(Protocol[AnyBatch]):
    """Makes of rows what a sender takes."""

    def encode(self, chunks: Sequence[SpanRows], resource_of: ResourceOf) -> AnyBatch:
        """A batch of the spans of these rows, in order for each process; without those that cannot be read."""
        ...

    def size_of(self, batch: AnyBatch) -> int:
        """The bytes a batch takes in a request, 0 where nobody minds."""
        ...


class ObjectEncoder:
    """Makes objects of the SDK."""

    def encode(self, chunks: Sequence[SpanRows], resource_of: ResourceOf) -> Sequence[ReadableSpan]:
        """A span of the SDK for each row."""
        made: list[ReadableSpan] = []
        for chunk in chunks:
            process = chunk.process
            with _readable(chunk):
                resource = resource_of(process)
                spans = expand_spans(chunk.rows, process.endpoints, process.labels, chunk.anchor)
                made += [readable_span(span, resource) for span in spans]
        return made

    def size_of(self, batch: Sequence[ReadableSpan]) -> int:
        """Objects have no size."""
        return 0


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
            with _readable(chunk):
                columns = columns_of(chunk.rows, chunk.anchor)
                if len(columns.rows):
                    parts += self._resource_spans(chunk, columns, resource_of(chunk.process))
                    count += len(columns.rows)
        return SpanRequest(b"".join(parts), count)

    def size_of(self, batch: SpanRequest) -> int:
        """Its bytes."""
        return len(batch.data)

    def _resource_spans(self, chunk: SpanRows, columns: Columns, resource: ProcessResource) -> list[bytes]:
        resource_bytes, scope_bytes = self._envelope(resource)
        schema = text(_SCHEMA_URL, SCHEMA_URL)
        scope_spans = message(_SCOPE_SPANS, *message(_SCOPE, scope_bytes), self._spans(chunk, columns), schema)
        return message(_RESOURCE_SPANS, *message(_RESOURCE, resource_bytes), *scope_spans, schema)

    def _spans(self, chunk: SpanRows, columns: Columns) -> bytes:
        """The spans of one process, in the order of their rows."""
        spans = np.empty(len(columns.rows), object)
        for group in columns.groups():
            template = self._template(chunk, columns, int(group[0]))
            made = template.fill(columns.patch[group])
            spans[group] = made.view(f"V{template.size}")[:, 0].tolist()
        return b"".join(spans.tolist())

    def _template(self, chunk: SpanRows, columns: Columns, example: int) -> Template:
        """The template of the shape of a row, made from what `expand_spans` makes of that row."""
        process = chunk.process
        meta, shape = int(columns.meta[example]), int(columns.shape[example])
        row = columns.rows[example : example + 1]
        # Not by number: another process may call something else by the same.
        label = process.labels.get(meta >> LABEL_SHIFT & LABEL_MASK)
        blame = process.labels.get(int(row["blame"][0]))
        endpoint = process.endpoints.get(meta >> INDEX_SHIFT)
        key = (endpoint, meta & _ANY_ENDPOINT, label, blame, shape)
        template = self._templates.get(key)
        if template is None:
            if len(self._templates) >= MAX_TEMPLATES:
                self._templates.clear()
            (span,) = expand_spans(row, process.endpoints, process.labels, chunk.anchor)
            template = self._templates[key] = Template(span, unpack_shape(shape))
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
def _readable(chunk: SpanRows) -> Generator[None]:
    """Rows that cannot be read must not hold up others."""
    try:
        yield
    except Exception:
        logger.exception("%d spans of process %s cannot be read", len(chunk), chunk.process.link_id)
