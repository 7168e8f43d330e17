"""What else may measure a graph: its native trace, or OpenTelemetry by hand. Each wraps a wiring of ezmsg.

`BENCH_INSTRUMENT` names one of them for a worker and all its partners.
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractAsyncContextManager
from typing import Any

from measures import Receive, Send

METRIC_INTERVAL_MS = 1000.0
REQUEST_TIMEOUT_S = 60.0


class NativeTrace:
    """Every metric of every message, as GET_PROFILING_TRACE_BATCH and streams show them; ours and upstream alike."""

    may_lose = False

    def __init__(self, wires: Any) -> None:
        self._wires = wires

    @property
    def addresses(self) -> dict[str, Any]:
        return self._wires.addresses

    async def __aenter__(self) -> NativeTrace:
        from ezmsg.core.graphmeta import ProfilingTraceControl
        from ezmsg.core.processclient import ProcessControlClient

        await self._wires.__aenter__()
        unit = f"BENCH/{os.getpid()}"
        self._process = ProcessControlClient(tuple(self._wires.addresses["server"]))
        await self._process.connect()
        await self._process.register([unit])
        answer = await self._wires.context.process_set_profiling_trace(
            unit, ProfilingTraceControl(enabled=True), timeout=REQUEST_TIMEOUT_S
        )
        if not answer.ok:
            raise RuntimeError(f"the trace could not be set: {answer.error}")
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._process.close()
        await self._wires.__aexit__(*exc_info)

    async def sender(self, lane: str, receivers: int = 1) -> Send:
        return await self._wires.sender(lane, receivers)

    async def receivers(self, lane: str, count: int = 1, first: int = 0) -> list[Receive]:
        return await self._wires.receivers(lane, count, first)


class ByHand:
    """The SDK as a program would use it: a span at each end with its context in the message, counters, histograms.

    With `endpoint` the exporters of the SDK send everything there, from their threads; without, nobody exports.
    """

    may_lose = False

    def __init__(self, wires: Any, endpoint: str = "") -> None:
        self._wires = wires
        self._endpoint = endpoint

    @property
    def addresses(self) -> dict[str, Any]:
        return self._wires.addresses

    async def __aenter__(self) -> ByHand:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        spans, metrics = _exporters(self._endpoint)
        self._traces = TracerProvider()
        self._traces.add_span_processor(BatchSpanProcessor(spans))
        self._meters = MeterProvider([PeriodicExportingMetricReader(metrics, METRIC_INTERVAL_MS)])
        self._tracer = self._traces.get_tracer("bench")
        await self._wires.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        await self._wires.__aexit__(*exc_info)
        self._traces.shutdown()
        self._meters.shutdown()

    async def sender(self, lane: str, receivers: int = 1) -> Send:
        from opentelemetry.propagate import inject
        from opentelemetry.trace import SpanKind

        send, tracer = await self._wires.sender(lane, receivers), self._tracer
        meter = self._meters.get_meter("bench")
        sent = meter.create_counter("messaging.client.sent.messages")
        duration = meter.create_histogram("messaging.client.operation.duration", "s")
        of_metrics = {"messaging.destination.name": lane}
        of_spans = {"messaging.system": "ezmsg", "messaging.operation.name": "publish", **of_metrics}
        number = 0

        async def send_measured(message: Any) -> None:
            nonlocal number
            if message is None:
                await send(None)
                return
            began_ns = time.perf_counter_ns()
            with tracer.start_as_current_span(f"publish {lane}", kind=SpanKind.PRODUCER, attributes=of_spans) as span:
                carrier: dict[str, str] = {}
                inject(carrier)
                span.set_attribute("messaging.message.id", str(number))
                await send((carrier, number, began_ns, message))
            number += 1
            sent.add(1, of_metrics)
            duration.record((time.perf_counter_ns() - began_ns) / 1e9, of_metrics)

        return send_measured

    async def receivers(self, lane: str, count: int = 1, first: int = 0) -> list[Receive]:
        ends = await self._wires.receivers(lane, count, first)
        return [_ReceivingByHand(receive, lane, self._tracer, self._meters.get_meter("bench")) for receive in ends]


class _ReceivingByHand(AbstractAsyncContextManager[Any]):
    """Calling and entering it receives a message, as `recv_zero_copy` does, and opens a span until it is left."""

    def __init__(self, receive: Receive, lane: str, tracer: Any, meter: Any) -> None:
        self._receive, self._tracer, self._name = receive, tracer, f"process {lane}"
        self._consumed = meter.create_counter("messaging.client.consumed.messages")
        self._duration = meter.create_histogram("messaging.process.duration", "s")
        self._age = meter.create_histogram("ezmsg.message.age", "s")
        self._of_metrics = {"messaging.destination.name": lane, "messaging.destination.subscription.name": lane}
        self._of_spans = {"messaging.system": "ezmsg", "messaging.operation.name": "process", **self._of_metrics}
        self._span: Any = None

    def __call__(self) -> _ReceivingByHand:
        return self

    async def __aenter__(self) -> Any:
        from opentelemetry import context, trace
        from opentelemetry.propagate import extract

        self._lease = self._receive()
        found = await self._lease.__aenter__()
        if found is None:
            return None
        carrier, number, published_ns, message = found
        self._began_ns = time.perf_counter_ns()
        attributes = self._of_spans | {"messaging.message.id": str(number)}
        self._span = self._tracer.start_span(
            self._name, extract(carrier), kind=trace.SpanKind.CONSUMER, attributes=attributes
        )
        self._token = context.attach(trace.set_span_in_context(self._span))
        self._age.record((self._began_ns - published_ns) / 1e9, self._of_metrics)
        return message

    async def __aexit__(self, *exc_info: Any) -> None:
        if self._span is not None:
            from opentelemetry import context

            context.detach(self._token)
            self._span.end()
            self._span = None
            self._consumed.add(1, self._of_metrics)
            self._duration.record((time.perf_counter_ns() - self._began_ns) / 1e9, self._of_metrics)
        await self._lease.__aexit__(*exc_info)


def _exporters(endpoint: str) -> tuple[Any, Any]:
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    if endpoint:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        return OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces"), OTLPMetricExporter(endpoint=f"{endpoint}/v1/metrics")

    class NoSpans(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    class NoMetrics(MetricExporter):
        def export(self, metrics_data: Any, timeout_millis: float = 0, **kwargs: Any) -> MetricExportResult:
            return MetricExportResult.SUCCESS

        def force_flush(self, timeout_millis: float = 0) -> bool:
            return True

        def shutdown(self, timeout_millis: float = 0, **kwargs: Any) -> None:
            pass

    return NoSpans(), NoMetrics()


INSTRUMENTS = {"native-trace": NativeTrace, "by-hand": ByHand}
