from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ezmsg.core.recorder.rowlog import BLOCK, RowLog
from ezmsg.core.recorder.rows import SAMPLE_ROW
from ezmsg.core.recorder.rowstore import CLOSED, READERS, RowStore


def rows(*seqs: int) -> np.ndarray:
    return numbered(seqs)


def numbered(seqs: Sequence[int]) -> np.ndarray:
    made = np.zeros(len(seqs), dtype=SAMPLE_ROW)
    made["seq"] = seqs
    return made


def seqs(found: np.ndarray) -> list[int]:
    return found["seq"].tolist()


def take(store: RowStore, reader: str, graph: str | None = None) -> list[int]:
    taken: list[int] = []
    for key, part in store.peek(reader, 1000, graph).items():
        taken += seqs(part)
        store.advance(reader, key, len(part))
    return taken


@given(
    st.integers(1, 20) | st.integers(1, 3 * BLOCK),
    st.lists(st.integers(0, 30) | st.integers(0, 3 * BLOCK) | st.none(), max_size=30),
)
def test_a_log_keeps_the_newest_rows(limit: int, sizes: list[int | None]):
    log = RowLog(SAMPLE_ROW, limit)
    written = cleared = 0
    for size in sizes:
        if size is None:
            log.clear()
            cleared = written
            continue
        log.append(numbered(range(written, written + size)))
        written += size
        oldest = max(cleared, written - limit)
        read = log.read(cleared, limit)
        assert seqs(read.rows) == list(range(oldest, written))
        assert seqs(log.read(oldest + 3, 5).rows) == list(range(oldest + 3, min(written, oldest + 8)))
        assert read.evicted == oldest - cleared
        assert read.position == written == log.end


def test_a_log_is_read_in_pieces():
    log = RowLog(SAMPLE_ROW, 10)
    log.append(rows(0, 1, 2, 3, 4))
    first = log.read(0, 2)
    assert (seqs(first.rows), first.position) == ([0, 1], 2)
    assert seqs(log.read(first.position, 2).rows) == [2, 3]


def test_what_follows_a_row_is_read_with_it_however_little_is_asked_for():
    log = RowLog(SAMPLE_ROW, 1000, follows=lambda row: row["seq"] % 4 != 0)
    log.append(numbered(range(BLOCK + 6)))
    position = 0
    for first in range(0, BLOCK + 4, 4):
        read = log.read(position, 2)
        assert seqs(read.rows) == list(range(first, first + 4))
        position = read.position
    assert seqs(log.read(position, 1).rows) == [BLOCK + 4, BLOCK + 5]
    assert not seqs(log.read(0, 0).rows)


spans_with_parts = st.lists(st.integers(0, 4) | st.integers(0, BLOCK + 10), max_size=12)


@given(
    st.integers(1, 20) | st.integers(1, 3 * BLOCK),
    st.lists(st.tuples(spans_with_parts, st.integers(0, 30) | st.none()), max_size=12),
)
def test_rows_count_once_with_what_follows_them(limit: int, steps: list[tuple[list[int], int | None]]):
    log = RowLog(SAMPLE_ROW, limit, follows=lambda rows: rows["index"] > 0, end=7)
    written = seen = gone = 0
    position = log.end
    for added, wanted in steps:
        parts = [(written + number, part) for number, count in enumerate(added) for part in range(1 + count)]
        made = numbered([number for number, _ in parts])
        made["index"] = [part for _, part in parts]
        log.append(made)
        written += len(added)
        assert log.end == 7 + written
        if wanted is None:
            log.clear()
            continue
        read = log.read(position, wanted)
        begins = read.rows["index"] == 0
        assert not len(begins) or begins[0]
        assert seqs(read.rows[begins]) == list(range(read.start - 7, read.position - 7))
        seen += int(begins.sum())
        gone += read.evicted + read.cleared
        position = read.position
    read = log.read(position, 1 << 30)
    seen += int((read.rows["index"] == 0).sum())
    assert seen + gone + read.evicted + read.cleared == written


