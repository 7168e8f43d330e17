"""The distinct numbers in a column of rows."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_LOOKED_AT: Final = 4
"""Of so many numbers, all are taken to be some, until that turns out to be wrong."""


def distinct(column: NDArray[Any]) -> list[int]:
    """Each number once, in order."""
    # Asked for counts, too, `np.unique` does without `numpy.ma`, whose import takes every process 10 ms the first time.
    return np.unique(column, return_counts=True)[0].tolist()


def counted(column: NDArray[Any]) -> dict[int, int]:
    """Each number, and how many times it is there."""
    # Of few numbers, as in most columns of rows, counting each takes less than sorting all.
    counts = {number: int(np.count_nonzero(column == number)) for number in set(column[:_LOOKED_AT].tolist())}
    if sum(counts.values()) == len(column):
        return counts
    found, times = np.unique(column, return_counts=True)
    return dict(zip(found.tolist(), times.tolist(), strict=True))
