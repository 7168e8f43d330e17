"""What was measured since an endpoint opened: totals, histograms, and who waited for whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

__all__ = [
    "BackpressureCulprit",
    "BackpressureReport",
    "BackpressureWait",
    "EdgeProfile",
    "HistogramValue",
    "ProcessProfile",
    "ProcessProfilingSnapshot",
    "ProfileChannelType",
    "PublisherProfileSnapshot",
    "SubscriberProfileSnapshot",
]


class ProfileChannelType(Enum):
    """The transport a message came through."""

    LOCAL = "LOCAL"
    SHM = "SHM"
    TCP = "TCP"
    UNKNOWN = "UNKNOWN"


@dataclass
class PublisherProfileSnapshot:
    """Totals of a publisher, and what changed since this reader looked last; `timestamp` in PROFILE_TIME ns."""

    endpoint_id: str
    topic: str
    messages_published_total: int
    messages_published_window: int
    publish_rate_hz_window: float
    inflight_messages_current: int
    num_buffers: int
    timestamp: float


@dataclass
class SubscriberProfileSnapshot:
    """Totals of a subscriber, and what changed since this reader looked last; `timestamp` in PROFILE_TIME ns."""

    endpoint_id: str
    topic: str
    messages_received_total: int
    messages_received_window: int
    channel_kind_last: ProfileChannelType
    timestamp: float


@dataclass
class HistogramValue:
    """A base-2 exponential histogram of durations in seconds, cumulative since the endpoint opened.

    Bucket `i` of `counts` covers `(base ** (offset + i), base ** (offset + i + 1)]` with `base = 2 ** (2 ** -scale)`.
    """

    count: int
    sum: float
    min: float
    max: float
    zero_count: int
    scale: int
    offset: int
    counts: list[int]

    def quantile(self, q: float) -> float:
        """The duration below which a share `q` (0 to 1) of the values lies, in seconds; 0.0 when there are none.

        Interpolates within a bucket, so it is right to within the width of one (9 % at scale 3).
        """
        if not self.count:
            return 0.0
        rank = q * self.count
        seen: float = self.zero_count
        if rank <= seen:
            return 0.0
        step: float = 2.0**-self.scale
        for index, bucket in enumerate(self.counts):
            if bucket and seen + bucket >= rank:
                value = 2.0 ** ((self.offset + index + (rank - seen) / bucket) * step)
                return min(max(value, self.min), self.max)
            seen += bucket
        return self.max


@dataclass
class EdgeProfile:
    """What a process measured on one edge, or (with `subscription` None) on one publisher, since it opened.

    `histograms` by name: `publish`, `backpressure`, `serialize`, `interval` of a publisher; `age`, `transport`,
    `queue`, `process` of an edge. `counters` by name: `sent`, `bytes`, `backpressure_ns` of a publisher, the last also
    by the subscriber that was waited for (`blame_ns:TOPIC`), both also of a wait that is on; `consumed`, `dropped`,
    `bytes`, `clock_anomalies` of an edge, and `holding_ns`: how long the message that is handled now has been.
    """

    topic: str
    subscription: str | None
    endpoint_id: str
    channel_kind: ProfileChannelType
    counters: dict[str, int]
    histograms: dict[str, HistogramValue]


@dataclass
class ProcessProfile:
    """What a process says of itself, since it began: time it ran, what it holds, how late its event loops are.

    `memory_bytes` and `descriptors` are None where the operating system does not tell. `loop_lag` by the name of the
    event loop; `overhead` is what telemetry takes of one core (0 to 1), by signal; `task_errors` are exceptions of
    tasks that were not handling a message, by unit, task and type; `unlogged` are messages that loggers of messages did
    not write, by unit.
    """

    cpu_user_seconds: float
    cpu_system_seconds: float
    threads: int
    memory_bytes: int | None = None
    descriptors: int | None = None
    gc_collections: dict[int, int] = field(default_factory=dict[int, int])
    loop_lag: dict[str, HistogramValue] = field(default_factory=dict[str, HistogramValue])
    overhead: dict[str, float] = field(default_factory=dict[str, float])
    task_errors: dict[tuple[str, str, str], int] = field(default_factory=dict[tuple[str, str, str], int])
    unlogged: dict[str, int] = field(default_factory=dict[str, int])


@dataclass
class ProcessProfilingSnapshot:
    """Totals of all endpoints of a process; `window_seconds` since this reader looked last, 0.0 the first time."""

    process_id: UUID
    pid: int
    host: str
    window_seconds: float
    timestamp: float
    publishers: dict[str, PublisherProfileSnapshot]
    subscribers: dict[str, SubscriberProfileSnapshot]
    edges: list[EdgeProfile] = field(default_factory=list[EdgeProfile])
    recorded: dict[str, int] = field(default_factory=dict[str, int])
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    process: ProcessProfile | None = None


@dataclass
class BackpressureWait:
    """How long publishers on `topic` waited for subscribers on `subscription` to let go of messages."""

    topic: str
    subscription: str
    wait_seconds: float


@dataclass
class BackpressureCulprit:
    """How much waiting in the graph a subscriber has caused itself, not by waiting for others in turn.

    `share`: of all the waiting there was, 0 to 1.
    """

    subscription: str
    wait_seconds: float
    share: float


@dataclass
class BackpressureReport:
    """Who waited for whom within `window_seconds`, longest first, and who is to blame in the end, worst first."""

    window_seconds: float
    waits: list[BackpressureWait]
    culprits: list[BackpressureCulprit]
