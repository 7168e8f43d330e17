import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ezmsg.core.recorder.rows import (
    AGE,
    BACKPRESSURE_WAIT,
    LEASE_TIME,
    METRICS,
    PUBLISH_DELTA,
    QUEUE_WAIT,
    SAMPLE_ROW,
    SELECTED,
    SERIALIZE,
    TRANSPORT,
    USER_SPAN,
)
from ezmsg.core.recorder.samples import merge_oldest, sample_rows, span_rows
from tests.core.recorder.rowmaking import pairs, process, publish, sampled, user_span


def bits(*metrics: int) -> int:
    return sum(1 << metric for metric in metrics)


def test_rows_that_were_not_selected_owe_nothing():
    assert sample_rows(pairs(publish(1, 0, 10), sampled(publish(1, 1, 20), 5)), 0) is None


def test_a_publish_owes_the_samples_of_its_emit_mask():
    emit = bits(PUBLISH_DELTA, BACKPRESSURE_WAIT, SERIALIZE)
    row = sampled(publish(1, 7, 1000, 1300, wait=40, serialize=6), 0, previous=700, emit=emit, flags=SELECTED)
    made = sample_rows(pairs(row), 0)
    assert made is not None
    assert [(METRICS[row["metric"]], row["value_ns"], row["time_ns"], row["seq"]) for row in made.rows] == [
        ("publish_delta_ns", 300, 1300, 7),
        ("backpressure_wait_ns", 40, 1300, 7),
        ("serialize_ns", 6, 1300, 7),
    ]


def test_the_first_publish_has_a_delta_of_zero():
    made = sample_rows(pairs(sampled(publish(1, 0, 1000), 0, emit=bits(PUBLISH_DELTA), flags=SELECTED)), 0)
    assert made is not None
    assert made.rows["value_ns"].tolist() == [0]


def test_a_received_message_owes_the_samples_of_its_emit_mask():
    emit = bits(LEASE_TIME, TRANSPORT, QUEUE_WAIT, AGE)
    row = process(2, 3, origin=100, published=150, channel=180, start=250, end=1000)
    made = sample_rows(pairs(sampled(row, 0, emit=emit, flags=SELECTED)), 0)
    assert made is not None
    assert dict(zip(made.rows["metric"].tolist(), made.rows["value_ns"].tolist(), strict=True)) == {
        LEASE_TIME: 750,
        TRANSPORT: 30,
        QUEUE_WAIT: 70,
        AGE: 150,
    }
    assert set(made.rows["time_ns"].tolist()) == {1000}


def test_samples_come_in_the_order_of_their_rows_and_name_labels():
    rows = pairs(
        sampled(user_span(2, 0, 10, 5), 0, emit=bits(USER_SPAN), flags=SELECTED),
        publish(1, 0, 5),
        sampled(process(2, 1, end=30), 0, emit=bits(LEASE_TIME), flags=SELECTED),
        sampled(user_span(2, 30, 50, 6), 0, emit=bits(USER_SPAN), flags=SELECTED),
    )
    made = sample_rows(rows, 0)
    assert made is not None
    assert made.rows["label"].tolist() == [5, 0, 6]
    assert made.rows["value_ns"].tolist() == [10, 30, 20]


def test_samples_of_a_trace_that_ended_are_counted_and_not_made():
    emit = bits(PUBLISH_DELTA, SERIALIZE)
    rows = pairs(
        sampled(publish(1, 0, 10), 0, emit=emit, generation=3, flags=SELECTED),
        sampled(publish(1, 1, 20), 0, emit=bits(PUBLISH_DELTA), generation=4, flags=SELECTED),
    )
    made = sample_rows(rows, 4)
    assert made is not None
    assert (made.rows["seq"].tolist(), made.stale) == ([1], 2)


def test_span_rows_are_sampled_rows_with_their_ids():
    rows = pairs(publish(1, 0, 10), sampled(publish(1, 1, 20), 7, 8), sampled(publish(1, 2, 30), 9, flags=SELECTED))
    made = span_rows(rows, np.empty((2 * len(rows), rows.shape[1]), dtype=np.int64))
    assert made is not None
    assert made[["message_id", "span_id", "parent_id"]].tolist() == [(1, 7, 8)]
    assert span_rows(pairs(publish(1, 0, 10)), rows) is None


def series(*pairs: tuple[int, int]) -> np.ndarray:
    made = np.zeros(len(pairs), dtype=SAMPLE_ROW)
    made["time_ns"], made["seq"] = [time for time, _ in pairs], [seq for _, seq in pairs]
    return made


def test_the_oldest_samples_of_all_endpoints_come_first():
    unread = {"pub": series((1, 0), (2, 1), (3, 2), (4, 3)), "sub": series((2, 0), (5, 1))}
    rows, taken = merge_oldest(unread, 3)
    assert rows[["time_ns", "seq"]].tolist() == [(1, 0), (2, 0), (2, 1)]
    assert taken == {"pub": 2, "sub": 1}


def test_a_busy_publisher_does_not_starve_a_subscriber():
    unread = {"pub": series(*((10, seq) for seq in range(1000))), "sub": series((10, 0), (10, 1))}
    _, taken = merge_oldest(unread, 10)
    assert taken["sub"] == 2


def test_nothing_merges_to_nothing():
    rows, taken = merge_oldest({}, 5)
    assert (len(rows), taken) == (0, {})


@given(
    st.dictionaries(
        st.sampled_from("abcd"), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=12)
    ),
    st.integers(1, 5),
)
def test_reading_in_pieces_delivers_every_sample_once(endpoints: dict[str, list[tuple[int, int]]], limit: int):
    left = {name: series(*pairs) for name, pairs in endpoints.items()}
    delivered: list[tuple[int, int]] = []
    while left:
        rows, taken = merge_oldest(left, limit)
        assert len(rows) == sum(taken.values()) <= limit
        delivered += rows[["time_ns", "seq"]].tolist()
        left = {name: part[taken.get(name, 0) :] for name, part in left.items()}
        left = {name: part for name, part in left.items() if len(part)}
    assert sorted(delivered) == sorted(pair for pairs in endpoints.values() for pair in pairs)
