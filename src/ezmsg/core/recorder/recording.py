"""What is recorded of which endpoint: by level, native trace, rates of traces, and the budgets of telemetry."""

from __future__ import annotations

import time
from typing import Final

from ezmsg.core import config
from ezmsg.core.recorder.budget import Budget
from ezmsg.core.recorder.edge import EdgeMetrics
from ezmsg.core.recorder.ids import chance
from ezmsg.core.recorder.publisher import PublisherMetrics
from ezmsg.core.recorder.selection import Selector
from ezmsg.core.recorder.subscriber import SubscriberMetrics
from ezmsg.core.recorder.tracecontrol import Sampling, TraceControl

OPERATIONS: Final = 256
"""Operations remembered, to tell when they began a trace last."""
_NO_ENDPOINT: Final = ("", "")
"""Topic and id in place of those of an endpoint: only a control for all endpoints selects them."""


class Recording:
    """Tells endpoints what to record. Callers hold the lock of the recorder, and configure anew after a change.

    Attributes:
        trace: The native trace.
        sampling: What a control changed of levels and rates.
        budget: Of rows.
        level: Where no control says otherwise.
        roots: Traces to begin a second and topic, and the share of messages that begin one instead, likewise.
        throttle: One row, and one root trace, in two to this power, to stay within the budget of telemetry as a whole.
    """

    def __init__(self) -> None:
        """Begin with the level and rates of the environment."""
        self.trace, self.sampling = TraceControl(), Sampling()
        self.budget = Budget()
        self.level = config.telemetry_level()
        self.roots: tuple[float, float | None] = (config.trace_rate_hz(), config.trace_ratio())
        self.throttle = 0
        # From when on each may begin a trace again.
        self._operations: dict[str, float] = {}

    def configure_publisher(self, metrics: PublisherMetrics) -> None:
        """Tell a publisher which messages to record."""
        selection = self.trace.for_publisher(metrics.topic, metrics.endpoint_id)
        selector = None if selection is None else metrics.selector
        if selection is not None and (selector is None or selector.selection != selection):
            selector = Selector(selection)
        level = self.sampling.level(metrics.topic, metrics.endpoint_id, self.level, is_publisher=True)
        metrics.configure(level != "off", selector, self._thin_mask)

    def configure_subscriber(self, metrics: SubscriberMetrics) -> None:
        """The same of a subscriber with its edges."""
        selection = self.trace.for_subscriber(metrics.topic, metrics.endpoint_id)
        if selection is None:
            metrics.selector = None
        elif metrics.selector is None or metrics.selector.selection != selection:
            metrics.selector = Selector(selection)
        for edge in metrics.edges.values():
            self.configure_edge(metrics, edge)

    def configure_edge(self, subscriber: SubscriberMetrics, edge: EdgeMetrics) -> None:
        """The same of an edge of a subscriber that knows it."""
        level = self.sampling.level(subscriber.topic, subscriber.endpoint_id, self.level, is_publisher=False)
        edge.configure(level != "off", subscriber.selector, self._thin_mask)

    def configure_roots(self, publisher: PublisherMetrics) -> None:
        """Tell a publisher which messages begin a trace."""
        topic, endpoint_id = publisher.topic, publisher.endpoint_id
        if self.sampling.level(topic, endpoint_id, self.level, is_publisher=True) == "off":
            publisher.configure_roots(0.0, None)
        else:
            publisher.configure_roots(*self.sampling.roots(topic, endpoint_id, self.roots))

    def begins_operation(self, operation: str) -> bool:
        """Whether an operation that is part of no trace begins one now: as messages of a publisher do."""
        (rate_hz, ratio), now_s = self.sampling.roots(*_NO_ENDPOINT, self.roots), time.monotonic()
        if not self.records_operations:
            return False
        if ratio is not None:
            return chance(ratio)
        if rate_hz <= 0 or now_s < self._operations.get(operation, 0.0):
            return False
        while len(self._operations) >= OPERATIONS:
            del self._operations[next(iter(self._operations))]
        self._operations[operation] = now_s + 1 / rate_hz
        return True

    @property
    def records_operations(self) -> bool:
        """Whether spans that belong to no message are recorded: not where all endpoints are switched off."""
        return self.sampling.level(*_NO_ENDPOINT, self.level, is_publisher=True) != "off"

    @property
    def _thin_mask(self) -> int:
        return max(self.budget.mask, (1 << self.throttle) - 1)
