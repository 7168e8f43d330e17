"""Runs give the histograms that a closer look at their rows gives."""

from collections import Counter
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.recorder.aggregate import Aggregator
from ezmsg.core.recorder.buckets import columns, float_columns
from ezmsg.core.recorder.digest import Digest
from ezmsg.core.recorder.labels import Labels
from ezmsg.core.recorder.pieces import Piece, rows_in_ns
from ezmsg.core.recorder.ring import Ring, Rows
from ezmsg.core.recorder.rows import (
    EXTENDED,
    EXTRA,
    FOREIGN,
    HOP,
    INDEX_SHIFT,
    INSTANT,
    KIND_MASK,
    NO_PREVIOUS_S,
    PROCESS,
    PUBLISH,
    SAMPLED,
    SPAN,
    WAIT,
    meta_word,
)
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
    rows = written(meta_word(PUBLISH, PUBLISHER, ProfileChannelType.TCP), sent)
    rows[:, 5:7] = 0
    rows[::2, 5:7].view(np.float64)[:] = 4e-6
    quick, thorough = both_ways(rows)
    assert quick == thorough
    assert quick.keys() >= {(PUBLISHER, "backpressure"), (PUBLISHER, "serialize")}
    assert quick[PUBLISHER, "serialize"].label == "tcp"


@settings(deadline=None)
@given(messages)
def test_a_hop_is_a_publish_and_a_process_row_in_one(sent: list[list[int]]):
    sent = [[time + 20_000 * number for time in times] for number, times in enumerate(sent)]
    quick, thorough = both_ways(written(EDGE_META | HOP, sent, size=PUBLISHER))
    assert quick == thorough
    assert quick[PUBLISHER, "publish"].count == quick[EDGE, "process"].count == len(sent)
    assert quick[EDGE, "transport"].zero_count == len(sent)


@settings(deadline=None, max_examples=25)
@given(messages)
def test_traced_hops_have_the_exemplars_of_their_publishes_and_of_their_processing(sent: list[list[int]]):
    ring = Ring(128)
    for number, times in enumerate(sent):
        words = (3600.0 + number + time / 1e6 for time in times)
        ring.put_hop(EDGE_META | HOP, number, *words, PUBLISHER, ((7).to_bytes(16, "big"), 500 + number, 0, ()), number)
    rows = ring.take().rows
    assert taken_spans(rows) == len(sent)
    quick, thorough = both_ways(rows)
    for key, state in quick.items():
        (slowest, *_), (also_slowest, *_) = state.exemplars or [None], thorough[key].exemplars or [None]
        assert (slowest, replace(state, exemplars=[])) == (also_slowest, replace(thorough[key], exemplars=[]))
    for _, _, trace_id, span_id in quick[PUBLISHER, "publish"].exemplars:
        assert (int(trace_id, 16), int(span_id, 16) in range(500, 500 + len(sent))) == (7, True)
    for _, _, _, span_id in quick[EDGE, "process"].exemplars:
        assert int(span_id, 16) in range(len(sent))


Kind = Literal["publish", "process", "wait", "span"]


def put(ring: Ring, kind: Kind, number: int, times: list[int], trace: int, previous: float) -> float:
    """One row, with a trace if that is not 0; returns when it began."""
    origin, publish, channel, start, end = (3600.0 + number + time / 1e6 for time in times)
    words: dict[Kind, tuple[float, ...]] = {
        "publish": (PUBLISH_META, number, origin, publish, channel, times[0] % 2 / 1e6, 0.0, 0),
        "process": (EDGE_META, number, origin, publish, channel, start, end, 0),
        "wait": (meta_word(WAIT, PUBLISHER), number, 0.0, publish, channel, 1e-6, 0.0, 0),
        "span": (meta_word(SPAN, EDGE), number, 0.0, 0.0, 0.0, start, end, 0),
    }
    if trace and kind != "wait":
        ring.put_span(*words[kind], trace.to_bytes(16, "big"), number + 1, 0, previous, 0, 0)
    else:
        ring.put(*words[kind])
    return publish


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["publish", "process", "wait", "span"]), moments, st.integers(0, 3)), max_size=40
    )
)
def test_whatever_a_process_writes_counts_as_with_a_closer_look(written: list[tuple[Kind, list[int], int]]):
    ring, numbers, previous = Ring(128), Counter[Kind](), NO_PREVIOUS_S
    for kind, times, trace in written:
        began = put(ring, kind, numbers[kind], times, trace, previous)
        previous = began if kind == "publish" else previous
        numbers[kind] += 1
    taken = ring.take()
    digest, thorough = Digest(Labels(), 10), aggregator()
    for index in (EDGE, PUBLISHER):
        digest.aggregator.open(index)
    digest.add(taken, 0, lambda index: None)
    assert thorough.add(rows_in_ns(taken.rows)) == digest.lost["row:unknown_endpoint"] == 0
    quick, closer = states(digest.aggregator), states(thorough)
    assert {key: replace(state, exemplars=[]) for key, state in quick.items()} == {
        key: replace(state, exemplars=[]) for key, state in closer.items()
    }
    assert [state.exemplars[:1] for state in quick.values()] == [closer[key].exemplars[:1] for key in quick]
    assert digest.lost["span:unknown_endpoint"] == digest.recorded()["span"] == taken_spans(taken.rows)


def taken_spans(rows: Rows) -> int:
    return int(np.count_nonzero((rows[:, 0] & KIND_MASK != EXTRA) & (rows[:, 0] & SAMPLED != 0)))


def test_a_run_that_needs_a_closer_look_has_its_extra_rows():
    ring = Ring(64)
    for number, id_ in enumerate([0, 1, 5]):  # messages are missing in between
        put(ring, "process", number, [0, 1, 2, 3, 4], number % 2, 0.0)
        put(ring, "publish", id_, [0, 1, 2, 3, 4], 1, NO_PREVIOUS_S)
    rows = ring.take().rows
    runs, _ = runs_of(Piece(rows)) or ([], [])
    for run, meta in zip(runs, (EDGE_META, PUBLISH_META), strict=True):
        starts = np.flatnonzero(rows[:, 0] & ~(SAMPLED | EXTENDED) == meta)
        with_extras = [n for start in starts for n in (start, start + 1)[: 1 + bool(rows[start, 0] & EXTENDED)]]
        assert run.whole.tolist() == rows[with_extras].tolist()


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
