"""Drawings: what is left out, what collapses, and the text."""

from __future__ import annotations

import copy
import itertools
import re
from collections import defaultdict
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezmsg.core import graph_util
from ezmsg.core.graph_util import (
    LeafNodeException,
    _get_parent_node,
    _pipeline_levels,
    get_compactified_graph,
    graph_string,
    prune_graph_connections,
)

GRAPH = {
    "SYS/GEN/OUTPUT": {"SYS/OUT"},
    "SYS/OUT": {"LOG/IN", "SYS/PLOT/INPUT"},
    "LOG/IN": {"LOG/FILE/INPUT"},
    "LOG/FILE/INPUT": set[str](),
    "SYS/PLOT/INPUT": set[str](),
}


@pytest.fixture
def _plain_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    counter = itertools.count()
    monkeypatch.setattr(graph_util, "uuid4", lambda: f"n{next(counter)}")


def dag_of(edges: list[tuple[int, int]]) -> dict[str, set[str]]:
    graph: dict[str, set[str]] = defaultdict(set)
    for a, b in edges:
        if a != b:
            graph[f"N{min(a, b)}"].add(f"N{max(a, b)}")
            graph[f"N{max(a, b)}"].update()
    return graph


# -- smaller graphs ---------------------------------------------------------------------------------------------------


def test_topics_that_messages_only_pass_through_are_bypassed_and_the_argument_is_unchanged() -> None:
    before = copy.deepcopy(GRAPH)
    pruned, passed = prune_graph_connections(GRAPH)
    assert pruned == {
        "SYS/GEN/OUTPUT": {"LOG/FILE/INPUT", "SYS/PLOT/INPUT"},
        "LOG/FILE/INPUT": set(),
        "SYS/PLOT/INPUT": set(),
    }
    assert passed == ["SYS/OUT", "LOG/IN"]
    assert before == GRAPH


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=20))
def test_a_pruned_graph_leads_from_each_source_to_the_same_ends(edges: list[tuple[int, int]]) -> None:
    graph = dag_of(edges)

    def ends(node: str) -> set[str]:
        return set().union(*map(ends, graph[node])) if graph[node] else {node}

    pruned, _ = prune_graph_connections(graph)
    targets = set().union(*graph.values())
    assert pruned == {
        node: (ends(node) if graph[node] else set()) for node in graph if not (graph[node] and node in targets)
    }


def test_levels_are_the_longest_ways_down() -> None:
    assert _pipeline_levels({"A/B/C/X": {"A/Y"}, "T": set()}) == {
        "A/B/C/X": 0, "A/Y": 0, "T": 0, "A/B/C": 1, "A/B": 2, "A": 3,
    }  # fmt: skip
    assert _get_parent_node("A/B/C", "/") == "A/B"
    assert _get_parent_node("A", "/") == ""


def test_each_level_of_compaction_turns_the_lowest_into_their_parents() -> None:
    graph = {"S/A/OUT": {"S/B/IN", "S/A/IN", "T"}, "S/A/IN": set[str](), "S/B/IN": set[str](), "T": set[str]()}
    assert get_compactified_graph(graph, 0) == graph
    once = get_compactified_graph(graph, 1)
    assert once == {"S/A": {"S/B", "T"}, "S/B": set(), "T": set()}
    assert list(once) == ["S/A", "S/B", "T"]
    assert get_compactified_graph(graph, 2) == {"S": {"T"}, "T": set()}
    assert get_compactified_graph(graph, 9) == {"S": {"T"}, "T": set()}


def test_a_shallow_topic_stays_until_its_parent_is_the_lowest() -> None:
    graph = {"S/A/OUT": {"S/IN"}, "S/IN": set[str]()}
    assert get_compactified_graph(graph, 1) == {"S/A": {"S/IN"}, "S/IN": set()}
    assert get_compactified_graph(graph, 2) == {"S": set()}


