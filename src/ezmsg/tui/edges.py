"""The table of edges, and the line that names the culprit."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static

from ezmsg.tui import table
from ezmsg.tui.livetable import Head, LiveTable
from ezmsg.tui.measures import Edge, Measures

# From this share of the time on a publisher is said to be held up.
HELD_UP = 0.05
CALM = "#98e024"


def edge_key(edge: Edge) -> str:
    """Tells an edge from all others."""
    return f"{edge.topic} {edge.subscription} {edge.process_id}"


def culprit_style(share: float) -> str:
    """How who causes so much of the waiting is shown."""
    return "bold #ff8080" if share >= 0.5 else "yellow" if share >= HELD_UP else ""


class EdgeTable(LiveTable):
    """One row for each edge: rate, age, queue, waits of the publisher, share of the blame."""

    NOTHING = "no edges yet"

    def show_edges(self, measures: Measures) -> None:
        """Show these."""
        columns = table.columns_for(self.room)
        heads = [Head("edge", right=False), *(Head(column.title, column.width) for column in columns)]
        names = table.edge_names(measures.edges, table.name_width(self.room, columns))
        rows: dict[str, list[Text | str]] = {}
        for edge, name in zip(measures.edges, names, strict=True):
            is_held = edge.wait_share >= HELD_UP
            style = culprit_style(1.0 if edge.is_stuck else edge.blame_share if is_held else 0.0)
            plain = "dim italic" if edge.is_stale else ""
            cells: list[Text | str] = [Text(name, style=style or plain)]
            for column in columns:
                is_blame = column.title in ("waits", "culprit")
                cells.append(Text(column.text(edge), style=style if is_blame else plain))
            rows[edge_key(edge)] = cells
        self.show(heads, rows)


class EdgeLine(Static):
    """The edge that is selected, in full."""

    DEFAULT_CSS = "EdgeLine { height: auto; max-height: 2; padding: 0 1; }"

    def __init__(self) -> None:
        """Make one that shows nothing yet."""
        super().__init__("", markup=False, id="edge")

    def show_edge(self, measures: Measures, key: str | None) -> None:
        """Show the edge with this key."""
        edge = next((edge for edge in measures.edges if edge_key(edge) == key), None)
        text = "" if edge is None else f"{edge.topic} → {edge.subscription} (pid {edge.pid})"
        self.update(text)


class CulpritLine(Static):
    """Who holds up the graph."""

    DEFAULT_CSS = "CulpritLine { height: 1; padding: 0 1; }"

    def __init__(self) -> None:
        """Make one that knows nothing yet."""
        super().__init__("", markup=False, id="culprit")

    def show_culprit(self, measures: Measures) -> None:
        """Show the worst."""
        worst = 1.0 if measures.stuck else measures.culprits[0].share if measures.culprits else 0.0
        style = culprit_style(worst) or CALM
        self.update(Text(table.culprit_text(measures), style=style, no_wrap=True, overflow="ellipsis"), layout=False)
