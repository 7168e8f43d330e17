"""See inside a running graph: edges, processes, publishers, subscribers, samples and traces.

ezmsg start
python -m examples.live_graph
python -m examples.profiling_tui
"""

from __future__ import annotations

import sys
import time
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import DataTable, Footer, TabbedContent, TabPane

import ezmsg.core as ez
from ezmsg.core.graphmeta import ProfilingStreamControl, ProfilingTraceControl, ProfilingTraceStreamBatch
from ezmsg.core.netprotocol import AddressType
from ezmsg.tui import figures
from ezmsg.tui.app import GraphApp, main
from ezmsg.tui.edgedetail import EdgeDetail
from ezmsg.tui.edges import CulpritLine, EdgeTable
from ezmsg.tui.history import History
from ezmsg.tui.livetable import LiveTable
from ezmsg.tui.measures import Measurer, Measures, look
from ezmsg.tui.processes import ProcessTable, ReceiverTable, SenderTable, rates_of
from ezmsg.tui.samples import Samples
from ezmsg.tui.session import each, repeatedly, together
from ezmsg.tui.tracecontrol import TraceForm
from ezmsg.tui.traces import Traces, TraceTree

# Seconds over which figures are taken, and between two deliveries of a stream.
INTERVAL_S = 1.0
STREAM_S = 0.25
# Trees are drawn anew no more often: one has to read them.
TREES_S = 2.0
TABS = ("edges", "processes", "endpoints", "samples", "traces")


