"""The benchmark of the agent: rows that are spans, and every one of them arrives by either encoder."""

import pytest

from benchmarks import agent
from benchmarks.agent import RECORD_ROWS, Counter, Rows, export, frames_of, sdk_route
from examples.otlp_receiver import HttpReceiver
from ezmsg.core.telemetry.expand import expand_spans
from ezmsg.otel.otlp import SpanRoute, span_route
from ezmsg.otel.settings import Settings
from tests.otel.feeds import ANCHOR, settings


def test_rows_are_spans_of_both_kinds_with_ids_of_their_own() -> None:
    rows = Rows()
    spans = expand_spans(rows.take(64), {endpoint.index: endpoint for endpoint in rows.endpoints}, {}, ANCHOR)
    assert len({span.span_id for span in spans}) == 64
    assert {span.name.partition(" ")[0] for span in spans} == {"publish", "process"}
    assert all(span.end_unix_ns > span.start_unix_ns for span in spans)
    assert {len(span.attributes) for span in spans} == {11, 13}


def our_route(chosen: Settings) -> SpanRoute:
    route = span_route(chosen.traces)
    assert route is not None
    return route


@pytest.mark.parametrize("make", [our_route, sdk_route])
def test_every_span_arrives(make: object) -> None:
    store = Counter()
    with HttpReceiver(store) as receiver:
        chosen = settings("http/protobuf", receiver.endpoint)
        assert export(make(chosen), chosen, frames_of(2 * RECORD_ROWS)) > 0  # type: ignore[operator]
    assert store.count == 2 * RECORD_ROWS
    assert set(agent.COMPARED) == {"templates", "SDK"}
