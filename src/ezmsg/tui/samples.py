"""Samples of the native trace, gathered by what they measure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from rich.text import Text

from ezmsg.core.graphmeta import ProfilingTraceStreamBatch
from ezmsg.tui import figures
from ezmsg.tui.livetable import Head, LiveTable

# The last values of each kind of sample, and kinds that are kept.
VALUES = 1000
KINDS = 200
HEADS = (
    Head("topic", right=False, is_address=True),
    Head("metric", 17, right=False),
    Head("samples", 7),
    Head("p50", 7),
    Head("p99", 7),
    Head("last 10", 10),
)


@dataclass(slots=True)
class _Kind:
    count: int = 0
    values: deque[float] = field(default_factory=lambda: deque[float](maxlen=VALUES))


class Samples:
    """What was sampled since `clear`, by topic and metric."""

    def __init__(self) -> None:
        """Nothing was sampled."""
        self._kinds: dict[tuple[str, str], _Kind] = {}

    def clear(self) -> None:
        """Forget all: another trace begins."""
        self._kinds = {}

    @property
    def count(self) -> int:
        """How many came."""
        return sum(kind.count for kind in self._kinds.values())

    def add(self, delivery: ProfilingTraceStreamBatch) -> bool:
        """Take what a stream brought; whether there was anything."""
        before = self.count
        for batch in delivery.batches.values():
            for sample in batch.samples:
                key = (sample.topic, sample.metric)
                kind = self._kinds.get(key)
                if kind is None:
                    if len(self._kinds) >= KINDS:
                        continue
                    kind = self._kinds[key] = _Kind()
                kind.count += 1
                kind.values.append(sample.value / 1e9)
        return self.count > before

    def show_in(self, table: LiveTable) -> None:
        """One row for each kind."""
        rows: dict[str, list[Text | str]] = {}
        for (topic, metric), kind in sorted(self._kinds.items()):
            ordered = sorted(kind.values)
            rows[f"{topic} {metric}"] = [
                topic,
                metric.removesuffix("_ns").replace("_", " "),
                str(kind.count),
                figures.duration(ordered[len(ordered) // 2]),
                figures.duration(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]),
                Text(figures.bars(list(kind.values), HEADS[-1].width), style="cyan"),
            ]
        table.show(HEADS, rows)
