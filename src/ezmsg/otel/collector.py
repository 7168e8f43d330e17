"""From what is known of the graph to the metrics of one export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from opentelemetry.sdk.metrics.export import Metric, MetricsData, ResourceMetrics, ScopeMetrics

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.recorder.rows import CHANNELS, PROCESS_INDEX, SEPARATOR
from ezmsg.core.wire.records import EndpointRecord, GraphState, ServerTelemetry, process_key
from ezmsg.otel import semconv
from ezmsg.otel.culprits import Culprits
from ezmsg.otel.farewell import Farewell, Info
from ezmsg.otel.ledger import Ledger
from ezmsg.otel.points import OVERFLOW_SET, Admission, AttributeSet, Points, count_points
from ezmsg.otel.registry import Registry
from ezmsg.otel.resource import ProcessResource
from ezmsg.otel.semconv import MetricSpec
from ezmsg.otel.settings import Signal
from ezmsg.otel.spans import SCOPE
from ezmsg.otel.state import REST, AnyHistogram, HistogramKey, Process

QueueLevels = Callable[[], Mapping[Signal, tuple[int, int]]]
"""Items that wait, and that may wait, by signal."""

_PUBLISHER, _EDGE = semconv.fed_by("publisher"), semconv.fed_by("edge")
_HISTOGRAM, _SCOPE = semconv.fed_by("histogram"), semconv.fed_by("scope")
_SERVER = semconv.fed_by("server")
_KINDS = {code: kind.value.lower() for code, kind in enumerate(CHANNELS) if kind is not ProfileChannelType.UNKNOWN}


@dataclass(frozen=True, slots=True)
class Collection:
    """What one export sends: `points` data points, and the last values of the processes in `ended`."""

    data: MetricsData
    points: int
    ended: list[str]


class Collector:
    """Makes the metrics of the graph, one resource for each process and one for the agent."""

    def __init__(self, registry: Registry, ledger: Ledger, queues: QueueLevels, started_ns: int) -> None:
        self._registry = registry
        self._ledger = ledger
        self._queues = queues
        self._started_ns = started_ns
        self._admissions: dict[str, Admission] = {}
        self._own_admission = Admission()
        self._farewell = Farewell()
        self._culprits = Culprits()

    def collect(self, now_ns: int) -> Collection:
        """Everything at this moment; exemplars only if they are new since the last call."""
        processes, graph = self._registry.look()
        of_processes = [
            _resource_metrics(self._registry.resource(process), self._process_metrics(process, now_ns))
            for process in processes
        ]
        own = _resource_metrics(self._registry.agent_resource(), self._own_metrics(processes, graph, now_ns))
        known = {process.link_id for process in processes}
        self._admissions = {link: kept for link, kept in self._admissions.items() if link in known}
        made = [*of_processes, own]
        points = sum(count_points(scope.metrics) for resource in made for scope in resource.scope_metrics)
        ended = [process.link_id for process in processes if process.is_gone]
        return Collection(MetricsData(made), points, ended)

    def collect_one(self, process: Process, now_ns: int) -> list[Metric]:
        """The metrics of one process together with the exporter's own, which then has no process of its own."""
        points = Points(self._own_admission)
        self._add_process(points, process)
        self._add_own(points)
        return points.metrics(self._started_ns, now_ns, process.anchor)

    def collect_graph(self, processes: list[Process], graph: GraphState | None, now_ns: int) -> list[Metric]:
        """What the GraphServer knows, for who does not know all processes: their kinds, and whom to blame, stay out."""
        points = Points(self._own_admission)
        self._add_graph(points, processes, graph)
        return points.metrics(self._started_ns, now_ns)

    def _process_metrics(self, process: Process, now_ns: int) -> list[Metric]:
        points = Points(self._admissions.setdefault(process.link_id, Admission()))
        self._add_process(points, process)
        started_ns = process.hello.started_unix_ns if process.hello else self._started_ns
        return points.metrics(started_ns, now_ns, process.anchor)

    def _own_metrics(self, processes: list[Process], graph: GraphState | None, now_ns: int) -> list[Metric]:
        points = Points(self._own_admission)
        self._add_own(points)
        self._add_graph(points, processes, graph)
        for topic, caused_ns in self._culprits.look(processes).items():
            points.add(semconv.CULPRIT, ((semconv.SUBSCRIPTION, topic),), caused_ns)
        return points.metrics(self._started_ns, now_ns)

    def _add_graph(self, points: Points, processes: list[Process], graph: GraphState | None) -> None:
        if graph is not None:
            _add_processes(points, graph, processes)
            infos = set(_infos(graph, processes))
            for spec, attributes in infos:
                points.add(spec, attributes, 1)
            for spec, attributes in self._farewell.look(infos):
                points.add(spec, attributes, 0)
        for server in self._registry.servers:
            _add_server(points, server)

    def _add_process(self, points: Points, process: Process) -> None:
        before = points.overflowed
        for index, values in process.counters.items():
            if (endpoint := process.endpoints.get(index)) is not None:
                _add_counters(points, endpoint, values)
        _add_queues(points, process)
        _add_scope(points, process.counters.get(PROCESS_INDEX, {}))
        for key, histogram in process.histograms.items():
            _add_histogram(points, process, key, histogram)
        for kind, count in process.recorded.items():
            points.add(semconv.RECORDED, ((semconv.TELEMETRY_KIND, kind),), count)
        for losses in (process.dropped, process.server_dropped):
            for what, count in losses.items():
                points.add(semconv.DROPPED, _loss_attributes(what), count)
        self._ledger.dropped("metric_point", "overflow", points.overflowed - before)

    def _add_own(self, points: Points) -> None:
        totals = self._ledger.totals()
        for kind, count in totals.exported.items():
            points.add(semconv.EXPORTED, ((semconv.TELEMETRY_KIND, kind),), count)
        for (kind, reason), count in totals.dropped.items():
            attributes = ((semconv.TELEMETRY_KIND, kind), (semconv.TELEMETRY_REASON, reason))
            points.add(semconv.DROPPED, attributes, count)
        for signal, histogram in totals.durations.items():
            points.merge(semconv.EXPORT_DURATION, ((semconv.TELEMETRY_SIGNAL, signal),), histogram)
        for signal, (usage, limit) in self._queues().items():
            points.add(semconv.QUEUE_USAGE, ((semconv.TELEMETRY_SIGNAL, signal),), usage)
            points.add(semconv.QUEUE_LIMIT, ((semconv.TELEMETRY_SIGNAL, signal),), limit)