def test_what_was_cleared_is_told_apart_from_what_gave_way():
    log = RowLog(SAMPLE_ROW, 2)
    log.append(rows(0, 1, 2))
    log.clear()
    log.append(rows(3, 4, 5))
    read = log.read(0, 10)
    assert (seqs(read.rows), read.cleared, read.evicted) == ([4, 5], 3, 1)


def test_readers_do_not_take_anything_from_each_other():
    store = RowStore(SAMPLE_ROW, 10)
    store.add("a", None, rows(1, 2))
    assert take(store, "one") == [1, 2]
    store.add("a", None, rows(3))
    assert take(store, "one") == [3]
    assert take(store, "two") == [1, 2, 3]


def test_peeking_takes_nothing():
    store = RowStore(SAMPLE_ROW, 10)
    store.add("a", None, rows(1, 2))
    store.peek("one", 10)
    assert take(store, "one") == [1, 2]


def test_a_reader_of_a_graph_sees_rows_of_that_graph():
    store = RowStore(SAMPLE_ROW, 10)
    store.add("a", "g", rows(1))
    store.add("b", "h", rows(2))
    store.add("c", None, rows(3))
    assert take(store, "one", "g") == [1]
    assert take(store, "one", "h") == [2]
    assert take(store, "all") == [1, 2, 3]
    store.orphan("g")
    assert take(store, "two", "g") == []


def test_a_reader_can_be_put_back_and_sent_ahead():
    store = RowStore(SAMPLE_ROW, 10)
    store.add("a", None, rows(1, 2))
    before = store.places("one")
    take(store, "one")
    after = store.places("one")
    store.add("a", None, rows(3))
    store.rewind("one", after)
    assert take(store, "one") == [3]
    store.rewind("one", before)
    store.rewind_all("one")
    assert take(store, "one") == [1, 2, 3]
    store.add("a", None, rows(4))
    store.skip("one")
    assert take(store, "one") == []


def test_who_is_sent_ahead_in_a_graph_misses_nothing_of_others():
    store = RowStore(SAMPLE_ROW, 10)
    store.add("mine", "g", rows(1))
    store.add("other", "h", rows(2))
    store.orphan("g")
    store.skip("one", "g")
    store.add("other", "h", rows(3))
    store.close("other")
    store.clear()
    assert (store.added_for("one"), store.lost("one")) == (0, (0, 0))


def test_a_closed_log_can_still_be_read_by_readers_to_come():
    store = RowStore(SAMPLE_ROW, 10)
    store.add("a", None, rows(1, 2))
    store.close("a")
    assert take(store, "one") == [1, 2]


def test_only_so_many_closed_logs_are_kept_and_their_rows_counted():
    store = RowStore(SAMPLE_ROW, 10)
    store.add("first", None, rows(1, 2))
    store.peek("early", 1)
    store.advance("early", "first", 1)
    store.close("first")
    for number in range(CLOSED):
        store.add(str(number), None, rows(0))
        store.close(str(number))
    assert 2 not in take(store, "early")
    assert store.lost("early") == (1, 0)
    assert store.lost("late") == (2, 0)


def test_only_so_many_readers_are_remembered():
    store = RowStore(SAMPLE_ROW, 10)
    store.add("a", None, rows(1))
    assert take(store, "idle") == [1]
    for number in range(READERS):
        take(store, str(number))
    assert take(store, "idle") == [1]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc"), st.integers(0, 8)),
        st.tuples(st.just("take"), st.sampled_from(["one", "two"]), st.integers(0, 4)),
        st.tuples(st.just("clear"), st.just(""), st.just(0)),
        st.tuples(st.just("close"), st.sampled_from("abc"), st.just(0)),
    ),
    max_size=40,
)


