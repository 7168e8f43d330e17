"""Rows that wait, and ids that are remembered."""

from __future__ import annotations

import numpy as np

from ezmsg.core.recorder.rows import SPAN_ROW
from ezmsg.otel.spanrows import RecentIds, SpanRows, joined
from ezmsg.otel.state import Process
from tests.otel.feeds import ANCHOR, linked_rows, span_rows


def ids(recent: RecentIds, *span_ids: int) -> list[int]:
    """Which of these are new."""
    rows = np.zeros(len(span_ids), SPAN_ROW)
    rows["span_id"] = span_ids
    found: list[int] = recent.new(rows)["span_id"].tolist()
    return found


def test_an_id_is_new_once() -> None:
    recent = RecentIds(10)
    assert ids(recent, 1, 2, 2**64 - 1, 2) == [1, 2, 2**64 - 1]
    assert ids(recent, 3, 2, 1) == [3]


def test_at_least_so_many_ids_are_remembered_and_not_all() -> None:
    recent = RecentIds(3)
    assert ids(recent, *range(3)) == [0, 1, 2]
    assert ids(recent, 3, 4) == [3, 4]
    assert ids(recent, 2, 3, 4) == []
    assert ids(recent, 5, 6, 7, 8, 0) == [5, 6, 7, 8, 0]


def test_rows_of_one_process_are_joined_in_order() -> None:
    first, second = (Process(link, ANCHOR) for link in ("a", "b"))
    chunks = [
        SpanRows.of(process, ANCHOR, span_rows(count, start))
        for process, count, start in ((first, 2, 1), (second, 1, 50), (first, 0, 60), (first, 2, 3))
    ]
    found = [(rows.process.link_id, rows.rows["span_id"].tolist()) for rows in joined(chunks)]
    assert found == [("a", [1, 2, 3, 4]), ("b", [50])]


def test_rows_are_split_without_a_copy() -> None:
    rows = SpanRows.of(Process("a", ANCHOR), ANCHOR, span_rows(5))
    head, tail = rows.split(2)
    assert (len(head), len(tail)) == (2, 3)
    assert tail.rows.base is not None


def test_links_go_with_their_span() -> None:
    of = Process("a", ANCHOR)
    rows = SpanRows.of(of, ANCHOR, linked_rows(2, 1) + linked_rows(3, 10))
    head, tail = rows.split(1)
    assert (len(head), len(tail)) == (3, 4)
    assert [len(rows.up_to(count)) for count in range(8)] == [0, 0, 0, 3, 3, 3, 3, 7]
    recent = RecentIds(10)
    assert len(recent.new(head.rows)) == 3
    assert len(recent.new(rows.rows)) == 4
    assert len(recent.new(rows.rows)) == 0
