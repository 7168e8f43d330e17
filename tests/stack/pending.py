"""What does not arrive yet, and why: a line each, to be deleted when it does; a line that is not true fails a test."""

from __future__ import annotations

from ezmsg.otel.semconv import MetricKind, MetricSpec


def pending(name: str, kind: MetricKind, unit: str) -> MetricSpec:
    """A metric that is to come, by what is needed for its name in Prometheus."""
    return MetricSpec(name, kind, unit, "", (), "")


PENDING: dict[MetricSpec, str] = {}
"""For example `pending("process.cpu.time", "counter", "s"): "not sent yet"`; then dashboards may ask for it already."""

# fmt: off
NEVER_SEEN: dict[tuple[str, str], str] = {
    ("ezmsg.publisher.serialize.duration", "ezmsg.channel.kind"): "a message is serialized once for all channels",
}
"""Attributes of metrics that arrive without them."""
# fmt: on
