"""What the demo shows: the edges while they run, one trace as a tree, and what a receiver got."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ezmsg.core.graphmeta import EdgeProfile, ProcessProfilingSnapshot, TraceSpan


def milliseconds(seconds: float) -> str:
    """A duration for a table."""
    return f"{seconds * 1e3:.2f}" if seconds else "-"


def unit_of(topic: str) -> str:
    """The unit that a stream belongs to."""
    return topic.rpartition("/")[0] or topic


def edge_table(snapshots: Iterable[ProcessProfilingSnapshot], elapsed_s: float, heart_rate: float | None) -> Table:
    """One row for each edge: rate, age, backpressure of its publisher, drops."""
    publishers: dict[str, EdgeProfile] = {}
    edges: list[EdgeProfile] = []
    for snapshot in snapshots:
        for edge in snapshot.edges:
            if edge.subscription is None:
                publishers[edge.topic] = edge
            else:
                edges.append(edge)
    bpm = "learning" if heart_rate is None else f"{heart_rate:.0f} beats/min"
    table = Table(
        title=f"{elapsed_s:5.1f} s   heart rate {bpm}",
        caption="ages from the electrode to the hand-over, and waits of the publisher, in ms",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE,
        pad_edge=False,
        padding=(0, 1),
    )
    table.add_column("edge", no_wrap=True)
    table.add_column("via", no_wrap=True)
    for name in ("msgs", "per s", "age p50", "p99", "wait", "drops"):
        table.add_column(name, justify="right", no_wrap=True)
    for edge in sorted(edges, key=lambda edge: (edge.topic, edge.subscription or "")):
        age = edge.histograms.get("age")
        publisher = publishers.get(edge.topic)
        waited_ns = 0 if publisher is None else publisher.counters.get("backpressure_ns", 0)
        consumed = edge.counters.get("consumed", 0)
        table.add_row(
            f"{unit_of(edge.topic)} → {unit_of(edge.subscription or '')}",
            edge.channel_kind.value.lower(),
            str(consumed),
            f"{consumed / elapsed_s:.1f}" if elapsed_s else "-",
            milliseconds(age.quantile(0.5)) if age else "-",
            milliseconds(age.quantile(0.99)) if age else "-",
            f"{waited_ns / 1e6:.2f}",
            str(edge.counters.get("dropped", 0)),
        )
    return table


def trace_tree(spans: Sequence[TraceSpan], process_names: Mapping[str, str]) -> Tree:
    """One trace: every hop under the one that caused it, with its start and duration.

    Args:
        spans: The spans of one trace.
        process_names: The process of each span, by span id.
    """
    begin_ns = min(span.start_unix_ns for span in spans)
    ids = {span.span_id for span in spans}
    children: dict[str | None, list[TraceSpan]] = {}
    for span in sorted(spans, key=lambda span: span.start_unix_ns):
        parent = span.parent_span_id if span.parent_span_id in ids else None
        children.setdefault(parent, []).append(span)
    tree = Tree(f"trace {spans[0].trace_id}: span, process, start and duration in ms")

    def add(branch: Tree, parent: str | None) -> None:
        for span in children.get(parent, ()):
            start_ms = (span.start_unix_ns - begin_ns) / 1e6
            took_ms = (span.end_unix_ns - span.start_unix_ns) / 1e6
            label = Text(span.name, style="bold")
            label.append(f"  {process_names.get(span.span_id, '')}  +{start_ms:.3f}  {took_ms:.3f}", style="not bold")
            add(branch.add(label), span.span_id)

    add(tree, None)
    return tree