def attributes_of(spec: MetricSpec, endpoint: EndpointRecord, label: str = "") -> AttributeSet:
    """The attribute set of a metric of an endpoint; what is not known is left out."""
    if endpoint.index in REST:
        return OVERFLOW_SET
    values = {
        semconv.DESTINATION: endpoint.topic,
        semconv.SUBSCRIPTION: endpoint.subscription,
        semconv.CHANNEL_KIND: _KINDS.get(endpoint.channel_kind, ""),
        semconv.UNIT_ADDRESS: endpoint.unit,
        semconv.TASK_NAME: endpoint.task,
    }
    own = ((name, values[name]) for name in spec.attributes)
    return tuple((name, value) for name, value in (*spec.constants, *own, (spec.label, label)) if name and value)


def _add_counters(points: Points, endpoint: EndpointRecord, values: Mapping[str, int]) -> None:
    specs = _EDGE if endpoint.subscription else _PUBLISHER
    for full_name, value in values.items():
        name, _, label = full_name.partition(":")
        if name != "queue_depth" and (spec := specs.get(name)) is not None:
            points.add(spec, attributes_of(spec, endpoint, label), value)


def _add_queues(points: Points, process: Process) -> None:
    """How many messages wait at each subscriber: all its edges tell the same number."""
    depths: dict[str, tuple[EndpointRecord, int]] = {}
    for index, values in process.counters.items():
        if "queue_depth" in values and (endpoint := process.endpoints.get(index)) is not None:
            _, known = depths.get(endpoint.endpoint_id, (endpoint, 0))
            depths[endpoint.endpoint_id] = endpoint, max(known, values["queue_depth"])
    spec = _EDGE["queue_depth"]
    for endpoint, depth in depths.values():
        points.add(spec, attributes_of(spec, endpoint), depth)


