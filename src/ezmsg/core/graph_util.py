"""Drawings of a graph as text, for Mermaid and Graphviz, and what makes a graph small enough to draw.

A graph is a mapping from each topic to the topics its edges lead to. Topics are addresses: the parts before the last
separator name the collections and the unit a topic belongs to, and become nested boxes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from ezmsg.core.errors import EzmsgError

Graph = defaultdict[str, set[str]]

INDENT = "  "
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MERMAID_TEXT = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_ .:-]*[A-Za-z0-9_])?")
# Words of the languages, which no name may be without quotes, in any case of letters.
_MERMAID_WORDS = frozenset({
    "end", "graph", "flowchart", "subgraph", "class", "classdef", "click", "style", "linkstyle", "default", "direction",
    "call", "callback", "href", "interpolate", "_self", "_blank", "_parent", "_top",
})  # fmt: skip
_GRAPHVIZ_WORDS = frozenset({"node", "edge", "graph", "digraph", "subgraph", "strict"})


class LeafNodeException(EzmsgError):
    """A graph cannot be made compact: a topic with edges is also the parent of others."""

    code = "LEAF_NODE"

    def __init__(self, node: str = "") -> None:
        super().__init__(
            f"{node!r} has edges and is also the parent of other topics: this graph cannot be made compact"
        )
        self.node = node


# -- smaller graphs ---------------------------------------------------------------------------------------------------


def prune_graph_connections(graph: Mapping[str, Iterable[str]]) -> tuple[Graph, list[str]]:
    """Bypass every topic that messages only pass through.

    Returns:
        The graph of the others, and the topics that were bypassed. The argument is unchanged.
    """
    pruned = _copy(graph)
    passed = [node for node in pruned if pruned[node] and any(node in targets for targets in pruned.values())]
    for node in passed:
        targets = pruned.pop(node)
        for others in pruned.values():
            if node in others:
                others.discard(node)
                others |= targets
    return pruned, passed


def get_compactified_graph(
    graph: Mapping[str, Iterable[str]], compact_level: int = 0, level_separator: str = "/"
) -> Graph:
    """Let the lowest level of the hierarchy collapse into its parents, `compact_level` times.

    Edges between the same two nodes become one; edges within a node go.

    Raises:
        LeafNodeException: A node is also the parent of another.
    """
    compact = _copy(graph)
    heights = _pipeline_levels(compact, level_separator)
    for node in compact:
        if heights[node]:
            raise LeafNodeException(node)
    for height in range(1, compact_level + 1):

        def lifted(node: str, height: int = height) -> str:
            parent = _get_parent_node(node, level_separator)
            return parent if parent and heights[parent] == height else node

        compact = _renamed(compact, lifted)
    return compact


def _renamed(graph: Graph, rename: Callable[[str], str]) -> Graph:
    renamed: Graph = defaultdict(set)
    for node, targets in graph.items():
        source = rename(node)
        renamed[source] |= {rename(target) for target in targets} - {source}
    return renamed


def _copy(graph: Mapping[str, Iterable[str]]) -> Graph:
    """A copy in which every target is a key, too."""
    copied: Graph = defaultdict(set, {node: set(targets) for node, targets in graph.items()})
    for target in [target for targets in graph.values() for target in sorted(targets)]:
        copied.setdefault(target, set())
    return copied


def _get_parent_node(node: str, level_separator: str = "/") -> str:
    """What comes before the last separator; "" if there is none."""
    return node.rpartition(level_separator)[0]


def _ancestors(node: str, level_separator: str) -> Iterator[str]:
    """The parent, its parent, and so on up to the top."""
    while node := _get_parent_node(node, level_separator):
        yield node


def _pipeline_levels(graph: Mapping[str, Iterable[str]], level_separator: str = "/") -> dict[str, int]:
    """The height of every node and of all its ancestors: 0, or for an ancestor the longest way down to a node."""
    heights = dict.fromkeys(_copy(graph), 0)
    for node in list(heights):
        for height, ancestor in enumerate(_ancestors(node, level_separator), 1):
            heights[ancestor] = max(height, heights.get(ancestor, 0))
    return heights


# -- text -------------------------------------------------------------------------------------------------------------


@dataclass
class _Box:
    """A collection or unit: what is drawn in it, in the order of appearance."""

    name: str
    boxes: dict[str, _Box] = field(default_factory=dict[str, "_Box"])
    nodes: dict[str, str] = field(default_factory=dict[str, str])  # id to label


def graph_string(
    graph: Mapping[str, Iterable[str]], fmt: str, direction: str = "LR", level_separator: str = "/"
) -> str:
    """The graph as text.

    Args:
        graph: Topics and where their edges lead.
        fmt: `mermaid` or `graphviz`.
        direction: Where edges point: `LR`, `RL`, `TB` or `BT`.
        level_separator: Between the parts of a topic.

    Returns:
        The text; "" for an empty graph.

    Raises:
        ValueError: The format is unknown.
    """
    if fmt not in ("mermaid", "graphviz"):
        raise ValueError(f"unknown format {fmt!r}: expected 'mermaid' or 'graphviz'")
    whole = _copy(graph)
    if not whole:
        return ""
    ids = {node: str(uuid4()) for node in whole}
    top = _boxes(ids, level_separator)
    edges = [(ids[node], ids[target]) for node, targets in whole.items() for target in sorted(targets)]
    return _mermaid(top, edges, direction) if fmt == "mermaid" else _graphviz(top, edges, direction)


def _boxes(ids: Mapping[str, str], level_separator: str) -> _Box:
    top = _Box("")
    for node, node_id in ids.items():
        *path, label = node.split(level_separator)
        box = top
        for name in path:
            box = box.boxes.setdefault(name, _Box(name))
        box.nodes[node_id] = label
    return top


class _Names:
    """Names of boxes in a drawing: the lower-case name, with a number where several boxes are called the same.

    Both languages take boxes of one name for one box.
    """

    def __init__(self, is_word: Callable[[str], bool]) -> None:
        self._is_word = is_word
        self._taken: set[str] = set()

    def new(self, name: str) -> str:
        lower = re.sub(r"\W", "_", name.lower(), flags=re.ASCII) or "_"
        lower = lower if self._is_word(lower) else f"_{lower}"
        unique, number = lower, 1
        while unique in self._taken:
            number += 1
            unique = f"{lower}_{number}"
        self._taken.add(unique)
        return unique


def _mermaid(top: _Box, edges: Iterable[tuple[str, str]], direction: str) -> str:
    lines = [f"flowchart {direction}"]
    names = _Names(_is_mermaid_word)

    def draw(box: _Box, indent: str) -> None:
        for inner in box.boxes.values():
            lines.append(f"{indent}subgraph {names.new(inner.name)} [{_mermaid_label(inner.name)}]")
            draw(inner, indent + INDENT)
            lines.append(f"{indent}end")
        lines.extend(f"{indent}{node_id}[{_mermaid_label(label)}]" for node_id, label in box.nodes.items())

    draw(top, INDENT)
    lines.extend(f"{INDENT}{source} --> {target}" for source, target in edges)
    return "\n".join(lines) + "\n"


def _is_mermaid_word(text: str) -> bool:
    return bool(_WORD.fullmatch(text)) and text.lower() not in _MERMAID_WORDS


def _mermaid_label(text: str) -> str:
    if _MERMAID_TEXT.fullmatch(text) and text.lower() not in _MERMAID_WORDS:
        return text
    escaped = text.replace("#", "#35;").replace('"', "#quot;").replace("\n", " ")
    return f'"{escaped or " "}"'


def _graphviz(top: _Box, edges: Iterable[tuple[str, str]], direction: str) -> str:
    lines = ["digraph EZ {", f'{INDENT}rankdir="{direction}"']
    names = _Names(_is_graphviz_word)

    def draw(box: _Box, indent: str) -> None:
        for inner in box.boxes.values():
            lines.append(f"{indent}subgraph {names.new(inner.name)} {{")
            lines.append(f"{indent}{INDENT}cluster = true;")
            lines.append(f"{indent}{INDENT}label = {_graphviz_quoted(inner.name)};")
            draw(inner, indent + INDENT)
            lines[-1] += "};"
        lines.extend(f'{indent}"{node_id}" [label={_graphviz_label(label)}];' for node_id, label in box.nodes.items())

    draw(top, INDENT)
    lines.extend(f'{INDENT}"{source}" -> "{target}";' for source, target in edges)
    return "\n".join([*lines, "", "}"])


def _is_graphviz_word(text: str) -> bool:
    return bool(_WORD.fullmatch(text)) and text.lower() not in _GRAPHVIZ_WORDS


def _graphviz_label(text: str) -> str:
    return text if _is_graphviz_word(text) else _graphviz_quoted(text)


def _graphviz_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'"{escaped}"'
