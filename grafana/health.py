"""Can the other dashboards be believed: is anything lost or late on the way from the graph to here."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from grafana.panels import (
    PROCESS,
    Panel,
    Query,
    board,
    filled,
    grown,
    lines,
    number,
    of_graph,
    quantile,
    rate,
    rates,
    shown,
)

KIND, REASON, SIGNAL = "ezmsg_telemetry_kind", "ezmsg_telemetry_reason", "ezmsg_telemetry_signal"


def dashboard() -> build.Dashboard:
    """Build it."""
    made = board("health", "Whether what the other dashboards show is all there is: what was recorded, exported, lost.")
    small = {"span": 6, "height": 4}
    dropped = grown("ezmsg_telemetry_dropped_total", f"{KIND}, {REASON}")
    return filled(
        made,
        number(
            Panel(
                "Age of the newest metrics",
                "Since the last export that arrived. Above a minute the agent, the collector or the way between them "
                "is down.",
                "s",
                "control",
                (30, 60),
                **small,
            ),
            Query(f"time() - max(timestamp({of_graph('ezmsg_telemetry_exported_total')}))"),
        ),
        number(
            Panel(
                "Lost",
                "Items of telemetry that were recorded and lost in 5 minutes. The panel below says why.",
                "none",
                "overview",
                (None, 1),
                **small,
            ),
            Query(f"sum({dropped})"),
        ),
        number(
            Panel(
                "Queue of spans",
                "How full it is. When it is full spans are lost; metrics are not.",
                "percentunit",
                "control",
                (0.5, 0.9),
                **small,
            ),
            Query(f"max({of_graph('ezmsg_telemetry_queue_usage')} / {of_graph('ezmsg_telemetry_queue_limit')})"),
        ),
        number(
            Panel(
                "Collector",
                "Whether Prometheus reaches it. Down: graphs wait with their telemetry; metrics lose nothing.",
                "none",
                "overview",
                **small,
            ),
            Query('min(up{job="collector"})'),
            {"1": ("up", "green"), "0": ("down", "red")},
        ),
        lines(
            Panel(
                "Recorded",
                "Rows of messages, and spans of the sampled ones. 0 while messages flow: the level is off.",
                "cps",
                "overview",
            ),
            Query(rates("ezmsg_telemetry_recorded_total", KIND), shown(KIND)),
        ),
        lines(
            Panel(
                "Lost, by reason",
                "In 5 minutes. overrun: more rows than the ring holds, histograms miss some. queue_full, timeout, "
                "failed, rejected: the receiver. no_goodbye: a process was killed. overflow: too many series. Counters "
                "are exact all the same.",
                "none",
                "control",
                (None, 1),
            ),
            Query(dropped, f"{shown(KIND)} {shown(REASON)}"),
        ),
        lines(
            Panel("Exported", "What receivers took. Spans should follow what is recorded.", "cps", "control"),
            Query(rates("ezmsg_telemetry_exported_total", KIND), shown(KIND)),
        ),
        lines(
            Panel(
                "Duration of exports, p99",
                "Successful or not. At 2 s they time out: the collector is overloaded or far away.",
                "s",
                "control",
                (1, 2),
            ),
            Query(quantile(0.99, "ezmsg_telemetry_export_duration_seconds", SIGNAL), shown(SIGNAL)),
        ),
        lines(
            Panel(
                "Clocks that disagree",
                "Messages whose times could not be compared: foreign, the publisher is on another host, its ages are "
                "not counted; "
                "negative, a clock was set.",
                "mps",
                "edge",
            ),
            Query(
                f"sum by ({'ezmsg_clock_reason'}, ezmsg_channel_kind) ({rate('ezmsg_channel_clock_anomalies_total')})",
                "{{ezmsg_clock_reason}} {{ezmsg_channel_kind}}",
            ),
        ),
        lines(
            Panel(
                "Cost of telemetry",
                "Share of a core that recording and sending takes in each process. More than 5 %: a lower level, or "
                "a budget.",
                "percentunit",
                "process",
                (0.03, 0.05),
                handing=(("process", PROCESS),),
            ),
            Query(f"sum by ({PROCESS}) ({of_graph('ezmsg_telemetry_overhead_ratio')})", shown(PROCESS)),
        ),
        lines(
            Panel(
                "Collector: what leaves it",
                "Points to Prometheus and spans to Tempo. 0 while graphs export: it cannot reach them.",
                "cps",
                "overview",
            ),
            Query(
                'sum by (exporter) (rate(otelcol_exporter_sent_metric_points{job="collector"}[$__rate_interval]))',
                "{{exporter}} points",
            ),
            Query(
                'sum by (exporter) (rate(otelcol_exporter_sent_spans{job="collector"}[$__rate_interval]))',
                "{{exporter}} spans",
            ),
        ),
        lines(
            Panel(
                "Collector: how full its queues are",
                "They fill while Prometheus or Tempo is away. At 100 % the collector gives up what comes.",
                "percentunit",
                "overview",
                (0.5, 0.8),
            ),
            Query(
                'max by (exporter) (otelcol_exporter_queue_size{job="collector"} / otelcol_exporter_queue_capacity)',
                "{{exporter}}",
            ),
            maximum=1,
        ),
    )
