import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ezmsg.core.recorder.rowlog import RowLog
from ezmsg.core.recorder.rows import AGE, LEASE_TIME, SAMPLE_ROW, selected_flags
from ezmsg.core.recorder.samplelog import SampleLog
from ezmsg.core.recorder.samplestore import SampleStore
from ezmsg.core.recorder.selected import owed_by, samples_of
from ezmsg.core.recorder.unmadelog import Part
from tests.core.recorder.rowmaking import process
from tests.core.recorder.test_selected import selected_process, selected_publish, written

LIMIT = 700


def received(first: int, count: int) -> np.ndarray:
    """Rows of messages that end one after another, and owe two samples or one."""
    both, one = 1 << LEASE_TIME | 1 << AGE, 1 << LEASE_TIME
    return written(
        *(
            process(2, n, end=n, flags=selected_flags(one if n % 5 == 0 else both, 1))
            for n in range(first, first + count)
        )
    )


actions = st.one_of(
    st.tuples(st.sampled_from(["rows", "samples"]), st.integers(1, 900)),
    st.tuples(st.just("read"), st.integers(1, 1200)),
    st.tuples(st.just("clear"), st.just(0)),
)


@settings(max_examples=40)
@given(st.lists(actions, max_size=12), st.integers(0, 5))
def test_a_log_reads_the_same_whether_samples_were_made_before_or_not(done: list[tuple[str, int]], begin: int):
    log, plain = SampleLog(LIMIT, begin), RowLog(SAMPLE_ROW, LIMIT, end=begin)
    number, position = 0, begin
    for what, count in [*done, ("read", 10_000)]:
        if what == "clear":
            log.clear()
            plain.clear()
        elif what == "read":
            read, expected = log.read(position, count), plain.read(position, count)
            assert read.rows.tolist() == expected.rows.tolist()
            assert read[1:] == expected[1:]
            position = read.position
        else:
            rows = received(number, count)
            number += count
            plain.append(samples_of(rows))
            if what == "rows":
                log.append_unmade(Part(rows))
            else:
                log.append(samples_of(rows))
        assert (log.end, log.oldest) == (plain.end, plain.oldest)


def rows_of(taken: tuple[bytes, int] | None) -> np.ndarray:
    assert taken is not None
    return np.frombuffer(taken[0], dtype=np.int64).reshape(-1, 8)


def owed(taken: tuple[bytes, int] | None) -> int:
    return int(owed_by(rows_of(taken)).sum())


def seqs(taken: tuple[bytes, int] | None) -> list[int]:
    return rows_of(taken)[:, 1].tolist()


@settings(max_examples=40)
@given(st.lists(st.integers(1, 300), max_size=6), st.integers(1, 500))
def test_whoever_takes_rows_sees_each_once_or_has_its_samples_counted(counts: list[int], limit: int):
    store, number, delivered = SampleStore(LIMIT), 0, 0
    seen: list[int] = []
    for turn, count in enumerate(counts):
        store.add_unmade("a", None, Part(received(number, count)))
        number += count
        while turn % 2:
            taken = store.take_selected("r", limit)
            assert taken is not None
            if not taken[1]:
                break
            assert taken[1] <= limit
            delivered += owed(taken)
            seen += seqs(taken)
    while (taken := store.take_selected("r", limit)) and taken[1]:
        delivered += owed(taken)
        seen += seqs(taken)
    assert seen == sorted(set(seen))
    assert not seen or seen[-1] == number - 1
    assert delivered + store.lost("r")[0] == store.added


def test_the_oldest_rows_of_all_endpoints_come_first_and_none_is_starved():
    store = SampleStore(10_000)
    store.add_unmade("pub", None, Part(written(*(selected_publish(n) for n in range(100)))))
    store.add_unmade("sub", None, Part(written(*(selected_process(n) for n in range(3)))))
    assert seqs(store.take_selected("r", 5)) == [0, 1, 2, 0, 1]
    assert seqs(store.take_selected("r", 2)) == [2, 3]


def test_of_rows_at_the_same_time_that_of_the_lower_number_comes_first():
    store, flags = SampleStore(10_000), selected_flags(1 << LEASE_TIME, 1)
    store.add_unmade(
        "fast", None, Part(written(process(2, 7, end=50, flags=flags), process(2, 8, end=60, flags=flags)))
    )
    store.add_unmade(
        "slow", None, Part(written(process(3, 4, end=50, flags=flags), process(3, 9, end=60, flags=flags)))
    )
    assert seqs(store.take_selected("r", 1)) == [4]
    assert seqs(store.take_selected("r", 10)) == [7, 8, 9]


def test_rows_that_ended_in_another_order_than_they_were_recorded_are_told_in_that_of_their_ends():
    store, flags = SampleStore(10_000), selected_flags(1 << LEASE_TIME, 1)
    ends = {1: 90, 2: 40, 3: 95}
    store.add_unmade("sub", None, Part(written(*(process(2, n, end=end, flags=flags) for n, end in ends.items()))))
    assert seqs(store.take_selected("r", 2)) == [2, 1]
    assert seqs(store.take_selected("r", 2)) == [3]


def test_another_reader_of_samples_takes_nothing_from_who_takes_rows():
    store = SampleStore(10_000)
    store.add_unmade("a", None, Part(received(1, 4)))
    assert len(store.peek("other", 100)["a"]) == 8
    assert store.take_selected("r", 100) is None
    store.advance("r", "a", len(store.peek("r", 100)["a"]))
    store.add_unmade("a", None, Part(received(5, 2)))
    assert seqs(store.take_selected("r", 100)) == [5, 6]


def test_a_reader_amid_the_samples_of_a_row_is_given_the_rest_of_them():
    store = SampleStore(10_000)
    store.add_unmade("a", None, Part(received(1, 2)))
    store.peek("r", 0)
    store.advance("r", "a", 1)
    assert store.take_selected("r", 100) is None
    assert store.peek("r", 100)["a"]["seq"].tolist() == [1, 2, 2]


def test_samples_that_went_with_others_of_their_row_are_not_had_after_all():
    store = SampleStore(3)
    both = 1 << LEASE_TIME | 1 << AGE
    store.add_unmade("sub", None, Part(written(*(process(2, n, end=n, flags=selected_flags(both, 1)) for n in (1, 2)))))
    assert seqs(store.take_selected("link", 10)) == [2]
    assert store.lost("link") == (2, 0)
    store.rewind_all("link")
    assert sum(map(len, store.peek("link", 10).values())) == 2


def test_samples_are_made_of_times_that_are_none():
    rows = received(0, 5)
    rows.view(np.float64)[:, 2:7] = np.array([[1e308], [-1e308], [np.inf], [-np.inf], [np.nan]])
    assert len(samples_of(rows)) == owed_by(rows).sum()
