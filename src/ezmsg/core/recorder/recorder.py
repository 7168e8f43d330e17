"""The machine behind a ProfileRegistry: rings by thread, and one pass that turns their rows into everything else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from uuid import UUID

from ezmsg.core import config
from ezmsg.core.graphmeta import ProfileChannelType, ProfilingTraceControl
from ezmsg.core.recorder.digest import SPANS, Digest, Pause, no_pause
from ezmsg.core.recorder.edge import EdgeMetrics
from ezmsg.core.recorder.endpoints import CLOSED, Endpoint, Endpoints
from ezmsg.core.recorder.labels import Labels
from ezmsg.core.recorder.past import Pasts
from ezmsg.core.recorder.processscope import ProcessScope
from ezmsg.core.recorder.publisher import PublisherMetrics
from ezmsg.core.recorder.recording import Recording
from ezmsg.core.recorder.ring import ROWS, Ring
from ezmsg.core.recorder.roots import RootTurns
from ezmsg.core.recorder.rows import CHANNEL_CODES, GENERATIONS
from ezmsg.core.recorder.subscriber import SubscriberMetrics
from ezmsg.core.recorder.tracecontrol import check, collects_nothing
from ezmsg.core.wire.records import EndpointRecord


class Recorder:
    """Endpoints write into the ring of their thread; `drain` reads all rings.

    Two locks: `lock` guards the tables of endpoints and is held for moments; `reading` is held while rows are turned
    into histograms, spans and samples, and taken before `lock`. Writers take neither.

    Attributes:
        publishers: Open publishers by id.
        subscribers: Open subscribers by id.
        endpoints: What row indices mean.
        linked: Graphs with a telemetry link, which wants to see endpoints that closed.
        pasts: What graphs were told before; use it while holding `reading`, but for ids of links.
        recording: What is recorded; change it by the methods of this.
        digest: What rows became; use it while holding `reading`.
        process: What is measured of the process itself.
        cost_budget: Share of one core that telemetry may take; None for any.
        relieved_s: Time that writers spent reading.
    """

    def __init__(self, *, ring_rows: int = ROWS, sample_limit: int | None = None, span_limit: int = SPANS) -> None:
        """Make a recorder without endpoints, at the level and rates of the environment."""
        self._ring_rows = ring_rows
        self.lock, self.reading = threading.Lock(), threading.Lock()
        self.publishers: dict[UUID, PublisherMetrics] = {}
        self.subscribers: dict[UUID, SubscriberMetrics] = {}
        self.endpoints = Endpoints()
        self.linked: set[str] = set()
        self.pasts = Pasts(self._new_index)
        self.labels = Labels()
        self.process = ProcessScope()
        self.digest = Digest(self.labels, sample_limit or config.trace_max_samples(), span_limit)
        self.recording = Recording()
        self.trace, self.budget = self.recording.trace, self.recording.budget
        self._turns: dict[tuple[str | None, str], RootTurns] = {}
        self.cost_budget = config.telemetry_budget()
        self._roots_thinned = 0
        self.relieved_s = 0.0
        self._rings: dict[int, Ring] = {}
        self._opening: list[int] = []
        self._closing: list[int] = []
        self.settled: dict[int, Endpoint] = {}
        self._thinned = 0

    # -- endpoints ----------------------------------------------------------------------------------------------------

    def open_publisher(
        self,
        publisher_id: UUID,
        topic: str,
        num_buffers: int,
        clock: Callable[[], int],
        graph: str | None = None,
        unit: str = "",
        task: str = "",
    ) -> PublisherMetrics:
        """A publisher opened, in this thread."""
        with self.lock:
            index, ring = self.endpoints.new_index(), self._ring()
            turns = self._turns.setdefault((graph, topic), RootTurns((graph, topic)))
            turns.users += 1
            metrics = PublisherMetrics(publisher_id, topic, num_buffers, index, ring, self.labels, clock, graph, turns)
            record = EndpointRecord(
                index=index,
                topic=topic,
                subscription="",
                endpoint_id=metrics.endpoint_id,
                publisher_id=str(publisher_id),
                channel_kind=CHANNEL_CODES[ProfileChannelType.UNKNOWN],
                num_buffers=num_buffers,
                unit=unit,
                task=task,
            )
            self._add(Endpoint(record, graph, metrics, ring))
            self.publishers[publisher_id] = metrics
            self.recording.configure_publisher(metrics)
            self.recording.configure_roots(metrics)
            metrics.thin_roots(self.recording.throttle)
        return metrics

    def open_subscriber(
        self,
        subscriber_id: UUID,
        topic: str,
        clock: Callable[[], int],
        graph: str | None = None,
        unit: str = "",
        task: str = "",
    ) -> SubscriberMetrics:
        """A subscriber opened; its edges follow."""
        metrics = SubscriberMetrics(subscriber_id, topic, self, clock, graph, unit, task)
        with self.lock:
            self.subscribers[subscriber_id] = metrics
            self.recording.configure_subscriber(metrics)
        return metrics

    def open_edge(
        self,
        subscriber: SubscriberMetrics,
        publisher_id: str,
        topic: str,
        kind: ProfileChannelType,
        foreign: bool,
    ) -> EdgeMetrics:
        """A subscriber was routed to a publisher; called in the thread that will receive."""
        with self.lock:
            index, ring = self.endpoints.new_index(), self._ring()
            edge = EdgeMetrics(subscriber, publisher_id, topic, kind, foreign, index, ring, self.labels, self)
            record = EndpointRecord(
                index=index,
                topic=topic,
                subscription=subscriber.topic,
                endpoint_id=subscriber.endpoint_id,
                publisher_id=publisher_id,
                channel_kind=CHANNEL_CODES[kind],
                unit=subscriber.unit,
                task=subscriber.task,
            )
            self._add(Endpoint(record, subscriber.graph, edge, ring, subscriber))
            subscriber.edges[index] = edge
            self.recording.configure_edge(subscriber, edge)
        return edge

    def own_edge(self, subscriber: SubscriberMetrics) -> EdgeMetrics:
        """A subscriber measures something without saying of which publisher."""
        return self.open_edge(subscriber, "", "", ProfileChannelType.UNKNOWN, False)

    def close_edge(self, edge: EdgeMetrics) -> None:
        """A subscriber is no longer routed to a publisher."""
        with self.lock:
            self._close(edge.index)

    def close_publisher(self, publisher_id: UUID) -> PublisherMetrics | None:
        """A publisher closed; None if it was not open."""
        with self.lock:
            metrics = self.publishers.pop(publisher_id, None)
            if metrics is not None:
                self._roots_thinned += metrics.roots_thinned
                metrics.turns.users -= 1
                if not metrics.turns.users:
                    del self._turns[metrics.turns.key]
                self._close(metrics.index)
        return metrics

    def close_subscriber(self, subscriber_id: UUID) -> SubscriberMetrics | None:
        """A subscriber closed, with its edges; None if it was not open."""
        with self.lock:
            metrics = self.subscribers.pop(subscriber_id, None)
            if metrics is not None:
                for index in list(metrics.edges):
                    self._close(index)
        return metrics

    # -- what is recorded ---------------------------------------------------------------------------------------------

    def set_level(self, level: str) -> None:
        """Record nothing but totals (`off`), or everything (`metrics`, `trace`)."""
        with self.lock:
            self.recording.level = level
            self._configure()
            self._configure_all_roots()

    def set_roots(self, rate_hz: float, ratio: float | None) -> None:
        """Begin so many traces per second and source topic, or (with a ratio) for this share of messages."""
        with self.lock:
            self.recording.roots = rate_hz, ratio
            self._configure_all_roots()

    @property
    def level(self) -> str:
        """What is recorded where no control says otherwise."""
        return self.recording.level

    @property
    def throttle(self) -> int:
        """One row, and one root trace, in two to this power is recorded."""
        return self.recording.throttle

    def set_throttle(self, throttle: int) -> None:
        """Record one row, and begin one root trace, in two to this power (0: all)."""
        with self.lock:
            self.recording.throttle = throttle
            self._configure()
            for publisher in self.publishers.values():
                publisher.thin_roots(throttle)

    def set_trace(self, control: ProfilingTraceControl) -> None:
        """Begin another native trace, or none; the samples of the last one are gone.

        Raises:
            InvalidTraceControl: A field cannot be used; nothing was changed.
        """
        check(control)
        with self.reading:
            self._read_stale()
            with self.lock:
                self.recording.sampling.set(control)
                if not collects_nothing(control):
                    self.trace.set(control)
                    self.digest.samples.clear()
                self._configure()
                self._configure_all_roots()

    def expire_trace(self) -> None:
        """End a native trace, and levels and rates of traces, that have outlived their time."""
        sampling = self.recording.sampling
        if sampling.expired():
            with self.lock:
                sampling.set(ProfilingTraceControl(enabled=False))
                self._configure()
                self._configure_all_roots()
        if self.trace.expired():
            with self.reading:
                self._read_stale()
                with self.lock:
                    self.trace.set(ProfilingTraceControl(enabled=False))
                    self.digest.samples.clear()
                    self._configure()

    def _read_stale(self) -> None:
        """Before another native trace: read rows that could be taken for those of a later one. Hold `reading`."""
        if (self.trace.generation + 1) % GENERATIONS == 0:
            self.drain(with_pending=False)

    def _configure(self) -> None:
        for publisher in self.publishers.values():
            self.recording.configure_publisher(publisher)
        for subscriber in self.subscribers.values():
            self.recording.configure_subscriber(subscriber)

    def _configure_all_roots(self) -> None:
        for publisher in self.publishers.values():
            self.recording.configure_roots(publisher)

    def begins_operation(self, operation: str) -> bool:
        """Whether an operation that is part of no trace begins one now: as messages of a publisher do."""
        return self.recording.begins_operation(operation)

    # -- reading ------------------------------------------------------------------------------------------------------

    def relieve(self, *, is_idle: bool = False) -> None:
        """Read all rings in this thread, if its own is crowded. Writers call it now and then, not for every message.

        A loop that never rests lets go of the GIL only for moments, and a thread that waits for it may not get it for
        seconds: then the reader starves while rings run over. Whoever writes that much does the reading as well.
        """
        ring = self._rings.get(threading.get_ident())
        if ring is None or not (ring.is_crowded or (is_idle and ring.is_filling)):
            return
        # There is no hurry before it is crowded, and somebody reads already.
        if not self.reading.acquire(blocking=ring.is_crowded):
            return
        try:
            began_s = time.thread_time()
            self.drain(with_pending=False)
            self.relieved_s += time.thread_time() - began_s
        finally:
            self.reading.release()

    def drain(self, pause: Pause = no_pause, *, with_pending: bool = True) -> None:
        """Read everything recorded so far. Hold `reading`.

        Args:
            pause: Called between two steps, unless a ring is so full that its writer waits for this to be done.
            with_pending: Tell of traced messages whose receivers are not done with them, too.
        """
        with self.lock:
            publishers = list(self.publishers.values())
            released = {publisher.index: publisher.sent - publisher.num_buffers for publisher in publishers}
            closing, self._closing = self._closing, []
            rings = list(self._rings.values())
        if any(ring.is_crowded for ring in rings):
            pause = no_pause
        taken = [ring.take() for ring in rings]
        pause()
        with self.lock:
            # Only now: no row that was taken is of an endpoint opened later.
            opening, self._opening = self._opening, []
        for index in opening:
            endpoint = self._find(index)
            self.digest.aggregator.open(index, 0 if endpoint is None else endpoint.record.num_buffers)
        self.digest.aggregator.count_process(self.process)
        for graph, row in self.process.take_spans():
            self.digest.spans.add(graph, graph or None, row)
        self.digest.lost["span:unread"] = self.process.spans_lost
        for part in taken:
            self.digest.add(part, self.trace.generation, self._find, pause)
        self._tell_pending(publishers if with_pending else (), released, pause)
        with self.lock:
            self._settle(closing)
            if self.budget.note(self.digest.rows + self.thinned(), time.perf_counter_ns()):
                self._configure()

    def _tell_pending(self, publishers: Collection[PublisherMetrics], released: dict[int, int], pause: Pause) -> None:
        digest = self.digest
        for index, below in released.items():
            digest.pending.forget(index, below)
        pending = digest.pending.look(publishers)
        if pending is not None:
            digest.add(pending, self.trace.generation, self._find, pause)
            digest.pending.note(pending.rows)

    def retire(self, indices: Iterable[int]) -> None:
        """Closed endpoints were delivered, or nobody asks for them. Hold `reading`, not `lock`."""
        with self.lock:
            for index in indices:
                if self.settled.pop(index, None) is not None:
                    self._retire(index)

    def forget_graph(self, graph: str) -> None:
        """A graph is no more; its endpoints live on, unseen by any link. Hold `reading`."""
        with self.lock:
            self.linked.discard(graph)
            for endpoint in (*self.endpoints.open.values(), *self.endpoints.closed.values()):
                if endpoint.graph == graph:
                    endpoint.graph = None
            for metrics in (*self.publishers.values(), *self.subscribers.values()):
                if metrics.graph == graph:
                    metrics.graph = None
        self.digest.spans.orphan(graph)
        self.digest.samples.orphan(graph)
        self.retire([index for index, endpoint in self.settled.items() if endpoint.graph is None])
        self.pasts.forget(graph)

    def unread(self) -> float:
        """How full the fullest ring is, 0 to 1 and beyond."""
        with self.lock:
            return max((ring.unread() for ring in self._rings.values()), default=0) / self._ring_rows

    def thinned(self) -> int:
        """Rows left out to stay within the budget."""
        open_or_closed = (*self.endpoints.open.values(), *self.endpoints.closed.values())
        return self._thinned + sum(endpoint.metrics.thinned for endpoint in open_or_closed)

    def roots_thinned(self) -> int:
        """Root traces that were not begun to stay within the budget."""
        return self._roots_thinned + sum(publisher.roots_thinned for publisher in self.publishers.values())

    def counts(self) -> dict[str, int]:
        """What was recorded or left out up to the last reading, by kind."""
        with self.reading, self.lock:
            recorded = self.digest.recorded()
            recorded["row"] += self.thinned()
        return recorded

    def tally(self, reader: str | None = None) -> tuple[dict[str, int], dict[str, int]]:
        """What was recorded, by kind, and what of it was lost, by `kind:reason`, to a reader or to all.

        Hold `reading`.
        """
        return self._tally(self.digest.recorded(reader), self.digest.dropped(reader))

    def tally_of_all(self, role: str) -> tuple[dict[str, int], dict[str, int]]:
        """The same, with what all readers of a role lost together; hold `reading`."""
        return self._tally(self.digest.recorded(), self.digest.dropped_to_all(role))

    # -- beneath ------------------------------------------------------------------------------------------------------

    def _tally(self, recorded: dict[str, int], dropped: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
        with self.lock:
            thinned, roots_thinned = self.thinned(), self.roots_thinned()
        recorded["row"] += thinned
        dropped["row:thinned"] = thinned
        if roots_thinned:
            recorded["trace"] = dropped["trace:thinned"] = roots_thinned
        dropped["endpoint:closed_store"] = self.endpoints.forgotten
        dropped["label:overflow"] = self.labels.overflowed
        if self.labels.attributes:
            recorded["attribute"], dropped["attribute:limit"] = self.labels.attributes, self.labels.attributes_cut
        if self.process.observed:
            recorded["duration"], dropped["duration:unread"] = self.process.observed, self.process.lost
        return recorded, {reason: count for reason, count in dropped.items() if count}

    def _ring(self) -> Ring:
        thread_id = threading.get_ident()
        ring = self._rings.get(thread_id)
        if ring is None:
            ring = self._rings[thread_id] = Ring(self._ring_rows, thread_id)
        ring.users += 1
        return ring

    def _new_index(self) -> int:
        with self.lock:
            return self.endpoints.new_index()

    def _add(self, endpoint: Endpoint) -> None:
        self.endpoints.add(endpoint)
        self._opening.append(endpoint.index)

    def _close(self, index: int) -> None:
        endpoint = self.endpoints.close(index)
        if endpoint is None:
            return
        self._closing.append(index)
        if endpoint.subscriber is not None:
            edge = endpoint.subscriber.edges.pop(index, None)
            endpoint.subscriber.closed_consumed += 0 if edge is None else edge.consumed

    def _find(self, index: int) -> Endpoint | None:
        return self.endpoints.open.get(index) or self.endpoints.closed.get(index)

    def _settle(self, closing: Iterable[int]) -> None:
        """Endpoints that closed before the rings were read have no more rows there."""
        for index in closing:
            endpoint = self.endpoints.closed[index]
            endpoint.ring.users -= 1
            owner = endpoint.record.endpoint_id
            if endpoint.subscriber is None or endpoint.subscriber.id not in self.subscribers:
                self.digest.samples.close(owner)
            if endpoint.graph in self.linked:
                self.settled[index] = endpoint
            else:
                self._retire(index)
        while len(self.settled) > CLOSED:
            index = next(iter(self.settled))
            del self.settled[index]
            self.endpoints.forgotten += 1
            self._retire(index)
        idle = [ring for ring in self._rings.values() if not ring.users and not ring.unread()]
        if idle:
            alive = {thread.ident for thread in threading.enumerate()}
            for ring in idle:
                if ring.thread_id not in alive:
                    del self._rings[ring.thread_id]

    def _retire(self, index: int) -> None:
        self._thinned += self.endpoints.closed[index].metrics.thinned
        self.endpoints.retire(index)
        self.digest.pending.close(index)
        self.digest.aggregator.close(index)
