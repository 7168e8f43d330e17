import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ezmsg.core.recorder.pieces import Piece
from ezmsg.core.recorder.rows import (
    AGE,
    BACKPRESSURE_WAIT,
    FIRST_TIME,
    GENERATIONS,
    LAST_TIME,
    LEASE_TIME,
    NO_PREVIOUS,
    PUBLISH_DELTA,
    QUEUE_WAIT,
    SERIALIZE,
    TRANSPORT,
    selected_flags,
)
from ezmsg.core.recorder.samples import sample_rows
from ezmsg.core.recorder.selected import are_alone, forget_selection, owed_by, samples_of, with_extra_rows
from tests.core.recorder.rowmaking import Row, process, publish, table, user_span

GENERATION = 700
OF_PUBLISH = [PUBLISH_DELTA, BACKPRESSURE_WAIT, SERIALIZE]
OF_PROCESS = [LEASE_TIME, TRANSPORT, QUEUE_WAIT, AGE]


def written(*rows: Row) -> np.ndarray:
    """Rows as endpoints write them: with times in seconds."""
    made = table(*rows)
    times = made[:, FIRST_TIME : LAST_TIME + 1]
    times.view(np.float64)[:] = times / 1e9
    return made


def flags(metrics: list[int], generation: int = GENERATION) -> int:
    return selected_flags(sum(1 << metric for metric in metrics), generation)


def selected_publish(number: int, metrics: list[int] = OF_PUBLISH, generation: int = GENERATION) -> Row:
    meta, seq, _, *rest = publish(1, number, 1000 + number, 1500 + number, wait=7, serialize=9)
    return meta | flags(metrics, generation), seq, NO_PREVIOUS if number == 0 else 400, *rest


def selected_process(number: int, metrics: list[int] = OF_PROCESS) -> Row:
    return process(2, number, origin=10, published=20, channel=40, start=80, end=160 + number, flags=flags(metrics))


some = st.one_of(
    st.builds(selected_publish, st.integers(0, 9), st.lists(st.sampled_from(OF_PUBLISH), min_size=1, unique=True)),
    st.builds(selected_process, st.integers(0, 9), st.lists(st.sampled_from(OF_PROCESS), min_size=1, unique=True)),
)


@settings(max_examples=40)
@given(st.lists(some, min_size=1, max_size=20))
def test_a_row_owes_the_same_samples_with_an_extra_row_and_without(rows: list[Row]):
    alone = written(*rows)
    expected = sample_rows(Piece(with_extra_rows(alone.copy(), GENERATION)).pairs_in_ns(np.empty((20, 16), int)), 700)
    assert expected is not None
    made = samples_of(alone)
    assert made.tolist() == expected.rows.tolist()
    assert (len(made), expected.stale) == (owed_by(alone).sum(), 0)


def test_rows_of_another_generation_are_stale_with_an_extra_row_too():
    rows = written(selected_publish(0, generation=GENERATION - 1), selected_publish(1))
    made = sample_rows(Piece(with_extra_rows(rows, GENERATION)).pairs_in_ns(np.empty((2, 16), int)), GENERATION)
    assert made is not None
    assert (made.stale, set(made.rows["seq"].tolist())) == (3, {1})
    assert GENERATION > GENERATIONS


def test_rows_that_gave_what_they_owe_are_those_of_messages_nobody_selected():
    rows = written(selected_process(3), user_span(2, 0, 10, 5))
    forget_selection(rows, are_alone(rows))
    assert rows[:, 0].tolist() == [process(2, 3)[0], user_span(2, 0, 10, 5)[0]]


def test_what_anybody_may_send_makes_samples_of_whatever_it_is():
    rows = np.full((4, 8), -1, dtype=np.int64)
    rows[1:3, 1:] = np.iinfo(np.int64).max
    assert len(samples_of(rows)) == owed_by(rows).sum() == 32
