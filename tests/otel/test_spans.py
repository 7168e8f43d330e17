"""Spans of the native API as spans of the SDK, and what the SDK's encoder makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ezmsg.core.graphmeta import TraceSpan
from ezmsg.otel.resource import ProcessResource, ResourceFactory
from ezmsg.otel.semconv import SCHEMA_URL
from ezmsg.otel.spans import plain, readable_span
from ezmsg.otel.state import Process
from tests.otel.feeds import ANCHOR, first

TRACE, SPAN, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
REMOTE, KNOWN = 0x200, 0x100


@pytest.fixture
def resource() -> ProcessResource:
    process = Process("link-1", ANCHOR)
    process.apply(first())
    return ResourceFactory().of_process(process)


def span(**changes: Any) -> TraceSpan:
    fields: dict[str, Any] = {"parent_span_id": PARENT, "name": "process T", "kind": "CONSUMER"}
    return TraceSpan(TRACE, SPAN, start_unix_ns=10, end_unix_ns=30, **fields | changes)


def encoded(made: TraceSpan, resource: ProcessResource) -> Span:
    (of_resource,) = encode_spans([readable_span(made, resource)]).resource_spans
    assert of_resource.schema_url == of_resource.scope_spans[0].schema_url == SCHEMA_URL
    assert of_resource.scope_spans[0].scope.name == "ezmsg.core"
    return of_resource.scope_spans[0].spans[0]


def test_ids_names_and_times_stay_what_they_are(resource: ProcessResource) -> None:
    seen = encoded(span(), resource)
    assert (seen.trace_id.hex(), seen.span_id.hex(), seen.parent_span_id.hex()) == (TRACE, SPAN, PARENT)
    assert (seen.name, seen.start_time_unix_nano, seen.end_time_unix_nano) == ("process T", 10, 30)
    assert seen.kind == Span.SPAN_KIND_CONSUMER
    assert seen.status.code == Status.STATUS_CODE_UNSET
    assert not seen.events


def test_a_root_span_has_no_parent(resource: ProcessResource) -> None:
    assert encoded(span(parent_span_id=None, kind="PRODUCER"), resource).parent_span_id == b""


@pytest.mark.parametrize(("kind", "flags"), [("CONSUMER", REMOTE | KNOWN), ("INTERNAL", KNOWN)])
def test_the_context_of_a_message_is_remote(resource: ProcessResource, kind: str, flags: int) -> None:
    assert encoded(span(kind=kind), resource).flags == flags


def test_links_point_at_other_spans(resource: ProcessResource) -> None:
    (link,) = encoded(span(links=[(TRACE, PARENT)]), resource).links
    assert (link.trace_id.hex(), link.span_id.hex()) == (TRACE, PARENT)


def test_a_failure_is_a_status_an_attribute_and_an_event(resource: ProcessResource) -> None:
    seen = encoded(span(error="ValueError"), resource)
    assert seen.status.code == Status.STATUS_CODE_ERROR
    assert {pair.key: pair.value.string_value for pair in seen.attributes} == {"error.type": "ValueError"}
    (event,) = seen.events
    assert (event.name, event.time_unix_nano) == ("exception", 30)
    assert event.attributes[0].key == "exception.type"


def test_a_failure_without_a_name_is_told_all_the_same(resource: ProcessResource) -> None:
    (attribute,) = encoded(span(error=""), resource).attributes
    assert attribute.value.string_value == "_OTHER"


def test_attributes_keep_their_types(resource: ProcessResource) -> None:
    values = {"text": "a", "whole": 3, "real": 0.5, "yes": True, "numpy": np.int64(7), "small": np.float32(0.5)}
    seen = encoded(span(attributes=values), resource)
    kinds = {pair.key: pair.value.WhichOneof("value") for pair in seen.attributes}
    assert kinds == {
        "text": "string_value",
        "whole": "int_value",
        "real": "double_value",
        "yes": "bool_value",
        "numpy": "int_value",
        "small": "double_value",
    }


def test_what_no_attribute_can_be_becomes_text() -> None:
    assert plain(np.str_("a")) == "a"
    assert plain(None) == "None"
    assert plain(np.bool_(True)) is True


def test_spans_of_two_processes_are_two_resources(resource: ProcessResource) -> None:
    process = Process("link-2", ANCHOR)
    process.apply(first("link-2"))
    other = ResourceFactory().of_process(process)
    both = [readable_span(span(), resource), readable_span(span(), other), readable_span(span(), resource)]
    counts = [len(of_resource.scope_spans[0].spans) for of_resource in encode_spans(both).resource_spans]
    assert counts == [2, 1]
