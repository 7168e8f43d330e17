"""The pipeline of metrics: collects and sends at an interval. Cumulative: a failed export loses nothing."""

from __future__ import annotations

import time

from opentelemetry.sdk.metrics.export import MetricsData

from ezmsg.otel.collector import Collection, Collector
from ezmsg.otel.ledger import Ledger
from ezmsg.otel.outcome import Outcome, Sender
from ezmsg.otel.pipeline import Pipeline
from ezmsg.otel.registry import Registry


class MetricPipeline(Pipeline[MetricsData]):
    """Exports the last values of everything, and forgets ended processes once their last values were taken."""

    def __init__(
        self,
        sender: Sender[MetricsData],
        collector: Collector,
        registry: Registry,
        ledger: Ledger,
        interval_s: float,
    ) -> None:
        super().__init__("metrics", sender, ledger)
        self._collector = collector
        self._registry = registry
        self._interval_s = interval_s
        self._next_s = time.monotonic() + interval_s
        self._collection: Collection | None = None

    def _due_in_s(self, now_s: float) -> float:
        return self._next_s - now_s

    def _backlog(self) -> int:
        return 0

    def _drop_backlog(self) -> None:
        pass

    def _take(self) -> MetricsData | None:
        self._next_s = time.monotonic() + self._interval_s
        # Before the first process is there, the service has no name and nothing to tell.
        if self._registry.is_untouched:
            return None
        self._collection = self._collector.collect(time.time_ns())
        return self._collection.data

    def _settle(self, batch: MetricsData, outcome: Outcome) -> None:
        assert self._collection is not None
        if outcome.verdict != "taken":
            # From now on the breaker says when.
            self._next_s = time.monotonic()
            return
        self._ledger.exported("metric_point", self._collection.points - outcome.rejected)
        if outcome.rejected:
            self._ledger.dropped("metric_point", outcome.reason, outcome.rejected)
        self._registry.forget(self._collection.ended)
