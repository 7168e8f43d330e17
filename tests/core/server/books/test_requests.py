"""Requests in flight are bounded by requester, by owner, and altogether; each kind for itself."""

import pytest

from ezmsg.core.errors import TooManyProcessRequests
from ezmsg.core.graphmeta import BUILTIN_OPERATIONS
from ezmsg.core.processclient import BUILTIN
from ezmsg.core.server.books.requests import MODEST, RequestBook
from ezmsg.core.wire.limits import REQUESTS_AT_ONCE, ROUTED_PER_CLIENT


def test_the_server_knows_the_operations_that_processes_answer_themselves() -> None:
    assert set(BUILTIN) == BUILTIN_OPERATIONS


def test_both_kinds_together_leave_a_connection_room() -> None:
    assert 2 * ROUTED_PER_CLIENT * 5 // 4 < REQUESTS_AT_ONCE


def test_an_owner_works_on_so_many_and_refusals_are_counted() -> None:
    book = RequestBook(per_client=2)
    tickets = [book.open(requester, "P", "CUSTOM") for requester in "ab"]
    for refused in (1, 2):
        with pytest.raises(TooManyProcessRequests, match="process P") as refusal:
            book.open("c", "P", "CUSTOM")
        assert (refusal.value.limit, refusal.value.refused) == (2, refused)
    assert book.refused == 2
    book.open("c", "Q", "CUSTOM")
    book.end(tickets[0])
    book.open("c", "P", "CUSTOM")


def test_what_timed_out_still_counts_for_its_owner_but_not_for_its_requester() -> None:
    book = RequestBook(per_client=1)
    ticket = book.open("a", "P", "CUSTOM")
    book.leave(ticket)
    assert (len(book), book.working("P")) == (0, 1)
    book.open("a", "Q", "CUSTOM")
    with pytest.raises(TooManyProcessRequests, match="process P"):
        book.open("b", "P", "CUSTOM")


def test_a_requester_waits_for_so_many() -> None:
    book = RequestBook(per_client=1)
    ticket = book.open("a", "P", "CUSTOM")
    with pytest.raises(TooManyProcessRequests, match="this requester"):
        book.open("a", "Q", "CUSTOM")
    book.open("b", "Q", "CUSTOM")
    book.leave(ticket)
    book.open("a", "R", "CUSTOM")


def test_who_waits_for_few_finds_room_where_others_have_taken_all_of_theirs() -> None:
    book = RequestBook(per_client=8, at_once=16)
    for _ in range(8):
        book.open("greedy", "P", "CUSTOM")
    for requester in "ab":
        book.open(requester, "P", "CUSTOM")
    for requester in ("c", "greedy"):
        with pytest.raises(TooManyProcessRequests):
            book.open(requester, "P", "CUSTOM")
    for _ in range(MODEST - 1):
        book.open("a", "Q", "CUSTOM")
    for _ in range(3):
        book.open("b", "R", "CUSTOM")
    assert len(book) == 16
    with pytest.raises(TooManyProcessRequests, match="all clients"):
        book.open("a", "R", "CUSTOM")
    book.open("c", "R", "CUSTOM")


def test_all_together_are_so_many() -> None:
    book = RequestBook(per_client=2, at_once=2)
    book.open("a", "P", "CUSTOM")
    book.open("b", "Q", "CUSTOM")
    with pytest.raises(TooManyProcessRequests, match="all clients"):
        book.open("c", "R", "CUSTOM")


def test_built_in_operations_pass_where_handlers_are_stuck() -> None:
    book = RequestBook(per_client=1, at_once=1)
    book.open("a", "P", "UPDATE_SETTING_FIELD")
    with pytest.raises(TooManyProcessRequests):
        book.open("a", "P", "CUSTOM")
    book.open("a", "P", "PING")
    with pytest.raises(TooManyProcessRequests):
        book.open("a", "P", "PING")


def test_what_ended_leaves_nothing_however_often_it_is_told() -> None:
    book = RequestBook(per_client=1)
    ticket = book.open("a", "P", "CUSTOM")
    for _ in range(2):
        book.end(ticket)
        book.leave(ticket)
    assert (len(book), book.working("P")) == (0, 0)
    book.open("a", "P", "CUSTOM")