class ProfilingApp(GraphApp):
    """Everything that is measured, a tab for each kind."""

    NAME = "ezmsg profiling"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"tab('{name}')", name.capitalize()) for number, name in enumerate(TABS, 1)),
        Binding("h", "hold", "Hold traces"),
        Binding("escape", "keys", show=False),
    ]
    CSS = f"""
    {GraphApp.CSS}
    TabbedContent {{ height: 1fr; }}
    TabPane {{ padding: 0; }}
    """

    def __init__(self, address: AddressType | None = None, interval_s: float = INTERVAL_S) -> None:
        super().__init__(address)
        self.interval_s = interval_s
        self.measures = Measures()
        self.rates = History()
        self.samples = Samples()
        self.traces = Traces()
        self._session: ez.GraphContext | None = None
        self._trace: ProfilingTraceControl | None = None
        self._trace_began_s = 0.0
        self._trees_drawn_s = 0.0

    def compose(self) -> ComposeResult:
        yield self.state_line()
        yield CulpritLine()
        with TabbedContent(id="tabs"):
            with TabPane("1 Edges", id="edges"), Vertical():
                yield EdgeTable(id="edge-table")
                yield EdgeDetail()
            with TabPane("2 Processes", id="processes"):
                yield ProcessTable(id="process-table")
            with TabPane("3 Endpoints", id="endpoints"), Vertical():
                yield SenderTable(id="sender-table")
                yield ReceiverTable(id="receiver-table")
            with TabPane("4 Samples", id="samples"), Vertical():
                yield TraceForm(id="trace-form")
                yield LiveTable(id="sample-table")
            with TabPane("5 Traces", id="traces"):
                yield TraceTree(id="trace-tree")
        yield Footer(compact=True)

    # -- following ----------------------------------------------------------------------------------------------------

    async def follow(self, context: ez.GraphContext) -> None:
        self._session = context
        measurer = Measurer()

        async def ask() -> None:
            self.measures = await look(context, measurer, self.interval_s)
            self.rates.add(rates_of(self.measures))
            self.query_one(EdgeDetail).add(self.measures)
            self.changed()

        stream = ProfilingStreamControl(interval=STREAM_S, max_samples=2000, include_spans=True)
        try:
            await together(repeatedly(ask, 0.0, self.tell), each(context.subscribe_profiling_trace(stream), self._take))
        finally:
            self._session = None

    def _take(self, delivery: ProfilingTraceStreamBatch) -> None:
        if delivery.gap:
            self.notify("the GraphServer was restarted", timeout=5)
        if self.samples.add(delivery) | self.traces.add(delivery):
            self.changed()

    # -- the trace ----------------------------------------------------------------------------------------------------

    async def on_trace_form_wanted(self, wanted: TraceForm.Wanted) -> None:
        """Tell every process what to trace."""
        form, context = self.query_one(TraceForm), self._session
        if context is None:
            form.tell("there is no session with a GraphServer now", is_error=True)
            return
        try:
            processes = (await context.snapshot()).processes
            answers = {
                process_id: await context.process_set_profiling_trace(None, wanted.trace, process_id=process_id)
                for process_id in processes
            }
        except (RuntimeError, OSError) as error:
            form.tell(str(error), is_error=True)
            return
        refusals = [f"{answer.error}" for answer in answers.values() if not answer.ok]
        if refusals:
            form.tell(f"{len(refusals)} of {len(answers)} processes: {refusals[0]}", is_error=True)
            return
        if wanted.trace.enabled:
            self.samples.clear()
        self._trace, self._trace_began_s = wanted.trace, time.monotonic()
        self.changed()

    def trace_state(self) -> str:
        """What became of the trace."""
        trace = self._trace
        if trace is None:
            return "no trace was started here"
        count = f"{self.samples.count} samples"
        if not trace.enabled:
            return f"stopped, {count}"
        left_s = (trace.ttl_seconds or 0.0) - (time.monotonic() - self._trace_began_s)
        if left_s <= 0:
            return f"expired after {trace.ttl_seconds:g} s, {count}"
        return f"on for another {figures.age(left_s)}, one in {trace.sample_mod}, {count}"

    # -- showing ------------------------------------------------------------------------------------------------------

    def draw(self) -> None:
        measures, shown = self.measures, self.query_one(TabbedContent).active
        self.summary = f"{len(measures.processes)} processes, {len(measures.edges)} edges"
        self.query_one(CulpritLine).show_culprit(measures)
        if shown == "edges":
            table = self.query_one(EdgeTable)
            table.show_edges(measures)
            self.query_one(EdgeDetail).show_edge(measures, table.selected)
        elif shown == "processes":
            self.query_one(ProcessTable).show_processes(measures)
        elif shown == "endpoints":
            self.query_one(SenderTable).show_senders(measures, self.rates)
            self.query_one(ReceiverTable).show_receivers(measures, self.rates)
        elif shown == "samples":
            self.samples.show_in(self.query_one("#sample-table", LiveTable))
            if self._trace is not None:
                self.query_one(TraceForm).tell(self.trace_state())
        elif time.monotonic() - self._trees_drawn_s > TREES_S:
            self._trees_drawn_s = time.monotonic()
            self.query_one(TraceTree).show_traces(self.traces.latest())

    def on_resize(self) -> None:
        self.changed()

    def on_tabbed_content_tab_activated(self) -> None:
        self._trees_drawn_s = 0.0
        self.changed()

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        self.changed()

    def action_tab(self, name: str) -> None:
        """Show a tab, and let the keys go to what is in it."""
        self.query_one(TabbedContent).active = name
        first = {"edges": "#edge-table", "processes": "#process-table", "endpoints": "#sender-table",
                 "samples": "#publishers", "traces": "#trace-tree"}  # fmt: skip
        self.query_one(first[name]).focus()

    def action_keys(self) -> None:
        """Out of a text field, where numbers are numbers."""
        self.query_one("#sample-table").focus()

    def action_hold(self) -> None:
        """Let the trees stand still, or go on."""
        tree = self.query_one(TraceTree)
        tree.is_held = not tree.is_held
        self.notify("traces stand still" if tree.is_held else "traces go on", timeout=2)


if __name__ == "__main__":
    sys.exit(main(ProfilingApp))
