"""How metrics and attributes of the table are called in Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from ezmsg.otel.semconv import MetricSpec

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
