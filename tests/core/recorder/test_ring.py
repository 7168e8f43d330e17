import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezmsg.core.recorder.ring import Ring, Rows, Taken
from ezmsg.core.recorder.rows import (
    EXTENDED,
    EXTRA,
    HOP,
    INDEX_SHIFT,
    KIND_MASK,
    LABEL_SHIFT,
    LINK,
    PUBLISH,
    ROW_BYTES,
    SAMPLED,
    SELECTED,
    pack_row,
)

PLAIN = PUBLISH | 1 << INDEX_SHIFT
LINK_META = LINK | 1 << INDEX_SHIFT


def put(ring: Ring, number: int, *, sampled: bool = False, samples: int = 0, links: int = 0) -> None:
    """One record, numbered in its second word; with links, which are numbered likewise, its last word says how many."""
    if links:
        flags = EXTENDED | SAMPLED | (SELECTED if samples else 0)
        extra = (EXTRA | (1 << samples) - 1 << LABEL_SHIFT, bytes(16), number, 0, 0, 0, 0)
        linked = [(bytes(16), number)] * links
        ring.put_linked(PLAIN | flags, (number, 0, 0, 0, 0, 0, links), extra, samples, LINK_META, linked)
        return
    if not sampled and not samples:
        ring.put(PLAIN, number, 0, 0, 0, 0, 0, 0)
        return
    flags = EXTENDED | (SAMPLED if sampled else 0) | (SELECTED if samples else 0)
    emit = (1 << samples) - 1
    ring.put_extended(
        PLAIN | flags, (number, 0, 0, 0, 0, 0, 0), (EXTRA | emit << LABEL_SHIFT, bytes(16), number, 0, 0, 0, 0), samples
    )


def sampled_spans(rows: Rows) -> int:
    """How many of these rows are spans: a link is a part of one."""
    return int(((rows[:, 0] & SAMPLED != 0) & (rows[:, 0] & KIND_MASK != LINK)).sum())


def numbers(taken: Taken) -> list[int]:
    rows = taken.rows
    return rows[rows[:, 0] & KIND_MASK != EXTRA, 1].tolist()


def test_what_was_written_is_read_once_in_order():
    ring = Ring(8)
    for number in range(5):
        put(ring, number)
    assert numbers(ring.take()) == [0, 1, 2, 3, 4]
    put(ring, 5)
    assert numbers(ring.take()) == [5]
    assert numbers(ring.take()) == []


def test_rows_that_wrap_around_the_end_are_read_whole():
    ring = Ring(8)
    for start in range(0, 40, 5):
        for number in range(start, start + 5):
            put(ring, number)
        taken = ring.take()
        assert numbers(taken) == list(range(start, start + 5))
        assert taken.lost == 0


def test_a_span_that_begins_in_the_last_row_is_read_whole():
    ring = Ring(8)
    for start in range(0, 35, 5):
        put(ring, start)
        for number in (start + 1, start + 2):
            ring.put_span(PLAIN, number, 0.0, 0.0, 0.0, 0.0, 0.0, 0, bytes(16), number, 0, 0.0, 0, 0)
        taken = ring.take()
        assert numbers(taken) == [start, start + 1, start + 2]
        assert taken.rows[[2, 4], 3].tolist() == [start + 1, start + 2]
        assert (taken.records, taken.lost, taken.lost_spans) == (3, 0, 0)


def test_overwritten_rows_are_counted_and_the_newest_kept():
    ring = Ring(8)
    for number in range(20):
        put(ring, number)
    taken = ring.take()
    # Two rows less than the ring holds: the writer may be busy with a row and its extra row.
    assert numbers(taken) == [14, 15, 16, 17, 18, 19]
    assert taken.lost == 14


def test_an_extra_row_without_its_row_is_not_read():
    ring = Ring(8)
    put(ring, 0, sampled=True)
    for number in range(1, 6):
        put(ring, number)
    put(ring, 6)
    put(ring, 7)
    # Rows are now 0, extra, 1 … 7: nine in a ring of eight, and the oldest three may be gone.
    taken = ring.take()
    assert numbers(taken) == [2, 3, 4, 5, 6, 7]
    assert (taken.lost, taken.lost_spans) == (2, 1)


def test_a_ring_of_another_size_than_a_power_of_two_is_refused():
    with pytest.raises(ValueError, match="power of two"):
        Ring(10)


class OvertakenRing(Ring):
    """A ring whose writer overwrites rows while they are being copied."""

    __slots__ = ("meanwhile",)

    def _copy(self, start, head):
        rows = super()._copy(start, head)
        for number in range(self.meanwhile):
            put(self, 1000 + number)
        return rows


