"""See how a running graph hangs together, what flows through it, and what just changed.

ezmsg start
python -m examples.live_graph
python -m examples.topology_tui
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Footer, Static

import ezmsg.core as ez
from ezmsg.core.graphmeta import GraphSnapshot, TopologyChangedEvent
from ezmsg.core.netprotocol import AddressType
from ezmsg.tui import figures
from ezmsg.tui.app import GraphApp, main
from ezmsg.tui.edges import culprit_style
from ezmsg.tui.livetable import Head, LiveTable
from ezmsg.tui.measures import Measurer, Measures, look
from ezmsg.tui.session import each, repeatedly, together
from ezmsg.tui.topology import Drawing, Line, differences, flow, process_of

INTERVAL_S = 1.0
# After an event, others that belong to the same change may follow.
SETTLE_S = 0.1
# What is new is marked so long.
NEW_S = 10.0
CHANGES = 100
HEADS = (Head("graph", right=False), Head("via", 9), Head("msg/s", 6), Head("age p99", 7), Head("waits", 6),
         Head("pid", 7))  # fmt: skip


class TopologyApp(GraphApp):
    """The graph above, what changed below."""

    NAME = "ezmsg topology"
    CSS = f"""
    {GraphApp.CSS}
    #changes {{
        height: 6; padding: 0 1; background: $surface; text-wrap: nowrap; text-overflow: ellipsis;
    }}
    """

    def __init__(self, address: AddressType | None = None, interval_s: float = INTERVAL_S) -> None:
        super().__init__(address)
        self.interval_s = interval_s
        self.measures = Measures()
        self.graph: GraphSnapshot | None = None
        self.changes: deque[tuple[float, str]] = deque(maxlen=CHANGES)
        self._new: dict[Any, float] = {}
        self._event = asyncio.Event()

    def compose(self) -> ComposeResult:
        yield self.state_line()
        yield LiveTable(id="graph")
        yield Static("what changed", classes="title", markup=False)
        yield Static("", id="changes", markup=False)
        yield Footer(compact=True)

    # -- following ----------------------------------------------------------------------------------------------------

    async def follow(self, context: ez.GraphContext) -> None:
        measurer = Measurer()

        async def measure() -> None:
            self.measures = await look(context, measurer, self.interval_s)
            self.changed()

        async def see() -> None:
            self._see(await context.snapshot())
            await self._event.wait()
            await asyncio.sleep(SETTLE_S)
            self._event.clear()

        await together(
            repeatedly(measure, 0.0, self.tell),
            repeatedly(see, 0.0, self.tell),
            each(context.subscribe_topology_events(), self._take),
        )

    def _take(self, event: TopologyChangedEvent) -> None:
        if event.gap:
            self._note(f"! {event.gap}")
        if event.missed:
            self._note(f"! {event.missed} events were missed")
        self._event.set()

    def _see(self, graph: GraphSnapshot) -> None:
        before, self.graph = self.graph, graph
        if before is None:
            self._note(f"+ {len(graph.edge_owners)} edges and {len(graph.processes)} processes were there")
        else:
            for change in differences(before, graph):
                self._note(change)
            now_s = time.monotonic()
            for edge in graph.edge_owners.keys() - before.edge_owners.keys():
                self._new[edge] = now_s
        self.changed()

    def _note(self, change: str) -> None:
        self.changes.append((time.time(), change))
        self.changed()

    # -- showing ------------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        graph = self.graph
        if graph is None:
            return
        now_s = time.monotonic()
        self._new = {edge: since_s for edge, since_s in self._new.items() if now_s - since_s < NEW_S}
        self.summary = f"{len(graph.processes)} processes, {len(graph.edge_owners)} edges"
        rows = {f"{line.node} {line.edge} {line.is_again}": self._row(line, graph) for line in Drawing(graph).lines}
        self.query_one("#graph", LiveTable).show(HEADS, rows or {"none": ["the graph has no edges", *[""] * 5]})
        self.query_one("#changes", Static).update(Text("\n").join(map(_change, list(self.changes)[-6:])))

    def _row(self, line: Line, graph: GraphSnapshot) -> list[Text | str]:
        process = process_of(line.node, graph)
        pid = "" if process is None else str(process.pid)
        if line.edge is None:
            return [Text(line.text, style="bold"), "", "", "", "", pid]
        edge = line.edge
        rate_hz, via = flow(edge, graph, self.measures.edges)
        direct = [one for one in self.measures.edges if (one.topic, one.subscription) == tuple(edge)]
        ages = [age for one in direct if (age := one.quantile("age", 0.99)) is not None]
        waits = max((one.wait_share for one in direct), default=0.0)
        is_stuck = any(one.is_stuck for one in direct)
        return [
            Text(line.text, style="bold green" if edge in self._new else ""),
            via or figures.NOTHING,
            figures.rate(rate_hz) if via else figures.NOTHING,
            figures.duration(max(ages, default=None)),
            Text("stuck" if is_stuck else figures.share(waits), style=culprit_style(1.0 if is_stuck else waits)),
            pid,
        ]

    def on_resize(self) -> None:
        self.changed()


def _change(change: tuple[float, str]) -> Text:
    when, what = change
    style = {"+": "green", "-": "#ff8080", "~": "yellow", "!": "bold yellow"}[what[0]]
    text = Text(time.strftime("%H:%M:%S ", time.localtime(when)))
    return text.append(what, style=style)


if __name__ == "__main__":
    sys.exit(main(TopologyApp))
