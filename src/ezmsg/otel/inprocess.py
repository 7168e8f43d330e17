"""`EZMSG_OTEL=global`: what this process measures goes into the OpenTelemetry providers that its program has set.

The process's telemetry link tells its server everything it measured; in this mode it is heard here as well. Spans wait
in a pipeline of their own for the tracer provider, numbers are shown by observable instruments, histograms join what
the program's metric readers export.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics.export import ExponentialHistogram, Metric

from ezmsg.core.telemetry import pump
from ezmsg.core.telemetry.extension import GraphListener
from ezmsg.core.wire.records import GraphState, ProcessTelemetry, ServerTelemetry
from ezmsg.otel import semconv
from ezmsg.otel.collector import Collector
from ezmsg.otel.ledger import Ledger
from ezmsg.otel.providers import ProviderSender, Readers, TraceSpanEncoder
from ezmsg.otel.registry import Registry
from ezmsg.otel.resource import ResourceFactory
from ezmsg.otel.settings import Settings, Signal, SignalSettings, sdk_is_disabled
from ezmsg.otel.spanpipeline import SpanPipeline

SPAN_DELAY_S: Final = 0.2
SPAN_BATCH: Final = 512
"""What the SDK's batch processor exports at once; its queue holds four times as much."""
FRESH_S: Final = 0.1
"""Instruments that are read one after the other see the values of one moment."""
FLUSH_S: Final = 0.5
PROVIDER_FLUSH_S: Final = 1.0
_LINK: Final = "this process"

logger = logging.getLogger("ezmsg.otel")


class InProcess:
    """Hears what the links of this process tell, and keeps it for the providers."""

    def __init__(self) -> None:
        self._registry, self._ledger = Registry(ResourceFactory()), Ledger()
        nowhere = SignalSettings("traces", "none"), SignalSettings("metrics", "none")
        settings = Settings(*nowhere, span_delay_s=SPAN_DELAY_S, span_batch=SPAN_BATCH)
        self._sender = ProviderSender(self._provider_found)
        self._spans = SpanPipeline(self._sender, TraceSpanEncoder(), self._registry.resource, self._ledger, settings)
        self._collector = Collector(self._registry, self._ledger, self._queues, time.time_ns())
        self._lock = threading.Lock()
        self._metrics: dict[str, Metric] = {}
        self._metrics_at_s = -FRESH_S
        self._spans.start()
        self._sender.look()

    def hear(self, telemetry: ProcessTelemetry) -> None:
        """Take over what a link told. In the link's thread; never raises, and waits only for the last spans."""
        try:
            # The links of all graphs share numbers and counters: to the providers they are one.
            batch = msgspec.structs.replace(telemetry.batch, final=False)
            process = self._registry.apply(ProcessTelemetry(_LINK, telemetry.anchor, batch))
            self._sender.look()
            if batch.spans:
                self._spans.offer(process, telemetry.anchor, batch.spans)
            if telemetry.batch.final:
                self._finish_child()
        except Exception:
            logger.exception("what the telemetry link told could not be taken over")

    def graph_listener(self) -> GraphListener:
        """Who hears, in its thread, what one more GraphServer of this process knows."""
        server = object()

        def hear(record: GraphState | ServerTelemetry | None) -> None:
            if record is None:
                self._registry.end_server(server)
            else:
                self._registry.tell(record, server)

        return hear

    def metrics(self) -> dict[str, Metric]:
        """Everything at this moment (to within 0.1 s), by name."""
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._metrics_at_s >= FRESH_S:
                processes, graph = self._registry.look()
                made = [self._collector.collect_one(process, time.time_ns()) for process in processes]
                made.append(self._collector.collect_graph(processes, graph, time.time_ns()))
                self._metrics = {metric.name: metric for of_process in made for metric in of_process}
                self._metrics_at_s = now_s
            return self._metrics

    def flush(self, timeout_s: float) -> bool:
        """Hand over the spans that wait; whether the provider took them in time. Numbers are read anew after this."""
        with self._lock:
            self._metrics_at_s = -FRESH_S
        return self._spans.flush(timeout_s)

    def _queues(self) -> dict[Signal, tuple[int, int]]:
        return {"traces": (self._spans.usage, self._spans.limit)}

    def _provider_found(self) -> None:
        # Exit handlers run in reverse order: ours before that of the provider, which registered it when it was made.
        atexit.register(finish)
        # Spans that waited for it need not wait until the next try.
        self._spans.flush(0.0)

    def _finish_child(self) -> None:
        """A child of `multiprocessing` runs no exit handlers: what its providers hold would be lost."""
        if multiprocessing.parent_process() is not None:
            self.flush(FLUSH_S)
            providers: list[Any] = [trace.get_tracer_provider(), metrics.get_meter_provider()]
            flushing = threading.Thread(target=_flush_providers, args=[providers], daemon=True)
            flushing.start()
            flushing.join(PROVIDER_FLUSH_S)


