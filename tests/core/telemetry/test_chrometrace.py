"""Trace files for Perfetto: what is shown where, and that it nests."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ezmsg.core.graphmeta import TraceSpan
from ezmsg.core.telemetry.chrometrace import ProcessSpans, chrome_trace

UNIX_NS = 1_790_000_000_000_000_123


def span(name: str, number: int, start: int, end: int, kind: str = "INTERNAL", **more: Any) -> TraceSpan:
    """`parent` is the number of another span, `unit` and `task` say where it ran."""
    parent, unit, task = more.pop("parent", None), more.pop("unit", "U"), more.pop("task", "run")
    attributes = {"ezmsg.unit.address": unit, "ezmsg.task.name": task, "messaging.system": "ezmsg"}
    parent_id = None if parent is None else f"{parent:016x}"
    links = [] if parent_id is None or kind != "CONSUMER" else [("0a" * 16, parent_id)]
    times = UNIX_NS + start, UNIX_NS + end
    return TraceSpan("0a" * 16, f"{number:016x}", parent_id, name, kind, *times, attributes, links, **more)


HOP = [
    [span("publish T", 1, 1_000, 5_000, "PRODUCER", unit="SOURCE", task="spin")],
    [
        span("process T", 2, 7_000, 20_500, "CONSUMER", parent=1, unit="SINK", task="get", error="KeyError"),
        span("fit", 3, 8_000, 9_000, parent=2, unit="SINK", task="get"),
    ],
]


def events(processes: list[list[TraceSpan]], ph: str) -> list[dict[str, Any]]:
    file = chrome_trace([ProcessSpans(f"P{n}", spans) for n, spans in enumerate(processes)], {"graph": "here:1"})
    # As a reader has it.
    return [event for event in json.loads(json.dumps(file))["traceEvents"] if event["ph"] == ph]


def test_a_span_is_a_slice_of_its_task_in_its_process() -> None:
    slices = {event["name"]: event for event in events(HOP, "X")}
    names = {(event["name"], event["pid"], event["tid"]): event["args"]["name"] for event in events(HOP, "M")}
    assert names == {
        ("process_name", 1, 0): "P0",
        ("process_name", 2, 0): "P1",
        ("thread_name", 1, 1): "SOURCE spin",
        ("thread_name", 2, 1): "SINK get",
    }
    assert {name: (it["pid"], it["tid"], it["ts"], it["dur"]) for name, it in slices.items()} == {
        "publish T": (1, 1, 0.0, 4.0),
        "process T": (2, 1, 6.0, 13.5),
        "fit": (2, 1, 7.0, 1.0),
    }
    assert slices["process T"]["args"] == {
        "ezmsg.unit.address": "SINK",
        "ezmsg.task.name": "get",
        "error.type": "KeyError",
        "trace_id": "0a" * 16,
        "span_id": f"{2:016x}",
        "parent_span_id": f"{1:016x}",
    }
    assert {name: it["cat"] for name, it in slices.items()} == {
        "publish T": "publish",
        "process T": "process",
        "fit": "span",
    }


def test_a_message_is_an_arrow_from_its_publish_to_its_receiver() -> None:
    (start,), (finish,) = events(HOP, "s"), events(HOP, "f")
    assert (start["pid"], start["tid"], start["ts"]) == (1, 1, 0.0)
    assert (finish["pid"], finish["tid"], finish["ts"], finish["bp"]) == (2, 1, 6.0, "e")
    assert (start["id"], start["cat"], start["name"]) == (finish["id"], finish["cat"], finish["name"])


def test_when_it_was_can_be_told() -> None:
    file = chrome_trace([ProcessSpans("P", HOP[0])], {"graph": "here:1"})
    assert file["otherData"] == {"began_unix_ns": str(UNIX_NS + 1_000), "graph": "here:1"}
    assert chrome_trace([])["traceEvents"] == []


def test_what_a_task_publishes_is_shown_within_its_processing() -> None:
    publish = span("publish U", 4, 10_000, 12_000, "PRODUCER", parent=2, unit="SINK", task="")
    of_task = {event["name"]: event["tid"] for event in events([*HOP[:1], [*HOP[1], publish]], "X")}
    assert of_task["publish U"] == of_task["process T"]


def test_a_receiver_is_not_shown_within_the_publish_that_waits_for_it() -> None:
    waiting = span("publish T", 1, 0, 90_000, "PRODUCER", unit="U", task="one")
    processing = span("process T", 2, 10, 80_000, "CONSUMER", parent=1, unit="U", task="other")
    assert len({event["tid"] for event in events([[waiting, processing]], "X")}) == 2


def test_what_overlaps_is_shown_side_by_side() -> None:
    names = [event["args"]["name"] for event in events([[span("a", 1, 0, 10), span("b", 2, 5, 15)]], "M")]
    assert names == ["P0", "U run", "U run (2)"]


def test_spans_that_are_each_others_parents_are_shown_all_the_same() -> None:
    assert len(events([[span("a", 1, 0, 10, parent=2), span("b", 2, 0, 10, parent=1)]], "X")) == 2


SPAN = st.tuples(st.integers(0, 40), st.integers(0, 40), st.sampled_from(["PRODUCER", "CONSUMER", "INTERNAL"]))


@given(st.lists(st.tuples(SPAN, st.sampled_from("AB"), st.one_of(st.none(), st.integers(0, 8))), max_size=12))
def test_slices_of_a_thread_never_overlap_without_nesting(drawn: list[Any]) -> None:
    spans = [
        span("s", number, start, start + length, kind, unit=unit, parent=parent)
        for number, ((start, length, kind), unit, parent) in enumerate(drawn)
    ]
    threads: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    slices = events([spans], "X")
    assert len(slices) == len(spans)
    for event in slices:
        threads[event["pid"], event["tid"]].append((round(event["ts"] * 1000), round(event["dur"] * 1000)))
    for of_thread in threads.values():
        for start, length in of_thread:
            for other, other_length in of_thread:
                overlaps = other < start < other + other_length
                assert not overlaps or start + length <= other + other_length


@pytest.mark.parametrize("ph", ["s", "f"])
def test_arrows_begin_and_end_at_slices(ph: str) -> None:
    slices = {(event["pid"], event["tid"], event["ts"]) for event in events(HOP, "X")}
    assert {(event["pid"], event["tid"], event["ts"]) for event in events(HOP, ph)} <= slices