def test_rows_overwritten_while_they_are_copied_are_discarded_and_counted():
    ring = OvertakenRing(16)
    ring.meanwhile = 10
    for number in range(12):
        put(ring, number)
    taken = ring.take()
    assert numbers(taken) == [8, 9, 10, 11]
    assert taken.lost == 8
    ring.meanwhile = 0
    assert numbers(ring.take()) == list(range(1000, 1010))


records = st.lists(
    st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 6).map(lambda n: n % 3), st.booleans()),
    max_size=60,
)


@given(records)
def test_what_was_recorded_was_delivered_or_counted_as_lost(steps: list[tuple[bool, int, int, bool]]):
    ring = Ring(16)
    written = [0, 0, 0]
    seen = [0, 0, 0]

    def read() -> None:
        taken = ring.take()
        rows = taken.rows
        emits = rows[rows[:, 0] & KIND_MASK == EXTRA, 0] >> LABEL_SHIFT & 0xFFFF
        seen[0] += taken.records + taken.lost
        seen[1] += sampled_spans(rows) + taken.lost_spans
        seen[2] += sum(int(emit).bit_count() for emit in emits) + taken.lost_samples
        assert taken.records == np.count_nonzero(rows[:, 0] & KIND_MASK == PUBLISH)
        assert min(taken.lost, taken.lost_spans, taken.lost_samples) >= 0

    for number, (sampled, samples, links, reads) in enumerate(steps):
        put(ring, number, sampled=sampled, samples=samples, links=links)
        written[0] += 1
        written[1] += bool(links) or sampled
        written[2] += samples
        if reads:
            read()
            assert seen == written
    read()
    assert seen == written


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["plain", "span", "hop", "calculated"]), st.booleans()), max_size=60))
def test_spans_of_hops_were_delivered_or_counted_as_lost(steps: list[tuple[str, bool]]):
    ring = Ring(16)
    spans = seen = 0
    for number, (kind, reads) in enumerate((*steps, ("plain", True))):
        if kind in ("plain", "span"):
            put(ring, number, sampled=kind == "span")
            spans += kind == "span"
        else:
            spans += 2
            if kind == "hop":
                ring.put_hop(PLAIN | HOP, number, 0.0, 0.0, 0.0, 0.0, 0.0, 1, (bytes(16), 5, 0, ()), number)
            else:
                # As a lease does.
                pack_row(ring.buffer, ring.head & ring.mask, PLAIN | HOP | SAMPLED, number, 0, 0, 0, 0, 0, 1)
                ring.head = end = ring.head + ROW_BYTES
                _, extras, of_ring, samples = ring.marks
                ring.marks = (end, extras, of_ring + 2, samples)
        if reads:
            taken = ring.take()
            words = taken.rows[:, 0]
            sampled = words & SAMPLED != 0
            seen += int((sampled * (1 + (words & HOP != 0))).sum()) + taken.lost_spans
            assert seen == spans
            assert taken.is_plain == (not sampled.any())
            assert min(taken.lost, taken.lost_spans) >= 0


def test_a_reader_beside_a_busy_writer_sees_only_whole_rows_and_counts_the_rest():
    ring = Ring(64)
    total = 60_000

    def write() -> None:
        for number in range(total):
            put(ring, number, sampled=number % 7 == 0, samples=number % 3, links=number % 11 // 8)

    writer = threading.Thread(target=write)
    seen: list[int] = []
    records = spans = samples = 0

    def read() -> None:
        nonlocal records, spans, samples
        taken = ring.take()
        rows = taken.rows
        extras = rows[:, 0] & KIND_MASK == EXTRA
        assert (np.flatnonzero(rows[:, 0] & EXTENDED) + 1 == np.flatnonzero(extras)).all()
        assert (rows[extras, 3] == rows[np.flatnonzero(extras) - 1, 1]).all()
        linked = np.flatnonzero((rows[:, 0] & KIND_MASK == PUBLISH) & (rows[:, 7] == 1))
        links = rows[:, 0] & KIND_MASK == LINK
        assert (linked + 2 == np.flatnonzero(links)).all()
        assert (rows[links, 1] == rows[linked, 1]).all()
        seen.extend(rows[rows[:, 0] & KIND_MASK == PUBLISH, 1].tolist())
        records += taken.records + taken.lost
        spans += sampled_spans(rows) + taken.lost_spans
        samples += int(np.bitwise_count(rows[extras, 0] >> LABEL_SHIFT & 0xFFFF).sum()) + taken.lost_samples

    writer.start()
    while writer.is_alive():
        read()
    writer.join()
    read()
    linked = [number for number in range(total) if number % 11 >= 8]
    sampled = {*linked, *range(0, total, 7)}
    assert (records, spans, samples) == (total, len(sampled), total)
    assert seen == sorted(set(seen))
    assert seen[-1] == total - 1
