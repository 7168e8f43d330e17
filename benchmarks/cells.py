"""What is measured: one cell is one measure over one transport with one payload."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

IMPLEMENTATIONS = ("ours", "peer", "pyzmq")
RIVALS = ("zenoh", "iceoryx2")
"""Measured when asked for, and only where shared memory is their point."""

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

METRICS = {
    "throughput": (RATE,),
    "fanout": (RATE,),
    "fanin": (RATE,),
    "relay": (RATE,),
    "roundtrip": (MEDIAN, P99),
    "relaytime": (MEDIAN, P99),
    "handoff": (MEDIAN,),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """Messages go from the publishers over the hops to the subscribers, who each get all of them.

    Hop number n takes them from lane n to lane n + 1: the publishers are on lane 0, the subscribers on the last one.
    """

    measure: str
    """A key of METRICS."""
    transport: str
    """local: one process and loop; shm, tcp: each role in a process of its own."""
    payload: str
    publishers: int = 1
    hops: int = 0
    subscribers: int = 1
    receiving: int = 1
    """Processes over which the subscribers are spread evenly; the first of them measures."""
    num_buffers: int = NUM_BUFFERS

    @property
    def name(self) -> str:
        sizes = {"fanout": self.subscribers, "fanin": self.publishers, "relay": self.hops, "relaytime": self.hops}
        spread = f"in{self.receiving}" if self.receiving > 1 else ""
        buffers = "" if self.num_buffers == NUM_BUFFERS else f"-buffers{self.num_buffers}"
        return f"{self.measure}{sizes.get(self.measure, '')}{spread}-{self.transport}-{self.payload}{buffers}"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return METRICS[self.measure]

    @property
    def share(self) -> int:
        """Subscribers of one process."""
        return self.subscribers // self.receiving

    @property
    def roles(self) -> list[str]:
        """What is done beside the measuring, each time by a task or a process: receivers first, the source last."""
        receivers = [f"receivers-{number}" for number in range(1, self.receiving)]
        hops = [f"hop-{number}" for number in reversed(range(self.hops))]
        return receivers + hops + (["source-0"] if RATE in self.metrics else [])

    def is_for(self, implementation: str) -> bool:
        return implementation not in RIVALS or self.name in FOR_RIVALS


FOR_RIVALS = ("throughput-shm-ndarray-64B", "throughput-shm-ndarray-1MB")
SIZES = ("64B", "1MB")

GROUPS = {
    "default": (
        *(Cell("throughput", transport, payload) for transport in TRANSPORTS for payload in PAYLOADS),
        *(Cell("roundtrip", transport, "ndarray-64B", hops=1) for transport in TRANSPORTS),
    ),
    "axisarray": tuple(
        Cell("throughput", transport, f"axisarray-{size}") for transport in TRANSPORTS for size in SIZES
    ),
    "buffers": tuple(
        Cell("throughput", transport, "ndarray-64B", num_buffers=number)
        for transport in TRANSPORTS
        for number in (1, 2)
    ),
    "fanin": tuple(Cell("fanin", transport, "ndarray-64B", publishers=4) for transport in ("local", "shm")),
    "fanout": tuple(
        Cell("fanout", transport, f"ndarray-{size}", subscribers=subscribers, receiving=receiving)
        for transport in TRANSPORTS
        for size in SIZES
        for subscribers, receiving in ((1, 1), (4, 1), (16, 1), (4, 4), (16, 4))
        if receiving == 1 or transport != "local"
    ),
    "handoff": (Cell("handoff", "local", "ndarray-64B"),),
    "relay": tuple(
        Cell(measure, transport, "ndarray-64B", hops=5)
        for transport in ("local", "shm")
        for measure in ("relay", "relaytime")
    ),
    "summed": tuple(Cell("throughput", transport, "ndarray-1MB-summed") for transport in TRANSPORTS),
}
DEFAULT = GROUPS["default"]
ALL = tuple(cell for group in GROUPS.values() for cell in group)
BY_NAME = {cell.name: cell for cell in ALL}
SMOKE = (BY_NAME["throughput-shm-ndarray-64B"], BY_NAME["roundtrip-tcp-ndarray-64B"])


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
            measured = [name for name in implementations if cell.is_for(name)]
            if not measured:
                continue
            first = (number + index) % len(measured)
            for implementation in measured[first:] + measured[:first]:
                yield number, cell, implementation
