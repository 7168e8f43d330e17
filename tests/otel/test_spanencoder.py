"""Requests made of templates, against what the SDK's encoder makes of the same rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.recorder.rows import (
    ATTRIBUTE,
    ATTRIBUTE_TYPES,
    CONTROL_CLIENT,
    CONTROL_SERVER,
    DELIVER,
    ERROR,
    FOREIGN,
    LABEL_SHIFT,
    LINK,
    PROCESS,
    PUBLISH,
    QUEUE,
    SELECTED,
    SETTINGS,
    SPAN,
    SPAN_ROW,
    WAIT,
    count_spans,
    meta_word,
)
from ezmsg.core.wire.records import ClockAnchor, EndpointRecord
from ezmsg.otel import spanencoder
from ezmsg.otel.resource import ProcessResource, ResourceFactory
from ezmsg.otel.spanencoder import ObjectEncoder, RequestEncoder
from ezmsg.otel.spanrows import SpanRows
from ezmsg.otel.state import Process
from tests.otel.feeds import ANCHOR, EDGE, PUBLISHER, exported_spans, first, linked_rows, span_ids, span_rows

BARE = EndpointRecord(3, "", "SINK ✓ IN", "sub-2", "pub-1", 2)
UNKNOWN_INDEX = 9
KINDS = (PUBLISH, PROCESS, SPAN, CONTROL_CLIENT, CONTROL_SERVER, SETTINGS, DELIVER, QUEUE)
LABELS = {1: "…other", 2: "ValueError", 3: "SINK/IN", 4: "filter" * 40, 5: "TIMEOUT\0gain\0ROOT/SINK", 6: "\0gain\0"}
SECONDS = 10**9

RESOURCES = ResourceFactory()


def process(link_id: str = "link-1") -> Process:
    made = Process(link_id, ANCHOR)
    made.apply(first(link_id, endpoints=[PUBLISHER, EDGE, BARE], labels=LABELS))
    made.resource = RESOURCES.of_process(made)
    return made


def resource_of(of: Process) -> ProcessResource:
    assert of.resource is not None
    return of.resource


def expected(chunks: Sequence[SpanRows]) -> ExportTraceServiceRequest:
    return encode_spans(ObjectEncoder().encode(chunks, resource_of).spans)


times = st.one_of(st.integers(0, 5), st.integers(0, 100 * SECONDS), st.integers(2**52, 2**53))
ids = st.one_of(st.integers(0, 3), st.integers(0, 2**64 - 1))
trace_ids = st.one_of(st.just(bytes(16)), st.binary(min_size=16, max_size=16))
counts = st.one_of(st.sampled_from([0, 1, 9, 10, 127, 128, 16383, 16384]), st.integers(0, 2**62))


@st.composite
def rows(draw: st.DrawFn, max_size: int = 8) -> Any:
    """Rows of spans, those of messages with links of their own or not, those of the user with attributes or not."""
    made: list[Any] = []
    for _ in range(draw(st.integers(0, max_size))):
        kind = draw(st.sampled_from(KINDS))
        flags = draw(st.sampled_from([0, ERROR, FOREIGN, SELECTED, ERROR | FOREIGN]))
        index = draw(st.sampled_from([1, 2, 3, UNKNOWN_INDEX]))
        label = draw(st.sampled_from([0, 0, *LABELS, 77]))
        row = np.zeros(1, SPAN_ROW)
        row["meta"] = meta_word(kind, index, draw(st.sampled_from(ProfileChannelType)), flags) | label << LABEL_SHIFT
        row["message_id"], row["f"], row["fanout"] = draw(counts), draw(counts), draw(counts)
        for name in "abcde":
            row[name] = draw(times)
        row["trace_id"], row["span_id"], row["parent_id"] = np.void(draw(trace_ids)), draw(ids), draw(ids)
        row["blame"] = draw(st.sampled_from([0, *LABELS, 77]))
        made.append(row)
        if kind in (PUBLISH, PROCESS):
            made += [link(row, draw(trace_ids), draw(ids)) for _ in range(draw(st.sampled_from([0, 0, 1, 2, 17])))]
        if kind == SPAN:
            for _ in range(draw(st.sampled_from([0, 0, 1, 3]))):
                label, value_type = draw(st.sampled_from([*LABELS, 77])), draw(st.integers(0, len(ATTRIBUTE_TYPES)))
                made.append(attribute(row, label, value_type, draw(counts)))
    return np.concatenate([np.zeros(0, SPAN_ROW), *made])


def link(of: Any, trace_id: bytes, span_id: int) -> Any:
    """The row of a link of a span."""
    row = of.copy()
    row["meta"] = meta_word(LINK, 1, flags=SELECTED)
    row["trace_id"], row["span_id"], row["parent_id"] = np.void(trace_id), span_id, of["span_id"]
    return row


def attribute(of: Any, label: int, value_type: int, value: int) -> Any:
    """The row of an attribute of a span of the user."""
    row = of.copy()
    row["meta"] = meta_word(ATTRIBUTE, 1, flags=SELECTED) | label << LABEL_SHIFT
    row["f"], row["message_id"], row["fanout"], row["blame"] = value_type, value, value, label
    row["parent_id"] = of["span_id"]
    return row


@settings(max_examples=60)
@given(rows())
def test_spans_are_those_of_the_sdk_byte_for_byte(of_process: Any) -> None:
    chunks = [SpanRows(process(), ANCHOR, of_process)]
    request = RequestEncoder().encode(chunks, resource_of)
    wanted = expected(chunks)
    assert ExportTraceServiceRequest.FromString(request.spans) == wanted
    assert request.spans == wanted.SerializeToString()
    assert request.count == count_spans(of_process)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), rows(max_size=4)), max_size=6))
def test_spans_of_several_processes_are_grouped_and_keep_their_order(parts: list[tuple[int, Any]]) -> None:
    processes = [process(f"link-{number}") for number in range(3)]
    chunks = [SpanRows(processes[number], ANCHOR, of_process) for number, of_process in parts]
    request = RequestEncoder().encode(chunks, resource_of)
    assert ExportTraceServiceRequest.FromString(request.spans) == expected(chunks)


@settings(max_examples=60)
@given(rows(), rows())
def test_templates_of_earlier_requests_serve_later_ones(earlier: Any, later: Any) -> None:
    encoder = RequestEncoder()
    encoder.encode([SpanRows(process("link-1"), ANCHOR, earlier)], resource_of)
    other = process("link-2")
    other.labels.update({2: "KeyError", 3: "ELSEWHERE"})
    other.endpoints[2] = replace_endpoint(EDGE, topic="ANOTHER/TOPIC")
    chunks = [SpanRows(other, ANCHOR, later)]
    assert encoder.encode(chunks, resource_of).spans == expected(chunks).SerializeToString()


def replace_endpoint(endpoint: EndpointRecord, **changes: Any) -> EndpointRecord:
    fields = {name: getattr(endpoint, name) for name in endpoint.__struct_fields__}
    return EndpointRecord(**fields | changes)


def test_many_endpoints_and_long_ids_of_messages() -> None:
    of = process()
    for index in range(10, 200):
        of.endpoints[index] = replace_endpoint(EDGE, index=index, topic=f"TOPIC/{index}")
    made = np.frombuffer(span_rows(3000, index=2), SPAN_ROW).copy()
    numbers = np.arange(3000)
    made["meta"] = [meta_word(PROCESS, 10 + number % 190) for number in numbers.tolist()]
    made["message_id"] = numbers**5
    chunks = [SpanRows(of, ANCHOR, made)]
    assert RequestEncoder().encode(chunks, resource_of).spans == expected(chunks).SerializeToString()


def test_an_endpoint_that_is_explained_later_is_named_from_then_on() -> None:
    encoder, of = RequestEncoder(), process()
    chunks = [SpanRows.of(of, ANCHOR, span_rows(2, index=2))]
    del of.endpoints[2]
    encoder.encode(chunks, resource_of)
    of.endpoints[2] = EDGE
    assert encoder.encode(chunks, resource_of).spans == expected(chunks).SerializeToString()


def test_rows_that_cannot_be_read_are_left_out() -> None:
    made = np.frombuffer(span_rows(4), SPAN_ROW).copy()
    made["meta"][1] = meta_word(WAIT, 1)
    made["b"][3] = -(2**62)
    request = RequestEncoder().encode([SpanRows(process(), ANCHOR, made)], resource_of)
    (of_resource,) = ExportTraceServiceRequest.FromString(request.spans).resource_spans
    assert [span.span_id.hex() for span in of_resource.scope_spans[0].spans] == [span_ids(4)[0], span_ids(4)[2]]
    assert request.count == 2


def test_a_process_that_cannot_be_read_does_not_hold_up_others(caplog: pytest.LogCaptureFixture) -> None:
    def resource_of_some(of: Process) -> ProcessResource:
        if of.link_id == "link-bad":
            raise ValueError("no such process")
        return resource_of(of)

    chunks = [SpanRows.of(process(link), ANCHOR, span_rows(2)) for link in ("link-bad", "link-1")]
    for encoder in (RequestEncoder(), ObjectEncoder()):
        assert encoder.encode(chunks, resource_of_some).count == 2
    assert "2 spans of process link-bad cannot be read" in caplog.text


def test_two_anchors_of_one_process_date_their_own_rows() -> None:
    later = ClockAnchor("boot", ANCHOR.mono_ns, ANCHOR.unix_ns + SECONDS)
    of = process()
    chunks = [SpanRows.of(of, anchor, span_rows(1, number)) for number, anchor in ((1, ANCHOR), (2, later))]
    request = ExportTraceServiceRequest.FromString(RequestEncoder().encode(chunks, resource_of).spans)
    starts = [part.scope_spans[0].spans[0].start_time_unix_nano for part in request.resource_spans]
    assert starts[1] - starts[0] == SECONDS


def test_only_so_many_templates_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spanencoder, "MAX_TEMPLATES", 2)
    encoder, of = RequestEncoder(), process()
    made = np.frombuffer(span_rows(6), SPAN_ROW).copy()
    made["message_id"] = 10 ** np.arange(6)
    chunks = [SpanRows(of, ANCHOR, made)]
    assert encoder.encode(chunks, resource_of).spans == expected(chunks).SerializeToString()


def test_links_without_their_span_are_left_out() -> None:
    made = np.frombuffer(linked_rows(2, 1) + linked_rows(3, 10) + span_rows(1, 20), SPAN_ROW).copy()
    made["b"][3] = -(2**62)  # the second publish cannot be read: its links belong to none
    made["parent_id"][1] = 99
    request = RequestEncoder().encode([SpanRows(process(), ANCHOR, made)], resource_of)
    links = [[int(link.span_id.hex(), 16) for link in span.links] for span in exported_spans([request])]
    assert (links, request.count) == ([[3], []], 2)


def test_a_link_that_no_row_speaks_of_is_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A template has no place for it; whoever adds one to `expand_spans` learns it here."""
    caplog.set_level(logging.ERROR, "ezmsg.otel")
    expand = spanencoder.expand_spans
    monkeypatch.setattr(
        spanencoder,
        "expand_spans",
        lambda *args: [replace(span, links=[("ab" * 16, "cd" * 8)] * 2) for span in expand(*args)],
    )
    assert RequestEncoder().encode([SpanRows.of(process(), ANCHOR, span_rows(1))], resource_of).count == 0
    assert "has 2 links, and rows for 0" in caplog.text
