"""What is 1 while it exists and would be seen for minutes after it ceased to, did it not say 0 in the end."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from ezmsg.otel.points import AttributeSet
from ezmsg.otel.semconv import MetricSpec

Info = tuple[MetricSpec, AttributeSet]

TIMES = 3
"""How often 0 is told. Should all of those exports fail, the backend forgets the series by itself."""


class Farewell:
    """Remembers which infos were told, for one exporter."""

    def __init__(self) -> None:
        self._told: AbstractSet[Info] = frozenset()
        self._leaving: dict[Info, int] = {}

    def look(self, infos: AbstractSet[Info]) -> list[Info]:
        """Those that are no more; `infos` are those that are."""
        self._leaving.update(dict.fromkeys(self._told - infos, TIMES))
        self._told = infos
        gone = [info for info in self._leaving if info not in infos]
        self._leaving = {info: self._leaving[info] - 1 for info in gone if self._leaving[info] > 1}
        return gone
