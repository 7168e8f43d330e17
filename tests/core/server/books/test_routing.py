"""Routing, without a loop: who is told what, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezmsg.core.dag import DAG, CyclicException, reachable
from ezmsg.core.errors import ServerFull
from ezmsg.core.server.books.routing import NO_CHANGE, PERSISTENT, GraphChange, Reroute, RoutingBook
from ezmsg.core.server.books.sessions import SessionBook
from ezmsg.core.wire.limits import ENTRY_BYTES
from ezmsg.core.wire.records import PublisherRoute, Routing


def route(publisher_id: str, topic: str) -> PublisherRoute:
    return PublisherRoute(publisher_id, topic, pid=1, boot_id="boot", host="127.0.0.1", port=1)


def restored(book: RoutingBook, owner: str, edges: Iterable[tuple[str, str]]) -> GraphChange:
    kept, missing = book.keep(owner, edges)
    added, _ = book.connect_all(missing, owner)
    return GraphChange(sorted({*kept.topics, *added.topics}), kept.reroutes + added.reroutes)


def told(reroutes: list[Reroute]) -> dict[str, list[str]]:
    return {reroute.subscriber_id: ids(reroute.routing) for reroute in reroutes}


def ids(routing: Routing) -> list[str]:
    return [publisher.publisher_id for publisher in routing.publishers]


def test_equal_topics_need_no_edge_in_either_order() -> None:
    book = RoutingBook()
    book.add_publisher(route("early", "A"))
    assert ids(book.add_subscriber("sub", "A")) == ["early"]
    assert told(book.add_publisher(route("late", "A"))) == {"sub": ["early", "late"]}


def test_who_is_back_on_another_topic_is_on_the_first_no_more() -> None:
    book = RoutingBook()
    book.add_subscriber("witness", "A")
    for topic in "AB":
        book.add_subscriber("sub", topic)
        reroutes = book.add_publisher(route("pub", topic))
    assert told(reroutes) == {"witness": [], "sub": ["pub"]}
    book.remove_subscriber("sub")
    assert told(book.remove_publisher("pub")) == {}
    assert told(book.connect("B", "A", "s").reroutes) == {}
    assert told(book.add_publisher(route("other", "B"))) == {"witness": ["other"]}


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


def test_the_topic_of_a_publisher_that_ended_still_reaches_and_that_of_one_that_was_cut_off_does_not() -> None:
    book = RoutingBook()
    book.add_publisher(route("pub", "A"))
    book.add_subscriber("sub", "B")
    book.connect("A", "B", "s")
    [cut] = book.disconnect("A", "B", "s").reroutes
    assert cut.routing == Routing([], ["B"])
    book.connect("A", "B", "s")
    [gone] = book.remove_publisher("pub")
    assert gone.routing == Routing([], ["A", "B"])


def test_the_topic_of_a_publisher_that_is_away_is_told_when_it_does_not_reach_any_more() -> None:
    book = RoutingBook()
    book.add_publisher(route("pub", "A"))
    book.add_subscriber("sub", "B")
    book.connect("A", "B", "s")
    book.remove_publisher("pub")
    assert [reroute.routing for reroute in book.disconnect("A", "B", "s").reroutes] == [Routing([], ["B"])]
    # Nobody was ever there.
    book.connect("C", "B", "s")
    assert book.disconnect("C", "B", "s").reroutes == []


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


class Ear:
    """A subscriber as it takes its routings: whom it hears. Publishers it hears are told by their topics."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.heard: set[str] = set()

    def take(self, routing: Routing) -> None:
        told = {route.topic for route in routing.publishers}
        for topic in self.heard - told:
            is_reached = topic not in routing.cut if routing.is_partial else topic in routing.topics
            if not is_reached:
                self.heard.discard(topic)
        self.heard |= told


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
    ears: dict[str, Ear] = {}
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
            routing = book.add_subscriber(f"sub{number}", a)
            known[f"sub{number}"] = ids(routing)
            topics[f"sub{number}"] = a
            ears[f"sub{number}"] = Ear(a)
            ears[f"sub{number}"].take(routing)
        else:
            reroutes = book.drop_owner("s").reroutes
        known |= told(reroutes)
        for reroute in reroutes:
            ears[reroute.subscriber_id].take(reroute.routing)
        for subscriber, topic in topics.items():
            assert known[subscriber] == sorted(publisher.publisher_id for publisher in reaching(book, topic))
            # Also one that is away, and may be back, is not heard where its topic does not reach.
            assert ears[subscriber].heard <= set(book.dag.upstream(topic))


# -- a book that succeeds another -------------------------------------------------------------------------------------


