from __future__ import annotations

from enum import Enum, StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ezmsg.core as ez
from ezmsg.core.dag import DAG, CyclicException, reachable
from ezmsg.core.errors import InvalidResult
from ezmsg.core.relay import Relay, RelayUnit, add_hidden_units
from ezmsg.core.runtime.network import address_pairs, through_relays
from tests.core.runtime.trees import Crossing, Part, Tree, collection, collections, trees


class Topics(Enum):
    RAW = "raw topic"
    CLEAN = 2


class Texts(StrEnum):
    RAW = "raw/topic"


class OldTexts(str, Enum):  # noqa: UP042
    RAW = "raw/topic"


def placed(component: Any, name: str = "SYS") -> Any:
    component._set_name(name)
    component._set_location([])
    return component


# -- definitions --------------------------------------------------------------------------------------------------


def test_streams_strings_and_enum_members_become_topics() -> None:
    unit = placed(Part(), "A")
    pairs = address_pairs([(unit.OUTPUT, "TEXT"), ("a//b ", unit.INPUT), (Topics.RAW, Topics.CLEAN)], "here")
    assert pairs == [("A/OUTPUT", "TEXT"), ("a//b ", "A/INPUT"), ("RAW", "CLEAN")]


def test_members_that_are_strings_are_topics_verbatim() -> None:
    ((first, second),) = address_pairs([(Texts.RAW, OldTexts.RAW)], "here")
    assert (first, second) == ("raw/topic", "raw/topic")
    assert type(first) is type(second) is str


@pytest.mark.parametrize("make", [tuple, list, set, iter, lambda edges: (edge for edge in edges)])
def test_any_iterable_is_a_definition(make: Any) -> None:
    assert sorted(address_pairs(make([("a", "b"), ("c", "d")]), "here")) == [("a", "b"), ("c", "d")]


def test_pairs_may_be_lists() -> None:
    assert address_pairs([["a", "b"]], "here") == [("a", "b")]


@pytest.mark.parametrize("end", [5, None, b"topic", Part(), Part, ("a", "b")])
def test_other_ends_are_a_type_error(end: Any) -> None:
    for pair in ((end, "b"), ("a", end)):
        with pytest.raises(TypeError, match=r"^here gave .*: expected a stream, a topic") as caught:
            address_pairs([pair], "here")
        assert isinstance(caught.value, InvalidResult)


