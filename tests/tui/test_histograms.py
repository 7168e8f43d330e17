"""Histograms of a window."""

from __future__ import annotations

import math
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from ezmsg.core.graphmeta import HistogramValue
from ezmsg.tui.histograms import between, merged

DURATIONS = st.lists(st.floats(1e-8, 10), min_size=1, max_size=50)


def histogram(values: list[float], scale: int = 3) -> HistogramValue:
    buckets = Counter(math.ceil(math.log2(value) * 2**scale) - 1 for value in values if value)
    first, last = min(buckets), max(buckets)
    counts = [buckets[index] for index in range(first, last + 1)]
    zeros = values.count(0.0)
    return HistogramValue(len(values), sum(values), min(values), max(values), zeros, scale, first, counts)


@settings(max_examples=30)
@given(DURATIONS, DURATIONS)
def test_what_came_between_has_the_quantiles_of_what_came(before: list[float], after: list[float]) -> None:
    found, alone = between(histogram(before), histogram(before + after)), histogram(after)
    assert found.count == len(after)
    assert (found.offset, found.counts) == (alone.offset, alone.counts)
    for q in (0.5, 0.99):
        # To within the width of a bucket, whose ends stand for least and greatest value.
        assert math.isclose(found.quantile(q), alone.quantile(q), rel_tol=2 ** (1 / 8) - 1)


@settings(max_examples=30)
@given(DURATIONS, DURATIONS)
def test_histograms_of_different_scale_are_merged_at_the_coarser(fine: list[float], coarse: list[float]) -> None:
    found = merged([histogram(fine, 3), histogram(coarse, 1)])
    assert found is not None
    both = histogram(fine + coarse, 1)
    assert (found.scale, found.count, found.offset, found.counts) == (1, both.count, both.offset, both.counts)


def test_a_histogram_that_was_made_coarser_meanwhile_is_compared_at_that_scale() -> None:
    found = between(histogram([0.001], 3), histogram([0.001, 0.1, 0.1], 0))
    assert (found.count, found.scale, sum(found.counts)) == (2, 0, 2)


def test_nothing_new_is_an_empty_histogram_and_a_fresh_one_is_all_new() -> None:
    one = histogram([0.001, 0.0])
    assert between(one, one).count == 0
    assert between(one, one).quantile(0.99) == 0.0
    assert between(None, one) is one
    assert between(histogram([1.0, 1.0, 1.0]), one) is one
    assert merged([]) is None