class Succession:
    """A graph with one publisher and one subscriber on each topic, whose book was lost: everybody comes back."""

    def __init__(self, edges: dict[str, set[tuple[str, str]]]) -> None:
        self.edges = edges
        self.book = RoutingBook()
        self.book.is_partial = True
        self.ears = {topic: Ear(topic) for topic in "ABCDE"}
        self.publishing = set("ABCDE")
        dag = DAG()
        for owner, owned in edges.items():
            for edge in sorted(owned):
                dag.add_edge(*edge, owner)
        for topic, ear in self.ears.items():
            ear.heard = set(dag.upstream(topic))
        self.back: set[str] = set()
        self.is_cut = False

    def tell(self, reroutes: list[Reroute]) -> None:
        for reroute in reroutes:
            self.ears[reroute.subscriber_id].take(reroute.routing)

    def do(self, step: str, who: str, edge: tuple[str, str]) -> None:
        if who in MEMBERS and who not in self.back:
            self.come_back(who)
        elif step == "end" and f"pub{who}" in self.back:
            self.publishing.discard(who)
            self.tell(self.book.remove_publisher(who))
        elif who in self.edges:
            owned = self.edges[who]
            if step == "connect" and edge not in owned:
                owned.add(edge)
                self.tell(self.book.connect(*edge, who).reroutes)
            elif step == "disconnect":
                edge = edge if edge in owned else min(owned, default=edge)
                owned.discard(edge)
                self.take_away(lambda: self.book.disconnect(*edge, who))
            elif step == "replace":
                # Over another connection; of the disconnect before, the server never heard.
                owned.discard(min(owned, default=edge))
                self.take_away(lambda: restored(self.book, who, owned))
            elif step == "leave":
                owned.clear()
                self.take_away(lambda: self.book.drop_owner(who))

    def come_back(self, who: str) -> None:
        self.back.add(who)
        if who in self.edges:
            self.tell(restored(self.book, who, self.edges[who]).reroutes)
        elif who.startswith("pub"):
            self.tell(self.book.add_publisher(route(who[3:], who[3:])))
        else:
            self.ears[who[3:]].take(self.book.add_subscriber(who[3:], who[3:]))

    def take_away(self, change: Callable[[], GraphChange]) -> None:
        """What somebody takes away explicitly is gone at once."""
        before = {topic: set(self.book.dag.upstream(topic)) for topic in self.ears}
        done = change()
        self.is_cut |= bool(done.topics)
        self.tell(done.reroutes)
        for topic, ear in self.ears.items():
            if f"sub{topic}" in self.back:
                assert not ear.heard & (before[topic] - set(self.book.dag.upstream(topic)))


OWNERS = ("one", "two")
MEMBERS = (*OWNERS, *(f"{kind}{topic}" for topic in "ABCDE" for kind in ("pub", "sub")))
FORWARD = st.sampled_from([(a, b) for a in "ABCDE" for b in "ABCDE" if a < b])
SUCCESSION_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("return"), st.sampled_from(MEMBERS), FORWARD),
        st.tuples(st.sampled_from(("connect", "disconnect", "replace", "leave")), st.sampled_from(OWNERS), FORWARD),
        st.tuples(st.just("end"), st.sampled_from("ABCDE"), FORWARD),
    ),
    min_size=10,
    max_size=30,
)
OWNED = st.sets(FORWARD, max_size=5)


@given(OWNED, OWNED, SUCCESSION_STEPS, st.permutations(MEMBERS), st.sets(st.sampled_from(OWNERS)))
def test_a_successor_takes_away_only_what_somebody_took_away_and_then_what_nobody_claimed(
    one: set[tuple[str, str]],
    two: set[tuple[str, str]],
    steps: list[tuple[str, str, tuple[str, str]]],
    rest: list[str],
    gone: set[str],
) -> None:
    graph = Succession({"one": one, "two": two})
    established = {topic: set(ear.heard) for topic, ear in graph.ears.items()}
    for step, who, edge in [*steps, *(("return", who, ("A", "B")) for who in rest)]:
        if who in gone:
            continue
        graph.do(step, who, edge)
        for topic, ear in graph.ears.items():
            assert topic in ear.heard
            if not graph.is_cut:
                assert ear.heard >= established[topic]
            if f"sub{topic}" in graph.back:
                assert ear.heard >= {route.topic for route in reaching(graph.book, topic)}
    graph.tell(graph.book.settle())
    for topic, ear in graph.ears.items():
        upstream = set(graph.book.dag.upstream(topic))
        # A publisher that ended is heard to its end.
        assert upstream & graph.publishing <= ear.heard <= upstream
    owned = {edge for owner in set(OWNERS) - gone for edge in graph.edges[owner]}
    assert owned == graph.book.dag.edge_owners.keys()


def reaching(book: RoutingBook, topic: str) -> list[PublisherRoute]:
    return [publisher for publisher in book.publishers.values() if topic in reachable(book.dag.graph, publisher.topic)]


@given(OWNED, st.sets(st.sampled_from(MEMBERS)), st.permutations(MEMBERS))
def test_a_publisher_that_is_late_is_heard_all_the_time_if_its_edges_are_back(
    edges: set[tuple[str, str]], late: set[str], order: list[str]
) -> None:
    graph = Succession({"one": edges, "two": set()})
    established = {topic: set(ear.heard) for topic, ear in graph.ears.items()}
    late -= set(OWNERS)
    for who in sorted(order, key=lambda who: who in late):
        if who in late and graph.book.is_partial:
            graph.tell(graph.book.settle())
        graph.do("return", who, ("A", "B"))
        assert {topic: ear.heard for topic, ear in graph.ears.items()} == established


def test_what_is_cut_explicitly_in_a_successor_is_cut_by_its_topic_also_where_its_publisher_is_not_back() -> None:
    book = RoutingBook()
    book.is_partial = True
    restored(book, "s", [("A", "B"), ("B", "C")])
    book.add_subscriber("sub", "C")
    [reroute] = book.disconnect("A", "B", "s").reroutes
    assert reroute.routing == Routing([], ["B", "C"], True, ["A"])
