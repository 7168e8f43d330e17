"""The indexed graph of a server does what the plain one does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ezmsg.core.dag import DAG, CyclicException
from ezmsg.core.server.books.topology import Topology

NODES = st.sampled_from("ABCDEF")
OWNERS = st.sampled_from(["one", "two"])
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove", "drop"]), NODES, NODES, OWNERS), max_size=40)


def apply(dag: DAG, step: str, from_topic: str, to_topic: str, owner: str) -> object:
    try:
        match step:
            case "add":
                return dag.add_edge(from_topic, to_topic, owner)
            case "remove":
                return dag.remove_edge(from_topic, to_topic, owner)
            case _:
                return dag.remove_owner(owner)
    except CyclicException as error:
        return str(error)


@given(STEPS)
def test_indexes_agree_with_the_graph_after_any_steps(steps: list[tuple[str, str, str, str]]) -> None:
    plain, indexed = DAG(), Topology()
    for step in steps:
        assert apply(indexed, *step) == apply(plain, *step)
        assert (indexed.graph, indexed.edge_owners) == (plain.graph, plain.edge_owners)
        for topic in "ABCDEF":
            assert indexed.upstream(topic) == plain.upstream(topic)
        for owner in ("one", "two"):
            assert indexed.edges_of(owner) == sorted(
                edge for edge, owners in plain.edge_owners.items() if owner in owners
            )
    assert indexed.behind(["A", "B"]) == {*plain.downstream("A"), *plain.downstream("B")}
    for owner in ("one", "two"):
        indexed.remove_owner(owner)
    assert not indexed.nodes
    assert not indexed._sources
    assert not indexed._owned
