"""Spans of the OpenTelemetry API inside the graph, and traces that cross its borders."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from opentelemetry import context as api
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanContext

import ezmsg.otel
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import TraceSpan
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.profiling import ProfileRegistry
from ezmsg.core.pubclient import Publisher
from ezmsg.core.subclient import Subscriber
from ezmsg.otel import propagation

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"

tracer = TracerProvider(shutdown_on_exit=False).get_tracer("program")
silent = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False).get_tracer("program")


@pytest.fixture
def server() -> Iterator[GraphServer]:
    server = GraphServer()
    server.start("127.0.0.1:0")
    yield server
    server.stop()


@dataclass
class Graph:
    """A publisher, a subscriber that hears it, and what is recorded of them."""

    publisher: Publisher
    subscriber: Subscriber
    registry: ProfileRegistry

    def spans(self) -> list[TraceSpan]:
        return self.registry.trace_batch(1000, "test").spans

    def process(self) -> TraceSpan:
        """The span of the one message that was handled."""
        (found,) = (span for span in self.spans() if span.kind == "CONSUMER")
        return found


@pytest.fixture
async def graph(server: GraphServer) -> AsyncIterator[Graph]:
    """Every message begins a trace."""
    registry = ProfileRegistry()
    registry.set_trace_sampling(0.0, ratio=1.0)
    address = str(server.address)
    async with GraphContext(address) as context:
        await context.connect("OUT", "IN")
        publisher = await Publisher.create("OUT", address, profiles=registry)
        subscriber = await Subscriber.create("IN", address, profiles=registry)
        yield Graph(publisher, subscriber, registry)
        subscriber.close()
        publisher.close()
        await subscriber.wait_closed()
        await publisher.wait_closed()


def current() -> SpanContext:
    return trace.get_current_span().get_span_context()


def ids(span: SpanContext) -> tuple[str, str]:
    return f"{span.trace_id:032x}", f"{span.span_id:016x}"


def parent_of(span: trace.Span) -> tuple[str, str] | None:
    parent: SpanContext | None = getattr(span, "parent", None)
    return None if parent is None else ids(parent)


# -- inside the graph -------------------------------------------------------------------------------------------------


async def test_a_span_of_the_program_is_a_child_of_the_processing_it_is_opened_in(graph: Graph) -> None:
    await graph.publisher.broadcast(1)
    async with graph.subscriber.recv_zero_copy():
        with tracer.start_as_current_span("work") as work, tracer.start_as_current_span("detail") as detail:
            assert ids(current()) == ids(detail.get_span_context())
        handling = ids(current())
    process = graph.process()
    assert parent_of(work) == handling == (process.trace_id, process.span_id)
    assert parent_of(detail) == ids(work.get_span_context())
    assert not current().is_valid


async def test_after_a_plain_receive_spans_belong_to_the_message_received_last(graph: Graph) -> None:
    await graph.publisher.broadcast(1)
    await graph.subscriber.recv()
    with tracer.start_as_current_span("work") as work:
        pass
    process = graph.process()
    assert parent_of(work) == (process.trace_id, process.span_id)


async def test_without_a_trace_the_program_has_its_own_context(graph: Graph) -> None:
    graph.registry.set_trace_sampling(0.0)
    await graph.publisher.broadcast(1)
    with tracer.start_as_current_span("around") as around:
        async with graph.subscriber.recv_zero_copy():
            assert ids(current()) == ids(around.get_span_context())
            with tracer.start_as_current_span("work") as work:
                pass
    assert parent_of(work) == ids(around.get_span_context())


@pytest.mark.parametrize("is_plain", [True, False])
async def test_a_message_without_a_trace_is_not_in_that_of_the_one_before_it(graph: Graph, is_plain: bool) -> None:
    """What it publishes would be: it may follow from both."""
    await graph.publisher.broadcast(1)
    graph.registry.set_trace_sampling(0.0)
    await graph.publisher.broadcast(2)
    for has_trace in (True, False):
        if is_plain:
            await graph.subscriber.recv()
            assert current().is_valid == has_trace
            continue
        async with graph.subscriber.recv_zero_copy():
            assert current().is_valid == has_trace


async def test_what_was_made_current_last_is_current(graph: Graph) -> None:
    with tracer.start_as_current_span("around") as around:
        for number in range(2):
            await graph.publisher.broadcast(number)
        async with graph.subscriber.recv_zero_copy():
            first = ids(current())
            with tracer.start_as_current_span("within") as within:
                async with graph.subscriber.recv_zero_copy():
                    second = ids(current())
                assert ids(current()) == ids(within.get_span_context())
            assert ids(current()) == first
        assert ids(current()) == ids(around.get_span_context())
    handled = [(span.trace_id, span.span_id) for span in graph.spans() if span.kind == "CONSUMER"]
    assert sorted([first, second]) == sorted(handled)


async def test_tasks_and_threads_begun_in_a_message_belong_to_it(graph: Graph) -> None:
    await graph.publisher.broadcast(1)

    async def task() -> tuple[str, str]:
        return ids(current())

    async with graph.subscriber.recv_zero_copy():
        found = {await asyncio.create_task(task()), await asyncio.to_thread(lambda: ids(current()))}
    process = graph.process()
    assert found == {(process.trace_id, process.span_id)}


async def test_log_records_join_the_trace(graph: Graph) -> None:
    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    await graph.publisher.broadcast(1)
    async with graph.subscriber.recv_zero_copy():
        provider.get_logger("program").emit(body="seen")
    (record,) = (log.log_record for log in exporter.get_finished_logs())
    process = graph.process()
    assert record.trace_id is not None
    assert record.span_id is not None
    assert (f"{record.trace_id:032x}", f"{record.span_id:016x}") == (process.trace_id, process.span_id)
    provider.shutdown()


async def test_a_trace_that_begins_within_a_span_of_the_program_is_part_of_its_trace(graph: Graph) -> None:
    with tracer.start_as_current_span("request") as request:
        await graph.publisher.broadcast(1)
    with silent.start_as_current_span("not sampled"):
        await graph.publisher.broadcast(2)
    first, second = graph.spans()
    assert (first.trace_id, first.parent_span_id) == ids(request.get_span_context())
    assert second.parent_span_id is None


async def test_a_span_within_a_message_does_not_come_between_it_and_what_is_published(graph: Graph) -> None:
    await graph.publisher.broadcast(1)
    async with graph.subscriber.recv_zero_copy():
        with tracer.start_as_current_span("work"):
            await graph.publisher.broadcast(2)
    by_parent = {span.parent_span_id: span for span in graph.spans() if span.kind == "PRODUCER"}
    process = graph.registry.trace_batch(1000, "again").spans
    (handled,) = (span for span in process if span.kind == "CONSUMER")
    assert by_parent[handled.span_id].trace_id == handled.trace_id


# -- over its borders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["traceparent", "Traceparent"])
async def test_a_publisher_continues_a_trace_from_outside_whatever_the_rate(graph: Graph, name: str) -> None:
    graph.registry.set_trace_sampling(0.0)
    with ezmsg.otel.extract({name: SAMPLED}):
        for number in range(2):
            await graph.publisher.broadcast(number)
    await graph.publisher.broadcast(3)
    assert [(span.trace_id, span.parent_span_id) for span in graph.spans()] == [(TRACE, PARENT)] * 2


async def test_what_was_not_sampled_outside_is_not_sampled_here(graph: Graph) -> None:
    with ezmsg.otel.extract({"traceparent": UNSAMPLED}):
        await graph.publisher.broadcast(1)
    assert graph.spans() == []


@pytest.mark.parametrize("headers", [{}, {"traceparent": "nonsense"}, {"traceparent": f"00-{'0' * 32}-{PARENT}-01"}])
async def test_without_a_valid_header_a_trace_begins_here(graph: Graph, headers: dict[str, str]) -> None:
    with ezmsg.otel.extract(headers):
        await graph.publisher.broadcast(1)
    (span,) = graph.spans()
    assert span.parent_span_id is None
    assert span.trace_id != TRACE


async def test_the_age_of_what_came_from_outside_begins_with_its_publish(graph: Graph) -> None:
    with ezmsg.otel.extract({"traceparent": SAMPLED}):
        await graph.publisher.broadcast(1)
    async with graph.subscriber.recv_zero_copy():
        pass
    assert float(graph.process().attributes["ezmsg.message.age"]) >= 0


async def test_a_sink_carries_the_trace_on(graph: Graph) -> None:
    headers: dict[str, str] = {}
    within: dict[str, str] = {}
    with ezmsg.otel.extract({"traceparent": SAMPLED}):
        await graph.publisher.broadcast(1)
    async with graph.subscriber.recv_zero_copy():
        ezmsg.otel.inject(headers)
        with tracer.start_as_current_span("call") as call:
            ezmsg.otel.inject(within)
    process = graph.process()
    assert process.trace_id == TRACE
    assert headers == {"traceparent": f"00-{TRACE}-{process.span_id}-01"}
    assert within == {"traceparent": f"00-{TRACE}-{ids(call.get_span_context())[1]}-01"}


async def test_without_a_trace_nothing_is_carried_on(graph: Graph) -> None:
    graph.registry.set_trace_sampling(0.0)
    headers: dict[str, str] = {}
    ezmsg.otel.inject(headers)
    await graph.publisher.broadcast(1)
    async with graph.subscriber.recv_zero_copy():
        ezmsg.otel.inject(headers)
    assert headers == {}


async def test_a_trace_passes_from_a_request_to_the_next_without_a_message() -> None:
    headers: dict[str, str] = {}
    with ezmsg.otel.extract({"traceparent": SAMPLED}):
        ezmsg.otel.inject(headers)
        assert ids(current()) == (TRACE, PARENT)
    assert headers == {"traceparent": SAMPLED}
    assert not current().is_valid


# -- how it is done ---------------------------------------------------------------------------------------------------


def test_it_is_installed_once() -> None:
    before = getattr(api, "_RUNTIME_CONTEXT")  # noqa: B009 - private
    propagation.install()
    assert getattr(api, "_RUNTIME_CONTEXT") is before  # noqa: B009
    assert isinstance(before, propagation.JoinedContext)


def test_where_opentelemetry_keeps_its_context_elsewhere_that_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "ezmsg.otel")
    monkeypatch.delattr(api, "_RUNTIME_CONTEXT")
    propagation.install()
    assert "do not join ours" in caplog.text
