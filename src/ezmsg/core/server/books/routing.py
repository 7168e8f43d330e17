"""Topics, edges, publishers and subscribers: who reaches whom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ezmsg.core.dag import CyclicException, Owner
from ezmsg.core.server.books.budget import Budget
from ezmsg.core.server.books.topology import Topology, discard
from ezmsg.core.wire.limits import ENTRY_BYTES, GRAPH_BYTES
from ezmsg.core.wire.records import GraphEdges, PublisherRoute, Routing

PERSISTENT = "persistent"


class Reroute(NamedTuple):
    """A subscriber whose publishers changed, and what it must be told."""

    subscriber_id: str
    routing: Routing


class GraphChange(NamedTuple):
    """What a change of edges did.

    `topics`: the ends of the edges that came or went, sorted; empty where only owners changed.
    `reroutes`: the subscribers it affects.
    """

    topics: list[str]
    reroutes: list[Reroute]


NO_CHANGE = GraphChange([], [])


class RoutingBook:
    """The graph, and the endpoints on it.

    Every change returns the subscribers it affects, with all publishers that reach them now.

    Args:
        max_bytes: How much the edges may take, each of its owners counting.
    """

    def __init__(self, max_bytes: int = GRAPH_BYTES) -> None:
        self.dag = Topology()
        self.room = Budget("edges", max_bytes)
        self.publishers: dict[str, PublisherRoute] = {}
        self._subscribers: dict[str, str] = {}
        self._told: dict[str, frozenset[str]] = {}
        self._publishers_on: dict[str, set[str]] = {}
        self._subscribers_on: dict[str, set[str]] = {}

    # -- endpoints ----------------------------------------------------------------------------------------------------

    def add_publisher(self, route: PublisherRoute) -> list[Reroute]:
        """A publisher offers its topic."""
        self.publishers[route.publisher_id] = route
        self._publishers_on.setdefault(route.topic, set()).add(route.publisher_id)
        return self._reroutes([route.topic])

    def remove_publisher(self, publisher_id: str) -> list[Reroute]:
        """A publisher is gone."""
        route = self.publishers.pop(publisher_id, None)
        if route is None:
            return []
        discard(self._publishers_on, route.topic, publisher_id)
        return self._reroutes([route.topic])

    def add_subscriber(self, subscriber_id: str, topic: str) -> Routing:
        """A subscriber asks for a topic; returns all that reaches it."""
        self._subscribers[subscriber_id] = topic
        self._subscribers_on.setdefault(topic, set()).add(subscriber_id)
        routing = self._routing(subscriber_id)
        self._told[subscriber_id] = frozenset(route.publisher_id for route in routing.publishers)
        return routing

    def remove_subscriber(self, subscriber_id: str) -> None:
        """A subscriber is gone."""
        topic = self._subscribers.pop(subscriber_id, None)
        if topic is not None:
            discard(self._subscribers_on, topic, subscriber_id)
            self._told.pop(subscriber_id, None)

    # -- edges --------------------------------------------------------------------------------------------------------

    def connect(self, from_topic: str, to_topic: str, owner: str) -> GraphChange:
        """Make `owner` an owner of an edge.

        Raises:
            CyclicException: It would close a cycle; nothing was changed.
            ServerFull: There are too many edges; nothing was changed.
        """
        if self.dag.is_owned(from_topic, to_topic, owner):
            return NO_CHANGE
        size = _size(from_topic, to_topic, owner)
        self.room.take(size)
        try:
            changed = self.dag.add_edge(from_topic, to_topic, owner)
        except CyclicException:
            self.room.give(size)
            raise
        return GraphChange([to_topic], self._reroutes([to_topic])) if changed else NO_CHANGE

    def disconnect(self, from_topic: str, to_topic: str, owner: str) -> GraphChange:
        """Take `owner` from an edge."""
        if not self.dag.is_owned(from_topic, to_topic, owner):
            return NO_CHANGE
        self.room.give(_size(from_topic, to_topic, owner))
        # Affected are the topics behind the edge, as they were while it was there.
        behind = self.dag.downstream(to_topic)
        changed = self.dag.remove_edge(from_topic, to_topic, owner)
        return GraphChange([to_topic], self._tell(behind)) if changed else NO_CHANGE

    def drop_owner(self, owner: str) -> GraphChange:
        """Take `owner` from every edge."""
        edges = self.dag.edges_of(owner)
        self.room.give(sum(_size(*edge, owner) for edge in edges))
        behind = self.dag.behind(to_topic for _, to_topic in edges)
        gone = self.dag.remove_owner(owner)
        return GraphChange(sorted({to_topic for _, to_topic in gone}), self._tell(behind)) if gone else NO_CHANGE

    def subscribers_behind(self, topic: str) -> list[str]:
        """Every subscriber that messages on `topic` reach."""
        return [sub for reached in self.dag.downstream(topic) for sub in self._subscribers_on.get(reached, ())]

    def edges_of(self, owner: str) -> list[tuple[str, str]]:
        """The edges `owner` has a share in, sorted."""
        return self.dag.edges_of(owner)

    def edges(self) -> GraphEdges:
        """Every node, and every edge with its owners, persistent first."""
        return GraphEdges(
            sorted(self.dag.nodes),
            [(*edge, _listed(self.dag.edge_owners[edge])) for edge in sorted(self.dag.edge_owners)],
        )

    # -- who reaches whom ---------------------------------------------------------------------------------------------

    def _routing(self, subscriber_id: str) -> Routing:
        topics = self.dag.upstream(self._subscribers[subscriber_id])
        reaching = sorted(pub for topic in topics for pub in self._publishers_on.get(topic, ()))
        ended = sorted(pub for pub in self._told.get(subscriber_id, ()) if pub not in self.publishers)
        return Routing([self.publishers[pub] for pub in reaching], ended)

    def _reroutes(self, topics: list[str]) -> list[Reroute]:
        return self._tell(self.dag.behind(topics))

    def _tell(self, topics: Iterable[str]) -> list[Reroute]:
        reroutes: list[Reroute] = []
        for subscriber_id in sorted(sub for topic in topics for sub in self._subscribers_on.get(topic, ())):
            routing = self._routing(subscriber_id)
            now = frozenset(route.publisher_id for route in routing.publishers)
            if now != self._told[subscriber_id]:
                self._told[subscriber_id] = now
                reroutes.append(Reroute(subscriber_id, routing))
        return reroutes


def _size(from_topic: str, to_topic: str, owner: str) -> int:
    """What a share in an edge counts."""
    return len(from_topic.encode()) + len(to_topic.encode()) + len(owner) + ENTRY_BYTES


def _listed(owners: set[Owner]) -> list[str]:
    listed = list(map(str, owners))
    if len(listed) > 1:
        listed.sort(key=lambda owner: (owner != PERSISTENT, owner))
    return listed
