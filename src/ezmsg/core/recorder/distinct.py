"""The distinct numbers in a column of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def distinct(column: NDArray[Any]) -> list[int]:
    """Each number once, in order."""
    # Asked for counts, too, `np.unique` does without `numpy.ma`, whose import takes every process 10 ms the first time.
    return np.unique(column, return_counts=True)[0].tolist()
