"""How metrics and attributes of the table are called in Prometheus, and which of them a query names."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ezmsg.otel.semconv import METRICS, MetricSpec
from tests.stack.pending import PENDING

UNITS = {"s": "_seconds", "By": "_bytes", "1": "_ratio"}
# Of the resource, and of Prometheus itself: on every series.
COMMON = {"__name__", "job", "instance", "host_name", "ezmsg_process_name"}


def in_prometheus(spec: MetricSpec) -> str:
    """The name of a metric."""
    name = spec.name.replace(".", "_") + UNITS.get(spec.unit, "")
    return name + "_total" if spec.kind == "counter" else name


def label(attribute: str) -> str:
    """The name of an attribute."""
    return attribute.replace(".", "_")


def by_name(specs: Iterable[MetricSpec]) -> dict[str, list[MetricSpec]]:
    """The specs of each metric; one may be fed by several."""
    found: dict[str, list[MetricSpec]] = {}
    for spec in specs:
        found.setdefault(spec.name, []).append(spec)
    return found


def attributes_of(specs: Iterable[MetricSpec]) -> set[str]:
    """All attributes that a metric may have."""
    names: set[str] = set()
    for spec in specs:
        names |= {*spec.attributes, *dict(spec.constants), *([spec.label] if spec.label else [])}
    return names


_METRIC = re.compile(r"\b(?:ezmsg|messaging_client|messaging_process|process|cpython|otelcol)[a-z0-9_:]*(?=[{)\[ ,]|$)")
_LABELS = re.compile(r"\{[^}]*\}|(?:by|on|ignoring|group_left|group_right) *\([^)]*\)|\"[^\"]*\"")
_OF_COLLECTOR = {
    "otelcol_exporter_sent_metric_points",
    "otelcol_exporter_sent_spans",
    "otelcol_exporter_queue_size",
    "otelcol_exporter_queue_capacity",
    # These two begin with the first failure.
    "otelcol_exporter_send_failed_metric_points",
    "otelcol_exporter_send_failed_spans",
}
NOT_YET = {in_prometheus(spec) for spec in PENDING}
"""Metrics that a query may name, and which have no data yet."""


def metrics_in(expr: str) -> set[str]:
    """The metrics a query names."""
    return set(_METRIC.findall(_LABELS.sub(" ", expr.replace("{", " {"))))


def known_metrics() -> set[str]:
    """Everything that arrives or will."""
    return {in_prometheus(spec) for spec in METRICS} | NOT_YET | _OF_COLLECTOR
