"""Rows of edges as text, for `ezmsg top` and for what reads its output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ezmsg.tui import figures
from ezmsg.tui.measures import Edge, Measures
from ezmsg.tui.names import EdgeNames, edge_text

GAP = 1


@dataclass(frozen=True, slots=True)
class Column:
    """One column beside the name: its title, its width, what it shows, and from which terminal width on."""

    title: str
    width: int
    text: Callable[[Edge], str]
    from_width: int = 0


def _quantile(name: str, q: float) -> Callable[[Edge], str]:
    return lambda edge: figures.duration(edge.quantile(name, q))


COLUMNS: Sequence[Column] = (
    Column("via", 5, lambda edge: edge.via or figures.NOTHING),
    Column("msg/s", 6, lambda edge: figures.rate(edge.rate_hz)),
    Column("age p50", 7, _quantile("age", 0.5)),
    Column("age p99", 7, _quantile("age", 0.99)),
    Column("queue p50", 9, _quantile("queue", 0.5), from_width=110),
    Column("queue p99", 9, _quantile("queue", 0.99)),
    Column("process p50", 11, _quantile("process", 0.5), from_width=130),
    Column("process p99", 11, _quantile("process", 0.99), from_width=120),
    Column("drops", 6, lambda edge: str(edge.dropped), from_width=100),
    Column("waits", 6, lambda edge: "stuck" if edge.is_stuck else figures.share(edge.wait_share)),
    Column("culprit", 7, lambda edge: figures.share(edge.blame_share)),
)
EXPLANATION = (
    "age: origin to hand-over; waits: part of the time the publisher was held up; "
    "culprit: part of all waiting that this subscriber causes"
)
LEAST_NAME = 12


def columns_for(width: int) -> list[Column]:
    """Those that a terminal of this width has room for."""
    return [column for column in COLUMNS if width >= column.from_width]


def name_width(width: int, columns: Sequence[Column]) -> int:
    """What is left for the name of the edge."""
    return max(LEAST_NAME, width - sum(column.width + GAP for column in columns))


def edge_names(edges: Sequence[Edge], width: int) -> list[str]:
    """The name of each edge within `width` columns; with its process where several have the same."""
    names = EdgeNames([(edge.topic, edge.subscription) for edge in edges])
    ends = [names.of(edge.topic, edge.subscription) for edge in edges]
    texts: list[str] = []
    for edge, pair in zip(edges, ends, strict=True):
        suffix = f" ({edge.pid})" if ends.count(pair) > 1 else ""
        texts.append(edge_text(*pair, width - len(suffix)) + suffix)
    return texts


def culprit_text(measures: Measures) -> str:
    """Who holds up the graph, in one line."""
    if measures.window_s is None:
        return "measuring"
    stuck = f"stuck, all buffers in use: {', '.join(measures.stuck)}" if measures.stuck else ""
    if not measures.culprits:
        return stuck or "nobody waits"
    worst = measures.culprits[0]
    window_s = measures.culprits_window_s
    held = f" ({figures.duration(worst.wait_seconds / window_s)} each second)" if window_s else ""
    culprit = f"culprit: {worst.subscription} causes {figures.share(worst.share)} of all waiting{held}"
    return f"{culprit}; {stuck}" if stuck else culprit


def as_text(measures: Measures, width: int) -> str:
    """All of it, for a terminal that is not redrawn."""
    columns = columns_for(width)
    names = edge_names(measures.edges, name_width(width, columns))
    room = max([LEAST_NAME, *map(len, names)])
    lines = ["edge".ljust(room) + "".join(column.title.rjust(column.width + GAP) for column in columns)]
    for edge, name in zip(measures.edges, names, strict=True):
        lines.append(name.ljust(room) + "".join(column.text(edge).rjust(column.width + GAP) for column in columns))
    if not measures.edges:
        lines.append("(no subscriber has a publisher yet)")
    return "\n".join([*(line.rstrip() for line in lines), "", culprit_text(measures)])
