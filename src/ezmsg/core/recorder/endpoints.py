"""The endpoints of a process: which are open, which closed but still owe their last rows, and what each index means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ezmsg.core.recorder.edge import EdgeMetrics
from ezmsg.core.recorder.publisher import PublisherMetrics
from ezmsg.core.recorder.ring import Ring
from ezmsg.core.recorder.subscriber import SubscriberMetrics
from ezmsg.core.wire.records import EndpointRecord

CLOSED: Final = 1024
"""Closed endpoints kept for a telemetry link that does not take them."""
RECORDS: Final = 8192
"""Records of closed endpoints kept to explain rows that readers have not read yet."""


@dataclass(slots=True)
class Endpoint:
    """A publisher, or an edge of `subscriber`."""

    record: EndpointRecord
    graph: str | None
    metrics: PublisherMetrics | EdgeMetrics
    ring: Ring
    subscriber: SubscriberMetrics | None = None

    @property
    def index(self) -> int:
        """The number that its rows carry."""
        return self.record.index

    def counters(self) -> dict[str, int]:
        """Totals and gauges, as they travel."""
        values = self.metrics.counters()
        depth = None if self.subscriber is None else self.subscriber.queue_depth
        if depth is not None:
            values["queue_depth"] = depth()
        return values


class Endpoints:
    """Indices begin at 1 (0 is the process itself) and are never used again. Callers hold the registry's lock."""

    def __init__(self) -> None:
        """No endpoint."""
        self._next = 1
        self.open: dict[int, Endpoint] = {}
        self.closed: dict[int, Endpoint] = {}
        self.records: dict[int, EndpointRecord] = {}
        self._retired: dict[int, None] = {}
        self.forgotten = 0

    def new_index(self) -> int:
        """The next index."""
        index, self._next = self._next, self._next + 1
        return index

    def add(self, endpoint: Endpoint) -> None:
        """An endpoint opened."""
        self.open[endpoint.index] = endpoint
        self.records[endpoint.index] = endpoint.record

    def close(self, index: int) -> Endpoint | None:
        """An endpoint closed; it stays among the closed until `retire`."""
        endpoint = self.open.get(index)
        if endpoint is not None:
            # Never nowhere: who reads rows looks for it without the lock, first among the open.
            self.closed[index] = endpoint
            del self.open[index]
        return endpoint

    def retire(self, index: int) -> None:
        """A closed endpoint was delivered."""
        if self.closed.pop(index, None) is None:
            return
        self._retired[index] = None
        if len(self._retired) > RECORDS:
            oldest = next(iter(self._retired))
            del self._retired[oldest], self.records[oldest]
