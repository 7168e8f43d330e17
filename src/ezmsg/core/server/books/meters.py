"""What a server measures of its own work, for exporters: durations of what it was asked, settings that changed. Pure.

Durations are kept until somebody asks for histograms, or there are many: to sort one alone takes longer than most
requests do.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np

from ezmsg.core.recorder.histograms import Histograms, Series
from ezmsg.core.recorder.rows import PROCESS_INDEX, SEPARATOR
from ezmsg.core.wire.records import ServerTelemetry

OPERATION: Final = "graph_operation"
CONTROL: Final = "process_control"
SETTINGS: Final = "settings"
WAITING: Final = 256
SERIES: Final = 1000
"""Operations and kinds of errors counted apart; further ones are counted as `other`."""


class ServerMeters:
    """Cumulative, since the server began."""

    def __init__(self) -> None:
        self._histograms = Histograms()
        self._series: dict[tuple[str, str], Series] = {}
        self._waiting: dict[Series, list[int]] = {}
        self._settings: Counter[str] = Counter()
        self._is_told = True

    @property
    def has_news(self) -> bool:
        """Whether something was measured since the last `take`."""
        return not self._is_told

    def took(self, name: str, operation: str, error: str, duration_ns: int) -> None:
        """An operation ended; `error` is the code of its refusal or empty."""
        self._is_told = False
        series = self._find(name, operation, error)
        waiting = self._waiting.setdefault(series, [])
        waiting.append(max(0, duration_ns))
        if len(waiting) >= WAITING:
            self._sort(series)

    def settings_changed(self, address: str, event: str) -> None:
        """The settings of a component are others now, or were told for the first time."""
        self._is_told = False
        label = SEPARATOR.join((address, event))
        if label not in self._settings and len(self._settings) >= SERIES:
            label = SEPARATOR.join(("other", event))
        self._settings[label] += 1

    def take(self) -> ServerTelemetry:
        """Everything."""
        for series in list(self._waiting):
            self._sort(series)
        self._is_told = True
        states = [self._histograms.state(series) for series in self._series.values()]
        return ServerTelemetry(states, {f"{SETTINGS}:{label}": count for label, count in self._settings.items()})

    def _find(self, name: str, operation: str, error: str) -> Series:
        key = name, SEPARATOR.join((operation, error))
        if key not in self._series:
            if len(self._series) >= SERIES:
                key = name, SEPARATOR.join(("other", "other" if error else ""))
            if key not in self._series:
                self._series[key] = self._histograms.open(PROCESS_INDEX, *key)
        return self._series[key]

    def _sort(self, series: Series) -> None:
        durations = np.array(self._waiting.pop(series))
        self._histograms.add(np.full(len(durations), series.slot), durations, 0)
