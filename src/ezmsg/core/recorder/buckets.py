"""Which bucket of a base-2 exponential histogram at scale 3, in seconds, a duration of whole nanoseconds belongs to.

Bucket `i` covers `(2 ** (i / 8), 2 ** ((i + 1) / 8)]` seconds. Its bounds are no whole nanoseconds, so buckets kept in
ns could not be shifted to seconds later: 8 * log2(1e9) is not a whole number.
"""

from __future__ import annotations

from math import isqrt, log2
from typing import Final

import numpy as np
from numpy.typing import NDArray

SCALE: Final = 3
FIRST: Final = -240
"""The bucket of 1 ns."""
COLUMNS: Final = 512
"""Width of a row of counts: column 0 counts zeros, column 1 bucket FIRST, and so on up to 2**63 ns."""
MAX_BUCKETS: Final = 160
"""More do not leave the process."""

_CELL_BITS: Final = 6
_SHIFT: Final = 52 - _CELL_BITS
_BASE: Final = 1023 << _CELL_BITS


def _upper_bounds() -> NDArray[np.int64]:
    """The longest duration of each bucket: floor(1e9 * 2**(j/8)) ns, exactly, by whole numbers."""
    bounds: list[int] = []
    for j in range(FIRST + 1, 266):
        eighth_power = 10**72 << j if j >= 0 else 10**72 >> -j
        bounds.append(min(isqrt(isqrt(isqrt(eighth_power))), (1 << 63) - 1))
    return np.array(bounds, dtype=np.int64)


_UPPER: Final = _upper_bounds()


def _cells() -> NDArray[np.int64]:
    """For each exponent and first six bits of the fraction of a float64: the bucket of the least duration there.

    A cell is narrower than a bucket, so the right bucket is this one or the next.
    """
    bits = np.arange(63 << _CELL_BITS, dtype=np.int64) + _BASE << _SHIFT
    found = np.searchsorted(_UPPER, bits.view(np.float64).astype(np.int64))
    # What rounds up to 2**63 as a float64.
    return np.append(found, len(_UPPER) - 1)


_CELLS: Final = _cells()


def columns(durations_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """The column of each duration (all >= 0) in a row of counts."""
    cell = (durations_ns.astype(np.float64).view(np.int64) >> _SHIFT) - _BASE
    found = _CELLS[np.maximum(cell, 0)]
    found += durations_ns > _UPPER[found]
    found += 1
    found[durations_ns == 0] = 0
    return found


# Bounds above this many ns lie too close to whole numbers for a logarithm to tell.
_EXACT_BELOW: Final = float(1 << 40)
# More than the error of the logarithm, less than the distance of any whole number below that from a bound.
_NUDGE: Final = 2e-13
_OFFSET: Final = 8 * log2(1e9) + _NUDGE + FIRST


def float_columns(durations_ns: NDArray[np.float64]) -> NDArray[np.int64]:
    """As `columns`, for whole numbers that came as floats, of any shape; faster."""
    if durations_ns.max() >= _EXACT_BELOW:
        return columns(durations_ns.astype(np.int64))
    found = np.maximum(durations_ns, 1)
    np.log2(found, out=found)
    found *= 8
    found -= _OFFSET
    np.ceil(found, out=found)
    found *= durations_ns > 0
    return found.astype(np.int64)


def compact(counts: NDArray[np.int64]) -> tuple[int, int, list[int]]:
    """A row of counts without its zeros and empty ends: scale, first bucket, counts; at most MAX_BUCKETS of them."""
    buckets = counts[1:]
    used = np.flatnonzero(buckets)
    if not len(used):
        return SCALE, 0, []
    scale, first, last = SCALE, int(used[0]) + FIRST, int(used[-1]) + FIRST
    kept = buckets[used[0] : used[-1] + 1]
    while last - first + 1 > MAX_BUCKETS:
        # Bucket i of one scale is half of bucket i >> 1 of the next.
        pairs = np.zeros(2 * ((last >> 1) - (first >> 1) + 1), dtype=np.int64)
        pairs[first & 1 : (first & 1) + len(kept)] = kept
        kept = pairs.reshape(-1, 2).sum(axis=1)
        scale, first, last = scale - 1, first >> 1, last >> 1
    return scale, first, [int(count) for count in kept]
