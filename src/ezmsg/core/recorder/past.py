"""What endpoints that are no more counted, added up by what they were.

Who is told of a process for the first time was not told of each of them; but sums may not fall because somebody else
looks. So they go on being told, under the index of an endpoint that stands for all that were the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import uuid4

import msgspec

from ezmsg.core.recorder.merging import Histogram
from ezmsg.core.wire.records import EndpointRecord, HistogramState

LIMIT: Final = 500
"""Endpoints that stand for others; what is one too many is added to `OTHERS`."""
OTHERS: Final = "…other"
SERIES: Final = 100
"""Counters, and histograms, of one of them: a record takes 256 counters."""
GRAPHS: Final = 64
CLIENTS: Final = 16
"""Graphs, and clients of each, of which is known what was before."""
LEVELS: Final = frozenset({"inflight", "queue_depth", "holding_ns", "num_buffers"})

Tally = tuple[dict[str, int], dict[str, int]]
"""What was recorded, and lost."""
Identity = tuple[str, str, int, str, str]
"""Topic, subscription, channel kind, unit and task."""


class LastValues(msgspec.Struct, array_like=True, frozen=True):
    """All that is known of an endpoint when it closes."""

    endpoint: EndpointRecord
    counters: dict[str, int]
    histograms: list[HistogramState]


class _Sum:
    """One endpoint that stands for others."""

    def __init__(self, endpoint: EndpointRecord) -> None:
        self.endpoint = endpoint
        self.counters: dict[str, int] = {}
        self.histograms: dict[tuple[str, str], Histogram] = {}

    def add(self, last: LastValues) -> None:
        for name, value in last.counters.items():
            kind, colon, _ = name.partition(":")
            if kind in LEVELS:
                continue
            if colon and name not in self.counters and len(self.counters) >= SERIES:
                name = f"{kind}:{OTHERS}"
            self.counters[name] = self.counters.get(name, 0) + value
        for state in last.histograms:
            key = state.name, state.label
            if key not in self.histograms and state.label and len(self.histograms) >= SERIES:
                key = state.name, OTHERS
            self.histograms.setdefault(key, Histogram()).merge(state)

    def values(self) -> LastValues:
        index = self.endpoint.index
        states = [histogram.state(index, *key) for key, histogram in self.histograms.items()]
        return LastValues(self.endpoint, self.counters.copy(), states)


class Past:
    """Sums of endpoints that closed. What stands for them has no endpoint id.

    Args:
        new_index: The index of another one that stands for endpoints like this; by default its own.
    """

    def __init__(self, new_index: Callable[[EndpointRecord], int] = lambda endpoint: endpoint.index) -> None:
        self._new_index = new_index
        self._sums: dict[Identity, _Sum] = {}

    def add(self, last: LastValues) -> None:
        """An endpoint closed, and will not be told apart any more."""
        endpoint = last.endpoint
        identity = (endpoint.topic, endpoint.subscription, endpoint.channel_kind, endpoint.unit, endpoint.task)
        if identity not in self._sums and len(self._sums) >= LIMIT:
            identity = (OTHERS, OTHERS if endpoint.subscription else "", endpoint.channel_kind, "", "")
        found = self._sums.get(identity)
        if found is None:
            index = self._new_index(endpoint)
            topic, subscription, kind, unit, task = identity
            found = self._sums[identity] = _Sum(
                EndpointRecord(index, topic, subscription, "", "", kind, unit=unit, task=task)
            )
        found.add(last)

    def values(self) -> list[LastValues]:
        """All of it."""
        return [of_one.values() for of_one in self._sums.values()]


def is_past(endpoint: EndpointRecord) -> bool:
    """Whether a record stands for endpoints that are no more."""
    return not endpoint.endpoint_id


class _OfGraph:
    """What one graph was told of this process."""

    def __init__(self) -> None:
        self.link_id = str(uuid4())
        self.next_seq = 0
        self.by_client: dict[str, Past] = {}
        self.tallies: dict[str, Tally] = {}


class Pasts:
    """What graphs were told of this process, by links that are over. Callers take turns.

    A link goes on under the id of the one before, as the same process; what its clients counted stays theirs.

    Args:
        new_index: The next index of an endpoint.
    """

    def __init__(self, new_index: Callable[[], int]) -> None:
        self._new_index = new_index
        self._graphs: dict[str, _OfGraph] = {}

    def link_id(self, graph: str) -> str:
        """The id of links to a graph."""
        return self._of(graph).link_id

    def take_seq(self, graph: str) -> int:
        """The number of the next batch that is told to a graph."""
        of_graph = self._of(graph)
        seq, of_graph.next_seq = of_graph.next_seq, of_graph.next_seq + 1
        return seq

    def of(self, graph: str, client: str) -> Past:
        """Endpoints that closed while a graph knew this process by that client (empty: by none)."""
        by_client = self._of(graph).by_client
        if client not in by_client:
            by_client[client] = Past(lambda endpoint: self._new_index())
            if len(by_client) > CLIENTS:
                del by_client[next(iter(by_client))]
        return by_client[client]

    def begin_tally(self, graph: str, client: str, tally: Tally) -> Tally:
        """What had been recorded and lost when a link of that client was first opened: by this tally, if it is now."""
        tallies = self._of(graph).tallies
        if client not in tallies:
            tallies[client] = tally
            if len(tallies) > CLIENTS:
                del tallies[next(iter(tallies))]
        return tallies[client]

    def forget(self, graph: str) -> None:
        """A graph is no more: another one at its address is told nothing of what was."""
        self._graphs.pop(graph, None)

    def _of(self, graph: str) -> _OfGraph:
        if graph not in self._graphs:
            self._graphs[graph] = _OfGraph()
            if len(self._graphs) > GRAPHS:
                del self._graphs[next(iter(self._graphs))]
        return self._graphs[graph]
