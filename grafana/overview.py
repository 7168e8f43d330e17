"""Is the graph healthy, and if not, where to look: the first dashboard."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from grafana.panels import (
    PROCESS,
    TASK,
    UNIT,
    D,
    Panel,
    Query,
    S,
    board,
    filled,
    grown,
    lines,
    listing,
    number,
    of_graph,
    quantile,
    rate,
    rates,
    shown,
    topology,
)

EDGE = (("destination", D), ("subscription", S))
KIND, REASON, OPERATION = "ezmsg_telemetry_kind", "ezmsg_telemetry_reason", "ezmsg_control_operation"
NODE = "ezmsg_graph_node_id"
SOURCE, TARGET = "ezmsg_graph_edge_source", "ezmsg_graph_edge_target"


def of_unit(metric: str, topic: str, label: str) -> str:
    """A vector with `label`: the unit a topic belongs to, the topic itself where there is none."""
    with_topic = f'label_replace({metric}, "{label}", "$1", "{topic}", "(.*)")'
    return f'label_replace({with_topic}, "{label}", "$1", "{topic}", "(.+)/[^/]+")'


def nodes() -> str:
    """Units with the messages they send a second; those that only receive, with what they take."""
    sent = f"sum by (id) ({of_unit(rate('messaging_client_sent_messages_total'), D, 'id')})"
    taken = f"sum by (id) ({of_unit(rate('messaging_client_consumed_messages_total'), S, 'id')})"
    known = f"0 * group by (id) ({of_unit(of_graph('ezmsg_graph_node_info') + ' == 1', NODE, 'id')})"
    return f'label_replace({sent} or {taken} or {known}, "title", "$1", "id", "(.*)")'


def edges() -> str:
    """Edges with the messages that arrive a second, and as a label the age in ms that 99 % stay below."""

    def between(metric: str, source: str, target: str) -> str:
        return of_unit(of_unit(metric, source, "source"), target, "target")

    arriving = f"sum by (source, target) ({between(rate('messaging_client_consumed_messages_total'), D, S)})"
    known = f"0 * group by (source, target) ({between(of_graph('ezmsg_graph_edge_info') + ' == 1', SOURCE, TARGET)})"
    age = f"histogram_quantile(0.99, sum by (source, target) ({between(rate('ezmsg_message_age_seconds'), D, S)}))"
    with_age = f'count_values by (source, target) ("secondarystat", round(1000 * {age}, 0.1))'
    both = f"{with_age} * on (source, target) group_left () ({arriving}) or on (source, target) ({arriving} or {known})"
    # Of what a unit sends to itself, like its settings, nothing can be drawn.
    itself = f"group by (source, target) ({between(of_graph('ezmsg_graph_node_info'), NODE, NODE)})"
    return f'label_join(({both}) unless on (source, target) {itself}, "id", " → ", "source", "target")'


def alerts() -> str:
    """What Prometheus complains about, with all that tells one alert from another in the label `about`."""
    telling = (D, S, UNIT, TASK, PROCESS, "by", OPERATION, "error_type", KIND, REASON, "exporter")
    labels = ", ".join(f'"{label}"' for label in telling)
    return f'label_join(ALERTS{{job=~"$graph|collector"}}, "about", " ", {labels})'


def dashboard() -> build.Dashboard:
    """Build it."""
    made = board("overview", "Begin here: what the graph is doing, and which edge, unit or process to look at next.")
    small = {"span": 4, "height": 4}
    backpressure = rates("ezmsg_publisher_backpressure_time_seconds_total", D)
    dropped = rates("ezmsg_subscriber_dropped_messages_total", f"{D}, {S}")
    failing = grown("ezmsg_task_errors_total", f"{UNIT}, {TASK}, error_type")
    failed = grown("ezmsg_task_errors_total", "job", 'error_type!="CancelledError"')
    age = quantile(0.99, "ezmsg_message_age_seconds", f"{D}, {S}")
    busy = rates("ezmsg_task_busy_time_seconds_total", f"{UNIT}, {TASK}")
    return filled(
        made,
        number(
            Panel("Processes", "Fewer than you started: one has ended or was killed.", "none", "process", **small),
            Query(f"max({of_graph('ezmsg_graph_process_count')})"),
        ),
        number(
            Panel("Messages sent", "All topics together. 0: every source is silent.", "mps", "edge", **small),
            Query(f"sum({rate('messaging_client_sent_messages_total')})"),
        ),
        number(
            Panel(
                "Oldest data, p99",
                "Age of data when a unit takes it, on the worst edge. It grows: something downstream is too slow.",
                "s",
                "edge",
                (0.1, 1),
                **small,
            ),
            Query(f"max({age})"),
        ),
        number(
            Panel(
                "Worst backpressure",
                "Share of its time that a publisher waits for slow subscribers. Above 20 % it no longer sends what "
                "it could.",
                "percentunit",
                "edge",
                (0.05, 0.2),
                **small,
            ),
            Query(f"max({backpressure})"),
        ),
        number(
            Panel(
                "Messages dropped",
                "By leaky subscribers, on purpose: fine for a display, not for a recording.",
                "mps",
                "edge",
                (0.01, None),
                **small,
            ),
            Query(f"sum({dropped})"),
        ),
        number(
            Panel(
                "Errors in tasks",
                "Exceptions of units in the last 5 minutes. Any is a defect of a unit.",
                "none",
                "unit",
                (None, 1),
                **small,
            ),
            Query(f"{failed} or 0 * max by (job) ({of_graph('ezmsg_graph_process_count')})"),
        ),
        topology(
            Panel(
                "Topology",
                "Units, and what flows between them: messages a second, and on edges the age in ms that 99 % stay "
                "below. Where "
                "ages jump from one edge to the next, the unit between them takes the time.",
                "mps",
                "edge",
                span=24,
                height=12,
                decimals=1,
            ),
            Query(nodes()),
            Query(edges()),
        ),
        lines(
            Panel(
                "Backpressure by topic",
                "A publisher that waits is held up by one of its subscribers: the Edge dashboard names it.",
                "percentunit",
                "edge",
                (0.05, 0.2),
                handing=(("destination", D),),
            ),
            Query(backpressure, shown(D)),
        ),
        lines(
            Panel(
                "Age of data by edge, p99",
                "From the first publish of the data to the hand-over. Flat is good; a staircase is a queue that fills.",
                "s",
                "edge",
                (0.1, 1),
                handing=EDGE,
            ),
            Query(age, f"{shown(D)} → {shown(S)}"),
        ),
        lines(
            Panel(
                "Drops by edge",
                "Which leaky subscribers cannot follow, and how much they lose.",
                "mps",
                "edge",
                (0.01, None),
                handing=EDGE,
            ),
            Query(f"{dropped} > 0", f"{shown(D)} → {shown(S)}"),
        ),
        lines(
            Panel(
                "Busiest tasks",
                "Share of the time that a task is occupied by a message. Near 100 % it is the bottleneck: make it "
                "faster, or split it.",
                "percentunit",
                "unit",
                (0.7, 0.9),
                handing=(("unit", UNIT),),
            ),
            Query(f"topk(8, {busy})", f"{shown(UNIT)} {shown(TASK)}"),
        ),
        lines(
            Panel(
                "Errors by task",
                "Exceptions that tasks raised in 5 minutes, by class. The trace of a failed message tells which it "
                "was.",
                "none",
                "unit",
                (None, 1),
                handing=(("unit", UNIT),),
            ),
            Query(failing, f"{shown(UNIT)} {shown(TASK)}: {{{{error_type}}}}"),
        ),
        lines(
            Panel(
                "Who causes the waiting",
                "Seconds of waiting a second, by the subscriber that causes it in the end and not by waiting for "
                "others. Make "
                "the first one faster, then look again.",
                "percentunit",
                "edge",
                (0.05, 0.2),
                handing=(("subscription", S),),
            ),
            Query(f"topk(5, {rates('ezmsg_graph_backpressure_culprit_seconds_total', S)})", shown(S)),
        ),
        listing(
            Panel(
                "Alerts",
                "What Prometheus complains about now. The description says what it means.",
                "none",
                "health",
                (None, 1),
                span=24,
                height=8,
            ),
            Query(alerts()),
            columns={"alertname": "alert", "alertstate": "state", "severity": "severity", "about": "about"},
            sort_by="state",
        ),
    )