def _add_scope(points: Points, values: Mapping[str, int]) -> None:
    """What a process counted that belongs to none of its endpoints."""
    for full_name, value in values.items():
        name, _, label = full_name.partition(":")
        spec = _EDGE["errors"] if name == "task_errors" else _SCOPE.get(name)
        if spec is not None:
            points.add(spec, attributes_in(spec, label), value)


def _add_histogram(points: Points, process: Process, key: HistogramKey, histogram: AnyHistogram) -> None:
    index, name, label = key
    exemplars = process.exemplars.get(key, ())
    if index == PROCESS_INDEX:
        if (spec := _SCOPE.get(name)) is not None:
            points.merge(spec, attributes_in(spec, label), histogram, exemplars)
        return
    endpoint = process.endpoints.get(index)
    if endpoint is None:
        return
    if (spec := _HISTOGRAM.get(name)) is not None:
        points.merge(spec, attributes_of(spec, endpoint, label), histogram, exemplars)


def _add_server(points: Points, server: ServerTelemetry) -> None:
    for histogram in server.histograms:
        if (spec := _SERVER.get(histogram.name)) is not None:
            points.merge(spec, attributes_in(spec, histogram.label), histogram)
    for full_name, value in server.counters.items():
        name, _, label = full_name.partition(":")
        if (spec := _SERVER.get(name)) is not None:
            points.add(spec, attributes_in(spec, label), value)


def attributes_in(spec: MetricSpec, label: str) -> AttributeSet:
    """The attribute set of a metric of a process, from the label of its value."""
    names = (*spec.attributes, spec.label)
    return (
        *spec.constants,
        *(
            (name, int(value) if semconv.ATTRIBUTES[name][0] == "int" else value)
            for name, value in zip(names, label.split(SEPARATOR), strict=False)
            if name and value
        ),
    )


def _add_processes(points: Points, graph: GraphState, processes: list[Process]) -> None:
    # The server may not know all of them again yet.
    hellos = (process.hello for process in processes if not process.is_gone)
    linked = {process_key(hello.host, hello.pid) for hello in hellos if hello is not None}
    points.add(semconv.PROCESS_COUNT, (), len(linked | set(graph.processes)))


def _infos(graph: GraphState, processes: list[Process]) -> Iterator[Info]:
    """What is 1 while it exists: nodes and edges."""
    roles: dict[str, set[str]] = {}
    homes: dict[str, set[str]] = {}
    for topic, role, home in _clients(processes):
        roles.setdefault(topic, set()).add(role)
        homes.setdefault(topic, set()).add(home)
    for node in graph.nodes:
        kinds = roles.get(node, {"topic"})
        kind = "both" if len(kinds) > 1 else next(iter(kinds))
        known = ((semconv.NODE_ID, node), (semconv.NODE_KIND, kind))
        home = min(homes.get(node, {""}))
        yield semconv.NODE_INFO, (*known, (semconv.PROCESS_NAME, home)) if home else known
    for source, target in graph.edges:
        yield semconv.EDGE_INFO, ((semconv.EDGE_SOURCE, source), (semconv.EDGE_TARGET, target))


def _clients(processes: list[Process]) -> Iterator[tuple[str, str, str]]:
    """Topic, role and process name of everything that runs."""
    for process in processes:
        if process.is_gone or process.hello is None:
            continue
        for endpoint in process.endpoints.values():
            role = "subscriber" if endpoint.subscription else "publisher"
            yield endpoint.subscription or endpoint.topic, role, process.hello.process_name


def _loss_attributes(what: str) -> AttributeSet:
    kind, colon, reason = what.partition(":")
    if not colon:
        return ((semconv.TELEMETRY_REASON, what),)
    return ((semconv.TELEMETRY_KIND, kind), (semconv.TELEMETRY_REASON, reason))


def _resource_metrics(resource: ProcessResource, metrics: list[Metric]) -> ResourceMetrics:
    return ResourceMetrics(resource, [ScopeMetrics(SCOPE, metrics, semconv.SCHEMA_URL)], semconv.SCHEMA_URL)