@given(steps)
def test_every_reader_gets_or_misses_each_row_exactly_once(history: list[tuple[str, str, int]]):
    store = RowStore(SAMPLE_ROW, 5)
    delivered = {"one": 0, "two": 0, "late": 0}
    for action, name, number in history:
        if action == "add":
            store.add(name, None, rows(*range(number)))
        elif action == "take":
            for key, part in store.peek(name, number).items():
                store.advance(name, key, len(part))
                delivered[name] += len(part)
        elif action == "clear":
            store.clear()
        else:
            store.close(name)
    for reader in delivered:
        delivered[reader] += len(take(store, reader))
        assert delivered[reader] + sum(store.lost(reader)) == store.added


moves = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc"), st.integers(0, 8)),
        st.tuples(st.sampled_from(["take", "take", "note", "lose", "replace"]), st.just(""), st.integers(0, 9)),
        st.tuples(st.just("clear"), st.just(""), st.just(0)),
        st.tuples(st.just("close"), st.sampled_from("abc"), st.just(0)),
    ),
    max_size=40,
)


@given(moves)
def test_a_reader_that_goes_back_misses_no_row_twice_nor_one_that_it_had(history: list[tuple[str, str, int]]):
    store = RowStore(SAMPLE_ROW, 5)
    arrived: set[int] = set()  # at receivers that are no more
    taken: list[int] = []
    places, noted = store.places("one"), 0
    for action, key, number in history:
        match action:
            case "add":
                store.add(key, None, rows(*range(store.added, store.added + number)))
            case "take":
                taken += np.frombuffer(store.take("one", number), SAMPLE_ROW)["seq"].tolist()
            case "note":
                places, noted = store.places("one"), len(taken)
            case "lose":  # what was sent since did not arrive
                store.rewind("one", places)
                del taken[noted:]
            case "replace":  # another receiver, who has nothing
                arrived |= set(taken)
                store.rewind_all("one")
                places, taken, noted = store.places("one"), [], 0
            case "close":
                store.close(key)
            case _:
                store.clear()
    while rest := store.take("one", 1000):
        taken += np.frombuffer(rest, SAMPLE_ROW)["seq"].tolist()
    assert len(taken) == len(set(taken))
    assert len(arrived.union(taken)) + sum(store.lost("one")) == store.added


def test_what_was_read_in_vain_of_a_log_that_is_no_more_is_missed_once():
    store = RowStore(SAMPLE_ROW, 5)
    store.add("a", None, rows(1, 2, 3))
    assert len(store.take("link", 1))
    places = store.places("link")
    assert len(store.take("link", 2))
    store.close("a")
    store.clear()
    for _ in range(2):  # connections are lost before anything else was read
        store.rewind("link", places)
        store.add("a", None, rows(4))
        assert store.lost("link") == (0, 2)
        assert np.frombuffer(store.take("link", 9), SAMPLE_ROW)["seq"].tolist()[0] == 4


def test_a_log_of_another_graph_is_none_that_a_reader_missed():
    store = RowStore(SAMPLE_ROW, 10)
    store.add("a", "g", rows(1, 2))
    store.add("b", "h", rows(3))
    readers = {"link g": "g", "link h": "h", "all": None}
    for reader, graph in readers.items():
        store.peek(reader, 10, graph)
    for key in "ab":
        store.close(key)
    for number in range(CLOSED):
        store.add(str(number), None, rows(0))
        store.close(str(number))
    store.peek("late", 10, "h")
    assert {reader: store.lost(reader)[0] for reader in (*readers, "late")} == {
        "link g": 2,
        "link h": 1,
        "all": 3,
        "late": 1,
    }
    assert store.lost_to("link") == (3, 0)


def test_what_all_readers_of_a_role_missed_never_falls():
    store = RowStore(SAMPLE_ROW, 1)
    for number in range(2 * READERS):
        store.add("a", None, rows(0, 1))
        take(store, f"link {number}")
    missed = store.lost_to("link")
    assert missed[0] > 2 * READERS
    for number in range(READERS):
        take(store, f"other {number}")
    assert store.lost_to("link") == missed
