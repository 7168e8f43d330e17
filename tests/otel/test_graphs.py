"""What several GraphServers know, taken together."""

from __future__ import annotations

from collections import Counter

from ezmsg.core.wire.records import GraphState, ServerTelemetry
from ezmsg.otel.graphs import LABELS, Graphs
from tests.otel.feeds import histogram


def counted(graphs: Graphs) -> tuple[dict[str, int], dict[str, int]]:
    """Counters, and how often each operation was measured."""
    counters, operations = Counter[str](), Counter[str]()
    for server in graphs.servers:
        counters.update(server.counters)
        for state in server.histograms:
            operations[state.label] += state.count
    return dict(counters), dict(operations)


def test_before_a_server_said_something_no_graph_is_known() -> None:
    graphs = Graphs()
    assert (graphs.state, counted(graphs)) == (None, ({}, {}))


def test_graphs_of_several_servers_are_one_and_a_process_in_several_of_them_counts_once() -> None:
    graphs = Graphs()
    graphs.set_state("one", GraphState(["A", "B"], [], ["h:1"]))
    graphs.set_state("two", GraphState(["B", "C"], [("B", "C")], ["h:1", "h:2"]))
    graphs.set_state("one", GraphState(["A", "B"], [("A", "B")], ["h:1", "h:3", "i:1"]))
    assert graphs.state == GraphState(["A", "B", "C"], [("A", "B"), ("B", "C")], ["h:1", "h:3", "i:1", "h:2"])


def test_what_servers_counted_stays_when_they_end() -> None:
    graphs = Graphs()
    for server in range(3):
        graphs.set_state(server, GraphState([f"A{server}"], [], ["h:1"]))
        for turn in (1, 2):
            states = [histogram(0, "graph_operation", [5] * turn, label="Connect")]
            graphs.set_server(server, ServerTelemetry(states, {"settings:X": turn}))
    before = counted(graphs)
    assert before == ({"settings:X": 6}, {"Connect": 30})
    for server in range(3):
        graphs.end(server)
        assert counted(graphs) == before
    assert graphs.state == GraphState([], [], [])
    assert len(graphs.servers) == 1


def test_of_servers_that_ended_only_so_many_values_are_kept_apart_and_all_are_counted() -> None:
    graphs = Graphs()
    for number in range(LABELS // 500 + 2):
        addresses = [f"G{number}/U{unit}" for unit in range(500)]
        graphs.set_server(number, ServerTelemetry([], {f"settings:{address}\0INITIAL": 1 for address in addresses}))
        graphs.end(number)
    (ended,) = graphs.servers
    assert len(ended.counters) == LABELS + 1
    assert ended.counters["settings:other\0other"] == 1000
