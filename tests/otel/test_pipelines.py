"""Pipelines with senders that do as they are told: retries, bounds, flushing, stopping."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.metrics.export import MetricsData

from ezmsg.core.recorder.rows import SPAN_ROW
from ezmsg.otel.collector import Collector
from ezmsg.otel.ledger import Ledger
from ezmsg.otel.metricpipeline import MetricPipeline
from ezmsg.otel.outcome import Outcome
from ezmsg.otel.registry import Registry
from ezmsg.otel.resource import ResourceFactory
from ezmsg.otel.spanencoder import RequestEncoder
from ezmsg.otel.spanpipeline import SpanPipeline
from ezmsg.otel.state import Process
from tests.otel.feeds import (
    ANCHOR,
    FakeSender,
    exported_ids,
    exported_spans,
    first,
    histogram,
    linked_rows,
    settings,
    span_ids,
    span_rows,
    telemetry,
)

RETRY = Outcome("retry", "unreachable", "nobody there")
LOST = Outcome("lost", "rejected", "HTTP 400")
PATIENCE_S = 40.0


class HangingSender(FakeSender):
    """Hangs in its first `send` until let go, or closed if it `heeds_close`."""

    def __init__(self, heeds_close: bool = False) -> None:
        super().__init__()
        self.hangs = threading.Event()
        self.let_go = threading.Event()
        self.heeds_close = heeds_close

    def send(self, batch: Any) -> Outcome:
        if not self.hangs.is_set():
            self.hangs.set()
            self.let_go.wait()
        return super().send(batch)

    def close(self) -> None:
        super().close()
        if self.heeds_close:
            self.let_go.set()


class RaisingSender(FakeSender):
    def send(self, batch: Any) -> Outcome:
        self.batches.append(batch)
        raise RuntimeError("a bug")


@pytest.fixture
def registry() -> Registry:
    return Registry(ResourceFactory())


@pytest.fixture
def process(registry: Registry) -> Process:
    return registry.apply(first())


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


SpansOf = Callable[..., SpanPipeline[bytes]]


@pytest.fixture
def spans_of(registry: Registry, ledger: Ledger) -> Iterator[SpansOf]:
    """Makes and starts pipelines of spans, and stops them in the end."""
    made: list[SpanPipeline[bytes]] = []

    def make(
        sender: FakeSender, settled: Callable[[str, int], None] = lambda _link, _count: None, **more: Any
    ) -> SpanPipeline[bytes]:
        pipeline = SpanPipeline(
            sender, RequestEncoder(), registry.resource, ledger, settings(**{"span_batch": 512} | more), settled
        )
        pipeline.start()
        made.append(pipeline)
        return pipeline

    yield make
    for pipeline in made:
        pipeline.stop(0.1)
        assert pipeline.stop(PATIENCE_S)


def ids(sender: FakeSender) -> list[str]:
    return exported_ids(sender.batches)


def dropped(ledger: Ledger) -> dict[str, int]:
    return {reason: count for (_, reason), count in ledger.totals().dropped.items() if count}


def test_spans_leave_in_batches_and_in_order(spans_of: SpansOf, process: Process, ledger: Ledger) -> None:
    sender = FakeSender()
    pipeline = spans_of(sender)
    pipeline.offer(process, ANCHOR, span_rows(700))
    pipeline.offer(process, ANCHOR, span_rows(500, 701))
    assert pipeline.flush(PATIENCE_S)
    assert [batch.count for batch in sender.batches] == [512, 512, 176]
    assert ids(sender) == span_ids(1200)
    assert ledger.totals().exported["span"] == 1200
    assert pipeline.usage == 0


def test_a_full_batch_does_not_wait(spans_of: SpansOf, process: Process) -> None:
    sender = HangingSender(heeds_close=True)
    spans_of(sender).offer(process, ANCHOR, span_rows(512))
    assert sender.hangs.wait(PATIENCE_S)


def test_a_small_batch_waits_no_longer_than_its_delay(spans_of: SpansOf, process: Process) -> None:
    sender = HangingSender(heeds_close=True)
    spans_of(sender, span_delay_s=0.01).offer(process, ANCHOR, span_rows(1))
    assert sender.hangs.wait(PATIENCE_S)


def test_a_batch_that_can_be_retried_is_kept(spans_of: SpansOf, process: Process, ledger: Ledger) -> None:
    sender = FakeSender(RETRY, RETRY)
    pipeline = spans_of(sender)
    pipeline.offer(process, ANCHOR, span_rows(3))
    assert not pipeline.flush(PATIENCE_S)
    assert pipeline.usage == 3
    assert not pipeline.flush(PATIENCE_S)
    assert pipeline.flush(PATIENCE_S)
    assert ids(sender) == span_ids(3) * 3
    assert ledger.totals().exported["span"] == 3
    assert dropped(ledger) == {}


def test_a_receiver_that_asks_for_time_is_not_asked_again_before(spans_of: SpansOf, process: Process) -> None:
    sender = FakeSender(replace(RETRY, retry_after_s=3600.0))
    pipeline = spans_of(sender, span_delay_s=0.001)
    pipeline.offer(process, ANCHOR, span_rows(3))
    assert not pipeline.flush(PATIENCE_S)
    pipeline.offer(process, ANCHOR, span_rows(600, 4))  # a full batch is due at once, but not now
    assert len(sender.batches) == 1
    assert pipeline.flush(PATIENCE_S)  # the end does not wait


def test_a_batch_that_is_refused_is_dropped_and_counted(spans_of: SpansOf, process: Process, ledger: Ledger) -> None:
    sender = FakeSender(LOST)
    pipeline = spans_of(sender)
    pipeline.offer(process, ANCHOR, span_rows(3))
    assert not pipeline.flush(PATIENCE_S)
    pipeline.offer(process, ANCHOR, span_rows(2, 4))
    assert pipeline.flush(PATIENCE_S)
    assert dropped(ledger) == {"rejected": 3}
    assert ledger.totals().exported["span"] == 2


def test_rejected_spans_of_a_batch_that_was_taken_are_counted(
    spans_of: SpansOf, process: Process, ledger: Ledger
) -> None:
    pipeline = spans_of(FakeSender(Outcome("taken", "rejected", "too old", 2)))
    pipeline.offer(process, ANCHOR, span_rows(10))
    assert pipeline.flush(PATIENCE_S)
    assert (ledger.totals().exported["span"], dropped(ledger)) == (8, {"rejected": 2})


def test_an_exporter_that_raises_costs_its_batch_and_nothing_else(
    spans_of: SpansOf, process: Process, ledger: Ledger
) -> None:
    pipeline = spans_of(RaisingSender())
    pipeline.offer(process, ANCHOR, span_rows(3))
    assert not pipeline.flush(PATIENCE_S)
    assert dropped(ledger) == {"failed": 3}


def test_what_the_queue_has_no_room_for_is_dropped_and_counted(
    spans_of: SpansOf, process: Process, ledger: Ledger
) -> None:
    sender = HangingSender(heeds_close=True)
    pipeline = spans_of(sender, span_queue=1000)
    pipeline.offer(process, ANCHOR, span_rows(512))
    assert sender.hangs.wait(PATIENCE_S)
    for batch in range(10):
        pipeline.offer(process, ANCHOR, span_rows(100, 1000 * (batch + 1)))
        assert pipeline.usage <= 1000
    assert dropped(ledger) == {"queue_full": 1512 - 1000}
    sender.let_go.set()
    assert pipeline.flush(PATIENCE_S)
    assert ledger.totals().exported["span"] == 1000


def test_spans_that_come_twice_leave_once(spans_of: SpansOf, process: Process, ledger: Ledger) -> None:
    """After a reconnection the server sends again what it still has."""
    sender = FakeSender()
    pipeline = spans_of(sender)
    pipeline.offer(process, ANCHOR, span_rows(10))
    assert pipeline.flush(PATIENCE_S)
    pipeline.offer(process, ANCHOR, span_rows(15))
    assert pipeline.flush(PATIENCE_S)
    assert ids(sender) == span_ids(15)
    assert (ledger.totals().exported["span"], dropped(ledger)) == (15, {})


def test_a_batch_takes_no_more_bytes_than_a_receiver_does(
    spans_of: SpansOf, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ezmsg.otel.spanpipeline.MAX_REQUEST_BYTES", 20_000)
    sender = FakeSender()
    pipeline = spans_of(sender)
    pipeline.offer(process, ANCHOR, span_rows(300))
    pipeline.offer(process, ANCHOR, span_rows(300, 301))
    assert pipeline.flush(PATIENCE_S)
    assert ids(sender) == span_ids(600)
    assert max(batch.size for batch in sender.batches) <= 20_000
    assert pipeline.usage == 0


def test_a_span_leaves_with_all_its_links_and_counts_once(spans_of: SpansOf, process: Process, ledger: Ledger) -> None:
    sender = FakeSender()
    pipeline = spans_of(sender, span_batch=2)
    for first_id in (10, 20):
        pipeline.offer(process, ANCHOR, linked_rows(3, first_id))
    pipeline.offer(process, ANCHOR, span_rows(1, 30))
    assert pipeline.flush(PATIENCE_S)
    links = [[int(link.span_id.hex(), 16) for link in span.links] for span in exported_spans(sender.batches)]
    assert links == [[11, 12, 13], [21, 22, 23], []]
    assert (ledger.totals().exported["span"], dropped(ledger)) == (3, {})


def test_links_without_their_span_are_no_spans(spans_of: SpansOf, process: Process, ledger: Ledger) -> None:
    sender = FakeSender()
    pipeline = spans_of(sender)
    pipeline.offer(process, ANCHOR, linked_rows(3)[128:])
    pipeline.offer(process, ANCHOR, span_rows(1, 30))
    assert pipeline.flush(PATIENCE_S)
    assert (ledger.totals().exported["span"], dropped(ledger)) == (1, {})


def test_a_span_whose_links_do_not_fit_is_one_that_is_lost(process: Process, ledger: Ledger, spans_of: SpansOf) -> None:
    settled: list[int] = []
    pipeline = spans_of(FakeSender(), lambda _link, count: settled.append(count), span_queue=6)
    pipeline.offer(process, ANCHOR, linked_rows(3, 10) + linked_rows(3, 20) + linked_rows(3, 30))
    assert pipeline.flush(PATIENCE_S)
    assert (ledger.totals().exported["span"], dropped(ledger)) == (1, {"queue_full": 2})
    assert sum(settled) == 3


def test_a_span_with_links_that_cannot_be_read_is_one_that_is_lost(
    spans_of: SpansOf, process: Process, ledger: Ledger
) -> None:
    bad = np.frombuffer(linked_rows(3), SPAN_ROW).copy()
    bad["b"][0] = -(2**62)
    sender = FakeSender()
    pipeline = spans_of(sender)
    pipeline.offer(process, ANCHOR, bad.tobytes() + linked_rows(2, 30))
    assert pipeline.flush(PATIENCE_S)
    assert (ledger.totals().exported["span"], dropped(ledger)) == (1, {"unreadable": 1})


def test_rows_that_cannot_be_read_do_not_hold_up_others(spans_of: SpansOf, process: Process, ledger: Ledger) -> None:
    bad = np.frombuffer(span_rows(4, 100), SPAN_ROW).copy()
    bad["meta"] = 0
    sender = FakeSender()
    pipeline = spans_of(sender)
    for rows in (span_rows(2), bad.tobytes(), span_rows(2, 3), bytes(128)):
        pipeline.offer(process, ANCHOR, rows)
    assert pipeline.flush(PATIENCE_S)
    assert ids(sender) == span_ids(4)
    assert dropped(ledger) == {"unreadable": 4 + 1}


def test_a_batch_of_which_nothing_can_be_read_is_not_sent(spans_of: SpansOf, process: Process, ledger: Ledger) -> None:
    sender = FakeSender()
    pipeline = spans_of(sender)
    pipeline.offer(process, ANCHOR, bytes(128))
    assert pipeline.flush(PATIENCE_S)
    assert (sender.batches, pipeline.usage, dropped(ledger)) == ([], 0, {"unreadable": 1})


def test_a_flush_of_nothing_is_done_at_once(spans_of: SpansOf) -> None:
    sender = FakeSender()
    assert spans_of(sender).flush(PATIENCE_S)
    assert sender.batches == []


def test_a_flush_does_not_wait_longer_than_asked(spans_of: SpansOf, process: Process) -> None:
    pipeline = spans_of(HangingSender(heeds_close=True))
    pipeline.offer(process, ANCHOR, span_rows(1))
    assert not pipeline.flush(0.05)


def test_stopping_drops_and_counts_what_waits(spans_of: SpansOf, process: Process, ledger: Ledger) -> None:
    sender = FakeSender()
    pipeline = spans_of(sender)
    pipeline.offer(process, ANCHOR, span_rows(7))
    assert pipeline.stop(PATIENCE_S)
    pipeline.offer(process, ANCHOR, span_rows(2, 8))
    assert sender.is_closed
    assert dropped(ledger) == {"shutdown": 9}


def test_stopping_leaves_an_export_that_hangs(spans_of: SpansOf, process: Process, ledger: Ledger) -> None:
    sender = HangingSender()
    pipeline = spans_of(sender)
    pipeline.offer(process, ANCHOR, span_rows(512))
    assert sender.hangs.wait(PATIENCE_S)
    assert not pipeline.stop(0.05)
    assert dropped(ledger) == {"shutdown": 512}
    sender.let_go.set()
    assert pipeline.stop(PATIENCE_S)
    totals = ledger.totals()
    assert (totals.exported["span"], dropped(ledger)) == (0, {"shutdown": 512})


def test_what_is_given_up_while_it_is_encoded_is_not_exported_too(
    registry: Registry, process: Process, ledger: Ledger
) -> None:
    class GivenUp(RequestEncoder):
        def encode(self, *args: Any) -> Any:
            pipeline.give_up()
            return super().encode(*args)

    sender = FakeSender()
    pipeline = SpanPipeline(sender, GivenUp(), registry.resource, ledger, settings(span_batch=512))
    pipeline.offer(process, ANCHOR, span_rows(7))
    pipeline.start()

    pipeline.flush(PATIENCE_S)

    assert (ids(sender), dropped(ledger), pipeline.usage) == ([], {"shutdown": 7}, 0)
    assert pipeline.stop(PATIENCE_S)


def test_each_change_of_state_is_one_line(
    spans_of: SpansOf, process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ezmsg.otel")
    pipeline = spans_of(FakeSender(RETRY, RETRY, RETRY))
    pipeline.offer(process, ANCHOR, span_rows(1))
    for _ in range(5):
        pipeline.flush(PATIENCE_S)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "traces do not reach nowhere: nobody there. Trying again, less and less often, up to every 30 s",
        "traces reach nowhere again",
    ]


# -- metrics ----------------------------------------------------------------------------------------------------


MetricsOf = Callable[..., MetricPipeline]


@pytest.fixture
def metrics_of(registry: Registry, ledger: Ledger) -> Iterator[MetricsOf]:
    made: list[MetricPipeline] = []

    def make(sender: FakeSender, interval_s: float = 3600.0) -> MetricPipeline:
        collector = Collector(registry, ledger, dict, ANCHOR.unix_ns)
        pipeline = MetricPipeline(sender, collector, registry, ledger, interval_s)
        pipeline.start()
        made.append(pipeline)
        return pipeline

    yield make
    for pipeline in made:
        pipeline.stop(0.1)
        assert pipeline.stop(PATIENCE_S)


def names(data: MetricsData) -> set[str]:
    return {metric.name for resource in data.resource_metrics for metric in resource.scope_metrics[0].metrics}


def test_metrics_leave_at_their_interval(metrics_of: MetricsOf, process: Process) -> None:
    sender = HangingSender(heeds_close=True)
    metrics_of(sender, interval_s=0.01)
    assert sender.hangs.wait(PATIENCE_S)


def test_metrics_leave_when_flushed(metrics_of: MetricsOf, process: Process, ledger: Ledger) -> None:
    sender = FakeSender()
    pipeline = metrics_of(sender)
    assert pipeline.flush(PATIENCE_S)
    assert "messaging.client.sent.messages" in names(sender.batches[0])
    first_points = ledger.totals().exported["metric_point"]
    assert first_points > 0
    assert pipeline.flush(PATIENCE_S)
    assert ledger.totals().exported["metric_point"] > first_points


def test_nothing_leaves_before_there_is_a_process(metrics_of: MetricsOf) -> None:
    sender = FakeSender()
    assert metrics_of(sender).flush(PATIENCE_S)
    assert sender.batches == []


def test_a_failed_export_of_metrics_is_no_loss(metrics_of: MetricsOf, process: Process, ledger: Ledger) -> None:
    pipeline = metrics_of(FakeSender(RETRY, LOST))
    assert [pipeline.flush(PATIENCE_S) for _ in range(3)] == [False, False, True]
    assert dropped(ledger) == {}


def test_after_a_failure_metrics_do_not_wait_for_their_interval(
    metrics_of: MetricsOf, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ezmsg.otel.breaker.FIRST_WAIT_S", 0.01)
    sender = HangingSender(heeds_close=True)
    sender.hangs.set()
    sender.outcomes = [RETRY]
    pipeline = metrics_of(sender)
    assert not pipeline.flush(PATIENCE_S)
    sender.hangs.clear()
    assert sender.hangs.wait(PATIENCE_S)


def test_metrics_that_cannot_be_made_do_not_end_the_pipeline(
    metrics_of: MetricsOf, process: Process, registry: Registry
) -> None:
    sender = FakeSender()
    pipeline = metrics_of(sender)
    odd = histogram(2, "process", [1], exemplars=[(1, 1, "no trace", "no span")])
    registry.apply(telemetry(1, histograms=[odd]))
    assert not pipeline.flush(PATIENCE_S)
    registry.apply(telemetry(2, histograms=[histogram(2, "process", [1])]))
    assert pipeline.flush(PATIENCE_S)
    assert len(sender.batches) == 1


def test_an_ended_process_is_forgotten_when_its_last_values_were_taken(
    metrics_of: MetricsOf, process: Process, registry: Registry
) -> None:
    registry.apply(telemetry(1, gone=True))
    sender = FakeSender(RETRY)
    pipeline = metrics_of(sender)
    for _ in range(3):
        pipeline.flush(PATIENCE_S)
    sent = ["messaging.client.sent.messages" in names(batch) for batch in sender.batches]
    assert sent == [True, True, False]
