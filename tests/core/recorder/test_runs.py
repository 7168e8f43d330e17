"""Runs give the histograms that a closer look at their rows gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.recorder.aggregate import Aggregator
from ezmsg.core.recorder.buckets import columns, float_columns
from ezmsg.core.recorder.labels import Labels
from ezmsg.core.recorder.pieces import Piece, rows_in_ns
from ezmsg.core.recorder.ring import Ring, Rows
from ezmsg.core.recorder.rows import FOREIGN, HOP, INDEX_SHIFT, INSTANT, PROCESS, PUBLISH, meta_word
from ezmsg.core.recorder.runs import RUNS, Run, runs_of
from ezmsg.core.wire.records import HistogramState

EDGE, PUBLISHER = 1, 2
EDGE_META = meta_word(PROCESS, EDGE, ProfileChannelType.LOCAL)
PUBLISH_META = meta_word(PUBLISH, PUBLISHER)

# Whole microseconds after an hour of uptime: exact enough for differences to be the same either way.
moments = st.lists(st.integers(0, 10_000), min_size=5, max_size=5).map(sorted)
messages = st.lists(moments, min_size=1, max_size=40)


def written(meta: int, messages: list[list[int]], size: int = 0) -> Rows:
    """Rows as an endpoint writes them."""
    ring = Ring(64)
    for number, times in enumerate(messages):
        ring.put(meta, number, *(3600.0 + time / 1e6 for time in times), size)
    return ring.take().rows.copy()


def aggregator() -> Aggregator:
    made = Aggregator(Labels())
    made.open(EDGE)
    made.open(PUBLISHER)
    return made


def states(aggregator: Aggregator) -> dict[tuple[int, str], HistogramState]:
    found = [
        aggregator.series.histograms.state(series)
        for index in (EDGE, PUBLISHER)
        for series in aggregator.series.of(index)
    ]
    return {(state.index, state.name): state for state in found}


def run_of(rows: Rows) -> Run:
    """Rows that are a run."""
    ((run,), others) = runs_of(Piece(rows)) or ([], [])
    assert not len(others)
    return run


def both_ways(*parts: Rows) -> tuple[dict[tuple[int, str], HistogramState], dict[tuple[int, str], HistogramState]]:
    """What runs give, and what a closer look gives."""
    quick, thorough = aggregator(), aggregator()
    for rows in parts:
        assert quick.add_run(run_of(rows)) == 0
        assert thorough.add(rows_in_ns(rows)) == 0
    return states(quick), states(thorough)


@settings(deadline=None)
@given(messages, messages)
def test_a_run_of_an_edge_counts_what_a_closer_look_counts(first: list[list[int]], second: list[list[int]]):
    quick, thorough = both_ways(written(EDGE_META, first), written(EDGE_META, second))
    assert quick == thorough


@settings(deadline=None)
@given(messages)
def test_a_run_of_a_publisher_counts_what_a_closer_look_counts(sent: list[list[int]]):
    # Words are origin, start, end, wait, serialize.
    sent = [[0, start + 20_000 * number, end + 20_000 * number, 0, 0] for number, (start, end, *_) in enumerate(sent)]
    rows = written(PUBLISH_META, sent)
    rows[:, 5:7] = 0
    rows[::2, 5].view(np.float64)[:] = 4e-6
    quick, thorough = both_ways(rows)
    assert quick == thorough
    assert (PUBLISHER, "backpressure") in quick


@settings(deadline=None)
@given(messages)
def test_a_hop_is_a_publish_and_a_process_row_in_one(sent: list[list[int]]):
    sent = [[time + 20_000 * number for time in times] for number, times in enumerate(sent)]
    quick, thorough = both_ways(written(EDGE_META | HOP, sent, size=PUBLISHER))
    assert quick == thorough
    assert quick[PUBLISHER, "publish"].count == quick[EDGE, "process"].count == len(sent)
    assert quick[EDGE, "transport"].zero_count == len(sent)


def test_a_hop_counts_as_two_records():
    ring = Ring(8)
    ring.put(EDGE_META | HOP, 0, 0.0, 0.0, 0.0, 0.0, 0.0, PUBLISHER)
    ring.put(EDGE_META, 1, 0.0, 0.0, 0.0, 0.0, 0.0, 0)
    taken = ring.take()
    assert (taken.records, len(taken.rows)) == (3, 2)


def test_hops_and_rows_of_the_publisher_itself_make_one_series_of_intervals():
    hops = written(EDGE_META | HOP, [[10 * n, 10 * n, 10 * n + 1, 10 * n + 2, 10 * n + 3] for n in range(4)], PUBLISHER)
    own = written(PUBLISH_META, [[10 * n, 10 * n, 10 * n + 1, 0, 0] for n in range(4)])
    own[:, 5:7] = 0
    made = aggregator()
    assert made.add(rows_in_ns(np.concatenate((hops[[0, 1, 3]], own[[2]])))) == 0
    interval = states(made)[PUBLISHER, "interval"]
    assert (interval.count, interval.min_ns, interval.max_ns) == (3, 10_000, 10_000)


def test_a_run_with_a_time_that_runs_backwards_is_not_counted_but_looked_at():
    rows = written(EDGE_META, [[0, 1, 2, 3, 4], [9, 1, 2, 3, 4]])
    made = aggregator()
    assert made.add_run(run_of(rows)) is None
    assert states(made) == {}


def test_rows_of_an_endpoint_that_is_not_known_are_counted():
    made = aggregator()
    made.close(EDGE)
    assert made.add_run(run_of(written(EDGE_META | HOP, [[0, 1, 2, 3, 4]] * 3, PUBLISHER))) == 3
    assert states(made)[PUBLISHER, "publish"].count == 3


def test_rows_of_several_endpoints_are_as_many_runs_in_their_order():
    rows = written(EDGE_META, [[0, 1, 2, 3, 4]] * 6)
    rows[1::2, 0] ^= 1 << INDEX_SHIFT
    (runs, _) = runs_of(Piece(rows)) or ([], [])
    assert [run.ids.tolist() for run in runs] == [[0, 2, 4], [1, 3, 5]]


def test_rows_of_many_endpoints_are_no_runs():
    rows = written(EDGE_META, [[0, 1, 2, 3, 4]] * (RUNS + 1))
    rows[:, 0] += np.arange(RUNS + 1) << INDEX_SHIFT
    assert runs_of(Piece(rows)) is None
    (runs, _) = runs_of(Piece(rows[1:])) or ([], [])
    assert len(runs) == RUNS


@pytest.mark.parametrize("flag", [INSTANT, FOREIGN])
def test_special_rows_are_in_no_run(flag: int):
    rows = written(EDGE_META, [[0, 1, 2, 3, 4]] * 3)
    rows[1, 0] |= flag
    assert runs_of(Piece(rows)) is None


@settings(deadline=None)
@given(st.lists(st.integers(0, (1 << 53) - 1), min_size=1))
def test_columns_of_floats_are_those_of_whole_numbers(durations: list[int]):
    whole = np.array(durations, dtype=np.int64)
    assert float_columns(whole.astype(np.float64)).tolist() == columns(whole).tolist()


def test_columns_of_floats_are_right_at_every_bound():
    bounds = np.unique([int(1e9 * 2 ** (j / 8)) + near for j in range(-239, 90) for near in (-1, 0, 1, 2)])
    for bound in bounds[bounds >= 0]:
        one = np.array([bound])
        assert float_columns(one.astype(np.float64)) == columns(one), bound
