"""Tables of processes, and of publishers and subscribers."""

from __future__ import annotations

from rich.text import Text

from ezmsg.tui import figures
from ezmsg.tui.edges import HELD_UP
from ezmsg.tui.history import History
from ezmsg.tui.livetable import Head, LiveTable
from ezmsg.tui.measures import Edge, Measures, Process, Sender

PROCESS_HEADS = (
    Head("units", right=False),
    Head("pid", 7),
    Head("host", 12, right=False),
    Head("pubs", 4),
    Head("subs", 4),
    Head("sent/s", 6),
    Head("recv/s", 6),
    Head("lost rows", 9),
)
SENDER_HEADS = (
    Head("publisher", right=False, is_address=True),
    Head("pid", 7),
    Head("msg/s", 6),
    Head("publish p99", 11),
    Head("waits", 5),
    Head("in flight", 9),
    Head("rate", 12),
)
RECEIVER_HEADS = (
    Head("subscriber", right=False, is_address=True),
    Head("pid", 7),
    Head("msg/s", 6),
    Head("process p50", 11),
    Head("p99", 7),
    Head("drops", 5),
    Head("rate", 12),
)


def _styled(text: str, is_stale: bool, style: str = "") -> Text:
    return Text(text, style="dim italic" if is_stale else style)


class ProcessTable(LiveTable):
    """One row for each process."""

    NOTHING = "no processes yet"

    def show_processes(self, measures: Measures) -> None:
        """Show these."""
        self.show(PROCESS_HEADS, {str(process.process_id): self._row(process) for process in measures.processes})

    def _row(self, process: Process) -> list[Text | str]:
        pid = figures.NOTHING if process.pid is None else str(process.pid)
        units = ", ".join(process.units) or "(no units)"
        if not process.answers:
            return [Text(f"{units} does not answer", style="yellow"), pid, process.host or "", *["-"] * 5]
        return [
            units,
            pid,
            process.host or "",
            str(process.publishers),
            str(process.subscribers),
            figures.rate(process.sent_hz),
            figures.rate(process.received_hz),
            Text(str(process.lost), style="yellow" if process.lost else ""),
        ]


class SenderTable(LiveTable):
    """One row for each topic and process that publishes on it."""

    NOTHING = "no publishers yet"

    def show_senders(self, measures: Measures, rates: History) -> None:
        """Show these."""
        self.show(SENDER_HEADS, {sender_key(sender): self._row(sender, rates) for sender in measures.senders})

    def _row(self, sender: Sender, rates: History) -> list[Text | str]:
        is_held = sender.wait_share >= HELD_UP
        is_full = 0 < sender.num_buffers <= sender.inflight
        return [
            _styled(sender.topic, sender.is_stale),
            str(sender.pid),
            figures.rate(sender.rate_hz),
            figures.duration(sender.quantile("publish", 0.99)),
            _styled(figures.share(sender.wait_share), sender.is_stale, "yellow" if is_held else ""),
            _styled(f"{sender.inflight}/{sender.num_buffers}", sender.is_stale, "yellow" if is_full else ""),
            Text(rates.bars(sender_key(sender), 12), style="cyan"),
        ]


class ReceiverTable(LiveTable):
    """One row for each edge, as its subscriber sees it."""

    NOTHING = "no subscribers yet"

    def show_receivers(self, measures: Measures, rates: History) -> None:
        """Show these."""
        self.show(RECEIVER_HEADS, {receiver_key(edge): self._row(edge, rates) for edge in measures.edges})

    def _row(self, edge: Edge, rates: History) -> list[Text | str]:
        return [
            _styled(edge.subscription, edge.is_stale),
            str(edge.pid),
            figures.rate(edge.rate_hz),
            figures.duration(edge.quantile("process", 0.5)),
            figures.duration(edge.quantile("process", 0.99)),
            Text(str(edge.dropped), style="yellow" if edge.dropped else ""),
            Text(rates.bars(receiver_key(edge), 12), style="cyan"),
        ]


def sender_key(sender: Sender) -> str:
    """Tells it from all others."""
    return f"pub {sender.topic} {sender.process_id}"


def receiver_key(edge: Edge) -> str:
    """Tells it from all others."""
    return f"sub {edge.topic} {edge.subscription} {edge.process_id}"


def rates_of(measures: Measures) -> dict[str, float | None]:
    """What a History of rates takes of one look."""
    if measures.window_s is None:
        return {}
    senders = {sender_key(sender): sender.rate_hz for sender in measures.senders}
    return {**senders, **{receiver_key(edge): edge.rate_hz for edge in measures.edges}}