def _flush_providers(providers: Iterable[Any]) -> None:
    for provider in providers:
        if (flush := getattr(provider, "force_flush", None)) is not None:
            try:
                flush()
            except Exception:
                logger.debug("a provider could not be flushed", exc_info=True)


_starting = threading.Lock()
_current: InProcess | None = None
_instruments: list[Any] = []


def start() -> Callable[[ProcessTelemetry], None] | None:
    """Feed the providers of this process from now on; returns who is to hear what its links tell."""
    started = _start()
    return None if started is None else started.hear


def start_graph() -> GraphListener | None:
    """The same, where a GraphServer runs; returns who is to hear what it knows of its graph."""
    started = _start()
    return None if started is None else started.graph_listener()


def _start() -> InProcess | None:
    global _current
    if sdk_is_disabled():
        return None
    with _starting:
        if _current is None:
            _current = InProcess()
            if not _instruments:
                _register_instruments()
        return _current


def flush(timeout_s: float = 1.0) -> bool:
    """Hand over to the providers what was recorded so far; whether that was done in time."""
    deadline_s = time.monotonic() + timeout_s
    is_told = pump.flush(timeout_s)
    return (_current is None or _current.flush(max(0.0, deadline_s - time.monotonic()))) and is_told


def finish() -> None:
    """The interpreter exits: say goodbye to the servers, and hand over the last spans while the provider takes them."""
    pump.shutdown()
    if _current is not None:
        _current.flush(FLUSH_S)


# -- instruments: registered once, also for children that are forked later --------------------------------------------


def _register_instruments() -> None:
    meter = metrics.get_meter(semconv.SCOPE_NAME, semconv.SCOPE_VERSION, schema_url=semconv.SCHEMA_URL)
    create: dict[str, Callable[..., Any]] = {
        "counter": meter.create_observable_counter,
        "updowncounter": meter.create_observable_up_down_counter,
        "gauge": meter.create_observable_gauge,
    }
    readers = Readers(_histograms)
    specs = {spec.name: spec for spec in semconv.METRICS if spec.kind != "histogram"}
    for name, spec in specs.items():
        _instruments.append(create[spec.kind](name, [_observer(name, readers)], spec.unit, spec.description))


def _observer(name: str, readers: Readers) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        readers.equip()
        metric = _metrics().get(name)
        if metric is None:
            return []
        return [Observation(point.value, point.attributes) for point in metric.data.data_points]  # type: ignore[union-attr]

    return observe


def _histograms() -> list[Metric]:
    return [metric for metric in _metrics().values() if isinstance(metric.data, ExponentialHistogram)]


def _metrics() -> dict[str, Metric]:
    return {} if _current is None else _current.metrics()


def _forget() -> None:
    global _current, _starting
    _current, _starting = None, threading.Lock()


os.register_at_fork(after_in_child=_forget)
