"""What a graph did between two looks at it: rates, durations, waits, and who is to blame. Pure.

Fed with what a GraphContext tells; knows nothing of how it is shown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar
from uuid import UUID

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import (
    BackpressureCulprit,
    BackpressureReport,
    EdgeProfile,
    GraphSnapshot,
    HistogramValue,
    ProcessProfilingSnapshot,
    ProfileChannelType,
)
from ezmsg.tui.histograms import between, merged

# A process that is busy with a message answers when it is done with it.
ANSWER_S = 2.0
Key = tuple[UUID, str, str]
"""A process, an endpoint, and the topic it publishes or receives from."""
M = TypeVar("M", bound="Measured")
NO_HISTOGRAMS: dict[str, HistogramValue] = {}


@dataclass(slots=True)
class Measured:
    """What was measured of an edge or a publisher in one process. Durations are in seconds.

    `is_stale`: its process did not answer; this is what it told before.
    """

    process_id: UUID
    pid: int
    rate_hz: float = 0.0
    bytes_per_s: float = 0.0
    histograms: dict[str, HistogramValue] = field(default_factory=dict[str, HistogramValue])
    is_stale: bool = False

    def quantile(self, name: str, q: float) -> float | None:
        """Of one of the durations that `EdgeProfile` names; None if there was none in the window."""
        histogram = self.histograms.get(name)
        return histogram.quantile(q) if histogram is not None and histogram.count else None


@dataclass(slots=True)
class Edge(Measured):
    """One topic to the subscribers of one process on another.

    `wait_share`: how much of the window the publishers waited for these subscribers, 0 to 1 for each publisher.
    `blame_share`: how much of all the waiting in the graph they have caused in the end, 0 to 1.
    `is_stuck`: a publisher on the topic is, see `Sender`.
    """

    topic: str = ""
    subscription: str = ""
    via: str = ""
    dropped: int = 0
    wait_share: float = 0.0
    blame_share: float = 0.0
    is_stuck: bool = False


@dataclass(slots=True)
class Sender(Measured):
    """The publishers on one topic of one process; `wait_share` of the window they waited for somebody."""

    topic: str = ""
    inflight: int = 0
    num_buffers: int = 0
    wait_share: float = 0.0

    @property
    def is_stuck(self) -> bool:
        """Whether all its buffers are in use, and it sent nothing in the window."""
        return 0 < self.num_buffers <= self.inflight and not self.rate_hz


@dataclass(slots=True)
class Process:
    """One process; `answers` tells whether it said what it measured. `lost` telemetry is since its start."""

    process_id: UUID
    pid: int | None
    host: str | None
    units: list[str]
    answers: bool = False
    sent_hz: float = 0.0
    received_hz: float = 0.0
    publishers: int = 0
    subscribers: int = 0
    lost: int = 0


@dataclass(slots=True)
class Measures:
    """Everything, in the order in which it is shown; `window_s` is None at the first look, which has no rates.

    `culprits_window_s`: the seconds in which they caused it. `stuck`: topics of publishers that cannot send at all.
    """

    window_s: float | None = None
    edges: list[Edge] = field(default_factory=list[Edge])
    senders: list[Sender] = field(default_factory=list[Sender])
    processes: list[Process] = field(default_factory=list[Process])
    culprits: list[BackpressureCulprit] = field(default_factory=list[BackpressureCulprit])
    culprits_window_s: float = 0.0
    stuck: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class _Since:
    """One endpoint in the window."""

    seconds: float
    counters: Counter[str]
    histograms: dict[str, HistogramValue]


class _Found:
    """What one look finds."""

    def __init__(self, graph: GraphSnapshot) -> None:
        """Begin with the processes that are there."""
        self.edges: dict[tuple[str, str, UUID], Edge] = {}
        self.senders: dict[tuple[str, UUID], Sender] = {}
        self.processes = {
            entry.process_id: Process(entry.process_id, entry.pid, entry.host, list(entry.units))
            for entry in graph.processes.values()
        }
        self.window_s = 0.0
        self._parts: dict[int, list[Mapping[str, HistogramValue]]] = defaultdict(list)

    def tell(self, snapshot: ProcessProfilingSnapshot) -> Process:
        """A process answers."""
        process_id = snapshot.process_id
        process = self.processes.setdefault(process_id, Process(process_id, snapshot.pid, snapshot.host, []))
        process.pid, process.host, process.answers = snapshot.pid, snapshot.host, True
        process.publishers, process.subscribers = len(snapshot.publishers), len(snapshot.subscribers)
        # What a new trace clears of the one before is not lost.
        process.lost = sum(count for name, count in snapshot.dropped.items() if not name.endswith(":cleared"))
        return process

    def add(self, process: Process, snapshot: ProcessProfilingSnapshot, profile: EdgeProfile, since: _Since) -> None:
        """One endpoint of a process: several of a topic are one here."""
        self.window_s = max(self.window_s, since.seconds)
        process_id, pid = process.process_id, snapshot.pid
        if profile.subscription is None:
            measured = self.senders.setdefault(
                (profile.topic, process_id), Sender(process_id, pid, topic=profile.topic)
            )
            _add_sender(measured, snapshot, profile, since)
            process.sent_hz += _per_second(since, "sent")
        else:
            measured = self.edges.setdefault(
                (profile.topic, profile.subscription, process_id),
                Edge(process_id, pid, topic=profile.topic, subscription=profile.subscription),
            )
            _add_edge(measured, profile, since)
            process.received_hz += _per_second(since, "consumed")
        self._parts[id(measured)].append(since.histograms)

    def finish(self, report: BackpressureReport, *, is_first: bool) -> list[str]:
        """Put together what belongs together; returns which topics are stuck."""
        for measured in (*self.edges.values(), *self.senders.values()):
            measured.histograms = _merged(self._parts[id(measured)])
        _blame(self.edges.values(), report)
        stuck = {sender.topic for sender in self.senders.values() if sender.is_stuck and not is_first}
        for edge in self.edges.values():
            edge.is_stuck = edge.topic in stuck
        return sorted(stuck)


class Measurer:
    """Remembers the last look, and tells what came since."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._seen: dict[Key, tuple[float, EdgeProfile]] = {}
        self._last: Measures | None = None

    def look(
        self,
        snapshots: Mapping[UUID, ProcessProfilingSnapshot],
        graph: GraphSnapshot,
        report: BackpressureReport,
    ) -> Measures:
        """What was measured since the last look; everything is empty the first time.

        A process that does not answer keeps what it told before, and is measured over the whole gap once it does.
        """
        last, found = self._last, _Found(graph)
        seen: dict[Key, tuple[float, EdgeProfile]] = {}
        for snapshot in snapshots.values():
            process = found.tell(snapshot)
            for profile in snapshot.edges:
                key = (snapshot.process_id, profile.endpoint_id, profile.topic)
                seen[key] = (snapshot.timestamp, profile)
                found.add(process, snapshot, profile, self._since(key, snapshot, profile))
        silent = found.processes.keys() - snapshots.keys()
        self._seen = seen | {key: value for key, value in self._seen.items() if key[0] in silent}
        stuck = found.finish(report, is_first=last is None)
        edges, senders = list(found.edges.values()), list(found.senders.values())
        if last is not None:
            edges += [_stale(edge) for edge in last.edges if edge.process_id in silent]
            senders += [_stale(sender) for sender in last.senders if sender.process_id in silent]
        self._last = Measures(
            window_s=None if last is None else found.window_s,
            edges=sorted(edges, key=lambda edge: (edge.topic, edge.subscription, edge.pid)),
            senders=sorted(senders, key=lambda sender: (sender.topic, sender.pid)),
            processes=sorted(found.processes.values(), key=lambda process: (process.units == [], process.pid or 0)),
            culprits=report.culprits,
            culprits_window_s=report.window_seconds,
            stuck=stuck,
        )
        return self._last

    def _since(self, key: Key, snapshot: ProcessProfilingSnapshot, profile: EdgeProfile) -> _Since:
        """What came since the last look; nothing of an endpoint that was not there then."""
        before = self._seen.get(key)
        if before is None:
            return _Since(0.0, Counter(), NO_HISTOGRAMS)
        then_ns, old = before
        counters = Counter(
            {name: max(0, value - old.counters.get(name, 0)) for name, value in profile.counters.items()}
        )
        histograms = {name: between(old.histograms.get(name), value) for name, value in profile.histograms.items()}
        return _Since((snapshot.timestamp - then_ns) / 1e9, counters, histograms)


