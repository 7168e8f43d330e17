"""All processes of the graph, behind one lock: `AgentCore.feed` writes, the pipelines read copies."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable

from ezmsg.core.wire.records import GraphState, ProcessTelemetry, ServerTelemetry
from ezmsg.otel.graphs import Graphs
from ezmsg.otel.resource import ProcessResource, ResourceFactory
from ezmsg.otel.state import Process

MAX_GONE = 256
"""Ended processes whose last values wait for a receiver."""
MAX_ENDED = 1024
"""Others of which is remembered who they were: they may be back."""


class Registry:
    """What is known of the graph. Every method may be called from any thread and returns soon."""

    def __init__(self, resources: ResourceFactory) -> None:
        self._lock = threading.Lock()
        self._resources = resources
        self._is_untouched = True
        self._agent: ProcessResource | None = None
        self._processes: dict[str, Process] = {}
        self._graphs = Graphs()
        self._ended: dict[str, Process] = {}
        self._unconfirmed: set[str] = set()

    @property
    def is_untouched(self) -> bool:
        """Whether no process has delivered anything yet."""
        return self._is_untouched

    def apply(self, record: ProcessTelemetry) -> Process:
        """Take over what a process delivered.

        Returns:
            The process; its `endpoints` and `labels` may be looked up (not walked through) without the lock.
        """
        with self._lock:
            process = self._processes.get(record.link_id)
            if process is None or (process.is_gone and record.hello is not None):
                process = self._begin(record)
            self._is_untouched = False
            self._unconfirmed.discard(record.link_id)
            process.apply(record)
            if process.is_gone:
                self._limit_gone()
            return process

    def tell(self, record: GraphState | ServerTelemetry, server: Hashable = None) -> None:
        """Take over what a GraphServer knows; with several, say which it is."""
        with self._lock:
            if isinstance(record, GraphState):
                self._graphs.set_state(server, record)
            else:
                self._graphs.set_server(server, record)

    def end_server(self, server: Hashable) -> None:
        """A GraphServer ended, and others may go on or follow."""
        with self._lock:
            self._graphs.end(server)

    def server_replaced(self) -> None:
        """The agent joined another GraphServer, which counts from 0 what the one before had counted."""
        with self._lock:
            self._graphs.begin_anew(None)
            for process in self._processes.values():
                process.server_replaced()

    @property
    def servers(self) -> list[ServerTelemetry]:
        """What GraphServers measured of their own work."""
        with self._lock:
            return self._graphs.servers

    def doubt_all(self) -> None:
        """The agent joined again: a process that does not show up now ended while nobody looked."""
        with self._lock:
            self._unconfirmed = {link for link, process in self._processes.items() if not process.is_gone}

    def end_unconfirmed(self) -> None:
        """Nothing more is expected of processes that did not show up since `doubt_all`."""
        with self._lock:
            for link_id in self._unconfirmed:
                self._processes[link_id].end()
            self._unconfirmed.clear()
            self._limit_gone()

    def look(self) -> tuple[list[Process], GraphState | None]:
        """Copies of all processes, with the exemplars that came since the last look, and the graph."""
        with self._lock:
            copies: list[Process] = []
            for process in self._processes.values():
                self._resource(process)
                copies.append(process.copy())
                process.exemplars.clear()
            return copies, self._graphs.state

    def forget(self, link_ids: Iterable[str]) -> None:
        """The last values of these ended processes have been taken."""
        with self._lock:
            for link_id in link_ids:
                # It may be back since they were looked at.
                if (process := self._processes.get(link_id)) is not None and process.is_gone:
                    self._retire(link_id)

    def resource(self, process: Process) -> ProcessResource:
        """Who `process` is. Decided when first asked and kept: a series must not change its identity."""
        with self._lock:
            return self._resource(process)

    def agent_resource(self) -> ProcessResource:
        """Who the agent is, for what belongs to no process of the graph."""
        with self._lock:
            if self._agent is None:
                self._name_service()
                self._agent = self._resources.of_agent()
            return self._agent

    def _resource(self, process: Process) -> ProcessResource:
        if process.resource is None:
            self._name_service()
            process.resource = self._resources.of_process(process)
        return process.resource

    def _name_service(self) -> None:
        processes = self._processes.values()
        self._resources.name_service(endpoint.unit for process in processes for endpoint in process.endpoints.values())

    def _limit_gone(self) -> None:
        gone = [link_id for link_id, process in self._processes.items() if process.is_gone]
        for link_id in gone[:-MAX_GONE]:
            self._retire(link_id)

    def _retire(self, link_id: str) -> None:
        self._ended[link_id] = self._processes.pop(link_id).remains()
        if len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def _begin(self, record: ProcessTelemetry) -> Process:
        """A process appears, or is back after its goodbye: then it tells what it counted before."""
        before = self._ended.pop(record.link_id, None) or self._processes.pop(record.link_id, None)
        process = self._processes[record.link_id] = Process(record.link_id, record.anchor)
        # What it counted for another client it tells no more, and is another one for receivers, too.
        if before is not None and before.process_id == record.batch.process_id:
            process.follow(before)
        return process
