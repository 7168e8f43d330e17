"""A graph as lines of text, each edge below the one that feeds it; and what is different between two graphs. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID

from ezmsg.core.graphmeta import Edge as GraphEdge
from ezmsg.core.graphmeta import GraphSnapshot, SnapshotProcess, UnitMetadata
from ezmsg.tui.measures import Edge
from ezmsg.tui.names import common_root

# Lines of a drawing, and edges that are drawn below each other.
LINES = 400
DEPTH = 40


@dataclass(frozen=True, slots=True)
class Line:
    """One line: a node with no edge to it, or an edge and the node it leads to.

    `text` is the node with the lines that lead to it; `is_again`: what follows from it is drawn elsewhere.
    """

    text: str
    node: str
    edge: GraphEdge | None
    is_again: bool = False


class Drawing:
    """Units and topics of a graph, in the order in which messages go through them.

    Args:
        graph: What a GraphContext tells.
    """

    def __init__(self, graph: GraphSnapshot) -> None:
        """Find out which topics are units'."""
        self._units = _units(graph)
        self._root = common_root({topic for edge in graph.edge_owners for topic in edge})
        self._edges: dict[str, list[GraphEdge]] = defaultdict(list)
        fed: set[str] = set()
        nodes: dict[str, None] = {}
        for edge in sorted(graph.edge_owners):
            self._edges[self.node(edge.from_topic)].append(edge)
            nodes.setdefault(self.node(edge.from_topic))
            nodes.setdefault(self.node(edge.to_topic))
            if self.node(edge.to_topic) != self.node(edge.from_topic):
                fed.add(self.node(edge.to_topic))
        self.lines: list[Line] = []
        self._drawn: set[str] = set()
        # What is in a circle of units is fed by all of it, and begins where nothing else is left.
        for node in [*(node for node in nodes if node not in fed), *nodes]:
            if node not in self._drawn and len(self.lines) < LINES:
                self.lines.append(Line(self.name(node), node, None))
                self._follow(node, "", 0)

    def node(self, topic: str) -> str:
        """The unit that a topic belongs to, else the topic itself."""
        unit = topic.rpartition("/")[0]
        return unit if unit in self._units else topic

    def name(self, address: str) -> str:
        """Without the root that all share."""
        return address.removeprefix(self._root)

    def _follow(self, node: str, indent: str, depth: int) -> None:
        self._drawn.add(node)
        edges = self._edges.get(node, [])
        for number, edge in enumerate(edges):
            if len(self.lines) >= LINES:
                return
            is_last = number == len(edges) - 1
            target = self.node(edge.to_topic)
            is_again = target in self._drawn and bool(self._edges.get(target))
            branch = "└─▶ " if is_last else "├─▶ "
            again = " (above)" if is_again else ""
            self.lines.append(Line(f"{indent}{branch}{self._end(edge, target)}{again}", target, edge, is_again))
            if target not in self._drawn and depth < DEPTH:
                self._follow(target, indent + ("    " if is_last else "│   "), depth + 1)

    def _end(self, edge: GraphEdge, target: str) -> str:
        """The node an edge leads to; with the streams where the node has several edges from the same one."""
        source = self.node(edge.from_topic)
        same = [other for other in self._edges[source] if self.node(other.to_topic) == target]
        return self.name(edge.to_topic if len(same) > 1 else target)


def _units(graph: GraphSnapshot) -> set[str]:
    units = {unit for process in graph.processes.values() for unit in process.units}
    for session in graph.sessions.values():
        if session.metadata is not None:
            components = session.metadata.components
            units |= {address for address, component in components.items() if isinstance(component, UnitMetadata)}
    return units


def flow(edge: GraphEdge, graph: GraphSnapshot, measured: Iterable[Edge]) -> tuple[float, str]:
    """Messages per second on an edge, and its transports; topics between publisher and subscriber measure nothing.

    Of several subscribers the one that gets most tells the rate, as all of them get the same messages.
    """
    before = _reachable(edge.from_topic, _inverse(graph.graph))
    after = _reachable(edge.to_topic, graph.graph)
    rates: dict[str, float] = defaultdict(float)
    kinds: set[str] = set()
    for one in measured:
        if one.topic in before and one.subscription in after:
            rates[one.topic] = max(rates[one.topic], one.rate_hz)
            kinds.add(one.via)
    return sum(rates.values()), "+".join(sorted(kinds - {""}))


def _inverse(graph: dict[str, list[str]]) -> dict[str, list[str]]:
    inverse: dict[str, list[str]] = defaultdict(list)
    for source, targets in graph.items():
        for target in targets:
            inverse[target].append(source)
    return inverse


def _reachable(topic: str, graph: dict[str, list[str]]) -> set[str]:
    found, waiting = {topic}, [topic]
    while waiting:
        for following in graph.get(waiting.pop(), ()):
            if following not in found:
                found.add(following)
                waiting.append(following)
    return found


def process_of(node: str, graph: GraphSnapshot) -> SnapshotProcess | None:
    """The process that owns a unit."""
    return next((process for process in graph.processes.values() if node in process.units), None)


def differences(before: GraphSnapshot, now: GraphSnapshot) -> list[str]:
    """What came (`+`), went (`-`) or changed (`~`), a line each."""
    told = [f"+ {edge.from_topic} → {edge.to_topic}" for edge in _sorted(now.edge_owners.keys() - before.edge_owners)]
    told += [f"- {edge.from_topic} → {edge.to_topic}" for edge in _sorted(before.edge_owners.keys() - now.edge_owners)]
    for process_id in _ids(now.processes.keys() | before.processes.keys()):
        old, new = before.processes.get(process_id), now.processes.get(process_id)
        if old is None and new is not None:
            told.append(f"+ process {_described(new)}")
        elif new is None and old is not None:
            told.append(f"- process {_described(old)}")
        elif new is not None and new != old:
            told.append(f"~ process {_described(new)}")
    return told


def _sorted(edges: Iterable[GraphEdge]) -> Sequence[GraphEdge]:
    return sorted(edges)


def _ids(ids: Iterable[UUID]) -> list[UUID]:
    return sorted(ids, key=str)


def _described(process: SnapshotProcess) -> str:
    units = ", ".join(process.units) or "no units"
    return f"{process.pid if process.pid is not None else '?'} ({units})"
