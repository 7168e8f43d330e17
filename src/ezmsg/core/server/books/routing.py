"""Topics, edges, publishers and subscribers: who reaches whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from ezmsg.core.dag import DAG, CyclicException
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

    Attributes:
        is_partial: The book is new and its graph is not: what it does not know may be there all the same, until
            `settle`. Meanwhile subscribers are told what to add, and what was taken away explicitly.
    """

    def __init__(self) -> None:
        self.is_partial = False
        self.dag = DAG()
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
        _discard(self._publishers_on, route.topic, publisher_id)
        return self._reroutes([route.topic])

    def add_subscriber(self, subscriber_id: str, topic: str) -> Routing:
        """A subscriber asks for a topic; returns all that reaches it."""
        self._subscribers[subscriber_id] = topic
        self._subscribers_on.setdefault(topic, set()).add(subscriber_id)
        routing = self._routing(subscriber_id)
        self._told[subscriber_id] = frozenset(route.publisher_id for route in routing.publishers)
        return replace(routing, is_partial=True) if self.is_partial else routing

    def settle(self) -> list[Reroute]:
        """The graph is known again: every subscriber is told all that reaches it, and nothing else does."""
        self.is_partial = False
        return self._tell(list(self._subscribers_on), always=True)

    def remove_subscriber(self, subscriber_id: str) -> None:
        """A subscriber is gone."""
        topic = self._subscribers.pop(subscriber_id, None)
        if topic is not None:
            _discard(self._subscribers_on, topic, subscriber_id)
            self._told.pop(subscriber_id, None)

    # -- edges --------------------------------------------------------------------------------------------------------

    def connect(self, from_topic: str, to_topic: str, owner: str) -> GraphChange:
        """Make `owner` an owner of an edge.

        Raises:
            CyclicException: It would close a cycle; nothing was changed.
        """
        changed = self.dag.add_edge(from_topic, to_topic, owner)
        return GraphChange([to_topic], self._reroutes([to_topic])) if changed else NO_CHANGE

    def disconnect(self, from_topic: str, to_topic: str, owner: str) -> GraphChange:
        """Take `owner` from an edge."""
        before = self._reached_behind([to_topic])
        changed = self.dag.remove_edge(from_topic, to_topic, owner)
        return GraphChange([to_topic], self._tell_removed(before)) if changed else NO_CHANGE

    def drop_owner(self, owner: str) -> GraphChange:
        """Take `owner` from every edge."""
        before = self._reached_behind(to_topic for _, to_topic in self.edges_of(owner))
        gone = self.dag.remove_owner(owner)
        return (
            GraphChange(sorted({to_topic for _, to_topic in gone}), self._tell_removed(before)) if gone else NO_CHANGE
        )

    def restore(self, owner: str, edges: Iterable[tuple[str, str]]) -> tuple[GraphChange, list[tuple[str, str]]]:
        """Make `owner` an owner of exactly these edges; also returns those of them that would close a cycle."""
        wanted, had = set(edges), set(self.edges_of(owner))
        before = self._reached_behind(to_topic for _, to_topic in had - wanted)
        changed = {to_topic for a, to_topic in had - wanted if self.dag.remove_edge(a, to_topic, owner)}
        reroutes = self._tell_removed(before) if changed else []
        added: set[str] = set()
        refused: list[tuple[str, str]] = []
        for from_topic, to_topic in sorted(wanted - had):
            try:
                if self.dag.add_edge(from_topic, to_topic, owner):
                    added.add(to_topic)
            except CyclicException:
                refused.append((from_topic, to_topic))
        # In order: what is told last to a subscriber holds.
        return GraphChange(sorted(changed | added), reroutes + self._reroutes(sorted(added))), refused

    def subscribers_behind(self, topic: str) -> list[str]:
        """Every subscriber that messages on `topic` reach."""
        return [sub for reached in self.dag.downstream(topic) for sub in self._subscribers_on.get(reached, ())]

    def edges_of(self, owner: str) -> list[tuple[str, str]]:
        """The edges `owner` has a share in, sorted."""
        return sorted(edge for edge, owners in self.dag.edge_owners.items() if owner in owners)

    def edges(self) -> GraphEdges:
        """Every node, and every edge with its owners, persistent first."""
        return GraphEdges(
            sorted(self.dag.nodes),
            [
                (*edge, sorted(map(str, owners), key=lambda owner: (owner != PERSISTENT, owner)))
                for edge, owners in sorted(self.dag.edge_owners.items())
            ],
        )

    # -- who reaches whom ---------------------------------------------------------------------------------------------

    def _routing(self, subscriber_id: str) -> Routing:
        topics = self.dag.upstream(self._subscribers[subscriber_id])
        reaching = sorted(pub for topic in topics for pub in self._publishers_on.get(topic, ()))
        ended = sorted(pub for pub in self._told.get(subscriber_id, ()) if pub not in self.publishers)
        return Routing([self.publishers[pub] for pub in reaching], ended)

    def _reroutes(self, topics: list[str]) -> list[Reroute]:
        return self._tell({reached for topic in topics for reached in self.dag.downstream(topic)})

    def _tell(self, topics: Iterable[str], *, always: bool = False) -> list[Reroute]:
        reroutes: list[Reroute] = []
        for subscriber_id in sorted(sub for topic in topics for sub in self._subscribers_on.get(topic, ())):
            routing = self._routing(subscriber_id)
            now = frozenset(route.publisher_id for route in routing.publishers)
            if always or now != self._told[subscriber_id]:
                self._told[subscriber_id] = now
                reroutes.append(
                    Reroute(subscriber_id, replace(routing, is_partial=True) if self.is_partial else routing)
                )
        return reroutes

    # Affected by the loss of edges are the topics behind them, as they were while the edges were there.

    def _reached_behind(self, targets: Iterable[str]) -> dict[str, frozenset[str]]:
        """The topics behind these; where the book is partial with all that reach them."""
        behind = {topic for target in targets for topic in self.dag.downstream(target)}
        return {topic: frozenset(self.dag.upstream(topic)) if self.is_partial else frozenset() for topic in behind}

    def _tell_removed(self, before: Mapping[str, frozenset[str]]) -> list[Reroute]:
        if not self.is_partial:
            return self._tell(before)
        # Publishers that are not known (again) yet are cut off by their topic.
        reroutes: list[Reroute] = []
        for topic, reached in sorted(before.items()):
            cut = sorted(reached.difference(self.dag.upstream(topic)))
            for subscriber_id in sorted(self._subscribers_on.get(topic, ())) if cut else ():
                routing = self._routing(subscriber_id)
                self._told[subscriber_id] = frozenset(route.publisher_id for route in routing.publishers)
                reroutes.append(Reroute(subscriber_id, replace(routing, is_partial=True, cut=cut)))
        return reroutes


def _discard(index: dict[str, set[str]], topic: str, member: str) -> None:
    members = index.get(topic, set())
    members.discard(member)
    if not members:
        index.pop(topic, None)
