"""Numbers in few columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezmsg.tui import figures


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0 s"),
        (1.234e-9, "1.23 ns"),
        (4.5678e-5, "45.7 µs"),
        (0.0009999, "1.00 ms"),
        (0.00123, "1.23 ms"),
        (0.5, "500 ms"),
        (12.34, "12.3 s"),
        (3600.0, "60 min"),
    ],
)
def test_a_duration_has_three_digits_and_a_unit(seconds: float | None, text: str) -> None:
    assert figures.duration(seconds) == text


@given(st.floats(0, 60_000))
def test_every_duration_of_a_day_fits_its_column(seconds: float) -> None:
    assert len(figures.duration(seconds)) <= 8


@pytest.mark.parametrize(
    ("hz", "text"), [(None, "-"), (0, "0"), (0.5, "0.50"), (63.04, "63.0"), (9999, "9999"), (12_345, "12.3k"),
                     (2.5e6, "2.50M")]
)  # fmt: skip
def test_a_rate_fits_six_columns(hz: float | None, text: str) -> None:
    assert figures.rate(hz) == text


def test_little_is_not_nothing() -> None:
    assert [figures.share(part) for part in (None, 0.0, 0.001, 0.5, 1.0)] == ["-", "-", "<1 %", "50 %", "100 %"]


def test_bars_show_the_last_values_against_the_highest_of_them() -> None:
    assert figures.bars([100, 0, 1, 2, None, 4], 5) == "▁▃▅ █"
    assert figures.bars([0.0], 3) == "  ▁"
    assert figures.bars([], 3) == "   "
