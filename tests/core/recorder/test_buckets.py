import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.logarithm_mapping import LogarithmMapping

from ezmsg.core.recorder.buckets import COLUMNS, FIRST, MAX_BUCKETS, SCALE, columns, compact

MAPPING = LogarithmMapping(SCALE)
LONGEST = (1 << 63) - 1


def bucket_of(duration_ns: int) -> int:
    return int(columns(np.array([duration_ns], dtype=np.int64))[0]) - 1 + FIRST


@given(st.integers(1, 1 << 46))
def test_a_duration_falls_into_the_bucket_the_sdk_gives_it(duration_ns: int):
    assert bucket_of(duration_ns) == MAPPING.map_to_index(duration_ns / 1e9)


@given(st.integers(0, 45), st.integers(-2, 2))
def test_durations_beside_powers_of_two_fall_where_the_sdk_puts_them(exponent: int, beside: int):
    duration_ns = max(1, (1 << exponent) + beside)
    assert bucket_of(duration_ns) == MAPPING.map_to_index(duration_ns / 1e9)


def test_whole_seconds_that_are_bounds_belong_to_the_lower_bucket():
    assert bucket_of(1_000_000_000) == -1
    assert bucket_of(1_000_000_001) == 0
    assert bucket_of(2_000_000_000) == 7


def test_zero_has_a_column_of_its_own_and_the_longest_duration_fits():
    assert columns(np.array([0, 1, LONGEST], dtype=np.int64)).tolist() == [0, 1, 505]
    assert COLUMNS > 505


def test_columns_never_fall_as_durations_grow():
    durations = np.unique(np.geomspace(1, 9e18, 100_000).astype(np.int64))
    assert (np.diff(columns(durations)) >= 0).all()


def counts_of(*durations_ns: int) -> np.ndarray:
    return np.bincount(columns(np.array(durations_ns, dtype=np.int64)), minlength=COLUMNS)


def test_an_empty_row_has_no_buckets():
    assert compact(counts_of(0, 0)) == (SCALE, 0, [])


def test_empty_ends_are_left_out():
    scale, offset, counts = compact(counts_of(1_000_000, 1_000_000, 2_000_000))
    assert (scale, offset, counts[0], counts[-1], sum(counts)) == (SCALE, bucket_of(1_000_000), 2, 1, 3)


@given(st.lists(st.integers(1, LONGEST), min_size=1, max_size=30))
def test_pairs_are_merged_until_at_most_160_buckets_are_left(durations_ns: list[int]):
    scale, offset, counts = compact(counts_of(*durations_ns))
    assert len(counts) <= MAX_BUCKETS
    assert sum(counts) == len(durations_ns)
    assert counts[0] > 0
    assert counts[-1] > 0
    for duration_ns in durations_ns:
        assert counts[(bucket_of(duration_ns) >> (SCALE - scale)) - offset] > 0
