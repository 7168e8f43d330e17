"""What does not arrive, and why: a line each, to be deleted when it does; a line that is not true fails a test."""

from __future__ import annotations

from ezmsg.otel.semconv import MetricKind, MetricSpec


def pending(name: str, kind: MetricKind, unit: str) -> MetricSpec:
    """A metric that is to come, by what is needed for its name in Prometheus."""
    return MetricSpec(name, kind, unit, "", (), "")


PENDING: dict[MetricSpec, str] = {}
"""For example `pending("process.cpu.time", "counter", "s"): "not sent yet"`; then dashboards may ask for it already."""

# fmt: off
NEVER_SEEN: dict[tuple[str, str], str] = {
}
"""Attributes of metrics that arrive without them."""
# fmt: on

EMPTY_WHEN_HEALTHY: dict[str, str] = {
    "Settings A": "a change of settings",
    "Operations refused A": "an edge that closes a cycle",
    "Requests to processes, p99 A": "a request to a process",
    "Requests failed A": "a setting that is unknown, a process that is killed",
    "Who holds the publisher up A": "a slow subscriber",
    "Waits for a free slot A": "a slow subscriber",
    "Waits for a free slot B": "a slow subscriber",
    "Who causes the waiting A": "a slow subscriber",
    "Clocks that disagree A": "a process on another host",
    "Drops by edge A": "a leaky subscriber",
    "Errors by task A": "an error",
    "Errors A": "an error",
    "Spans of the program A": "a program with spans of its own",
    "Alerts A": "each of the faults",
    "annotation Alerts": "each of the faults",
    "annotation Settings": "a change of settings",
}
"""Queries that have nothing to say of a graph in which nothing is wrong, and what is planted so that they have."""

NEVER_SEEN_BAD: dict[str, str] = {
    "File descriptors": "800 of them would say nothing that 30 do not",
    "CPU": "a whole core is what a test may not count on",
    "Cost of telemetry": "the same: it takes tens of thousands of messages a second",
}
"""Panels that are not shown beyond their first threshold."""
