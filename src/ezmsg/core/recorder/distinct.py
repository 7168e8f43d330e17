"""The distinct numbers in a column of rows."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

FEW: Final = 8


def distinct(column: NDArray[Any]) -> list[int]:
    """Each number once, in order."""
    # Asked for counts, too, `np.unique` does without `numpy.ma`, whose import takes every process 10 ms the first time.
    return np.unique(column, return_counts=True)[0].tolist()


def counted(column: NDArray[Any]) -> dict[int, int]:
    """Each number, and how many times it is there."""
    counts: dict[int, int] = {}
    # Of few numbers, as in most columns of rows, counting each takes less than sorting all.
    while len(column) and len(counts) < FEW:
        number = int(column[0])
        others = column[column != number]
        counts[number] = len(column) - len(others)
        column = others
    if not len(column):
        return counts
    found, times = np.unique(column, return_counts=True)
    return counts | dict(zip(found.tolist(), times.tolist(), strict=True))
