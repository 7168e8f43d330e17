"""What is measured: one cell is one measure over one transport with one payload."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

TRANSPORTS = ("local", "shm", "tcp")
PAYLOADS = ("ndarray-64B", "dataclass-64B", "ndarray-1MB", "ndarray-8MB")
NUM_BUFFERS = 32


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    unit: str
    higher_is_better: bool


RATE = Metric("rate", "msgs/s", higher_is_better=True)
MEDIAN = Metric("median", "µs", higher_is_better=False)
P99 = Metric("p99", "µs", higher_is_better=False)

METRICS = {"throughput": (RATE,), "fanout": (RATE,), "roundtrip": (MEDIAN, P99)}


@dataclass(frozen=True, slots=True)
class Cell:
    measure: str
    """A key of METRICS."""
    transport: str
    """local: one process and loop; shm, tcp: two processes."""
    payload: str
    subscribers: int = 1
    """All in one process; more than one only for fan-out."""

    @property
    def name(self) -> str:
        measure = f"{self.measure}{self.subscribers}" if self.measure == "fanout" else self.measure
        return f"{measure}-{self.transport}-{self.payload}"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return METRICS[self.measure]

    @property
    def two_processes(self) -> bool:
        return self.transport != "local"


DEFAULT = (
    *(Cell("throughput", transport, payload) for transport in TRANSPORTS for payload in PAYLOADS),
    *(Cell("roundtrip", transport, "ndarray-64B") for transport in TRANSPORTS),
)
EXTRA = (
    *(Cell("throughput", transport, "ndarray-1MB-summed") for transport in TRANSPORTS),
    *(
        Cell("fanout", transport, payload, subscribers)
        for transport in TRANSPORTS
        for payload in ("ndarray-64B", "ndarray-1MB")
        for subscribers in (1, 4)
    ),
)
SMOKE = (Cell("throughput", "shm", "ndarray-64B"), Cell("roundtrip", "tcp", "ndarray-64B"))

BY_NAME = {cell.name: cell for cell in DEFAULT + EXTRA}


def select(cells: tuple[Cell, ...], patterns: list[str]) -> tuple[Cell, ...]:
    """The cells whose name contains one of the words, or matches it when it is a pattern such as `*-shm-*`."""
    if not patterns:
        return cells

    def is_chosen(cell: Cell) -> bool:
        return any(
            fnmatchcase(cell.name, pattern) if set(pattern) & set("*?[") else pattern in cell.name
            for pattern in patterns
        )

    return tuple(cell for cell in cells if is_chosen(cell))


def schedule(cells: tuple[Cell, ...], implementations: list[str], rounds: int) -> Iterator[tuple[int, Cell, str]]:
    """Every cell once per round and implementation, those of one cell next to each other.

    Who goes first changes from round to round, and from cell to cell: what a machine does to the first or the last
    of a group (a warm cache, a clock that slows down) hits everyone alike.
    """
    for number in range(rounds):
        for index, cell in enumerate(cells):
            first = (number + index) % len(implementations)
            for implementation in implementations[first:] + implementations[:first]:
                yield number, cell, implementation
