"""What does not arrive yet, and why: a line each, to be deleted when it does; a line that is not true fails a test."""

from __future__ import annotations

from ezmsg.otel.semconv import MetricSpec


def _pending(name: str, kind: str, unit: str) -> MetricSpec:
    return MetricSpec(name, kind, unit, "", (), "")  # type: ignore[arg-type]


# fmt: off
PENDING: dict[MetricSpec, str] = {
}
"""Metrics, by what is needed for their names in Prometheus."""

NEVER_SEEN: dict[tuple[str, str], str] = {
    ("ezmsg.publisher.serialize.duration", "ezmsg.channel.kind"): "a message is serialized once for all channels",
    ("ezmsg.task.span.duration", "ezmsg.unit.address"): "units have no way to open a span, other programs have",
    ("ezmsg.task.span.duration", "ezmsg.task.name"): "likewise",
}
"""Attributes of metrics that arrive without them."""
# fmt: on
