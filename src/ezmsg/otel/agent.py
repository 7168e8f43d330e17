"""The agent without its connection: takes records from anywhere, and exports them."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from opentelemetry.sdk.metrics.export import MetricsData

from ezmsg.core.wire.records import GraphState, ProcessTelemetry, ServerTelemetry
from ezmsg.otel.collector import Collector
from ezmsg.otel.ledger import Ledger, Totals
from ezmsg.otel.metricpipeline import MetricPipeline
from ezmsg.otel.otlp import metric_sender, span_route
from ezmsg.otel.outcome import Sender
from ezmsg.otel.registry import Registry
from ezmsg.otel.resource import ResourceFactory
from ezmsg.otel.settings import Settings, Signal
from ezmsg.otel.spanencoder import RequestEncoder, SpanRequest
from ezmsg.otel.spanpipeline import SpanPipeline
from ezmsg.otel.spanrows import ROW_BYTES

logger = logging.getLogger("ezmsg.otel")

DRAIN_TIMEOUT_S = 1.2
"""The server gives an agent 2 s to deliver what it has and to end."""
METRICS_SHARE_S = 0.4
"""What of that is kept for the last metrics when spans take long; they tell what became of the spans."""
JOIN_TIMEOUT_S = 0.2


class AgentCore:
    """Feed it with records, from one thread; `start` it before, `stop` it when no more will come.

    The two pipelines are threads of their own: nothing here waits for a receiver, except `drain` and `stop` for at
    most the time they are given.

    Attributes:
        on_settled: Called, from any thread, when there is something for `take_settled`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        spans: Sender[SpanRequest] | None = None,
        metrics: Sender[MetricsData] | None = None,
    ) -> None:
        """Make an agent as the settings say; `spans` and `metrics` replace their senders."""
        self._ledger = Ledger()
        self._registry = Registry(ResourceFactory())
        self._has_news = False
        self._drained_s = -DRAIN_TIMEOUT_S
        self._lock = threading.Lock()
        self._unsettled: Counter[str] = Counter()
        self._just_settled: Counter[str] = Counter()
        self.on_settled: Callable[[], None] = lambda: None
        self._spans: SpanPipeline[Any] | None = None
        self._metrics: MetricPipeline | None = None
        if (route := (spans, RequestEncoder()) if spans else span_route(settings.traces)) is not None:
            self._spans = SpanPipeline(*route, self._registry.resource, self._ledger, settings, self._settled)
        if (to_metrics := metrics or metric_sender(settings.metrics)) is not None:
            collector = Collector(self._registry, self._ledger, self._queues, time.time_ns())
            self._metrics = MetricPipeline(
                to_metrics, collector, self._registry, self._ledger, settings.metric_interval_s
            )

    @property
    def totals(self) -> Totals:
        """What was exported and dropped so far."""
        return self._ledger.totals()

    @property
    def has_news(self) -> bool:
        """Whether something was fed since the last drain."""
        return self._has_news

    def start(self) -> None:
        """Begin to export."""
        for pipeline in self._pipelines():
            pipeline.start()

    def feed(self, record: ProcessTelemetry | GraphState | ServerTelemetry) -> None:
        """Take a record over. Never waits for an export."""
        self._has_news = True
        if isinstance(record, (GraphState, ServerTelemetry)):
            self._registry.tell(record)
            return
        process = self._registry.apply(record)
        rows = record.batch.spans
        if not rows:
            return
        count = len(rows) // ROW_BYTES
        with self._lock:
            self._unsettled[record.link_id] += count
        if self._spans is not None:
            self._spans.offer(process, record.anchor, rows)
        else:
            self._ledger.dropped("span", "not_wanted", count)
            self._settled(record.link_id, count)

    def unsettled(self) -> dict[str, int]:
        """Spans, by link, that were fed and neither exported nor given up yet; `take_settled` begins from here."""
        with self._lock:
            self._just_settled.clear()
            return dict(self._unsettled)

    def take_settled(self) -> dict[str, int]:
        """Spans, by link, that were exported or given up since the last call."""
        with self._lock:
            settled, self._just_settled = self._just_settled, Counter()
        return dict(settled)

    def _settled(self, link_id: str, count: int) -> None:
        with self._lock:
            self._just_settled[link_id] += count
            self._unsettled[link_id] -= count
            if not self._unsettled[link_id]:
                del self._unsettled[link_id]
        self.on_settled()

    def rejoined(self) -> None:
        """The connection was lost and is back; processes that are still there will show up again."""
        self._registry.doubt_all()

    def end_missing(self) -> None:
        """Processes that did not show up since `rejoined` have ended."""
        self._registry.end_unconfirmed()

    def drain(self, timeout_s: float = DRAIN_TIMEOUT_S, *, is_last: bool = False) -> bool:
        """Export everything there is: spans first, then the metrics that count them.

        Args:
            timeout_s: How long that may take.
            is_last: Give up spans that are not taken in time, so that the metrics tell of these, too.

        Returns:
            Whether all of it was taken in time.
        """
        self._has_news = False
        self._drained_s = time.monotonic()
        deadline_s = self._drained_s + timeout_s
        spans_ok = self._spans is None or self._spans.flush(max(0.0, timeout_s - METRICS_SHARE_S))
        if is_last and self._spans is not None and not spans_ok:
            self._spans.give_up()
        metrics_ok = self._metrics is None or self._metrics.flush(max(0.0, deadline_s - time.monotonic()))
        return spans_ok and metrics_ok

    def stop(self) -> bool:
        """Export what came since the last drain, then end, in less than 2 s whatever the receivers do.

        A drain just before counts: together they take no longer.

        Returns:
            Whether the pipelines' threads have ended; one that hangs in an export is a daemon and left behind.
        """
        if self._has_news:
            since_s = time.monotonic() - self._drained_s
            left_s = DRAIN_TIMEOUT_S - since_s if since_s < DRAIN_TIMEOUT_S else DRAIN_TIMEOUT_S
            self.drain(left_s, is_last=True)
        ended = [pipeline.stop(JOIN_TIMEOUT_S) for pipeline in self._pipelines()]
        self._report()
        return all(ended)

    def _report(self) -> None:
        """Say what was lost: the metrics that tell may not have been taken either."""
        totals = self.totals
        lost = [f"{reason} {count}" for (kind, reason), count in totals.dropped.items() if kind == "span" and count]
        if lost:
            logger.warning("%d spans were exported; others were not: %s", totals.exported["span"], ", ".join(lost))

    def _pipelines(self) -> Iterator[SpanPipeline[Any] | MetricPipeline]:
        if self._spans is not None:
            yield self._spans
        if self._metrics is not None:
            yield self._metrics

    def _queues(self) -> dict[Signal, tuple[int, int]]:
        return {} if self._spans is None else {"traces": (self._spans.usage, self._spans.limit)}
