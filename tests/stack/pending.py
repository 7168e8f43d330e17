"""What does not arrive yet, and why: a line each, to be deleted when it does; a line that is not true fails a test."""

from __future__ import annotations

from ezmsg.otel.semconv import MetricSpec


def _pending(name: str, kind: str, unit: str) -> MetricSpec:
    return MetricSpec(name, kind, unit, "", (), "")  # type: ignore[arg-type]


_MEASURED = "what a process measures of itself, not sent yet"
_CONTROL = "what the control plane measures, not sent yet"

# fmt: off
PENDING: dict[MetricSpec, str] = {
    _pending("ezmsg.subscriber.queue.depth", "gauge", "{message}"): _MEASURED,
    _pending("ezmsg.task.busy.time", "counter", "s"): _MEASURED,
    _pending("ezmsg.event_loop.lag", "histogram", "s"): _MEASURED,
    _pending("process.cpu.time", "counter", "s"): _MEASURED,
    _pending("process.memory.usage", "updowncounter", "By"): _MEASURED,
    _pending("process.thread.count", "updowncounter", "{thread}"): _MEASURED,
    _pending("process.unix.file_descriptor.count", "updowncounter", "{file_descriptor}"): _MEASURED,
    _pending("cpython.gc.collections", "counter", "{collection}"): _MEASURED,
    _pending("ezmsg.telemetry.overhead", "gauge", "1"): _MEASURED,
    _pending("ezmsg.graph.backpressure.culprit", "counter", "s"): _CONTROL,
    _pending("ezmsg.graph.operation.duration", "histogram", "s"): _CONTROL,
    _pending("ezmsg.process.control.duration", "histogram", "s"): _CONTROL,
    _pending("ezmsg.settings.updates", "counter", "{update}"): _CONTROL,
}
"""Metrics, by what is needed for their names in Prometheus."""

NEVER_SEEN: dict[tuple[str, str], str] = {
    ("ezmsg.publisher.serialize.duration", "ezmsg.channel.kind"): "a message is serialized once for all channels",
    ("ezmsg.task.span.duration", "ezmsg.unit.address"): "units have no way to open a span, other programs have",
    ("ezmsg.task.span.duration", "ezmsg.task.name"): "likewise",
}
"""Attributes of metrics that arrive without them."""
# fmt: on
