"""Who causes waiting in the end, through publishers that wait themselves: worked out for the whole graph.

Each process says which subscriber its publishers waited for, and what was being handled meanwhile. Only all of it
together tells whose fault it is (`ezmsg.core.telemetry.culprit`), so what follows is a metric of the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ezmsg.core.telemetry.culprit import Waits, report
from ezmsg.otel.state import Process

MAX_CULPRITS = 1000
MAX_PROCESSES = 2000
"""Processes of which is remembered what was counted: one that ended may be back."""


class Culprits:
    """Adds up what happened from one look to the next: of shares that were worked out again, sums might fall."""

    def __init__(self) -> None:
        self._before: dict[str, Waits] = {}
        self._last = Waits()
        self._caused_ns: Counter[str] = Counter()

    def look(self, processes: Iterable[Process]) -> dict[str, int]:
        """Nanoseconds of waiting that each subscriber has caused up to now, by its topic."""
        added = Waits()
        for process in processes:
            who, waits = _identity(process), waits_of(process)
            added.add(waits.since(self._before.pop(who, Waits())))
            self._before[who] = waits
        while len(self._before) > MAX_PROCESSES:
            del self._before[next(iter(self._before))]
        # Processes tell what they measured at different times: who waited may be known before why.
        recently = Waits()
        recently.add(self._last)
        recently.add(added)
        self._last = added
        for culprit in report(Waits(added.blame, recently.chains, recently.held), 0.0).culprits:
            if culprit.subscription in self._caused_ns or len(self._caused_ns) < MAX_CULPRITS:
                self._caused_ns[culprit.subscription] += round(culprit.wait_seconds * 1e9)
        return dict(self._caused_ns)


def _identity(process: Process) -> str:
    """What makes it the same for receivers: then it tells what it counted before, too."""
    if process.resource is None:
        return process.link_id
    return str(process.resource.attributes["service.instance.id"])


def waits_of(process: Process) -> Waits:
    """What a process measured of waiting, since it began."""
    waits = Waits()
    for index, values in process.counters.items():
        if (endpoint := process.endpoints.get(index)) is not None:
            waits.count(endpoint.topic, values)
            if endpoint.subscription:
                waits.held[endpoint.subscription] += values.get("holding_ns", 0) / 1e9
    for (index, name, _), histogram in process.histograms.items():
        if name == "process" and (endpoint := process.endpoints.get(index)) is not None:
            waits.held[endpoint.subscription] += histogram.sum_ns / 1e9
    return waits