def test_a_topic_that_is_also_a_parent_cannot_be_made_compact() -> None:
    with pytest.raises(LeafNodeException, match="'S/A'") as error:
        get_compactified_graph({"S/A": {"S/A/IN"}}, 1)
    assert error.value.node == "S/A"


# -- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_plain_ids")
def test_mermaid_draws_boxes_in_boxes_and_edges_behind_them() -> None:
    assert graph_string({"SYS/GEN/OUTPUT": {"SYS/LOG/INPUT", "RAW"}}, "mermaid") == (
        "flowchart LR\n"
        "  subgraph sys [SYS]\n"
        "    subgraph gen [GEN]\n"
        "      n0[OUTPUT]\n"
        "    end\n"
        "    subgraph log [LOG]\n"
        "      n2[INPUT]\n"
        "    end\n"
        "  end\n"
        "  n1[RAW]\n"
        "  n0 --> n1\n"
        "  n0 --> n2\n"
    )


@pytest.mark.usefixtures("_plain_ids")
def test_graphviz_draws_clusters_in_clusters_and_edges_behind_them() -> None:
    assert graph_string({"SYS/GEN/OUTPUT": {"RAW"}}, "graphviz", "TB") == (
        "digraph EZ {\n"
        '  rankdir="TB"\n'
        "  subgraph sys {\n"
        "    cluster = true;\n"
        '    label = "SYS";\n'
        "    subgraph gen {\n"
        "      cluster = true;\n"
        '      label = "GEN";\n'
        '      "n0" [label=OUTPUT];};};\n'
        '  "n1" [label=RAW];\n'
        '  "n0" -> "n1";\n'
        "\n"
        "}"
    )


def test_nodes_have_ids_that_no_other_drawing_has() -> None:
    assert UUID(re.findall(r"(\S+)\[A\]", graph_string({"A": {"B"}}, "mermaid"))[0]).version == 4


@pytest.mark.usefixtures("_plain_ids")
def test_boxes_of_the_same_name_in_different_places_stay_apart() -> None:
    drawn = graph_string({"LEFT/FILTER/OUT": {"RIGHT/FILTER/IN"}}, "mermaid")
    assert "subgraph filter [FILTER]" in drawn
    assert "subgraph filter_2 [FILTER]" in drawn


@pytest.mark.usefixtures("_plain_ids")
@pytest.mark.parametrize(
    ("topic", "mermaid", "graphviz"),
    [
        ("my topic", "n0[my topic]", '"n0" [label="my topic"]'),
        ("a(b)", 'n0["a(b)"]', '"n0" [label="a(b)"]'),
        ('say "hi"', 'n0["say #quot;hi#quot;"]', '"n0" [label="say \\"hi\\""]'),
        ("end", 'n0["end"]', '"n0" [label=end]'),
        ("Node", "n0[Node]", '"n0" [label="Node"]'),
        ("back\\slash", 'n0["back\\slash"]', '"n0" [label="back\\\\slash"]'),
        ("2nd", "n0[2nd]", '"n0" [label="2nd"]'),
        ("", 'n0[" "]', '"n0" [label=""]'),
    ],
)
def test_names_that_are_no_words_of_the_language_are_quoted(topic: str, mermaid: str, graphviz: str) -> None:
    graph = {topic: {"zz"}}
    assert f"  {mermaid}\n" in graph_string(graph, "mermaid")
    assert f"  {graphviz};\n" in graph_string(graph, "graphviz").replace("n2", "n0")


@pytest.mark.usefixtures("_plain_ids")
def test_a_box_is_never_called_like_a_keyword() -> None:
    assert "subgraph _end [" in graph_string({"END/X": {"Y"}}, "mermaid")
    assert "subgraph _graph {" in graph_string({"GRAPH/X": {"Y"}}, "graphviz")


@pytest.mark.parametrize("fmt", ["mermaid", "graphviz"])
def test_an_empty_graph_is_an_empty_text(fmt: str) -> None:
    assert graph_string({}, fmt) == ""


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(ValueError, match="'svg'"):
        graph_string({}, "svg")
