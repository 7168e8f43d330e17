"""The graph of a server: a DAG that finds sources, and the edges of an owner, without looking through all edges."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import TypeVar

from ezmsg.core.dag import DAG, Owner, reachable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Hashable)
Pair = tuple[str, str]


class Topology(DAG):
    """A DAG that is changed by its methods only, which keep the indexes."""

    def __init__(self) -> None:
        super().__init__()
        self._sources: dict[str, set[str]] = {}
        self._owned: dict[Owner, set[Pair]] = {}

    def add_edge(self, from_topic: str, to_topic: str, owner: Owner = None) -> bool:
        """Make `owner` an owner of the edge; more in `DAG.add_edge`."""
        changed = super().add_edge(from_topic, to_topic, owner)
        self._owned.setdefault(owner, set()).add((from_topic, to_topic))
        if changed:
            self._sources.setdefault(to_topic, set()).add(from_topic)
        return changed

    def remove_edge(self, from_topic: str, to_topic: str, owner: Owner = None) -> bool:
        """Take `owner` from the edge; more in `DAG.remove_edge`."""
        discard(self._owned, owner, (from_topic, to_topic))
        return super().remove_edge(from_topic, to_topic, owner)

    def remove_owner(self, owner: Owner) -> set[Pair]:
        """Take `owner` from every edge; returns the edges that are gone."""
        return {edge for edge in self.edges_of(owner) if self.remove_edge(*edge, owner)}

    def is_owned(self, from_topic: str, to_topic: str, owner: Owner) -> bool:
        """Whether `owner` has a share in that edge."""
        return (from_topic, to_topic) in self._owned.get(owner, ())

    def edges_of(self, owner: Owner) -> list[Pair]:
        """The edges `owner` has a share in, sorted."""
        return sorted(self._owned.get(owner, ()))

    def upstream(self, topic: str) -> list[str]:
        """`topic` and every topic whose messages reach it."""
        return reachable(self._sources, topic)

    def behind(self, topics: Iterable[str]) -> set[str]:
        """These topics, and every topic their messages reach."""
        seen = set(topics)
        frontier = list(seen)
        while frontier:
            _step(self.graph, frontier, seen, frozenset())
        return seen

    def _reaches(self, start: str, end: str) -> bool:
        """As in a DAG, but from both ends at once: mostly one of them is at an end of the graph, or near."""
        if start == end:
            return True
        if not self.graph.get(start) or end not in self._sources:
            return False
        ahead, behind = {start}, {end}
        forward, backward = [start], [end]
        while forward and backward:
            if _step(self.graph, forward, ahead, behind) or _step(self._sources, backward, behind, ahead):
                return True
        return False

    def _forget(self, from_topic: str, to_topic: str) -> None:
        discard(self._sources, to_topic, from_topic)
        for topic in (from_topic, to_topic):
            if not self.graph[topic] and topic not in self._sources:
                del self.graph[topic]


def _step(adjacency: Mapping[str, set[str]], frontier: list[str], seen: set[str], wanted: AbstractSet[str]) -> bool:
    """Go on from one topic; whether that led to a wanted one."""
    found = adjacency.get(frontier.pop(), frozenset[str]())
    if not wanted.isdisjoint(found):
        return True
    new = found - seen
    seen |= new
    frontier.extend(new)
    return False


def discard(index: dict[K, set[V]], key: K, member: V) -> None:
    """Take a member from an index, and its key when it was the last one."""
    members = index.get(key)
    if members is not None:
        members.discard(member)
        if not members:
            del index[key]
