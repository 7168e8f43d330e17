"""Ownership of units, without a loop."""

from __future__ import annotations

import pytest

from ezmsg.core.errors import ServerFull, UnitAlreadyOwned
from ezmsg.core.server.books.processes import ProcessBook
from ezmsg.core.wire.limits import ENTRY_BYTES
from ezmsg.core.wire.records import ProcessState


def book_of(*clients: str) -> ProcessBook:
    book = ProcessBook()
    for client in clients:
        book.connect(client)
    return book


def test_a_connected_process_is_known_before_it_registers() -> None:
    book = book_of("one")
    assert book.states() == [ProcessState("one", None, None, [])]


def test_registering_replaces_what_a_process_owns() -> None:
    book = book_of("one")
    assert book.register("one", 7, "host", ["B", "A", "A"])
    assert book.states() == [ProcessState("one", 7, "host", ["A", "B"])]
    assert not book.register("one", 7, "host", ["A", "B"])
    assert book.register("one", 7, "host", ["C"])
    assert book.owner("A") is None
    assert book.owner("C") == "one"


def test_a_unit_of_another_process_is_refused_with_unit_and_owner_and_nothing_changes() -> None:
    book = book_of("one", "two")
    book.register("one", 1, "host", ["A"])
    book.register("two", 2, "host", ["B"])
    with pytest.raises(UnitAlreadyOwned, match=r"PROCESS_REGISTER.*A \(owned by process one\).* by a root_name$"):
        book.register("two", 2, "host", ["A", "C"])
    with pytest.raises(UnitAlreadyOwned, match="PROCESS_UPDATE_OWNERSHIP") as refusal:
        book.update("two", ["A"], ["B"])
    assert refusal.value.conflicts == {"A": "one"}
    assert book.owner("B") == "two"
    assert book.owner("C") is None


def test_a_unit_that_was_given_up_or_whose_process_is_gone_can_be_claimed() -> None:
    book = book_of("one", "two")
    book.register("one", 1, "host", ["A", "B"])
    assert book.update("one", [], ["A"])
    assert book.update("two", ["A"], [])
    book.disconnect("one")
    assert book.update("two", ["B"], [])
    assert book.states() == [ProcessState("two", None, None, ["A", "B"])]


def test_a_process_that_is_gone_twice_is_no_error() -> None:
    book = book_of("one")
    assert book.disconnect("one") is not None
    assert book.disconnect("one") is None
    assert "one" not in book


def test_units_have_a_bound_together_and_room_comes_back() -> None:
    book = ProcessBook(max_bytes=3 * (ENTRY_BYTES + 1))
    book.connect("one")
    book.connect("two")
    book.register("one", 7, "host", ["A", "B"])
    with pytest.raises(ServerFull, match="units"):
        book.register("two", 8, "host", ["C", "D"])
    assert book.states()[1] == ProcessState("two", None, None, [])
    book.update("one", ["C"], ["A"])
    book.register("two", 8, "host", ["D"])
    book.disconnect("one")
    book.disconnect("two")
    assert book.room.used == 0