@pytest.mark.parametrize("edge", [("a",), ("a", "b", "c"), (), "ab", 5, None, {"a": 1, "b": 2}])
def test_what_is_no_pair_is_a_type_error(edge: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a pair \(from, to\)"):
        address_pairs([edge], "here")


@pytest.mark.parametrize("definition", [None, 5, "ab", {"a": "b"}])
def test_what_is_no_series_of_pairs_is_a_type_error(definition: Any) -> None:
    with pytest.raises(TypeError, match=r"here gave .*expected an iterable of pairs"):
        address_pairs(definition, "here")


def test_a_pair_instead_of_a_series_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        address_pairs(("topic", "other"), "here")


def test_a_stream_of_the_class_is_told_from_that_of_the_instance() -> None:
    with pytest.raises(TypeError, match="of self, not of the class"):
        address_pairs([(Part.OUTPUT, "b")], "here")


def test_an_edge_from_an_input_to_an_output_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    system = placed(collection(A=Part(), B=Part()))

    pairs = address_pairs([(system.B.INPUT, system.A.OUTPUT), (system.A.OUTPUT, system.B.INPUT)], "here")

    assert len(pairs) == 2
    assert [record.getMessage() for record in caplog.records] == [
        f"here connects the input {pairs[0][0]} to the output {pairs[0][1]}: a pair is (from, to)"
    ]


def test_a_collection_may_pass_on_what_it_gets(caplog: pytest.LogCaptureFixture) -> None:
    part = placed(collection(A=Part())).A

    assert address_pairs([(part.INPUT, part.OUTPUT)], "here") == [(part.INPUT.address, part.OUTPUT.address)]

    assert not caplog.records


# -- relays -------------------------------------------------------------------------------------------------------


def test_edges_inside_pass_through_the_hidden_units() -> None:
    system = placed(collection(Crossing, A=Part()))
    hidden = add_hidden_units(system)
    edges = [(system.RELAY_IN, system.A.INPUT), (system.A.OUTPUT, system.RELAY_OUT)]
    assert set(through_relays(address_pairs(edges, "here"), hidden)) == {
        ("SYS/RELAY_IN", "SYS/__relay_in_RELAY_IN/INPUT"),
        ("SYS/__relay_in_RELAY_IN/OUTPUT", "SYS/A/INPUT"),
        ("SYS/A/OUTPUT", "SYS/__relay_out_RELAY_OUT/INPUT"),
        ("SYS/__relay_out_RELAY_OUT/OUTPUT", "SYS/RELAY_OUT"),
    }


def test_edges_outside_stay_at_the_endpoints() -> None:
    system = placed(collection(Crossing))
    edges = [("x", "SYS/RELAY_IN"), ("SYS/RELAY_OUT", "y"), ("x", "SYS/TOPIC_IN"), ("SYS/TOPIC_OUT", "y")]
    assert through_relays(edges, add_hidden_units(system))[:4] == edges


def test_an_edge_from_an_input_relay_to_an_output_relay_passes_through_both() -> None:
    system = placed(collection(Crossing))
    edges = through_relays([("SYS/RELAY_IN", "SYS/RELAY_OUT")], add_hidden_units(system))
    assert edges[0] == ("SYS/__relay_in_RELAY_IN/OUTPUT", "SYS/__relay_out_RELAY_OUT/INPUT")
    assert len(edges) == 3


def test_without_relays_edges_stay_as_they_are_each_once() -> None:
    assert through_relays([("a", "b"), ("c", "d"), ("a", "b")], {}) == [("a", "b"), ("c", "d")]


def graph(edges: list[tuple[str, str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for start, end in edges:
        found.setdefault(start, set()).add(end)
    return found


def is_acyclic(edges: list[tuple[str, str]]) -> bool:
    dag = DAG()
    try:
        for edge in edges:
            dag.add_edge(*edge)
    except CyclicException:
        return False
    return True


@given(trees(Crossing), st.data())
def test_the_rewired_graph_connects_exactly_the_same_endpoints(tree: Tree, data: st.DataObject) -> None:
    root = placed(collection(Crossing, **tree.top))
    found = [root, *collections(root.components.values())]
    parts = [root, *(child for it in found for child in it.components.values())]
    streams = [stream for part in parts for stream in part.streams.values()]
    ends = [*streams, *(stream.address for stream in streams), "x", "y"]
    drawn = data.draw(st.lists(st.tuples(st.sampled_from(ends), st.sampled_from(ends)), max_size=30))
    edges = address_pairs(drawn, "here")
    hidden: dict[Relay, RelayUnit] = {}
    for it in found:
        hidden |= add_hidden_units(it)

    rewired = through_relays(edges, hidden)
    forwarded = [(unit.INPUT.address, unit.OUTPUT.address) for unit in hidden.values()]
    before, after = graph(edges), graph(rewired + forwarded)
    topics = {stream.address for stream in streams} | {"x", "y"}
    for topic in topics:
        assert set(reachable(before, topic)) == set(reachable(after, topic)) & topics
    assert is_acyclic(edges) == is_acyclic(rewired + forwarded)
    for endpoint, unit in hidden.items():
        inwards = isinstance(endpoint, ez.InputRelay)
        beside = graph(rewired) if inwards else graph([(end, start) for start, end in rewired])
        stream = unit.INPUT if inwards else unit.OUTPUT
        assert beside[endpoint.address] == {stream.address}
