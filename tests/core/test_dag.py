"""The graph of topics: ownership, cycles, reachability."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezmsg.core.dag import DAG, CyclicException


def test_an_edge_changes_the_topology_with_its_first_and_its_last_owner() -> None:
    dag = DAG()
    assert dag.add_edge("A", "B", "one")
    assert not dag.add_edge("A", "B", "two")
    assert not dag.remove_edge("A", "B", "one")
    assert dag.graph == {"A": {"B"}, "B": set()}
    assert dag.remove_edge("A", "B", "two")
    assert dag.nodes == set()
    assert dag.edge_owners == {}


def test_removing_an_edge_that_is_not_there_or_not_owned_changes_nothing() -> None:
    dag = DAG()
    assert not dag.remove_edge("A", "B")
    dag.add_edge("A", "B", "one")
    assert not dag.remove_edge("A", "B", "stranger")
    assert dag.graph == {"A": {"B"}, "B": set()}


@pytest.mark.parametrize("edge", [("A", "A"), ("C", "A"), ("B", "A")])
def test_a_cycle_is_refused_and_changes_nothing(edge: tuple[str, str]) -> None:
    dag = DAG()
    dag.add_edge("A", "B")
    dag.add_edge("B", "C")
    before = copy.deepcopy((dag.graph, dag.edge_owners))
    with pytest.raises(CyclicException, match="cycle"):
        dag.add_edge(*edge)
    assert (dag.graph, dag.edge_owners) == before


def test_reachability_includes_the_topic_itself_and_creates_nothing() -> None:
    dag = DAG()
    dag.add_edge("A", "B")
    dag.add_edge("B", "C")
    assert dag.downstream("A") == ["A", "B", "C"]
    assert dag.upstream("C") == ["C", "B", "A"]
    assert dag.downstream("elsewhere") == ["elsewhere"]
    assert "elsewhere" not in dag.nodes
    assert dag.invgraph == {"A": set(), "B": {"A"}, "C": {"B"}}


def test_removing_an_owner_returns_the_edges_that_are_gone() -> None:
    dag = DAG()
    dag.add_edge("A", "B", "one")
    dag.add_edge("B", "C", "one")
    dag.add_edge("A", "B", "two")
    assert dag.remove_owner("one") == {("B", "C")}
    assert dag.graph == {"A": {"B"}, "B": set()}


NODES = st.sampled_from("ABCDEF")
OWNERS = st.sampled_from(["one", "two"])
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove"]), NODES, NODES, OWNERS), max_size=40)


@given(STEPS)
def test_any_sequence_leaves_an_acyclic_graph_that_agrees_with_its_owners(
    steps: list[tuple[str, str, str, str]],
) -> None:
    dag = DAG()
    for step, from_topic, to_topic, owner in steps:
        if step == "remove":
            dag.remove_edge(from_topic, to_topic, owner)
            continue
        try:
            dag.add_edge(from_topic, to_topic, owner)
        except CyclicException:
            assert from_topic in dag.downstream(to_topic)
    edges = {(a, b) for a, targets in dag.graph.items() for b in targets}
    assert edges == set(dag.edge_owners)
    assert all(dag.edge_owners.values())
    assert dag.nodes == {topic for edge in edges for topic in edge}
    assert all(a not in dag.downstream(b) for a, b in edges)
