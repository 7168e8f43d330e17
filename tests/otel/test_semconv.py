"""The tables of names agree with each other."""

from __future__ import annotations

import re

import numpy as np

from ezmsg.core.recorder.rows import (
    CONTROL_CLIENT,
    CONTROL_SERVER,
    DELIVER,
    ERROR,
    LABEL_SHIFT,
    PROCESS,
    PUBLISH,
    QUEUE,
    SEPARATOR,
    SETTINGS,
    SPAN,
    SPAN_ROW,
    meta_word,
)
from ezmsg.core.telemetry.expand import expand_spans
from ezmsg.otel import semconv
from ezmsg.otel.semconv import ATTRIBUTES, METRICS, SPANS, MetricSpec
from tests.otel.feeds import ANCHOR, EDGE, PUBLISHER

NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")


def all_attributes(spec: MetricSpec) -> set[str]:
    return {*spec.attributes, *dict(spec.constants), *([spec.label] if spec.label else [])}


def test_every_attribute_is_in_the_table() -> None:
    for metric in METRICS:
        assert all_attributes(metric) <= ATTRIBUTES.keys(), metric.name
    for span in SPANS:
        assert set(span.attributes) <= ATTRIBUTES.keys(), span.name


def test_every_attribute_is_used() -> None:
    used = {semconv.OVERFLOW}
    for metric in METRICS:
        used |= all_attributes(metric)
    for span in SPANS:
        used |= set(span.attributes)
    assert used == ATTRIBUTES.keys()


def test_names_are_lower_case_and_dotted() -> None:
    for name in (*ATTRIBUTES, *(spec.name for spec in METRICS)):
        assert NAME.fullmatch(name), name


def test_nothing_of_unlimited_cardinality_is_an_attribute_of_a_metric() -> None:
    unlimited = {semconv.MESSAGE_ID, semconv.CLIENT_ID, "process.pid", "service.instance.id"}
    for metric in METRICS:
        assert not all_attributes(metric) & unlimited, metric.name


def test_feeds_of_one_metric_agree_and_can_be_told_apart() -> None:
    by_name: dict[str, list[MetricSpec]] = {}
    for spec in METRICS:
        by_name.setdefault(spec.name, []).append(spec)
    for name, specs in by_name.items():
        assert len({(spec.kind, spec.unit, spec.description, spec.per_unit) for spec in specs}) == 1, name
        assert len({spec.constants for spec in specs}) == len(specs), name


def test_no_two_metrics_share_a_feed() -> None:
    feeds = [spec.feed for spec in METRICS]
    assert len(feeds) == len(set(feeds))


def test_durations_are_seconds_and_counted_things_have_units() -> None:
    for spec in METRICS:
        assert (spec.per_unit == semconv.NS_PER_S) == (spec.unit == "s"), spec.name
        assert spec.unit in {"s", "By", "1"} or re.fullmatch(r"\{[a-z_]+\}", spec.unit), spec.name


def test_spans_carry_what_the_table_says_with_the_types_it_says() -> None:
    """The names of span attributes are written down once more where rows are expanded."""
    kinds = {
        ("publish {topic}", "PRODUCER"): (PUBLISH, PUBLISHER),
        ("process {topic}", "CONSUMER"): (PROCESS, EDGE),
        ("{label}", "INTERNAL"): (SPAN, EDGE),
        ("deliver {topic}", "INTERNAL"): (DELIVER, EDGE),
        ("queue {topic}", "INTERNAL"): (QUEUE, EDGE),
        ("control {op}", "CLIENT"): (CONTROL_CLIENT, EDGE),
        ("control {op}", "SERVER"): (CONTROL_SERVER, EDGE),
        ("settings {event}", "INTERNAL"): (SETTINGS, EDGE),
    }
    types = {"string": str, "int": int, "double": float, "boolean": bool}
    for spec in SPANS:
        kind, endpoint = kinds[spec.name, spec.kind]
        row = np.ones(1, SPAN_ROW)
        row["meta"] = meta_word(kind, endpoint.index, flags=ERROR) | 1 << LABEL_SHIFT
        labels = {1: SEPARATOR.join(("a label", "and", "another"))}
        (span,) = expand_spans(row.tobytes(), {endpoint.index: endpoint}, labels, ANCHOR)
        assert span.kind == spec.kind
        assert span.attributes.keys() <= set(spec.attributes)
        for name, value in span.attributes.items():
            assert type(value) is types[ATTRIBUTES[name][0]], name
        assert re.fullmatch(re.sub(r"\\{\w+\\}", ".+", re.escape(spec.name)), span.name)
