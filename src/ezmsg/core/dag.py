"""The directed acyclic graph of topics, and who owns each of its edges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from ezmsg.core.errors import EzmsgError

Owner = Hashable
Adjacency = Mapping[str, set[str]]


class CyclicException(EzmsgError):
    """An edge would close a cycle; the graph was not changed."""

    code = "CYCLE"

    def __init__(self, from_topic: str = "", to_topic: str = "") -> None:
        super().__init__(f"edge {from_topic!r} -> {to_topic!r} would close a cycle: the graph must stay acyclic")
        self.from_topic, self.to_topic = from_topic, to_topic


def reachable(adjacency: Adjacency, *starts: str) -> list[str]:
    """Every node a path from `starts` leads to, these first, each once, nearest first."""
    seen = dict.fromkeys(starts)
    frontier = list(seen)
    for node in frontier:
        for following in sorted(adjacency.get(node, ())):
            if following not in seen:
                seen[following] = None
                frontier.append(following)
    return list(seen)


@dataclass
class DAG:
    """Topics, edges and the owners of each edge; an edge exists while it has an owner."""

    graph: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict[str, set[str]](set))
    edge_owners: dict[tuple[str, str], set[Owner]] = field(default_factory=dict[tuple[str, str], set[Owner]])

    @property
    def nodes(self) -> set[str]:
        """Every topic with an edge."""
        return set(self.graph)

    @property
    def invgraph(self) -> defaultdict[str, set[str]]:
        """The same topics with every edge reversed."""
        inverse: defaultdict[str, set[str]] = defaultdict(set, {node: set[str]() for node in self.graph})
        for node, targets in self.graph.items():
            for target in targets:
                inverse[target].add(node)
        return inverse

    def add_edge(self, from_topic: str, to_topic: str, owner: Owner = None) -> bool:
        """Make `owner` an owner of the edge.

        Returns:
            Whether the topology changed, that is, whether this is the first owner.

        Raises:
            CyclicException: The edge would close a cycle; nothing was changed.
        """
        if owners := self.edge_owners.get((from_topic, to_topic)):
            owners.add(owner)
            return False
        if self._reaches(to_topic, from_topic):
            raise CyclicException(from_topic, to_topic)
        self.edge_owners[from_topic, to_topic] = {owner}
        self.graph[from_topic].add(to_topic)
        self.graph.setdefault(to_topic, set())
        return True

    def remove_edge(self, from_topic: str, to_topic: str, owner: Owner = None) -> bool:
        """Take `owner` from the edge; True when it was the last one and the edge is gone."""
        edge = (from_topic, to_topic)
        owners = self.edge_owners.get(edge, set())
        if owner not in owners:
            return False
        owners.discard(owner)
        if owners:
            return False
        del self.edge_owners[edge]
        self.graph[from_topic].discard(to_topic)
        self._forget(from_topic, to_topic)
        return True

    def remove_owner(self, owner: Owner) -> set[tuple[str, str]]:
        """Take `owner` from every edge; returns the edges that are gone."""
        owned = [edge for edge, owners in self.edge_owners.items() if owner in owners]
        return {edge for edge in owned if self.remove_edge(*edge, owner)}

    def downstream(self, topic: str) -> list[str]:
        """`topic` and every topic its messages reach."""
        return reachable(self.graph, topic)

    def upstream(self, topic: str) -> list[str]:
        """`topic` and every topic whose messages reach it."""
        return reachable(self.invgraph, topic)

    def _reaches(self, start: str, end: str) -> bool:
        """Whether messages of one topic reach another."""
        return end in reachable(self.graph, start)

    def _forget(self, from_topic: str, to_topic: str) -> None:
        """Drop the ends of a removed edge that have no other."""
        for topic in (from_topic, to_topic):
            if not self.graph[topic] and not any(topic in targets for targets in self.graph.values()):
                del self.graph[topic]
