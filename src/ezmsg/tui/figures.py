"""Numbers as people read them: three digits and a unit, in few columns."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "-"
BARS = "▁▂▃▄▅▆▇█"
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))


def duration(seconds: float | None) -> str:
    """At most 7 columns: `1.23 ms`; nothing measured is `-`."""
    if seconds is None:
        return NOTHING
    if seconds <= 0:
        return "0 s"
    if seconds >= 999.5:
        return f"{seconds / 60:.0f} min"
    for size, unit in _UNITS:
        # What would be rounded to 1000 of a unit is 1 of the next.
        if seconds >= 0.9995 * size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{seconds / 1e-9:.2f} ns"


def rate(hz: float | None) -> str:
    """Messages per second, at most 6 columns: `98.7`, `1234`, `12.3k`."""
    if hz is None:
        return NOTHING
    if hz <= 0:
        return "0"
    if hz < 9999.5:
        return _three_digits(hz)
    if hz < 999_500:
        return f"{_three_digits(hz / 1e3)}k"
    return f"{_three_digits(hz / 1e6)}M"


def share(part: float | None) -> str:
    """A part of 1 as per cent; none at all is `-`, and little is not nothing."""
    if part is None or part <= 0:
        return NOTHING
    return "<1 %" if part < 0.01 else f"{part * 100:.0f} %"


def age(seconds: float) -> str:
    """How long ago, roughly."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.0f} h"


def bars(values: Sequence[float | None], width: int) -> str:
    """The last `width` values as bars, the highest one full; a blank where nothing was measured."""
    shown = values[-width:]
    highest = max((value for value in shown if value is not None), default=0.0)
    text = "".join(" " if value is None else _bar(value, highest) for value in shown)
    return text.rjust(width)


def _bar(value: float, highest: float) -> str:
    if highest <= 0 or value <= 0:
        return BARS[0]
    return BARS[min(len(BARS) - 1, int(value / highest * len(BARS)))]


def _three_digits(value: float) -> str:
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
