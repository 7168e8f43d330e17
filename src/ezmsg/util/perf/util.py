"""Small things that all measurements need."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator, Iterable, Sequence

logger = logging.getLogger("ezmsg")


def keep_busy(seconds: float) -> None:
    """Work for so long: processors that slept start slowly."""
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        pass


@contextlib.contextmanager
def quiet(is_quiet: bool) -> Generator[None]:
    """Log only errors, if so wanted."""
    before = logger.level
    logger.setLevel(logging.ERROR if is_quiet else before)
    try:
        yield
    finally:
        logger.setLevel(before)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows below each other: the first column to the left, the others to the right."""
    lines = [list(columns), *map(list, rows)]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
