"""What arrives in Prometheus is what the table of names says, and what the native API says."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from deploy.testing.programs import STEP_S
from deploy.testing.scenario import HEALTHY, SERVICE, Played, counted_messages
from examples.otlp_store import SeenSpan
from ezmsg.otel import semconv
from ezmsg.otel.semconv import METRICS, MetricSpec, fed_by
from tests.stack.names import COMMON, attributes_of, by_name, in_prometheus, label
from tests.stack.pending import NEVER_SEEN, PENDING

BUCKET_ERROR = 2 ** (1 / 8)
"""Of scale 3, the one histograms leave a process with."""
WITH_EXEMPLARS = (
    "ezmsg_message_age_seconds",
    "messaging_process_duration_seconds",
    "ezmsg_channel_transport_duration_seconds",
    "messaging_client_operation_duration_seconds",
)
TOPIC, SUBSCRIPTION = label(semconv.DESTINATION), label(semconv.SUBSCRIPTION)


@pytest.mark.parametrize("name", by_name(METRICS))
def test_a_metric_arrives_under_its_name_with_its_type_and_labels(played: Played, name: str) -> None:
    specs = by_name(METRICS)[name]
    series = f'{in_prometheus(specs[0])}{{job="{SERVICE}"}}'
    found = played.stack.prometheus.query(series, played.quiet_s)
    assert found, series
    assert {"histogram" if "histogram" in one else "number" for one in found} == {
        "histogram" if specs[0].kind == "histogram" else "number"
    }
    labels: dict[MetricSpec, set[str]] = {spec: set() for spec in specs}
    for one in found:
        values = one["metric"]
        (spec,) = (spec for spec in specs if all(values.get(label(key)) == value for key, value in spec.constants))
        labels[spec] |= values.keys() - COMMON
    for spec, seen in labels.items():
        never = {attribute for metric, attribute in NEVER_SEEN if metric == name}
        assert seen == {label(attribute) for attribute in attributes_of([spec]) - {semconv.PROCESS_NAME} - never}


def test_nothing_arrives_that_is_not_in_the_table(played: Played) -> None:
    known = {in_prometheus(spec) for spec in METRICS} | {"target_info"}
    of_prometheus = {"ALERTS", "ALERTS_FOR_STATE"}
    names = set(played.stack.prometheus.label_values("__name__", f'{{job="{SERVICE}"}}'))
    assert names - of_prometheus == known


def test_what_is_pending_is_not_sent_yet() -> None:
    """When this fails, delete the line: everything else is in place."""
    assert not {spec.name for spec in PENDING} & {spec.name for spec in METRICS}


def test_no_name_says_a_unit_that_is_none() -> None:
    names = {in_prometheus(spec) for spec in METRICS}
    assert {name for name in names if re.search("_ratio", name)} <= {"ezmsg_telemetry_overhead_ratio"}


def test_every_process_is_described(played: Played) -> None:
    found = played.stack.prometheus.query(f'target_info{{job="{SERVICE}"}}', played.quiet_s)
    names = {one["metric"]["ezmsg_process_name"] for one in found}
    assert names == {"graph.py", "graph.py/SLOW", "graph.py/LEAKY", "graph.py/SINK", "elsewhere.py", "ezmsg.otel"}
    for one in found:
        assert {"host_name", "process_pid", "process_runtime_version", "instance"} <= one["metric"].keys()
        assert not any("command" in key for key in one["metric"])


def test_crashes_of_collector_and_prometheus_lose_no_count(played: Played) -> None:
    assert played.native_counts
    assert counted_messages(played.stack.prometheus, played.quiet_s) == played.native_counts
    for name in ("messaging_client_sent_messages_total", "messaging_client_consumed_messages_total"):
        window_s = int(played.quiet_s - played.start_s)
        resets = played.stack.prometheus.query(f'resets({name}{{job="{SERVICE}"}}[{window_s}s])', played.quiet_s)
        assert {one["value"][1] for one in resets} == {"0"}


def test_crashes_lose_nothing_of_any_counter_of_publishers_and_edges(played: Played) -> None:
    compared: set[str] = set()
    for (topic, subscription, counter), native in played.native_counters.items():
        name, _, value = counter.partition(":")
        spec = fed_by("edge" if subscription else "publisher").get(name)
        own = {semconv.DESTINATION, *([semconv.SUBSCRIPTION] if subscription else [])}
        if spec is None or spec.kind != "counter" or not own <= {*spec.attributes}:
            continue
        labels = {semconv.DESTINATION: topic, semconv.SUBSCRIPTION: subscription, **dict(spec.constants)}
        if spec.label:
            labels[spec.label] = value
        selector = ", ".join(f'{label(key)}="{wanted}"' for key, wanted in labels.items() if wanted)
        told = played.stack.prometheus.number(
            f'sum({in_prometheus(spec)}{{job="{SERVICE}", {selector}}})', played.quiet_s
        )
        assert told == pytest.approx(native / spec.per_unit), (counter, selector)
        compared.add(name)
    assert compared >= {"sent", "bytes_by", "backpressure_ns", "blame_ns", "consumed", "dropped"}


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_native_histograms_answer_as_the_native_api_does(played: Played, q: float) -> None:
    specs = fed_by("histogram")
    compared: dict[str, int] = defaultdict(int)
    for (topic, subscription, name), native in played.native_histograms.items():
        spec = specs.get(name)
        if spec is None or name == "transport" or not native.count:  # transport has no subscription in OTel
            continue
        # The native API keeps durations of what failed apart, by class of error, too.
        of_edge = f'{TOPIC}="{topic}", {SUBSCRIPTION}="{subscription}", error_type=""'
        selector = f'{in_prometheus(spec)}{{job="{SERVICE}", {of_edge}}}'
        count = played.stack.prometheus.number(f"histogram_count(sum({selector}))", played.quiet_s)
        assert count == native.count, selector
        answer = played.stack.prometheus.number(f"histogram_quantile({q}, sum({selector}))", played.quiet_s)
        assert answer is not None
        assert native.quantile(q) / BUCKET_ERROR <= answer <= native.quantile(q) * BUCKET_ERROR, selector
        compared[name] += 1
    assert compared.keys() >= {"age", "queue", "process", "publish", "interval", "backpressure", "serialize"}


def test_exemplars_lead_to_traces_that_were_exported(played: Played) -> None:
    """All of them, but for spans that the collector held when it was killed: these are counted."""
    spans = {span.span_id: span.trace_id for span in spans_of(played)}
    lost = of_spans(played, "exported") - len(spans)
    lost_exemplars: set[str] = set()
    for name in WITH_EXEMPLARS:
        found = played.stack.prometheus.exemplars(f'{name}{{job="{SERVICE}"}}', played.start_s, played.end_s)
        exemplars = [exemplar for series in found for exemplar in series["exemplars"]]
        assert exemplars, name
        for exemplar in exemplars:
            assert exemplar["labels"].keys() == {"trace_id", "span_id"}
            span_id = exemplar["labels"]["span_id"]
            if span_id in spans:
                assert spans[span_id] == exemplar["labels"]["trace_id"]
                continue
            lost_exemplars.add(span_id)
            assert exemplar["timestamp"] <= played.collector_killed_s, name
    assert len(lost_exemplars) <= lost


def test_every_span_is_accounted_for(played: Played) -> None:
    recorded, exported = of_spans(played, "recorded"), of_spans(played, "exported")
    assert recorded == exported
    assert of_spans(played, "dropped") == 0
    # The collector takes spans before Tempo does: what it has not sent when it is killed is lost.
    ids = [span.span_id for span in spans_of(played)]
    assert 0 <= exported - len(set(ids)) < exported / 2


def of_spans(played: Played, what: str) -> int:
    """How many spans the graph says it `recorded`, `exported` or `dropped`, in the end."""
    selector = f'ezmsg_telemetry_{what}_total{{job="{SERVICE}", ezmsg_telemetry_kind="span"}}'
    return int(played.stack.prometheus.number(f"sum({selector})", played.end_s) or 0)


def spans_of(played: Played) -> list[SeenSpan]:
    """What arrived where Tempo should be, of the graph with faults."""
    return [span for span in played.stack.tempo.store.spans if span.resource["service.name"] == SERVICE]


def test_traces_run_through_the_graph_and_out_of_the_collector(played: Played) -> None:
    store = played.stack.tempo.store
    whole = [
        spans
        for spans in store.traces().values()
        if {"publish SOURCE/OUTPUT", "process SOURCE/OUTPUT", "publish SLOW/OUTPUT", "process SLOW/OUTPUT"}
        <= {span.span.name for span in spans}
    ]
    assert whole
    assert store.service_names() == {SERVICE, HEALTHY}
    assert any(span.attributes.get("error.type") == "ValueError" for span in store.spans)


def test_the_faults_show(played: Played) -> None:
    number, at_s = played.stack.prometheus.number, played.quiet_s
    blame = f'topk(1, sum by ({SUBSCRIPTION}) (ezmsg_publisher_backpressure_blame_seconds_total{{job="{SERVICE}"}}))'
    (worst,) = played.stack.prometheus.query(blame, at_s)
    assert worst["metric"][SUBSCRIPTION] == "SLOW/INPUT"
    dropped = f'sum by ({SUBSCRIPTION}) (ezmsg_subscriber_dropped_messages_total{{job="{SERVICE}"}}) > 0'
    assert [one["metric"][SUBSCRIPTION] for one in played.stack.prometheus.query(dropped, at_s)] == ["LEAKY/INPUT"]
    assert (number('sum(ezmsg_task_errors_total{ezmsg_unit_address="SINK", error_type="ValueError"})', at_s) or 0) > 0


def test_a_process_that_ends_in_order_says_goodbye(played: Played) -> None:
    assert played.processes == 5
    count = f'ezmsg_graph_process_count{{job="{SERVICE}"}}'
    seen = played.stack.prometheus.query_range(count, played.start_s, played.end_s, STEP_S)
    values = [int(value) for _, value in seen[0]["values"]]
    assert {5, 4} <= set(values)
    assert played.stack.prometheus.number(count, played.end_s) == 0
    for level in ("publisher_message_inflight", "publisher_buffer_limit", "graph_node_info", "graph_edge_info"):
        now = played.stack.prometheus.number(f'max(ezmsg_{level}{{job="{SERVICE}"}})', played.end_s)
        assert now == 0, level


def test_an_edge_that_is_gone_is_told(played: Played) -> None:
    edges = played.stack.prometheus.query(f'ezmsg_graph_edge_info{{job="{SERVICE}"}}', played.quiet_s)
    target = label(semconv.EDGE_TARGET)
    assert {one["metric"][target]: one["value"][1] for one in edges} == {
        "CHECK/INPUT": "1", "SLOW/INPUT": "1", "LEAKY/INPUT": "1", "SINK/INPUT": "1", "ELSEWHERE/INPUT": "0",
    }  # fmt: skip