async def look(context: GraphContext, measurer: Measurer, window_s: float) -> Measures:
    """Look at the graph now, after having waited for `window_s` to see who waits for whom in that time.

    Raises:
        ConnectionLost: The server is gone, and not back in time.
    """
    report = await context.backpressure_report(window_s, timeout_per_process=ANSWER_S)
    graph = await context.snapshot()
    return measurer.look(await context.profiling_snapshot_all(timeout_per_process=ANSWER_S), graph, report)


def _stale(measured: M) -> M:
    return replace(measured, is_stale=True)


def _add_sender(sender: Sender, snapshot: ProcessProfilingSnapshot, profile: EdgeProfile, since: _Since) -> None:
    sender.rate_hz += _per_second(since, "sent")
    sender.bytes_per_s += _per_second(since, "bytes")
    sender.wait_share += _per_second(since, "backpressure_ns") / 1e9
    totals = snapshot.publishers.get(profile.endpoint_id)
    if totals is not None:
        sender.inflight += totals.inflight_messages_current
        sender.num_buffers += totals.num_buffers


def _add_edge(edge: Edge, profile: EdgeProfile, since: _Since) -> None:
    edge.rate_hz += _per_second(since, "consumed")
    edge.bytes_per_s += _per_second(since, "bytes")
    edge.dropped += profile.counters.get("dropped", 0)
    if profile.channel_kind is not ProfileChannelType.UNKNOWN:
        edge.via = profile.channel_kind.value.lower()


def _per_second(since: _Since, counter: str) -> float:
    return since.counters[counter] / since.seconds if since.seconds > 0 else 0.0


def _merged(parts: Iterable[Mapping[str, HistogramValue]]) -> dict[str, HistogramValue]:
    """One histogram for each duration, also of what failed (`process:ValueError` is a `process`, too)."""
    by_name: dict[str, list[HistogramValue]] = defaultdict(list)
    for histograms in parts:
        for name, value in histograms.items():
            by_name[name.partition(":")[0]].append(value)
    return {name: value for name, values in by_name.items() if (value := merged(values)) is not None}


def _blame(edges: Iterable[Edge], report: BackpressureReport) -> None:
    waits = {(wait.topic, wait.subscription): wait.wait_seconds for wait in report.waits}
    shares = {culprit.subscription: culprit.share for culprit in report.culprits}
    for edge in edges:
        if report.window_seconds > 0:
            edge.wait_share = waits.get((edge.topic, edge.subscription), 0.0) / report.window_seconds
        edge.blame_share = shares.get(edge.subscription, 0.0)
