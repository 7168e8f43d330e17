"""What a process measures of its publishers and subscribers, and the native ways to read it.

`PROFILES` is fed by every Publisher and Subscriber of the process, whatever context or loop made it. Reading never
takes anything from another reader. The telemetry link reads through `recorder`; nothing here opens a connection.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from uuid import UUID

from ezmsg.core import config
from ezmsg.core.graphmeta import (
    ProcessProfilingSnapshot,
    ProcessProfilingTraceBatch,
    ProfilingTraceControl,
)
from ezmsg.core.recorder.calculated import TraceIds
from ezmsg.core.recorder.columns import Columns
from ezmsg.core.recorder.edge import EdgeMetrics
from ezmsg.core.recorder.ids import new_span_id, new_trace_id, random_bits
from ezmsg.core.recorder.operations import operation_row
from ezmsg.core.recorder.publisher import PublisherMetrics, PublishTrace
from ezmsg.core.recorder.recorder import Recorder
from ezmsg.core.recorder.rows import clock as message_clock
from ezmsg.core.recorder.snapshots import Windows, edge_profiles, process_profile
from ezmsg.core.recorder.subscriber import SubscriberMetrics
from ezmsg.core.recorder.tracecontrol import LEVELS
from ezmsg.core.wire.records import ClockAnchor

__all__ = [
    "PROFILES",
    "PROFILE_TIME",
    "TRACE_MAX_SAMPLES",
    "EdgeMetrics",
    "ProfileRegistry",
    "PublishTrace",
    "PublisherMetrics",
    "SubscriberMetrics",
    "TraceIds",
    "message_clock",
    "new_span_id",
    "new_trace_id",
    "random_bits",
]

# The clock of everything measured; programs may replace it. CLOCK_MONOTONIC on Linux. The message path has the same
# clock in seconds, `message_clock`.
PROFILE_TIME = time.perf_counter_ns
TRACE_MAX_SAMPLES = config.trace_max_samples()
DEFAULT_READER: Final = "default"
NO_PROCESS: Final = UUID(int=0)


FirstEndpointHook = Callable[[str, bool], None]
EndpointHook = Callable[[UUID, bool], None]


class ProfileRegistry:
    """Endpoints, and readers by name. A registry made by hand knows nothing of PROFILES, and PROFILES nothing of it."""

    def __init__(self) -> None:
        """Make a registry without endpoints."""
        self._hook: FirstEndpointHook | None = None
        self._endpoint_hook: EndpointHook | None = None
        self._wake: Callable[[], None] | None = None
        self._flush: Callable[[Callable[[], None]], None] | None = None
        self._begin()
        _REGISTRIES.add(self)

    def _begin(self) -> None:
        self._recorder: Recorder | None = None
        self._process_id = NO_PROCESS
        self._clients: dict[str, list[UUID]] = {}
        self._windows = Windows()
        self._graphs: dict[str, set[UUID]] = {}
        self._anchor: ClockAnchor | None = None
        self._lock = threading.Lock()

    @property
    def recorder(self) -> Recorder:
        """The machine behind this; made when first asked for, with what the environment says then."""
        if self._recorder is None:
            with self._lock:
                self._recorder = self._recorder or Recorder(sample_limit=TRACE_MAX_SAMPLES)
        return self._recorder

    # -- endpoints ----------------------------------------------------------------------------------------------------

    def register_publisher(
        self,
        pub_id: UUID,
        topic: str,
        num_buffers: int,
        *,
        graph_address: str | None = None,
        unit: str = "",
        task: str = "",
    ) -> PublisherMetrics:
        """A publisher opened; call in the thread that will publish.

        Args:
            pub_id: Its id.
            topic: Its topic.
            num_buffers: Its slots.
            graph_address: `host:port` of its GraphServer; with one, its telemetry goes there.
            unit: The address of the unit it belongs to, if it does.
            task: The task that publishes, if there is one.
        """
        self.unregister_publisher(pub_id)
        metrics = self.recorder.open_publisher(pub_id, topic, num_buffers, PROFILE_TIME, graph_address, unit, task)
        self._enter_graph(graph_address, pub_id)
        return metrics

    def unregister_publisher(self, pub_id: UUID) -> None:
        """A publisher closed; what it recorded last is still delivered."""
        metrics = self.recorder.close_publisher(pub_id)
        if metrics is not None:
            self._leave_graph(metrics.graph, pub_id)

    def register_subscriber(
        self,
        sub_id: UUID,
        topic: str,
        *,
        graph_address: str | None = None,
        unit: str = "",
        task: str = "",
    ) -> SubscriberMetrics:
        """A subscriber opened; its `edge()` makes what records, in the thread that will receive."""
        self.unregister_subscriber(sub_id)
        metrics = self.recorder.open_subscriber(sub_id, topic, PROFILE_TIME, graph_address, unit, task)
        self._enter_graph(graph_address, sub_id)
        return metrics

    def unregister_subscriber(self, sub_id: UUID) -> None:
        """A subscriber closed; what it recorded last is still delivered."""
        metrics = self.recorder.close_subscriber(sub_id)
        if metrics is not None:
            self._leave_graph(metrics.graph, sub_id)

    def set_first_endpoint_hook(self, hook: FirstEndpointHook | None) -> None:
        """Be called with `(graph_address, True)` when a graph gets its first endpoint here, `False` after its last.

        Called in the thread that opened or closed the endpoint, without a lock held; at once for graphs known already.
        """
        self._hook = hook
        if hook is not None:
            for graph in list(self._graphs):
                hook(graph, True)

    def set_endpoint_hook(self, hook: EndpointHook | None) -> None:
        """Be called with `(endpoint_id, True)` when an endpoint of a graph opens, `False` when it closes.

        Called in the thread that opened or closed it, without a lock held.
        """
        self._endpoint_hook = hook

    def has_endpoints(self, graph_address: str) -> bool:
        """Whether a graph has endpoints here."""
        with self._lock:
            return graph_address in self._graphs

    @property
    def has_any_endpoints(self) -> bool:
        """Whether any graph has endpoints here."""
        return bool(self._graphs)

    def forget_graph(self, graph_address: str) -> None:
        """The GraphServer ended in order: endpoints it leaves behind belong to no graph, nor to its successor."""
        with self._lock:
            self._graphs.pop(graph_address, None)
        with self.recorder.reading:
            self.recorder.forget_graph(graph_address)

    def set_wake(self, wake: Callable[[], None] | None) -> None:
        """Be called when the telemetry link should look again at once: a trace was set, a client came or went."""
        self._wake = wake

    def set_flush(self, flush: Callable[[Callable[[], None]], None] | None) -> None:
        """Have this called to send what was recorded so far; it calls back, in any thread, when that is done."""
        self._flush = flush

    async def flushed(self, timeout_s: float) -> bool:
        """Send what was recorded so far to the GraphServers; whether that was done in time."""
        if self._flush is None:
            return True
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def wake() -> None:
            # The loop may be over by then.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(done.set)

        self._flush(wake)
        with suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), timeout_s)
        return done.is_set()

    # -- who we are ---------------------------------------------------------------------------------------------------

    @property
    def process_id(self) -> UUID:
        """The id under which snapshots and batches go: what was set last, all zeros before."""
        return self._process_id

    def set_process_id(self, process_id: UUID, *, reset: bool = False) -> None:
        """Set the id of this process, and forget when readers looked last; with `reset`, forget everything measured."""
        if reset:
            self._reset()
        self._process_id = process_id
        self._windows = Windows()

    def client_opened(self, graph_address: str, client_id: UUID) -> None:
        """A ProcessControlClient connected: telemetry for its graph now goes under its id."""
        with self._lock:
            self._clients.setdefault(graph_address, []).append(client_id)
        self.set_process_id(client_id)
        self._look_again()

    def client_closed(self, graph_address: str, client_id: UUID) -> None:
        """A ProcessControlClient closed: the latest one still open on its graph takes over."""
        with self._lock:
            clients = self._clients.get(graph_address, [])
            if client_id in clients:
                clients.remove(client_id)
            if not clients:
                self._clients.pop(graph_address, None)
        self._look_again()

    def client_of(self, graph_address: str) -> UUID | None:
        """The client under whose id rows go to a graph."""
        with self._lock:
            clients = self._clients.get(graph_address)
            return clients[-1] if clients else None

    def set_anchor(self, anchor: ClockAnchor) -> None:
        """Convert times of spans as the GraphServer says."""
        self._anchor = anchor

    @property
    def anchor(self) -> ClockAnchor:
        """How PROFILE_TIME becomes Unix time: as the GraphServer said, or by one look at both clocks before it did."""
        if self._anchor is None:
            self._anchor = ClockAnchor(boot_id="", mono_ns=time.perf_counter_ns(), unix_ns=time.time_ns())
        return self._anchor

    # -- what is recorded ---------------------------------------------------------------------------------------------

    @property
    def level(self) -> str:
        """What is recorded: `off` (totals only), `metrics`, or `trace` (the same, by another name)."""
        return self.recorder.level

    def set_level(self, level: str) -> None:
        """Change what is recorded, at once."""
        if level not in LEVELS:
            raise ValueError(f"the level must be off, metrics or trace, not {level!r}")
        self.recorder.set_level(level)

    def set_trace_sampling(self, rate_hz: float, ratio: float | None = None) -> None:
        """Begin `rate_hz` traces a second and source topic, or, with a `ratio`, for that share of messages."""
        self.recorder.set_roots(rate_hz, ratio)

    def set_row_budget(self, rows_per_s: float) -> None:
        """Thin rows (never counters, sampled or selected messages) when they come faster than this."""
        self.recorder.budget.rows_per_s = rows_per_s

    def set_trace_control(self, control: ProfilingTraceControl) -> None:
        """Begin another native trace, or none. Samples collected so far are gone, for all readers."""
        self.recorder.set_trace(control)
        self._look_again()

    def trace_enabled(self) -> bool:
        """Whether a native trace is on."""
        self.recorder.expire_trace()
        return self.recorder.trace.enabled

    def task_failed(self, unit: str, task: str, error: str) -> None:
        """Count an error of a task that was not handling a message; `error` is the name of its type."""
        self.recorder.process.task_failed(unit, task, error)

    def unlogged(self, unit: str, count: int = 1) -> None:
        """Count messages that a unit was to write to a log, and did not."""
        self.recorder.process.unlogged(unit, count)

    def begins_operation(self, operation: str) -> bool:
        """Whether an operation that is part of no trace begins one."""
        return self.recorder.begins_operation(operation)

    def record_operation(
        self,
        kind: int,
        name: str,
        unit: str,
        detail: str,
        start_ns: int,
        end_ns: int,
        trace: tuple[bytes, int, int],
        error: str,
        graph: str,
    ) -> None:
        """Record a span that belongs to no message, for the readers of a graph; see `recorder.operations`."""
        recorder = self.recorder
        if recorder.recording.records_operations:
            row = operation_row(recorder.labels, kind, name, unit, detail, start_ns, end_ns, trace, error)
            recorder.process.add_span(graph, row)

    def relieve(self, *, is_idle: bool = False) -> None:
        """Let what this thread recorded be read now, if it is so much that it would be lost, or soon would be."""
        self.recorder.relieve(is_idle=is_idle)

    # -- reading ------------------------------------------------------------------------------------------------------

    def snapshot(self, reader: str = DEFAULT_READER, *, process_id: UUID | None = None) -> ProcessProfilingSnapshot:
        """Totals of everything open, and what changed since this reader looked last."""
        recorder, now_ns = self.recorder, PROFILE_TIME()
        with recorder.reading:
            recorder.drain()
            edges, process = edge_profiles(recorder), process_profile(recorder)
            recorded, dropped = recorder.tally()
        seen = self._windows.look(reader, recorder, now_ns)
        return ProcessProfilingSnapshot(
            process_id=process_id or self._process_id,
            pid=os.getpid(),
            host=os.uname().nodename,
            window_seconds=seen.window_s,
            timestamp=float(now_ns),
            publishers=seen.publishers,
            subscribers=seen.subscribers,
            edges=edges,
            recorded=recorded,
            dropped=dropped,
            process=process,
        )

    def trace_batch(
        self,
        max_samples: int = 1000,
        reader: str = DEFAULT_READER,
        *,
        process_id: UUID | None = None,
    ) -> ProcessProfilingTraceBatch:
        """The oldest samples and spans this reader has not had yet, at most `max_samples` of each."""
        recorder = self.recorder
        recorder.expire_trace()
        limit, anchor = max(0, max_samples), self.anchor
        with recorder.reading:
            recorder.drain()
            rows = recorder.digest.take_samples(reader, limit)
            spans = recorder.digest.take_spans(reader, limit)
            dropped = recorder.tally(reader)[1]
        # Rows are ours by now; what they name need not be looked up while the telemetry link waits.
        records, labels = recorder.endpoints.records, recorder.labels.since(0)
        return ProcessProfilingTraceBatch(
            process_id=process_id or self._process_id,
            pid=os.getpid(),
            host=os.uname().nodename,
            timestamp=float(PROFILE_TIME()),
            samples=[],
            dropped=dropped,
            anchor_mono_ns=anchor.mono_ns,
            anchor_unix_ns=anchor.unix_ns,
            boot_id=anchor.boot_id,
        ).fill_later(Columns(rows, spans, records, labels, anchor))

    def forget_reader(self, reader: str) -> None:
        """A reader is gone: free its cursors."""
        self._windows.forget(reader)
        with self.recorder.reading:
            self.recorder.digest.samples.forget(reader)
            self.recorder.digest.spans.forget(reader)

    # -- beneath ------------------------------------------------------------------------------------------------------

    def _enter_graph(self, graph: str | None, endpoint: UUID) -> None:
        if graph is None:
            return
        with self._lock:
            members = self._graphs.setdefault(graph, set())
            is_first = not members
            members.add(endpoint)
        if is_first and self._hook is not None:
            self._hook(graph, True)
        if self._endpoint_hook is not None:
            self._endpoint_hook(endpoint, True)

    def _leave_graph(self, graph: str | None, endpoint: UUID) -> None:
        if graph is None:
            return
        if self._endpoint_hook is not None:
            self._endpoint_hook(endpoint, False)
        with self._lock:
            members = self._graphs.get(graph, set())
            if endpoint not in members:
                return
            members.remove(endpoint)
            if members:
                return
            del self._graphs[graph]
        if self._hook is not None:
            self._hook(graph, False)

    def _look_again(self) -> None:
        if self._wake is not None:
            self._wake()

    def _reset(self) -> None:
        graphs, hook = list(self._graphs), self._hook
        self._begin()
        if hook is not None:
            for graph in graphs:
                hook(graph, False)

    def after_fork(self) -> None:
        """In a forked child: forget the parent, without touching locks its threads may have held."""
        self._begin()


_REGISTRIES: weakref.WeakSet[ProfileRegistry] = weakref.WeakSet()
PROFILES = ProfileRegistry()


def _after_fork() -> None:
    for registry in list(_REGISTRIES):
        registry.after_fork()


os.register_at_fork(after_in_child=_after_fork)
