"""Topics, edges, publishers and subscribers: who reaches whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from ezmsg.core.dag import CyclicException, Owner
from ezmsg.core.errors import ServerFull
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

    Attributes:
        is_partial: The book is new and its graph is not: what it does not know may be there all the same, until
            `settle`. Meanwhile subscribers are told what to add, and what was taken away explicitly.
    """

    def __init__(self, max_bytes: int = GRAPH_BYTES) -> None:
        self.is_partial = False
        self.dag = Topology()
        self.room = Budget("edges", max_bytes)
        self.publishers: dict[str, PublisherRoute] = {}
        self._subscribers: dict[str, str] = {}
        self._told: dict[str, Routing] = {}
        self._publishers_on: dict[str, set[str]] = {}
        self._subscribers_on: dict[str, set[str]] = {}

    # -- endpoints ----------------------------------------------------------------------------------------------------

    def add_publisher(self, route: PublisherRoute) -> list[Reroute]:
        """A publisher offers its topic, perhaps again, or in place of another."""
        known = self.publishers.get(route.publisher_id, route)
        if known.topic != route.topic:
            discard(self._publishers_on, known.topic, route.publisher_id)
        self.publishers[route.publisher_id] = route
        self._publishers_on.setdefault(route.topic, set()).add(route.publisher_id)
        return self._reroutes([known.topic, route.topic])

    def remove_publisher(self, publisher_id: str) -> list[Reroute]:
        """A publisher is gone."""
        route = self.publishers.pop(publisher_id, None)
        if route is None:
            return []
        discard(self._publishers_on, route.topic, publisher_id)
        return self._reroutes([route.topic])

    def add_subscriber(self, subscriber_id: str, topic: str) -> Routing:
        """A subscriber asks for a topic, perhaps again, or for another one; returns all that reaches it."""
        self.remove_subscriber(subscriber_id)
        self._subscribers[subscriber_id] = topic
        self._subscribers_on.setdefault(topic, set()).add(subscriber_id)
        return self._told_now(subscriber_id, self._routing(subscriber_id)).routing

    def settle(self) -> list[Reroute]:
        """The graph is known again: every subscriber is told all that reaches it, and which topics do."""
        self.is_partial = False
        return self._tell(list(self._subscribers_on), always=True)

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
        changed = self._add(from_topic, to_topic, owner)
        return GraphChange([to_topic], self._reroutes([to_topic])) if changed else NO_CHANGE

    def _add(self, from_topic: str, to_topic: str, owner: str) -> bool:
        size = _size(from_topic, to_topic, owner)
        self.room.take(size)
        try:
            return self.dag.add_edge(from_topic, to_topic, owner)
        except CyclicException:
            self.room.give(size)
            raise

    def disconnect(self, from_topic: str, to_topic: str, owner: str) -> GraphChange:
        """Take `owner` from an edge."""
        if not self.dag.is_owned(from_topic, to_topic, owner):
            return NO_CHANGE
        before = self._reached_behind([to_topic])
        self.room.give(_size(from_topic, to_topic, owner))
        changed = self.dag.remove_edge(from_topic, to_topic, owner)
        return GraphChange([to_topic], self._tell_removed(before)) if changed else NO_CHANGE

    def drop_owner(self, owner: str) -> GraphChange:
        """Take `owner` from every edge."""
        edges = self.dag.edges_of(owner)
        before = self._reached_behind(to_topic for _, to_topic in edges)
        self.room.give(sum(_size(*edge, owner) for edge in edges))
        gone = self.dag.remove_owner(owner)
        return (
            GraphChange(sorted({to_topic for _, to_topic in gone}), self._tell_removed(before)) if gone else NO_CHANGE
        )

    def keep(self, owner: str, edges: Iterable[tuple[str, str]]) -> tuple[GraphChange, list[tuple[str, str]]]:
        """Take `owner` from all edges but these; also returns those of these that it is no owner of, sorted."""
        wanted, had = set(edges), set(self.edges_of(owner))
        before = self._reached_behind(to_topic for _, to_topic in had - wanted)
        self.room.give(sum(_size(*edge, owner) for edge in had - wanted))
        changed = {to_topic for a, to_topic in had - wanted if self.dag.remove_edge(a, to_topic, owner)}
        return GraphChange(sorted(changed), self._tell_removed(before) if changed else []), sorted(wanted - had)

    def connect_all(self, edges: Iterable[tuple[str, str]], owner: str) -> tuple[GraphChange, list[tuple[str, str]]]:
        """As `connect`, for many edges; also returns those of them that cannot be had."""
        added: set[str] = set()
        refused: list[tuple[str, str]] = []
        for from_topic, to_topic in edges:
            try:
                if not self.dag.is_owned(from_topic, to_topic, owner) and self._add(from_topic, to_topic, owner):
                    added.add(to_topic)
            except (CyclicException, ServerFull):
                refused.append((from_topic, to_topic))
        return GraphChange(sorted(added), self._reroutes(sorted(added))), refused

    def subscribers_behind(self, topic: str) -> list[str]:
        """Every subscriber that messages on `topic` reach."""
        behind = self.dag.behind([topic]) if self._subscribers_on else ()
        return [sub for reached in behind for sub in self._subscribers_on.get(reached, ())]

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
        topics = sorted(self.dag.upstream(self._subscribers[subscriber_id]))
        reaching = sorted(pub for topic in topics for pub in self._publishers_on.get(topic, ()))
        return Routing([self.publishers[pub] for pub in reaching], topics, self.is_partial)

    def _reroutes(self, topics: list[str]) -> list[Reroute]:
        return self._tell(self.dag.behind(topics)) if self._subscribers_on else []

    def _tell(self, topics: Iterable[str], *, always: bool = False) -> list[Reroute]:
        reroutes: list[Reroute] = []
        for subscriber_id in sorted(sub for topic in topics for sub in self._subscribers_on.get(topic, ())):
            now, told = self._routing(subscriber_id), self._told[subscriber_id]
            # Where a topic is gone it may still hear a publisher that is not here: that one is cut off, too.
            if always or now.publishers != told.publishers or not set(now.topics).issuperset(told.topics):
                reroutes.append(self._told_now(subscriber_id, now))
        return reroutes

    def _told_now(self, subscriber_id: str, routing: Routing) -> Reroute:
        self._told[subscriber_id] = routing
        return Reroute(subscriber_id, routing)

    # Affected by the loss of edges are the topics behind them, as they were while the edges were there.

    def _reached_behind(self, targets: Iterable[str]) -> dict[str, frozenset[str]]:
        """The topics behind these; where the book is partial with all that reach them."""
        behind = self.dag.behind(targets)
        return {topic: frozenset(self.dag.upstream(topic)) if self.is_partial else frozenset() for topic in behind}

    def _tell_removed(self, before: Mapping[str, frozenset[str]]) -> list[Reroute]:
        if not self.is_partial:
            return self._tell(before)
        # Publishers that are not known (again) yet are cut off by their topic.
        reroutes: list[Reroute] = []
        for topic, reached in sorted(before.items()):
            cut = sorted(reached.difference(self.dag.upstream(topic)))
            reroutes += [
                self._told_now(subscriber_id, replace(self._routing(subscriber_id), cut=cut))
                for subscriber_id in (sorted(self._subscribers_on.get(topic, ())) if cut else ())
            ]
        return reroutes


def _size(from_topic: str, to_topic: str, owner: str) -> int:
    """What a share in an edge counts."""
    return len(from_topic.encode()) + len(to_topic.encode()) + len(owner) + ENTRY_BYTES


def _listed(owners: set[Owner]) -> list[str]:
    listed = list(map(str, owners))
    if len(listed) > 1:
        listed.sort(key=lambda owner: (owner != PERSISTENT, owner))
    return listed
