"""A program with a graph, and maybe with an SDK of its own: `python program.py COUNT [OPTION ...]`.

It sends COUNT messages to itself, in one process, with a GraphServer of its own, and opens a span of the OpenTelemetry
API for each message that it receives. At the end it prints, as JSON, the native spans and the sampled spans of its own.

    sdk         build an SDK by hand, before anything of the graph
    late        the same, when the messages have been sent
    fork        do it all in a child of multiprocessing
    import      import ezmsg.otel
    graphs      have a graph of edges alone before, and another one at the same time
    wait        end when standard input does
    shutdown    shut the SDK down by hand, as many programs do
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import sys
from collections.abc import AsyncIterator
from typing import Any

from opentelemetry import metrics, trace

import ezmsg.core as ez
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.profiling import PROFILES

OPTIONS = set(sys.argv[2:])


def build_sdk() -> None:
    """As the documentation of OpenTelemetry shows it."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))


@contextlib.asynccontextmanager
async def other_graph(source: str, target: str) -> AsyncIterator[None]:
    """A graph that has nothing but an edge."""
    server = GraphServer()
    await asyncio.to_thread(server.start, "127.0.0.1:0")
    async with ez.GraphContext(server.address) as graph:
        await graph.connect(source, target)
        yield
    await asyncio.to_thread(server.stop)


async def run(count: int) -> dict[str, Any]:
    """Send and receive; returns what was seen."""
    async with contextlib.AsyncExitStack() as others:
        if "graphs" in OPTIONS:
            async with other_graph("PAST", "GONE"):
                pass
            await others.enter_async_context(other_graph("BESIDE", "THAT"))
        return await run_graph(count)


async def run_graph(count: int) -> dict[str, Any]:
    tracer, own = trace.get_tracer("program"), []
    server = GraphServer()
    await asyncio.to_thread(server.start, "127.0.0.1:0")
    async with ez.GraphContext(server.address) as graph:
        subscriber = await graph.subscriber("IN")
        publisher = await graph.publisher("OUT")
        await graph.connect("OUT", "IN")
        for number in range(count):
            await publisher.broadcast(number)
            async with subscriber.recv_zero_copy() as message:
                assert message == number
                with tracer.start_as_current_span("work") as span:
                    context = span.get_span_context()
                    parent = getattr(span, "parent", None)
                    own.append([f"{context.trace_id:032x}", None if parent is None else f"{parent.span_id:016x}"])
        if "late" in OPTIONS:
            build_sdk()
        if "wait" in OPTIONS:
            await asyncio.to_thread(sys.stdin.read)
        spans = PROFILES.trace_batch(1_000_000, "test").spans
    if "shutdown" in OPTIONS:
        from ezmsg.otel import flush

        assert await asyncio.to_thread(flush, 10.0)
        trace.get_tracer_provider().shutdown()  # type: ignore[attr-defined]
        metrics.get_meter_provider().shutdown()  # type: ignore[attr-defined]
    await asyncio.to_thread(server.stop)
    return {"native": [[span.trace_id, span.span_id, span.name] for span in spans], "own": own}


def main() -> None:
    print(json.dumps(asyncio.run(run(int(sys.argv[1])))), flush=True)


def child() -> None:
    from ezmsg.core.telemetry import pump

    main()
    pump.shutdown()  # as whoever runs units in children does


if __name__ == "__main__":
    if "import" in OPTIONS:
        import ezmsg.otel  # noqa: F401
    if "sdk" in OPTIONS:
        build_sdk()
    if "fork" in OPTIONS:
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join()
    else:
        main()
