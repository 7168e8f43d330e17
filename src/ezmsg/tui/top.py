"""`ezmsg top`: the edges of a graph while it runs."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Footer, Static

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.net.address import AddressType
from ezmsg.tui.app import GraphApp
from ezmsg.tui.edges import CulpritLine, EdgeLine, EdgeTable
from ezmsg.tui.measures import Measurer, Measures, look
from ezmsg.tui.session import repeatedly, sentinel, together
from ezmsg.tui.table import EXPLANATION


class TopApp(GraphApp):
    """Shows every edge, worst news in colour.

    Args:
        address: Of the GraphServer; None for the default.
        interval_s: Seconds over which each figure is taken.
    """

    NAME = "ezmsg top"

    def __init__(self, address: AddressType | None = None, interval_s: float = 1.0) -> None:
        """Make one; nothing is connected before it runs."""
        super().__init__(address)
        self.interval_s = interval_s
        self.measures = Measures()

    def compose(self) -> ComposeResult:
        """State, culprit, edges, explanation, keys."""
        yield self.state_line()
        yield CulpritLine()
        yield EdgeTable(id="edges")
        yield EdgeLine()
        yield Static(EXPLANATION, classes="note", markup=False)
        yield Footer()

    async def follow(self, context: GraphContext) -> None:
        """Look again and again."""
        measurer = Measurer()

        async def ask() -> None:
            self.measures = await look(context, measurer, self.interval_s)
            self.changed()

        await together(sentinel(context), repeatedly(ask, 0.0, self.tell))

    def draw(self) -> None:
        """Show the last look."""
        measures = self.measures
        self.summary = f"{len(measures.processes)} processes, {len(measures.edges)} edges"
        self.query_one(CulpritLine).show_culprit(measures)
        table = self.query_one(EdgeTable)
        table.show_edges(measures)
        self.query_one(EdgeLine).show_edge(measures, table.selected)

    def on_data_table_row_highlighted(self) -> None:
        """The cursor moved."""
        self.changed()

    def on_resize(self) -> None:
        """Other columns fit."""
        self.changed()
