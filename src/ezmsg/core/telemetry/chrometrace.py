"""Spans as a trace file that Perfetto (ui.perfetto.dev) and chrome://tracing open. Pure.

The format is the JSON of the Trace Event Format. A process of the graph is a process there, a task a thread: on a
thread, a slice lies beside another or within it, never across its end. Tasks that do several things at once get more
threads. A message is an arrow from its publish to each of its receivers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ezmsg.core.graphmeta import TraceSpan

Event = dict[str, Any]

UNIT, TASK = "ezmsg.unit.address", "ezmsg.task.name"
DESTINATION, SUBSCRIPTION = "messaging.destination.name", "messaging.destination.subscription.name"
CLOCK_SOURCE = "ezmsg.clock.source"
"""What only spans of the way from a publish to its processing have."""
NOT_SHOWN = frozenset({"messaging.system", "messaging.operation.name", "messaging.operation.type"})
CATEGORIES = {
    "PRODUCER": "publish",
    "CONSUMER": "process",
    "INTERNAL": "span",
    "CLIENT": "control",
    "SERVER": "control",
}


@dataclass(frozen=True, slots=True)
class ProcessSpans:
    """The spans of one process, and how it is called."""

    name: str
    spans: Sequence[TraceSpan]


@dataclass(frozen=True, slots=True)
class _Slice:
    """Where a span is shown."""

    span: TraceSpan
    pid: int
    tid: int


def chrome_trace(processes: Iterable[ProcessSpans], properties: Mapping[str, str] | None = None) -> Event:
    """The whole file.

    Args:
        processes: What to show.
        properties: What else to say about it, for people.

    Times are microseconds since the first span, whose Unix time is `otherData.began_unix_ns`.
    """
    events: list[Event] = []
    slices: list[_Slice] = []
    for pid, process in enumerate(processes, start=1):
        events.append(_named("process_name", pid, 0, process.name))
        for tid, (name, spans) in enumerate(_threads(process.spans), start=1):
            events.append(_named("thread_name", pid, tid, name))
            slices += [_Slice(span, pid, tid) for span in spans]
    began_ns = min((at.span.start_unix_ns for at in slices), default=0)
    slices.sort(key=lambda at: (at.span.start_unix_ns, -at.span.end_unix_ns))
    events += [_slice(at, began_ns) for at in slices]
    events += _arrows(slices, began_ns)
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {"began_unix_ns": str(began_ns), **(properties or {})},
    }


# -- threads ----------------------------------------------------------------------------------------------------------


def _threads(spans: Sequence[TraceSpan]) -> Iterator[tuple[str, list[TraceSpan]]]:
    """Threads by name, and spans that nest on each."""
    by_id = {span.span_id: span for span in spans}
    tracks: dict[str, list[TraceSpan]] = {}
    for span in spans:
        tracks.setdefault(_track(span, by_id), []).append(span)
    for name, of_track in sorted(tracks.items()):
        for number, lane in enumerate(_lanes(of_track), start=1):
            yield (name if number == 1 else f"{name} ({number})"), lane


def _track(span: TraceSpan, by_id: Mapping[str, TraceSpan]) -> str:
    """What a span goes on in: that of the span around it, or its own task."""
    seen: set[str] = set()
    while (around := by_id.get(span.parent_span_id or "")) is not None and around.span_id not in seen:
        # What is processed is a child of its publish, but another task does it.
        if span.kind in {"CONSUMER", "SERVER"} or not _is_within(span, around):
            break
        seen.add(around.span_id)
        span = around
    attributes = span.attributes
    if CLOCK_SOURCE in attributes:
        return f"to {attributes[SUBSCRIPTION]}"
    if unit := attributes.get(UNIT):
        return f"{unit} {attributes[TASK]}" if TASK in attributes else str(unit)
    return str(attributes.get(SUBSCRIPTION) or attributes.get(DESTINATION) or "control")


def _is_within(span: TraceSpan, around: TraceSpan) -> bool:
    return around.start_unix_ns <= span.start_unix_ns and span.end_unix_ns <= around.end_unix_ns


def _lanes(spans: Iterable[TraceSpan]) -> list[list[TraceSpan]]:
    """Spans in as many lanes as it takes for those of each lane to nest."""
    lanes: list[_Lane] = []
    for span in sorted(spans, key=lambda span: (span.start_unix_ns, -span.end_unix_ns)):
        if not any(lane.takes(span) for lane in lanes):
            lanes.append(_Lane(span))
    return [lane.spans for lane in lanes]


class _Lane:
    """Spans by their start, each of them behind the one before it or within."""

    def __init__(self, first: TraceSpan) -> None:
        self.spans = [first]
        # Of the spans that the next may lie in, the outermost first.
        self._ends_ns = [first.end_unix_ns]

    def takes(self, span: TraceSpan) -> bool:
        ends_ns = self._ends_ns
        while ends_ns and ends_ns[-1] <= span.start_unix_ns:
            ends_ns.pop()
        if ends_ns and span.end_unix_ns > ends_ns[-1]:
            return False
        self.spans.append(span)
        ends_ns.append(span.end_unix_ns)
        return True


# -- events -----------------------------------------------------------------------------------------------------------


def _named(what: str, pid: int, tid: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}


def _slice(at: _Slice, began_ns: int) -> Event:
    span = at.span
    arguments = {name: value for name, value in span.attributes.items() if name not in NOT_SHOWN}
    ids = {"trace_id": span.trace_id, "span_id": span.span_id}
    if span.parent_span_id is not None:
        ids["parent_span_id"] = span.parent_span_id
    if span.error is not None:
        arguments["error.type"] = span.error
    return {
        "ph": "X",
        "name": span.name,
        "cat": CATEGORIES.get(span.kind, "span"),
        "ts": _microseconds(span.start_unix_ns - began_ns),
        "dur": _microseconds(span.end_unix_ns - span.start_unix_ns),
        "pid": at.pid,
        "tid": at.tid,
        "args": arguments | ids,
    }


def _arrows(slices: Iterable[_Slice], began_ns: int) -> Iterator[Event]:
    """From a publish to who received the message, from inputs to what came of them, from a request to its answer."""
    by_id = {at.span.span_id: at for at in slices}
    for at in by_id.values():
        origins = dict.fromkeys(span_id for _, span_id in at.span.links)
        if at.span.kind == "SERVER" and at.span.parent_span_id is not None:
            origins[at.span.parent_span_id] = None
        for span_id in origins:
            if (origin := by_id.get(span_id)) is not None:
                yield from _arrow(origin, at, began_ns)


def _arrow(origin: _Slice, target: _Slice, began_ns: int) -> Iterator[Event]:
    shared = {"cat": "message", "name": "message", "id": f"{origin.span.span_id}-{target.span.span_id}"}
    for ph, at in (("s", origin), ("f", target)):
        moment = {"ts": _microseconds(at.span.start_unix_ns - began_ns), "pid": at.pid, "tid": at.tid}
        yield {"ph": ph, **shared, **moment, **({"bp": "e"} if ph == "f" else {})}


def _microseconds(duration_ns: int) -> float:
    return duration_ns / 1000
