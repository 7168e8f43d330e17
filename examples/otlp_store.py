"""What an OTLP receiver got, and questions one may ask about it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Signal = Literal["traces", "metrics"]
Request = ExportTraceServiceRequest | ExportMetricsServiceRequest


@dataclass(frozen=True)
class Arrived:
    """One request: its signal, its headers (lower case), and what it said."""

    signal: Signal
    headers: Mapping[str, str]
    request: Request


@dataclass(frozen=True)
class SeenSpan:
    """A span, its attributes in Python's types, and the resource and scope it came with."""

    span: Span
    attributes: dict[str, Any]
    resource: dict[str, Any]
    scope: str

    @property
    def trace_id(self) -> str:
        return self.span.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent_span_id(self) -> str:
        return self.span.parent_span_id.hex()


@dataclass(frozen=True)
class SeenPoint:
    """A data point of a metric, its attributes in Python's types, and the resource it came with."""

    metric: Metric
    point: Any
    attributes: dict[str, Any]
    resource: dict[str, Any]

    @property
    def value(self) -> int | float:
        """The value of a number, the count of a histogram."""
        if not hasattr(self.point, "as_int"):
            return self.point.count
        return self.point.as_int if self.point.WhichOneof("value") == "as_int" else self.point.as_double


class Store:
    """Everything that arrived, in order. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arrived: list[Arrived] = []

    def add(self, signal: Signal, headers: Mapping[str, str], request: Request) -> None:
        with self._changed:
            self._arrived.append(Arrived(signal, headers, request))
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._arrived.clear()

    def take(self) -> Store:
        """All that is here, in a store of its own; this one is empty afterwards."""
        taken = Store()
        with self._changed:
            taken._arrived, self._arrived = self._arrived, []
        return taken

    def wait_for(self, is_enough: Callable[[], bool], timeout_s: float = 30.0) -> bool:
        """Wait until `is_enough()`; it is asked again whenever something arrives."""
        with self._changed:
            return self._changed.wait_for(is_enough, timeout_s)

    @property
    def arrived(self) -> list[Arrived]:
        with self._changed:
            return list(self._arrived)

    @property
    def spans(self) -> list[SeenSpan]:
        return [span for arrived in self.arrived for span in _spans_in(arrived.request)]

    def points(self, metric: str = "", **attributes: Any) -> list[SeenPoint]:
        """Data points in order of arrival: of one metric or all, with these attributes (`__` for `.`)."""
        wanted = {name.replace("__", "."): value for name, value in attributes.items()}
        found = (point for arrived in self.arrived for point in _points_in(arrived.request))
        return [
            point for point in found if metric in ("", point.metric.name) and wanted.items() <= point.attributes.items()
        ]

    def traces(self) -> dict[str, list[SeenSpan]]:
        """Spans by trace id, each trace in order of time."""
        traces: dict[str, list[SeenSpan]] = {}
        for span in sorted(self.spans, key=lambda seen: seen.span.start_time_unix_nano):
            traces.setdefault(span.trace_id, []).append(span)
        return traces

    def metric_names(self) -> set[str]:
        return {point.metric.name for point in self.points()}

    def service_names(self) -> set[str]:
        return {str(seen.resource.get("service.name", "")) for seen in (*self.spans, *self.points())}

    def summary(self) -> str:
        """A few lines for people."""
        spans, points = self.spans, self.points()
        names = Counter(span.span.name.partition(" ")[0] for span in spans)
        kinds = ", ".join(f"{count} {name}" for name, count in names.most_common(5))
        lines = (
            f"services: {', '.join(sorted(self.service_names())) or '-'}",
            f"spans: {len(spans)} in {len(self.traces())} traces ({kinds or '-'})",
            f"metrics: {len(self.metric_names())} names, {len(points)} data points",
        )
        return "\n".join(lines)


def _spans_in(request: Request) -> Iterator[SeenSpan]:
    if isinstance(request, ExportTraceServiceRequest):
        for of_resource in request.resource_spans:
            resource = _values(of_resource.resource.attributes)
            for of_scope in of_resource.scope_spans:
                for span in of_scope.spans:
                    yield SeenSpan(span, _values(span.attributes), resource, of_scope.scope.name)


def _points_in(request: Request) -> Iterator[SeenPoint]:
    if isinstance(request, ExportMetricsServiceRequest):
        for of_resource in request.resource_metrics:
            resource = _values(of_resource.resource.attributes)
            for of_scope in of_resource.scope_metrics:
                for metric in of_scope.metrics:
                    for point in getattr(metric, metric.WhichOneof("data") or "gauge").data_points:
                        yield SeenPoint(metric, point, _values(point.attributes), resource)


def _values(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in attributes}
