"""The last traces as trees: what was caused by what, in which process, when, and for how long."""

from __future__ import annotations

from collections.abc import Iterable

from rich.text import Text
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from ezmsg.core.graphmeta import ProfilingTraceStreamBatch, TraceSpan
from ezmsg.tui import figures

# Traces that are kept, and spans of each.
TRACES = 50
SPANS = 200

Span = tuple[TraceSpan, int]
"""A span, and the pid of its process."""


class Traces:
    """The last traces, the one that began last at the end."""

    def __init__(self) -> None:
        """None yet."""
        self._spans: dict[str, dict[str, Span]] = {}
        self.left_out = 0

    def add(self, delivery: ProfilingTraceStreamBatch) -> bool:
        """Take what a stream brought; whether there was anything. A span that is told twice is one."""
        is_new = False
        for batch in delivery.batches.values():
            for span in batch.spans:
                spans = self._spans.setdefault(span.trace_id, {})
                if span.span_id not in spans and len(spans) >= SPANS:
                    self.left_out += 1
                    continue
                spans[span.span_id] = (span, batch.pid)
                is_new = True
        while len(self._spans) > TRACES:
            del self._spans[next(iter(self._spans))]
        return is_new

    def latest(self) -> list[tuple[str, list[Span]]]:
        """All that are kept, the latest first, the spans of each in the order in which they began."""
        found = [
            (trace_id, sorted(spans.values(), key=lambda span: span[0].start_unix_ns))
            for trace_id, spans in self._spans.items()
        ]
        return sorted(found, key=lambda trace: -trace[1][0][0].start_unix_ns)


class TraceTree(Tree[str]):
    """Traces, each to be opened; the latest whole one is open."""

    DEFAULT_CSS = "TraceTree { height: 1fr; padding: 0 1; scrollbar-size-vertical: 1; }"

    def __init__(self, *, id: str | None = None) -> None:
        """Make an empty one."""
        super().__init__("traces", id=id)
        self.show_root = False
        self.guide_depth = 2
        self.is_held = False

    def show_traces(self, traces: Iterable[tuple[str, list[Span]]]) -> None:
        """Show these, unless the tree is held; what was open stays open."""
        if self.is_held:
            return
        was_open: set[str | None] = {node.data for node in self.root.children if node.is_expanded}
        traces = list(traces)
        if not was_open:
            # The latest that is complete, as far as one can tell.
            most = max((len(spans) for _, spans in traces), default=0)
            was_open = {next((trace_id for trace_id, spans in traces if len(spans) == most), None)}
        self.clear()
        if not traces:
            self.root.add_leaf(
                Text("no traces yet: of each source, one message a second makes one", style="dim italic")
            )
        for trace_id, spans in traces:
            is_open = trace_id in was_open
            node = self.root.add(_title(trace_id, spans), data=trace_id, expand=is_open)
            _add_spans(node, spans)
        self.root.expand()

    def lines(self) -> list[str]:
        """What it holds, as text, indented."""
        found: list[str] = []

        def add(node: TreeNode[str], depth: int) -> None:
            found.append("  " * depth + str(node.label))
            for child in node.children:
                add(child, depth + 1)

        for node in self.root.children:
            add(node, 0)
        return found


def _title(trace_id: str, spans: list[Span]) -> Text:
    begin_ns = spans[0][0].start_unix_ns
    took_s = (max(span.end_unix_ns for span, _ in spans) - begin_ns) / 1e9
    processes = len({pid for _, pid in spans})
    text = Text(f"{spans[0][0].name.partition(' ')[2] or spans[0][0].name}", style="bold")
    many = "es" if processes > 1 else ""
    text.append(f"  {figures.duration(took_s)}, {len(spans)} spans, {processes} process{many}", style="not bold")
    text.append(f"  {trace_id[:8]}", style="#a0a0a0 not bold")
    return text


def _add_spans(root: TreeNode[str], spans: list[Span]) -> None:
    """Each below the one that caused it; one whose cause is not known (yet) at the top."""
    begin_ns = spans[0][0].start_unix_ns
    nodes: dict[str, TreeNode[str]] = {}
    by_parent: dict[str | None, list[Span]] = {}
    ids = {span.span_id for span, _ in spans}
    for span, pid in spans:
        parent = span.parent_span_id if span.parent_span_id in ids else None
        by_parent.setdefault(parent, []).append((span, pid))
    waiting: list[str | None] = [None]
    while waiting:
        parent = waiting.pop(0)
        for span, pid in by_parent.get(parent, ()):
            under = root if parent is None else nodes[parent]
            label = _label(span, pid, begin_ns)
            has_children = span.span_id in by_parent
            nodes[span.span_id] = (
                under.add(label, expand=True, allow_expand=True) if has_children else under.add_leaf(label)
            )
            waiting.append(span.span_id)


def _label(span: TraceSpan, pid: int, begin_ns: int) -> Text:
    kind, _, topic = span.name.partition(" ")
    about = span.attributes
    text = Text(kind, style="cyan" if span.kind == "PRODUCER" else "green")
    # The span is named after the topic of its message; who handled it says more.
    text.append(f" {about.get('messaging.destination.subscription.name', topic)}", style="default")
    after_s, took_s = (span.start_unix_ns - begin_ns) / 1e9, (span.end_unix_ns - span.start_unix_ns) / 1e9
    text.append(f" +{figures.duration(after_s)}", style="#a0a0a0")
    text.append(f" took {figures.duration(took_s)}", style="bold")
    for word, name in (("queued", "ezmsg.queue.time"), ("waited", "ezmsg.backpressure.wait")):
        seconds = about.get(name)
        if isinstance(seconds, float):
            text.append(f" {word} {figures.duration(seconds)}", style="#a0a0a0")
    text.append(f" pid {pid}", style="#a0a0a0")
    if span.error:
        text.append(f"  {span.error}", style="bold #ff8080")
    return text
