"""From single runs to medians, spreads, ratios and a table. Pure: no clock, no file, no process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

LEGEND = """\
median (lowest..highest) of the rounds; a ratio a/b is a divided by b within a round
↑ more is better: a ratio above 1 is in favour of a; ↓ less is better: a ratio below 1 is"""
LOST = "! so many messages were lost on the way: do not compare"


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement of one implementation."""

    round: int
    cell: str
    implementation: str
    metrics: Mapping[str, float] | None
    """By name; None when it failed."""
    error: str = ""
    load: float = 0.0
    """Load average of the last minute when it started."""


@dataclass(frozen=True, slots=True)
class Spread:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Of nothing there is none."""
        found = list(values)
        return cls(median(found), min(found), max(found)) if found else None


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of one cell."""

    cell: str
    metric: str
    unit: str
    higher_is_better: bool
    values: Mapping[str, Spread | None]
    """By implementation, without those who are not measured in this cell."""
    ratios: Mapping[str, Spread | None]
    """Of runs in the same round, by who is divided by whom: `ours/peer`."""
    lost: Mapping[str, int] = field(default_factory=dict)
    """Messages lost in all rounds, by implementation."""


def by_round(runs: Iterable[Run], cell: str, implementation: str, metric: str) -> dict[int, float]:
    return {
        run.round: run.metrics[metric]
        for run in runs
        if run.metrics is not None
        and metric in run.metrics
        and (run.cell, run.implementation) == (cell, implementation)
    }


def ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Ours divided by theirs, for the rounds in which both were measured: they saw the same machine."""
    return [ours[number] / theirs[number] for number in sorted(ours.keys() & theirs.keys())]


def pairs(implementations: Sequence[str], reference: str = "ours") -> list[tuple[str, str]]:
    """Who is divided by whom: the reference by all others, but what is only a variant of it by the reference."""
    if reference not in implementations:
        return []
    others = [name for name in implementations if name != reference]
    return [(name, reference) if name.startswith(f"{reference}:") else (reference, name) for name in others]


def summarise(runs: Sequence[Run], cells: Iterable[Any], implementations: Sequence[str]) -> list[Row]:
    """One row per metric of each cell.

    Args:
        runs: In any order.
        cells: `cells.Cell`, in the order of the rows.
        implementations: In the order of the columns.
    """
    rows = []
    for cell in cells:
        names = [name for name in implementations if cell.is_for(name)]
        lost = {name: int(sum(by_round(runs, cell.name, name, "lost").values())) for name in names}
        for metric in cell.metrics:
            measured = {name: by_round(runs, cell.name, name, metric.name) for name in names}
            rows.append(
                Row(
                    cell=cell.name,
                    metric=metric.name,
                    unit=metric.unit,
                    higher_is_better=metric.higher_is_better,
                    values={name: Spread.of(values.values()) for name, values in measured.items()},
                    ratios={f"{a}/{b}": Spread.of(ratios(measured[a], measured[b])) for a, b in pairs(names)},
                    lost={name: number for name, number in lost.items() if number},
                )
            )
    return rows


def number(value: float) -> str:
    """Three or more digits, thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _spread(spread: Spread | None, text: Callable[[float], str], missing: str) -> str:
    if spread is None:
        return missing
    if spread.low == spread.high:
        return text(spread.median)
    return f"{text(spread.median)} ({text(spread.low)}..{text(spread.high)})"


def _value(row: Row, implementation: str) -> str:
    if implementation not in row.values:
        return "-"
    lost = f" !{row.lost[implementation]:,}" if implementation in row.lost else ""
    return _spread(row.values[implementation], number, "failed") + lost


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.1 else f"{value:.1g}"


def table(rows: Sequence[Row]) -> str:
    """Text for people: median (lowest..highest) of the rounds."""
    if not rows:
        return "nothing was measured\n"
    implementations = list(dict.fromkeys(name for row in rows for name in row.values))
    pairs = list(dict.fromkeys(pair for row in rows for pair in row.ratios))
    lines = [["cell", "unit", *implementations, *pairs]]
    for row in rows:
        unit = f"{row.unit} {row.metric}" if row.metric != "rate" else row.unit
        lines.append(
            [
                row.cell,
                f"{unit} {'↑' if row.higher_is_better else '↓'}",
                *(_value(row, name) for name in implementations),
                *(_spread(row.ratios.get(pair), _ratio, "-") for pair in pairs),
            ]
        )
    legend = [LEGEND, LOST] if any(row.lost for row in rows) else [LEGEND]
    return "".join(line + "\n" for line in [*aligned(lines), "", *legend])


def aligned(lines: list[list[str]]) -> list[str]:
    """Columns, the first line ruled off."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines]
    padded.insert(1, "  ".join("─" * width for width in widths))
    return [line.rstrip() for line in padded]


def tail_of(stderr: str, limit: int = 30) -> str:
    """The end of what a failed process wrote, without the source lines of its tracebacks."""
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith("    ")]
    return "\n".join(lines[-limit:])
