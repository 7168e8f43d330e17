"""The control plane: who is in the graph, what was asked of it, and what was refused."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from grafana.panels import (
    PROCESS,
    UNIT,
    Panel,
    Query,
    board,
    filled,
    grown,
    lines,
    listing,
    number,
    of_graph,
    settings_changes,
    shown,
)

OPERATION = "ezmsg_control_operation"


def of_operation(metric: str) -> tuple[Query, Query]:
    """Slow end since the beginning, and failures: operations are rare."""
    slow = f"histogram_quantile(0.99, sum by ({OPERATION}) ({of_graph(metric)}))"
    failed = grown(metric, f"{OPERATION}, error_type", 'error_type!=""', is_histogram=True)
    return Query(slow, shown(OPERATION)), Query(failed, f"{shown(OPERATION)}: {{{{error_type}}}}")


def dashboard() -> build.Dashboard:
    """Build it."""
    made = board("control", "The graph server: processes, nodes and edges, operations and settings.")
    small = {"span": 8, "height": 4}
    graph_slow, graph_failed = of_operation("ezmsg_graph_operation_duration_seconds")
    process_slow, process_failed = of_operation("ezmsg_process_control_duration_seconds")
    return filled(
        made,
        number(
            Panel(
                "Processes", "On the control plane or with telemetry. It drops: one ended.", "none", "process", **small
            ),
            Query(f"max({of_graph('ezmsg_graph_process_count')})"),
        ),
        number(
            Panel("Topics", "With a publisher, a subscriber or an edge.", "none", "overview", **small),
            Query(f"sum({of_graph('ezmsg_graph_node_info')})"),
        ),
        number(
            Panel(
                "Edges",
                "Connections between topics. It drops with the session that owned them.",
                "none",
                "overview",
                **small,
            ),
            Query(f"sum({of_graph('ezmsg_graph_edge_info')})"),
        ),
        lines(
            Panel(
                "Processes, topics and edges",
                "Steps are programs that come and go; a saw is one that starts again and again.",
                "none",
                "process",
            ),
            Query(f"max({of_graph('ezmsg_graph_process_count')})", "processes"),
            Query(f"sum({of_graph('ezmsg_graph_node_info')})", "topics"),
            Query(f"sum({of_graph('ezmsg_graph_edge_info')})", "edges"),
        ),
        lines(
            Panel(
                "Settings",
                "How often settings of each unit have changed. A step is a change; see what the unit did then.",
                "none",
                "unit",
            ),
            Query(settings_changes(), shown(UNIT)),
        ),
        lines(
            Panel(
                "Operations of the server, p99",
                "Since the graph began: connect, pause, snapshot … Above 100 ms the server is busy or the network "
                "slow.",
                "s",
                "process",
                (0.1, 1),
            ),
            graph_slow,
        ),
        lines(
            Panel(
                "Operations refused",
                "In 5 minutes, by error. CYCLE: somebody connects a loop. Others: see the log of the program.",
                "none",
                "health",
                (None, 1),
            ),
            graph_failed,
        ),
        lines(
            Panel(
                "Requests to processes, p99",
                "Since the graph began, from the asking session to the unit and back. Slow: the loop of that process "
                "lags.",
                "s",
                "process",
                (0.1, 1),
            ),
            process_slow,
        ),
        lines(
            Panel(
                "Requests failed",
                "In 5 minutes, by error. TIMEOUT: the process hangs. PROCESS_DISCONNECTED: it ended meanwhile.",
                "none",
                "process",
                (None, 1),
            ),
            process_failed,
        ),
        listing(
            Panel(
                "Nodes",
                "Every topic, what it is, and the process that has it. No process: nobody serves it.",
                "none",
                "edge",
            ),
            Query(f"{of_graph('ezmsg_graph_node_info')} == 1"),
            columns={"ezmsg_graph_node_id": "topic", "ezmsg_graph_node_kind": "kind", PROCESS: "process"},
            sort_by="topic",
        ),
        listing(
            Panel(
                "Edges now",
                "Who is connected to whom. An edge is missing: the session that made it is gone.",
                "none",
                "edge",
            ),
            Query(f"{of_graph('ezmsg_graph_edge_info')} == 1"),
            columns={"ezmsg_graph_edge_source": "from", "ezmsg_graph_edge_target": "to"},
            sort_by="from",
        ),
    )
