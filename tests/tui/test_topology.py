"""A graph as lines of text."""

from __future__ import annotations

from uuid import UUID

from ezmsg.core.graphmeta import Edge as GraphEdge
from ezmsg.core.graphmeta import GraphSnapshot, SnapshotProcess
from ezmsg.tui.measures import Edge
from ezmsg.tui.topology import Drawing, differences, flow

PROCESS = UUID(int=1)


def graph(*edges: tuple[str, str], units: list[str] | None = None) -> GraphSnapshot:
    targets: dict[str, list[str]] = {}
    for source, target in edges:
        targets.setdefault(source, []).append(target)
        targets.setdefault(target, [])
    process = SnapshotProcess(PROCESS, 11, "h", units or [])
    return GraphSnapshot(targets, {GraphEdge(*edge): [] for edge in edges}, {}, {PROCESS: process})


def lines(of: GraphSnapshot) -> list[str]:
    return [line.text for line in Drawing(of).lines]


def test_messages_flow_down_and_to_the_right() -> None:
    drawn = graph(("S/OUT", "F/IN"), ("F/OUT", "D/IN"), ("S/OUT", "M/IN"), units=["S", "F", "D", "M"])
    assert lines(drawn) == ["S", "├─▶ F", "│   └─▶ D", "└─▶ M"]


def test_what_two_feed_is_drawn_once() -> None:
    drawn = graph(("A/O", "C/I"), ("B/O", "C/I"), ("C/O", "D/I"), units=["A", "B", "C", "D"])
    assert lines(drawn) == ["A", "└─▶ C", "    └─▶ D", "B", "└─▶ C (above)"]


def test_units_in_a_circle_are_drawn_too() -> None:
    drawn = graph(("A/O", "B/I"), ("B/O", "A/BACK"), units=["A", "B"])
    assert lines(drawn) == ["A", "└─▶ B", "    └─▶ A (above)"]


def test_several_edges_between_two_units_are_told_apart_by_streams() -> None:
    drawn = graph(("A/X", "B/X"), ("A/Y", "B/Y"), units=["A", "B"])
    assert lines(drawn) == ["A", "├─▶ B/X", "└─▶ B/Y"]


def test_an_edge_through_a_topic_has_the_rate_of_what_goes_through() -> None:
    through = graph(("A/O", "T"), ("T", "B/I"), ("T", "C/I"))
    measured = [
        Edge(PROCESS, 1, 50.0, topic="A/O", subscription="B/I", via="shm"),
        Edge(PROCESS, 1, 40.0, topic="A/O", subscription="C/I", via="tcp"),
    ]
    assert flow(GraphEdge("A/O", "T"), through, measured) == (50.0, "shm+tcp")
    assert flow(GraphEdge("T", "C/I"), through, measured) == (40.0, "tcp")
    assert flow(GraphEdge("X", "Y"), through, measured) == (0.0, "")


def test_differences_are_edges_and_processes() -> None:
    before, after = graph(("A", "B"), units=["U"]), graph(("A", "C"))
    assert differences(before, after) == ["+ A → C", "- A → B", "~ process 11 (no units)"]
    gone = GraphSnapshot({}, {}, {}, {})
    assert differences(after, gone) == ["- A → C", "- process 11 (no units)"]
    assert differences(gone, before)[-1] == "+ process 11 (U)"
