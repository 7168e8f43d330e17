"""Settings of components, without a loop: whose word counts, and what is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ezmsg.core import graphmeta as g
from ezmsg.core.errors import (
    ComponentAddressCollision,
    ConflictingSettingsTopics,
    NoDynamicSettings,
    ServerFull,
    SessionClosed,
    SettingsTooLarge,
    StaleSnapshot,
)
from ezmsg.core.server.books.routing import RoutingBook
from ezmsg.core.server.books.sessions import SessionBook
from ezmsg.core.server.books.settings import SettingsBook, initial_settings
from ezmsg.core.wire.limits import SNAPSHOT_BYTES
from ezmsg.core.wire.metadata import GraphRecord, SettingsValue, record_of
from ezmsg.core.wire.records import (
    GraphEdges,
    Record,
    SessionState,
    Settings,
    SettingsEvent,
    Snapshot,
    decode_record,
    encode_record,
)
from ezmsg.core.wire.values import packed, unpacked
from tests.core.metadatamaking import component, graph

R = TypeVar("R", bound=Record)


def value(text: str) -> SettingsValue:
    return SettingsValue(text.encode(), packed(text))


def through_the_wire(record: R) -> R:
    """As a client gets it."""
    decoded = decode_record(*encode_record(record))
    assert isinstance(decoded, type(record))
    return decoded


def values(book: SettingsBook) -> dict[str, str]:
    settings = through_the_wire(book.values())
    assert settings.is_last
    return {address: unpacked(value.repr_value) for address, value in settings.values.items()}


def told(events: list[SettingsEvent]) -> list[tuple[str, str, str | None, str | None, str]]:
    return [
        (
            event.event_type,
            event.component_address,
            event.source_session_id,
            event.source_process_id,
            unpacked(event.value.repr_value),
        )
        for event in map(through_the_wire, events)
    ]


def test_initial_settings_are_told_and_hold_until_the_session_goes() -> None:
    book = SettingsBook()
    events = book.registered("s", book.encoded({"B": value("b"), "A": value("a")}), 5.0)
    assert told(events) == [("INITIAL_SETTINGS", "A", "s", None, "a"), ("INITIAL_SETTINGS", "B", "s", None, "b")]
    assert {event.timestamp for event in events} == {5.0}
    assert list(values(book)) == ["A", "B"]
    book.session_closed("s")
    assert values(book) == {}


def test_a_report_replaces_the_initial_settings_and_falls_back_with_its_process() -> None:
    book = SettingsBook()
    book.registered("s", book.encoded({"A": value("initial")}), 1.0)
    assert told(book.report("p", "A", value("reported"), 2.5)) == [("SETTINGS_UPDATED", "A", "s", "p", "reported")]
    assert values(book) == {"A": "reported"}
    assert told(book.process_gone("p", 3.0)) == [("SETTINGS_UPDATED", "A", "s", None, "initial")]
    assert values(book) == {"A": "initial"}


def test_a_report_of_an_unknown_component_goes_with_its_process() -> None:
    book = SettingsBook()
    assert told(book.report("p", "A", value("reported"), 1.0)) == [("SETTINGS_UPDATED", "A", None, "p", "reported")]
    assert book.process_gone("p", 2.0) == []
    assert values(book) == {}


def test_a_report_survives_the_session_and_metadata_that_comes_later() -> None:
    book = SettingsBook()
    book.report("p", "A", value("reported"), 1.0)
    assert told(book.registered("s", book.encoded({"A": value("initial")}), 2.0)) == [
        ("INITIAL_SETTINGS", "A", "s", None, "reported")
    ]
    book.session_closed("s")
    assert values(book) == {"A": "reported"}
    book.process_gone("p", 3.0)
    assert values(book) == {}


def test_only_the_last_reporter_takes_its_word_along() -> None:
    book = SettingsBook()
    book.report("first", "A", value("old"), 1.0)
    book.report("second", "A", value("new"), 2.0)
    assert book.process_gone("first", 3.0) == []
    assert values(book) == {"A": "new"}


def test_metadata_that_is_replaced_takes_the_components_it_had_along() -> None:
    book = SettingsBook()
    book.registered("s", book.encoded({"A": value("a"), "B": value("b"), "C": value("c")}), 1.0)
    book.report("p", "C", value("reported"), 1.5)
    book.registered("s", book.encoded({"B": value("new")}), 2.0)
    assert values(book) == {"B": "new", "C": "reported"}


def test_settings_that_are_too_large_are_refused_and_nothing_changes() -> None:
    book = SettingsBook(limit_bytes=100)
    book.report("p", "A", value("small"), 1.0)
    with pytest.raises(SettingsTooLarge, match="'A' take") as refusal:
        book.report("p", "A", value("x" * 100), 2.0)
    assert refusal.value.limit == 100
    assert values(book) == {"A": "small"}


def test_settings_born_from_metadata_are_structured_where_that_says_so() -> None:
    bare = component("BARE", g.ComponentMetadata)
    bare.initial_settings = (None, "text")
    metadata = g.GraphMetadata(1, None, {"BARE": bare, "UNIT": component("UNIT", g.UnitMetadata, 3)})
    initial = initial_settings(record_of(metadata, GraphRecord))
    assert (unpacked(initial["BARE"].repr_value), unpacked(initial["BARE"].structured_value)) == ("text", None)
    assert unpacked(initial["UNIT"].structured_value) == unpacked(initial["UNIT"].repr_value) == {"gain": 3}
    assert initial["UNIT"].settings_schema is not None


def test_what_processes_report_has_a_bound_together_and_room_comes_back() -> None:
    book = SettingsBook(max_bytes=1000)
    book.report("p", "A", value("x" * 300), 1.0)
    with pytest.raises(ServerFull, match="no room for") as refusal:
        book.report("p", "B", value("x" * 300), 1.0)
    assert (refusal.value.kind, refusal.value.limit) == ("settings", 1000)
    assert list(values(book)) == ["A"]
    book.report("p", "A", value("x" * 310), 1.0)
    book.process_gone("p", 2.0)
    assert book.room.used == 0
    book.report("p", "B", value("x" * 300), 1.0)


def test_a_large_table_comes_in_pages_that_fit_a_frame() -> None:
    book = SettingsBook()
    for number in range(5):
        book.report("p", f"A{number}", value("x" * 1000), 1.0)
    first = through_the_wire(book.values(limit_bytes=5000))
    assert (list(first.values), first.is_last) == (["A0", "A1"], False)
    assert list(through_the_wire(book.values("A1", limit_bytes=1)).values) == ["A2"]
    assert book.values("A3", limit_bytes=1).is_last
    assert book.values("A4") == Settings({}, True)


# -- sessions ---------------------------------------------------------------------------------------------------------


def record(*addresses: str) -> GraphRecord:
    return record_of(graph(*addresses), GraphRecord)


def states_of(sessions: SessionBook, limit_bytes: int = SNAPSHOT_BYTES) -> list[SessionState]:
    snapshot = Snapshot(GraphEdges([], []), sessions.states(limit_bytes), [])
    return through_the_wire(snapshot).sessions


def test_metadata_that_a_snapshot_has_no_room_for_is_asked_for_apart() -> None:
    sessions = SessionBook(RoutingBook())
    for session in ("one", "two", "three"):
        sessions.open(session)
    sessions.register("one", record("A"))
    sessions.register("two", record("B"))
    assert [state.is_apart for state in states_of(sessions)] == [False, False, False]
    one, three, two = states_of(sessions, limit_bytes=sessions.room.used - 1)
    assert (one.is_apart, three.is_apart, two.is_apart) == (False, False, True)
    assert two.metadata is None
    apart = through_the_wire(sessions.metadata("two", two.version))
    assert list(apart.metadata.components) == ["B"]
    sessions.register("two", record("B"))
    for session, version in (("two", two.version), ("three", three.version), ("nobody", 1)):
        with pytest.raises(StaleSnapshot):
            sessions.metadata(session, version)


def test_metadata_has_a_bound_together_and_room_comes_back() -> None:
    book = SessionBook(RoutingBook(), max_bytes=1000)
    book.open("one")
    book.open("two")
    book.register("one", record("A"))
    used = book.room.used
    with pytest.raises(ServerFull, match="metadata"):
        book.register("two", record("B", "C", "D"))
    assert book.room.used == used
    book.register("one", record("B"))
    book.revert("one")
    assert book.room.used == 0


def test_addresses_of_another_session_are_refused_sorted_and_the_old_registration_stays() -> None:
    sessions = SessionBook(RoutingBook())
    sessions.open("one")
    sessions.open("two")
    sessions.register("one", record("B", "A", "C"))
    sessions.register("two", record("D"))
    with pytest.raises(ComponentAddressCollision, match=r"component address collision\(s\): A, B$") as refusal:
        sessions.register("two", record("B", "D", "A"))
    assert refusal.value.addresses == ["A", "B"]
    assert [list(state.metadata.components) for state in states_of(sessions) if state.metadata] == [
        ["B", "A", "C"],
        ["D"],
    ]
    sessions.register("one", record("A"))
    sessions.register("two", record("B"))
    sessions.close("one")
    with pytest.raises(SessionClosed):
        sessions.register("one", record("Z"))


def test_the_topic_for_settings_comes_from_the_metadata_of_any_session() -> None:
    sessions = SessionBook(RoutingBook())
    sessions.open("one")
    with pytest.raises(NoDynamicSettings, match="Component 'A' does not expose dynamic settings metadata"):
        sessions.settings_input_topic("A")
    sessions.register("one", record("A"))
    assert sessions.settings_input_topic("A") == "A/INPUT_SETTINGS"
    two = graph("X", "Y")
    two.components["X"].address = two.components["Y"].address = "SAME"
    two.components["Z"] = component("Z", g.UnitMetadata)
    sessions.open("two")
    sessions.register("two", record_of(two, GraphRecord))
    with pytest.raises(NoDynamicSettings):
        sessions.settings_input_topic("Z")
    with pytest.raises(ConflictingSettingsTopics, match="Conflicting dynamic settings topics"):
        sessions.settings_input_topic("SAME")
    sessions.revert("one")
    with pytest.raises(NoDynamicSettings):
        sessions.settings_input_topic("A")


# -- against the table of triggers ------------------------------------------------------------------------------------

ADDRESSES = st.sampled_from("ABC")
SESSIONS = st.sampled_from(["s1", "s2"])
PROCESSES = st.sampled_from(["p1", "p2"])


@dataclass
class Row:
    """One component as the table of triggers tells it."""

    now: int
    owner: str | None = None
    reporter: str | None = None
    at_first: int = 0


class SettingsMachine(RuleBasedStateMachine):
    """Any order of registrations, reports and ends; components belong to one session, as the sessions see to."""

    def __init__(self) -> None:
        super().__init__()
        self.book = SettingsBook()
        self.rows: dict[str, Row] = {}
        self.number = 0

    def fresh(self) -> int:
        self.number += 1
        return self.number

    @rule(session=SESSIONS, addresses=st.sets(ADDRESSES))
    def register(self, session: str, addresses: set[str]) -> None:
        if any(self.rows[a].owner not in (None, session) for a in addresses if a in self.rows):
            return
        initial = {address: self.fresh() for address in sorted(addresses)}
        events = self.book.registered(session, self.book.encoded({a: value(str(n)) for a, n in initial.items()}), 1.0)
        self.drop(session, addresses)
        for address, number in initial.items():
            row = self.rows.setdefault(address, Row(number))
            row.owner, row.at_first = session, number
            if row.reporter is None:
                row.now = number
        assert told(events) == [
            ("INITIAL_SETTINGS", a, session, None, str(self.rows[a].now)) for a in sorted(addresses)
        ]

    @rule(session=SESSIONS)
    def close_session(self, session: str) -> None:
        self.book.session_closed(session)
        self.drop(session, set())

    def drop(self, session: str, kept: set[str]) -> None:
        for address, row in list(self.rows.items()):
            if row.owner == session and address not in kept:
                row.owner = None
                if row.reporter is None:
                    del self.rows[address]

    @rule(process=PROCESSES, address=ADDRESSES)
    def report(self, process: str, address: str) -> None:
        number = self.fresh()
        events = self.book.report(process, address, value(str(number)), 2.0)
        row = self.rows.setdefault(address, Row(number))
        row.now, row.reporter = number, process
        assert told(events) == [("SETTINGS_UPDATED", address, row.owner, process, str(number))]

    @rule(process=PROCESSES)
    def process_gone(self, process: str) -> None:
        expected: list[tuple[str, str, str | None, str | None, str]] = []
        for address, row in sorted(self.rows.items()):
            if row.reporter == process and row.owner is None:
                del self.rows[address]
            elif row.reporter == process:
                row.reporter, row.now = None, row.at_first
                expected.append(("SETTINGS_UPDATED", address, row.owner, None, str(row.now)))
        assert told(self.book.process_gone(process, 3.0)) == expected

    @invariant()
    def the_book_says_what_the_table_says(self) -> None:
        expected = {address: str(row.now) for address, row in sorted(self.rows.items())}
        assert list(values(self.book).items()) == list(expected.items())


TestSettingsMachine = SettingsMachine.TestCase
TestSettingsMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
