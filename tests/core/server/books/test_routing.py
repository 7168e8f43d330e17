"""Routing, without a loop: who is told what, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezmsg.core.dag import CyclicException, reachable
from ezmsg.core.errors import ServerFull
from ezmsg.core.server.books.routing import NO_CHANGE, PERSISTENT, Reroute, RoutingBook
from ezmsg.core.server.books.sessions import SessionBook
from ezmsg.core.wire.limits import ENTRY_BYTES
from ezmsg.core.wire.records import PublisherRoute, Routing


def route(publisher_id: str, topic: str) -> PublisherRoute:
    return PublisherRoute(publisher_id, topic, pid=1, boot_id="boot", host="127.0.0.1", port=1)


def told(reroutes: list[Reroute]) -> dict[str, list[str]]:
    return {reroute.subscriber_id: ids(reroute.routing) for reroute in reroutes}


def ids(routing: Routing) -> list[str]:
    return [publisher.publisher_id for publisher in routing.publishers]


def test_equal_topics_need_no_edge_in_either_order() -> None:
    book = RoutingBook()
    book.add_publisher(route("early", "A"))
    assert ids(book.add_subscriber("sub", "A")) == ["early"]
    assert told(book.add_publisher(route("late", "A"))) == {"sub": ["early", "late"]}


def test_an_edge_tells_only_subscribers_behind_it() -> None:
    book = RoutingBook()
    book.add_publisher(route("pub", "A"))
    book.add_subscriber("near", "B")
    book.add_subscriber("far", "C")
    book.add_subscriber("aside", "D")
    assert told(book.connect("B", "C", "s").reroutes) == {}
    assert told(book.connect("A", "B", "s").reroutes) == {"near": ["pub"], "far": ["pub"]}
    assert told(book.disconnect("A", "B", "s").reroutes) == {"near": [], "far": []}


def test_a_second_path_to_the_same_publisher_tells_nobody() -> None:
    book = RoutingBook()
    book.add_publisher(route("pub", "A"))
    book.add_subscriber("sub", "C")
    book.connect("A", "C", "s")
    assert book.connect("A", "B", "s").reroutes == []
    assert book.connect("B", "C", "s").reroutes == []
    assert book.disconnect("A", "C", "s").reroutes == []


def test_an_edge_of_two_owners_stays_until_the_last_leaves() -> None:
    book = RoutingBook()
    book.add_publisher(route("pub", "A"))
    book.add_subscriber("sub", "B")
    book.connect("A", "B", PERSISTENT)
    assert book.connect("A", "B", "s").reroutes == []
    assert book.disconnect("A", "B", PERSISTENT).reroutes == []
    assert told(book.drop_owner("s").reroutes) == {"sub": []}


def test_a_publisher_that_ended_is_named_and_one_that_was_cut_off_is_not() -> None:
    book = RoutingBook()
    book.add_publisher(route("pub", "A"))
    book.add_subscriber("sub", "B")
    book.connect("A", "B", "s")
    [cut] = book.disconnect("A", "B", "s").reroutes
    assert cut.routing.ended == []
    book.connect("A", "B", "s")
    [gone] = book.remove_publisher("pub")
    assert gone.routing == Routing([], ["pub"])


def test_a_cycle_is_refused_and_nobody_is_told() -> None:
    book = RoutingBook()
    book.connect("A", "B", "s")
    with pytest.raises(CyclicException):
        book.connect("B", "A", "s")
    assert book.edges().edges == [("A", "B", ["s"])]


def test_owners_are_listed_with_persistent_first() -> None:
    book = RoutingBook()
    for owner in ("b", PERSISTENT, "a"):
        book.connect("A", "B", owner)
    assert book.edges().edges == [("A", "B", [PERSISTENT, "a", "b"])]


def test_a_session_takes_its_edges_along_and_closing_twice_changes_nothing() -> None:
    book = RoutingBook()
    sessions = SessionBook(book)
    sessions.open("one")
    book.connect("A", "B", "one")
    book.connect("A", "B", "two")
    assert sessions.states()[0].edges == [("A", "B")]
    sessions.close("one")
    assert "one" not in sessions
    assert book.edges().edges == [("A", "B", ["two"])]
    assert sessions.close("one") == NO_CHANGE


def test_edges_have_a_bound_together_with_each_owner_and_room_comes_back() -> None:
    book = RoutingBook(max_bytes=2 * (ENTRY_BYTES + 3))
    book.connect("A", "B", "s")
    book.connect("A", "B", "s")
    with pytest.raises(CyclicException):
        book.connect("B", "A", "s")
    book.connect("A", "B", "t")
    for edge in (("A", "C", "s"), ("A", "B", "u")):
        with pytest.raises(ServerFull, match="edges"):
            book.connect(*edge)
    book.disconnect("A", "B", "t")
    book.disconnect("A", "B", "t")
    book.connect("A", "C", "s")
    book.drop_owner("s")
    assert book.room.used == 0


TOPICS = st.sampled_from("ABCDE")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("connect"), TOPICS, TOPICS),
        st.tuples(st.just("disconnect"), TOPICS, TOPICS),
        st.tuples(st.just("publish"), TOPICS, st.just("")),
        st.tuples(st.just("unpublish"), TOPICS, st.just("")),
        st.tuples(st.just("subscribe"), TOPICS, st.just("")),
        st.tuples(st.just("drop"), st.just(""), st.just("")),
    ),
    max_size=40,
)


@given(STEPS)
def test_what_subscribers_were_told_always_is_what_reaches_them(steps: list[tuple[str, str, str]]) -> None:
    book = RoutingBook()
    known: dict[str, list[str]] = {}
    topics: dict[str, str] = {}
    for number, (step, a, b) in enumerate(steps):
        reroutes: list[Reroute] = []
        if step == "connect":
            try:
                reroutes = book.connect(a, b, "s").reroutes
            except CyclicException:
                continue
        elif step == "disconnect":
            reroutes = book.disconnect(a, b, "s").reroutes
        elif step == "publish":
            reroutes = book.add_publisher(route(f"pub{a}", a))
        elif step == "unpublish":
            reroutes = book.remove_publisher(f"pub{a}")
        elif step == "subscribe":
            known[f"sub{number}"] = ids(book.add_subscriber(f"sub{number}", a))
            topics[f"sub{number}"] = a
        else:
            reroutes = book.drop_owner("s").reroutes
        known |= told(reroutes)
        for subscriber, topic in topics.items():
            expected = sorted(
                publisher.publisher_id
                for publisher in book.publishers.values()
                if topic in reachable(book.dag.graph, publisher.topic)
            )
            assert known[subscriber] == expected
