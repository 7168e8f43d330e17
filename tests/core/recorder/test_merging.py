"""Merging and recording, checked against the mapping of the SDK."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.exponent_mapping import ExponentMapping
from opentelemetry.sdk.metrics._internal.exponential_histogram.mapping.logarithm_mapping import LogarithmMapping

from ezmsg.core.recorder.merging import MAX_BUCKETS, SCALE, Histogram, downscale
from tests.otel.feeds import histogram

durations = st.lists(st.integers(min_value=1, max_value=3_600_000_000_000), min_size=1, max_size=50)


def recorded(durations_ns: list[int]) -> Histogram:
    made = Histogram()
    for duration_ns in durations_ns:
        made.record(duration_ns)
    return made


def by_sdk(durations_ns: list[int], scale: int) -> dict[int, int]:
    mapping = LogarithmMapping(scale) if scale > 0 else ExponentMapping(scale)
    buckets: dict[int, int] = {}
    for duration_ns in durations_ns:
        index = mapping.map_to_index(duration_ns / 1e9)
        buckets[index] = buckets.get(index, 0) + 1
    return buckets


def buckets_of(made: Histogram) -> dict[int, int]:
    return {index: count for index, count in enumerate(made.counts, made.offset) if count}


@given(durations)
def test_durations_land_in_the_buckets_of_the_sdk(durations_ns: list[int]) -> None:
    made = recorded(durations_ns)
    assert buckets_of(made) == by_sdk(durations_ns, made.scale)
    assert (made.count, made.sum_ns) == (len(durations_ns), sum(durations_ns))
    assert (made.min_ns, made.max_ns) == (min(durations_ns), max(durations_ns))


@given(durations, durations)
def test_a_merged_histogram_is_the_histogram_of_all_durations(some: list[int], others: list[int]) -> None:
    merged = recorded(some)
    merged.merge(recorded(others))
    assert buckets_of(merged) == by_sdk(some + others, merged.scale)
    assert len(merged.counts) <= MAX_BUCKETS
    assert merged.count == len(some) + len(others)


@given(durations, st.integers(min_value=-2, max_value=SCALE))
def test_histograms_of_different_scales_merge_at_the_coarser(durations_ns: list[int], scale: int) -> None:
    coarse = recorded(durations_ns)
    scale = min(scale, coarse.scale)  # a wide range has made it coarser already
    coarse.offset, coarse.counts = downscale(coarse.offset, coarse.counts, coarse.scale - scale)
    coarse.scale = scale
    for first, second in ((recorded(durations_ns), coarse), (coarse.copy(), recorded(durations_ns))):
        first.merge(second)
        assert first.scale == scale
        assert buckets_of(first) == by_sdk(durations_ns * 2, scale)


def test_ranges_far_apart_are_brought_together_without_a_huge_list() -> None:
    merged = Histogram()
    merged.merge(histogram(1, "age", [5], offset=-(2**30)))
    merged.merge(histogram(1, "age", [7], offset=2**30))
    assert sum(merged.counts) == 12
    assert len(merged.counts) <= MAX_BUCKETS


def test_zero_has_its_own_bucket() -> None:
    made = recorded([0, 0, 1000])
    assert (made.count, made.zero_count, sum(made.counts), made.min_ns) == (3, 2, 1, 0)


def test_an_empty_histogram_changes_nothing() -> None:
    made = recorded([1000])
    made.merge(Histogram())
    assert (made.count, made.min_ns, made.max_ns) == (1, 1000, 1000)


def test_integers_of_numpy_become_integers_of_python() -> None:
    counts = np.array([1, 2], dtype=np.int64)
    made = Histogram()
    made.merge(histogram(1, "age", list(counts), offset=np.int64(-3)))  # type: ignore[arg-type]
    values = [made.count, made.sum_ns, made.min_ns, made.max_ns, made.offset, made.scale, *made.counts]
    assert {type(value) for value in values} == {int}
