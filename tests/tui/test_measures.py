"""What a graph did between two looks."""

from __future__ import annotations

from uuid import UUID

from ezmsg.core.graphmeta import (
    BackpressureCulprit,
    BackpressureReport,
    BackpressureWait,
    EdgeProfile,
    GraphSnapshot,
    HistogramValue,
    ProcessProfilingSnapshot,
    ProfileChannelType,
    PublisherProfileSnapshot,
    SnapshotProcess,
)
from ezmsg.tui import table
from ezmsg.tui.measures import Measurer

SENDER, RECEIVER = UUID(int=1), UUID(int=2)
GRAPH = GraphSnapshot(
    {}, {}, {}, {SENDER: SnapshotProcess(SENDER, 11, "h", ["A"]), RECEIVER: SnapshotProcess(RECEIVER, 22, "h", ["B"])}
)
REPORT = BackpressureReport(2.0, [BackpressureWait("A/OUT", "B/IN", 1.0)], [BackpressureCulprit("B/IN", 1.0, 0.9)])
NOBODY = BackpressureReport(0.0, [], [])


def millisecond(count: int) -> HistogramValue:
    return HistogramValue(count, count * 1e-3, 1e-3, 1e-3, 0, 3, -80, [count])


def sent(at_s: float, count: int, inflight: int = 3) -> ProcessProfilingSnapshot:
    counters = {"sent": count, "bytes": 100 * count, "backpressure_ns": count * 1_000_000}
    publisher = PublisherProfileSnapshot("A/OUT:1", "A/OUT", count, 0, 0.0, inflight, 32, 0.0)
    edge = EdgeProfile("A/OUT", None, "A/OUT:1", ProfileChannelType.UNKNOWN, counters, {})
    return ProcessProfilingSnapshot(SENDER, 11, "h", 0.0, at_s * 1e9, {"A/OUT:1": publisher}, {}, [edge])


def received(at_s: float, count: int, *endpoints: str) -> ProcessProfilingSnapshot:
    edges = [
        EdgeProfile("A/OUT", "B/IN", endpoint, ProfileChannelType.SHM, {"consumed": count, "dropped": 1},
                    {"age": millisecond(count)})
        for endpoint in endpoints
    ]  # fmt: skip
    return ProcessProfilingSnapshot(RECEIVER, 22, "h", 0.0, at_s * 1e9, {}, {}, edges, {}, {"row:x": 2, "s:cleared": 9})


def test_rates_and_quantiles_are_those_of_the_window() -> None:
    measurer = Measurer()
    first = measurer.look({SENDER: sent(1, 100), RECEIVER: received(1, 90, "B/IN:1")}, GRAPH, NOBODY)
    assert first.window_s is None
    assert (first.edges[0].rate_hz, first.edges[0].quantile("age", 0.5)) == (0.0, None)
    second = measurer.look({SENDER: sent(3, 300), RECEIVER: received(3, 270, "B/IN:1")}, GRAPH, REPORT)
    assert second.window_s == 2.0
    (edge,), (sender,) = second.edges, second.senders
    assert (edge.topic, edge.subscription, edge.via, edge.dropped, edge.rate_hz) == ("A/OUT", "B/IN", "shm", 1, 90.0)
    assert (edge.wait_share, edge.blame_share) == (0.5, 0.9)
    assert edge.histograms["age"].count == 180
    assert (sender.rate_hz, sender.bytes_per_s, sender.wait_share) == (100.0, 10_000.0, 0.1)
    assert (sender.inflight, sender.num_buffers) == (3, 32)
    assert [(one.pid, one.sent_hz, one.received_hz, one.lost) for one in second.processes] == [
        (11, 100.0, 0.0, 0), (22, 0.0, 90.0, 2)
    ]  # fmt: skip
    text = table.as_text(second, 80)
    assert "A → B" in text
    assert "culprit: B/IN causes 90 % of all waiting" in text
    assert max(map(len, text.splitlines())) <= 80


def test_subscribers_of_one_process_on_one_topic_are_one_edge() -> None:
    measurer = Measurer()
    measurer.look({RECEIVER: received(1, 0, "B/IN:1", "B/IN:2")}, GRAPH, NOBODY)
    (edge,) = measurer.look({RECEIVER: received(2, 10, "B/IN:1", "B/IN:2")}, GRAPH, NOBODY).edges
    assert (edge.rate_hz, edge.histograms["age"].count) == (20.0, 20)


def test_a_process_that_does_not_answer_keeps_its_rows_and_is_measured_over_the_gap() -> None:
    measurer = Measurer()
    measurer.look({RECEIVER: received(1, 0, "B/IN:1")}, GRAPH, NOBODY)
    measurer.look({RECEIVER: received(2, 10, "B/IN:1")}, GRAPH, NOBODY)
    silent = measurer.look({}, GRAPH, NOBODY)
    assert [(edge.rate_hz, edge.is_stale) for edge in silent.edges] == [(10.0, True)]
    assert not any(process.answers for process in silent.processes)
    back = measurer.look({RECEIVER: received(4, 50, "B/IN:1")}, GRAPH, NOBODY)
    assert [(edge.rate_hz, edge.is_stale) for edge in back.edges] == [(20.0, False)]


def test_a_publisher_that_cannot_send_at_all_is_stuck_and_for_whom_it_waits_is_told() -> None:
    measurer = Measurer()
    now = {SENDER: sent(1, 100, inflight=32), RECEIVER: received(1, 90, "B/IN:1")}
    assert measurer.look(now, GRAPH, NOBODY).stuck == []
    later = {SENDER: sent(2, 100, inflight=32), RECEIVER: received(2, 90, "B/IN:1")}
    seen = measurer.look(later, GRAPH, NOBODY)
    assert seen.stuck == ["A/OUT"]
    assert "stuck" in table.as_text(seen, 80).splitlines()[1]
    assert table.culprit_text(seen) == "stuck, all buffers in use: A/OUT"
    waits = BackpressureReport(1.0, [BackpressureWait("A/OUT", "B/IN", 1.0)], [BackpressureCulprit("B/IN", 1.0, 1.0)])
    known = measurer.look({SENDER: sent(3, 100, inflight=32), RECEIVER: received(3, 90, "B/IN:1")}, GRAPH, waits)
    text = table.culprit_text(known)
    assert text.startswith("culprit: B/IN causes 100 % of all waiting")
    assert text.endswith("; stuck, all buffers in use: A/OUT")


def test_who_is_gone_leaves_no_row() -> None:
    measurer = Measurer()
    measurer.look({RECEIVER: received(1, 0, "B/IN:1")}, GRAPH, NOBODY)
    assert measurer.look({}, GraphSnapshot({}, {}, {}, {}), NOBODY).edges == []


def test_without_edges_the_table_says_so() -> None:
    measurer = Measurer()
    measurer.look({}, GRAPH, NOBODY)
    text = table.as_text(measurer.look({}, GRAPH, NOBODY), 80)
    assert "no subscriber has a publisher yet" in text
    assert text.endswith("nobody waits")
