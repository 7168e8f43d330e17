"""One process: does the machine, the interpreter or the event loop hold it up."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from grafana.panels import (
    PROCESS,
    Panel,
    Query,
    board,
    filled,
    lines,
    listing,
    of_graph,
    quantile,
    rates,
    shown,
    variable,
)

OF_PROCESS = f'{PROCESS}=~"$process"'
OLDEST = f'{OF_PROCESS}, cpython_gc_generation="2"'
# Some have the same name: programs that were started twice.
EACH = f"{PROCESS}, instance"
NAME = shown(PROCESS)


def dashboard() -> build.Dashboard:
    """Build it."""
    made = board(
        "process",
        "Processes of the graph as the operating system and the interpreter see them.",
        variable(
            "process",
            "Process",
            "Names of processes",
            f'label_values(ezmsg_telemetry_recorded_total{{job="$graph"}}, {PROCESS})',
        ),
    )
    return filled(
        made,
        listing(
            Panel(
                "Processes",
                "Who belongs to the graph, where it runs, and how long ago it was last heard of.",
                "none",
                "overview",
                span=24,
                height=6,
            ),
            Query(f"time() - timestamp({of_graph('target_info', OF_PROCESS)})"),
            columns={
                PROCESS: "process",
                "host_name": "host",
                "process_pid": "pid",
                "process_runtime_version": "Python",
                "Value": "last heard of",
            },
            sort_by="process",
            units={"last heard of": "s"},
        ),
        lines(
            Panel(
                "CPU",
                "Cores in use. 1 is all that one interpreter can do for Python code: put units into other processes.",
                "none",
                "unit",
                (0.8, 1),
                decimals=2,
            ),
            Query(rates("process_cpu_time_seconds_total", EACH, OF_PROCESS), NAME),
        ),
        lines(
            Panel(
                "Lag of event loops, p99",
                "How late a timer is. It is the time by which everything in this process may be late: a unit blocks "
                "the loop.",
                "s",
                "unit",
                (0.05, 0.5),
            ),
            Query(
                quantile(0.99, "ezmsg_event_loop_lag_seconds", f"{EACH}, ezmsg_event_loop_name", OF_PROCESS),
                f"{NAME} {{{{ezmsg_event_loop_name}}}}",
            ),
        ),
        lines(
            Panel(
                "Memory", "Physical memory. A line that only rises is a leak, or a queue that fills.", "bytes", "edge"
            ),
            Query(f"sum by ({EACH}) ({of_graph('process_memory_usage_bytes', OF_PROCESS)})", NAME),
        ),
        lines(
            Panel(
                "Full garbage collections",
                "Of the oldest generation, a second. Each is a pause that grows with what the process holds: see the "
                "lag above.",
                "ops",
                "unit",
            ),
            Query(rates("cpython_gc_collections_total", EACH, OLDEST), NAME),
        ),
        lines(
            Panel("Threads", "A number that rises is a thread that nobody ends.", "none", "unit"),
            Query(f"sum by ({EACH}) ({of_graph('process_thread_count', OF_PROCESS)})", NAME),
        ),
        lines(
            Panel(
                "File descriptors",
                "A number that rises is a leak; at the limit (ulimit -n, often 1024) connections fail.",
                "none",
                "control",
                (800, 1000),
            ),
            Query(f"sum by ({EACH}) ({of_graph('process_unix_file_descriptor_count', OF_PROCESS)})", NAME),
        ),
        lines(
            Panel(
                "Messages sent",
                "What each process publishes. Compare: is the load where it should be, or does one do it all.",
                "mps",
                "edge",
            ),
            Query(rates("messaging_client_sent_messages_total", EACH, OF_PROCESS), NAME),
        ),
        lines(
            Panel(
                "Messages consumed",
                "What each process takes. One takes most of them: move some of its units to another.",
                "mps",
                "edge",
            ),
            Query(rates("messaging_client_consumed_messages_total", EACH, OF_PROCESS), NAME),
        ),
    )
