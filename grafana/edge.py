"""One edge, or some: where on the way from publisher to subscriber the time goes."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from grafana.panels import (
    D,
    K,
    Panel,
    Query,
    S,
    board,
    both_ends,
    filled,
    heat,
    lines,
    of_graph,
    rate,
    rates,
    shown,
    variable,
)

OF_TOPIC = f'{D}=~"$destination"'
OF_SUBSCRIBER = f'{S}=~"$subscription"'
OF_EDGE = f"{OF_TOPIC}, {OF_SUBSCRIBER}"
SENT, RECEIVED = (f'{OF_TOPIC}, network_io_direction="{way}"' for way in ("transmit", "receive"))


def mean(metric: str, labels: str, name: str) -> Query:
    """The mean of a histogram, for a stack of means."""
    return Query(f"histogram_avg(sum({rate(metric, labels)}))", name)


def dashboard() -> build.Dashboard:
    """Build it."""
    made = board(
        "edge",
        "From a publisher to its subscribers: does everything arrive, how old is it, and which step takes the time.",
        variable(
            "destination",
            "From",
            "Topics of publishers",
            f'label_values(messaging_client_sent_messages_total{{job="$graph"}}, {D})',
        ),
        variable(
            "subscription",
            "To",
            "Topics of subscribers",
            f'label_values(messaging_client_consumed_messages_total{{job="$graph", {OF_TOPIC}}}, {S})',
        ),
    )
    topic, edge, kind = shown(D), f"{shown(D)} → {shown(S)}", f"{shown(D)} {shown(K)}"
    return filled(
        made,
        lines(
            Panel(
                "Sent and consumed",
                "Each subscriber should take what was sent. Less for good: it drops (leaky), or it waits behind a "
                "queue.",
                "mps",
                "unit",
            ),
            Query(rates("messaging_client_sent_messages_total", D, OF_TOPIC), f"{topic} sent"),
            Query(rates("messaging_client_consumed_messages_total", f"{D}, {S}", OF_EDGE), f"{edge} consumed"),
        ),
        heat(
            Panel(
                "Age of data",
                "From the first publish of the data to the hand-over. Two bands: two ways through the graph, or some "
                "messages "
                "that wait. A dot is a message: click it for its trace.",
                "s",
                "unit",
            ),
            Query(f"sum({rate('ezmsg_message_age_seconds', OF_EDGE)})", exemplars=True),
        ),
        lines(
            Panel(
                "Where the time goes",
                "Means of the steps of one hop, one upon the other. The thickest is the one to work on: serialize "
                "and transport "
                "are size and kind of channel, queue is a subscriber that is behind, process is its work.",
                "s",
                "unit",
            ),
            mean("ezmsg_publisher_serialize_duration_seconds", OF_TOPIC, "serialize"),
            mean("ezmsg_channel_transport_duration_seconds", OF_TOPIC, "transport"),
            mean("ezmsg_subscriber_queue_duration_seconds", OF_EDGE, "queue"),
            mean("messaging_process_duration_seconds", OF_EDGE, "process"),
            stacked=True,
        ),
        lines(
            Panel(
                "p99 of each step",
                "The same steps at their slow end; what a mean hides. A step that takes no time has no line.",
                "s",
                "unit",
            ),
            *(
                # A histogram of nothing but zeros answers with 1e-128: not on a logarithmic axis.
                Query(f"histogram_quantile(0.99, sum({rate(metric, labels)})) > 1e-9", name)
                for metric, labels, name in (
                    ("messaging_client_operation_duration_seconds", OF_TOPIC, "publish"),
                    ("ezmsg_publisher_serialize_duration_seconds", OF_TOPIC, "serialize"),
                    ("ezmsg_channel_transport_duration_seconds", OF_TOPIC, "transport"),
                    ("ezmsg_subscriber_queue_duration_seconds", OF_EDGE, "queue"),
                    ("messaging_process_duration_seconds", OF_EDGE, "process"),
                )
            ),
            is_log=True,
        ),
        lines(
            Panel(
                "Messages in flight, and buffers",
                "Messages not yet released by every subscriber. At the limit the publisher waits.",
                "none",
                "unit",
            ),
            Query(f"sum by ({D}) ({of_graph('ezmsg_publisher_message_inflight', OF_TOPIC)})", f"{topic} in flight"),
            Query(f"sum by ({D}) ({of_graph('ezmsg_publisher_buffer_limit', OF_TOPIC)})", f"{topic} buffers"),
        ),
        lines(
            Panel(
                "Who holds the publisher up",
                "Share of its time that a publisher waited, by the subscriber that held the slot last.",
                "percentunit",
                "unit",
                (0.05, 0.2),
            ),
            Query(rates("ezmsg_publisher_backpressure_blame_seconds_total", f"{D}, {S}", OF_TOPIC), edge),
        ),
        lines(
            Panel(
                "Waits for a free slot",
                "How often the publisher waits, and how long the longest waits are. Many short ones cost throughput, "
                "few long ones "
                "are gaps in the data.",
                "s",
                "unit",
                (0.01, 0.1),
            ),
            *both_ends("ezmsg_publisher_backpressure_duration_seconds", D, OF_TOPIC, topic),
        ),
        lines(
            Panel(
                "Waiting in queues",
                "Messages that wait for their subscriber. Growing: it is too slow for what comes. Always one: leaky.",
                "none",
                "unit",
            ),
            Query(f"max by ({S}) ({of_graph('ezmsg_subscriber_queue_depth', OF_SUBSCRIBER)})", shown(S)),
        ),
        lines(
            Panel(
                "Interval between messages",
                "Median and slow end. Far apart: the source is not regular, or the publisher is held up.",
                "s",
                "unit",
            ),
            *both_ends("ezmsg_publisher_interval_seconds", D, OF_TOPIC, topic),
        ),
        lines(
            Panel(
                "Bytes by kind of channel",
                "What publishers send (above) and channels receive. tcp between processes of one host: shared memory "
                "is off, or "
                "they do not know that they are on one host.",
                "Bps",
                "process",
            ),
            Query(rates("ezmsg_channel_io_bytes_total", f"{D}, {K}", SENT), f"{kind} sent"),
            Query(rates("ezmsg_channel_io_bytes_total", f"{D}, {K}", RECEIVED), f"{kind} received"),
        ),
        lines(
            Panel(
                "Dropped",
                "Messages that a leaky subscriber gave up.",
                "mps",
                "unit",
                (0.01, None),
            ),
            Query(rates("ezmsg_subscriber_dropped_messages_total", f"{D}, {S}", OF_EDGE), edge),
        ),
        lines(
            Panel(
                "Growth of shared memory",
                "How often a segment has grown, because a message was larger than any before. It should stay as it "
                "is once the "
                "graph has begun; each step is a pause of the publisher.",
                "none",
                "process",
            ),
            Query(f"sum by ({D}) ({of_graph('ezmsg_publisher_shm_reallocations_total', OF_TOPIC)})", topic),
        ),
    )
