"""One edge in detail: each stage of its messages' way, now and over the last minute."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static

from ezmsg.tui import figures
from ezmsg.tui.edges import edge_key
from ezmsg.tui.history import LENGTH, History
from ezmsg.tui.measures import Edge, Measured, Measures, Sender

# Who measures it, under which name, and what it is called here.
STAGES = (
    ("age", "edge", "age"),
    ("transport", "edge", "transport"),
    ("queue", "edge", "queue"),
    ("process", "edge", "process"),
    ("backpressure", "sender", "backpressure"),
)
BEFORE_BARS = 34


class EdgeDetail(Static):
    """p50, p99 and bars of p99 for every stage of the edge that is selected."""

    DEFAULT_CSS = "EdgeDetail { height: 7; padding: 0 1; background: $surface; }"

    def __init__(self) -> None:
        """Make one that shows nothing yet."""
        super().__init__("", id="detail", markup=False)
        self._history = History()

    def add(self, measures: Measures) -> None:
        """Take one look into the bars."""
        senders = _senders(measures)
        values: dict[str, float | None] = {}
        for edge in measures.edges:
            for name, owner, _ in STAGES:
                measured: Measured | None = edge if owner == "edge" else senders.get(edge.topic)
                values[f"{edge_key(edge)} {name}"] = None if measured is None else measured.quantile(name, 0.99)
        self._history.add(values)

    def show_edge(self, measures: Measures, key: str | None) -> None:
        """Show the edge with this key."""
        edge = next((edge for edge in measures.edges if edge_key(edge) == key), None)
        if edge is None:
            self.update("", layout=False)
            return
        self.update(self._text(edge, _senders(measures).get(edge.topic)), layout=False)

    def _text(self, edge: Edge, sender: Sender | None) -> Text:
        width = max(8, min(LENGTH, self.size.width - BEFORE_BARS))
        text = Text(no_wrap=True, overflow="ellipsis")
        text.append(f"{edge.topic} → {edge.subscription}", style="bold")
        text.append(f"  {edge.via or '?'}, {figures.rate(edge.rate_hz)}/s, {edge.dropped} dropped", style="dim")
        if sender is not None:
            text.append(f", {sender.inflight} of {sender.num_buffers} in flight", style="dim")
        text.append(f"\n{'':12} {'p50':>9} {'p99':>9}  p99, one bar a look\n", style="bold dim")
        lines: list[Text] = []
        for name, owner, title in STAGES:
            measured: Measured | None = edge if owner == "edge" else sender
            line = Text(f"{title:12} ")
            for q in (0.5, 0.99):
                line.append(f"{figures.duration(None if measured is None else measured.quantile(name, q)):>9} ")
            line.append(f" {self._history.bars(f'{edge_key(edge)} {name}', width)}", style="cyan")
            lines.append(line)
        return text + Text("\n").join(lines)


def _senders(measures: Measures) -> dict[str, Sender]:
    """By topic; of several processes the one that waits most, it is what one looks for."""
    found: dict[str, Sender] = {}
    for sender in sorted(measures.senders, key=lambda sender: sender.wait_share):
        found[sender.topic] = sender
    return found
