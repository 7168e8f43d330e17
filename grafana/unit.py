"""One unit: is it busy, with what, and does it fail."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from grafana.panels import (
    TASK,
    UNIT,
    D,
    Panel,
    Query,
    S,
    board,
    both_ends,
    filled,
    grown,
    heat,
    lines,
    quantile,
    rate,
    rates,
    settings_changes,
    shown,
    variable,
)

OF_UNIT = f'{UNIT}=~"$unit"'
OF_UNIT_OR_NONE = f'{UNIT}=~"$unit|"'
# The streams of a unit begin with its address.
TAKEN = f'{S}=~"($unit)/.+"'
SENT = f'{D}=~"($unit)/.+"'
TASK_NAME = f"{shown(UNIT)} {shown(TASK)}"


def dashboard() -> build.Dashboard:
    """Build it."""
    made = board(
        "unit",
        "A unit from within: how busy its tasks are, how long a message takes them, what fails.",
        variable(
            "unit", "Unit", "Addresses of units", f'label_values({{__name__=~"ezmsg_task_.+", job="$graph"}}, {UNIT})'
        ),
    )
    busy = rates("ezmsg_task_busy_time_seconds_total", f"{UNIT}, {TASK}", OF_UNIT)
    errors = grown("ezmsg_task_errors_total", f"{UNIT}, {TASK}, error_type", OF_UNIT)
    return filled(
        made,
        lines(
            Panel(
                "Busy share of tasks",
                "Share of the time that a task is occupied by a message, waiting for its own awaits included. Near "
                "100 % it cannot "
                "take more: what is in front of it fills up.",
                "percentunit",
                "process",
                (0.7, 0.9),
            ),
            Query(busy, TASK_NAME),
        ),
        heat(
            Panel(
                "Processing time",
                "From the hand-over of a message to its release. A second band above the first: some messages take "
                "another way, or "
                "wait for something. A dot is a message: click it for its trace.",
                "s",
                "process",
            ),
            Query(f"sum({rate('messaging_process_duration_seconds', TAKEN)})", exemplars=True),
        ),
        lines(
            Panel(
                "Processing time by stream",
                "Median and slow end. They rise together: more work; only p99: hiccups.",
                "s",
                "process",
            ),
            *both_ends("messaging_process_duration_seconds", S, TAKEN, shown(S)),
        ),
        lines(
            Panel(
                "Messages in and out",
                "What it takes and what it sends. Takes but does not send: it waits, or it fails.",
                "mps",
                "edge",
            ),
            Query(rates("messaging_client_consumed_messages_total", S, TAKEN), f"{shown(S)} in"),
            Query(rates("messaging_client_sent_messages_total", D, SENT), f"{shown(D)} out"),
        ),
        lines(
            Panel(
                "Errors",
                "Exceptions that tasks raised in 5 minutes, by class. CancelledError at the end of a run is a "
                "message that "
                "was interrupted.",
                "none",
                "process",
                (None, 1),
            ),
            Query(errors, f"{TASK_NAME}: {{{{error_type}}}}"),
        ),
        lines(
            Panel(
                "Spans of the program",
                "Parts of the processing that the program measures itself, p99: which part of the work takes the "
                "time. Of "
                "subscribers that belong to no unit, too.",
                "s",
                "process",
            ),
            Query(
                quantile(0.99, "ezmsg_task_span_duration_seconds", f"{UNIT}, ezmsg_span_label", OF_UNIT_OR_NONE),
                f"{shown(UNIT)} {{{{ezmsg_span_label}}}}",
            ),
        ),
        lines(
            Panel(
                "Settings",
                "Changes of settings that took effect. Compare with the panels above: blue marks are the same changes.",
                "none",
                "control",
            ),
            Query(settings_changes(OF_UNIT), shown(UNIT)),
        ),
        lines(
            Panel(
                "Waiting before it",
                "How long messages wait for this unit. It grows while the busy share is near 100 %.",
                "s",
                "edge",
                handing=(("subscription", S),),
            ),
            Query(quantile(0.99, "ezmsg_subscriber_queue_duration_seconds", S, TAKEN), f"{shown(S)} p99"),
        ),
    )
