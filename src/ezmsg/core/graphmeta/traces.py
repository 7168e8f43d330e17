"""Which samples and spans a process collects, and what they look like."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self
from uuid import UUID

from ezmsg.core.graphmeta.profiling import ProfileChannelType

__all__ = [
    "ProcessProfilingTraceBatch",
    "ProfilingStreamControl",
    "ProfilingTraceControl",
    "ProfilingTraceSample",
    "ProfilingTraceStreamBatch",
    "TraceSpan",
]


@dataclass
class ProfilingTraceControl:
    """Which samples a process collects, one in `sample_mod`, until `ttl_seconds` have passed.

    `trace_rate` (traces a second and topic), `trace_ratio` (share of messages that begin one, 0 to 1; it wins) and
    `level` (`off`, `metrics` or `trace`) replace what the process was started with, for the endpoints that are selected
    and for the same time. A control that sets one of them and collects nothing (`metrics=[]`) leaves the samples, and
    the control that collects them, as they are.
    """

    enabled: bool
    sample_mod: int = 1
    publisher_topics: list[str] | None = None
    subscriber_topics: list[str] | None = None
    publisher_endpoint_ids: list[str] | None = None
    subscriber_endpoint_ids: list[str] | None = None
    metrics: list[str] | None = None
    ttl_seconds: float | None = None
    trace_rate: float | None = None
    trace_ratio: float | None = None
    level: str | None = None


@dataclass
class ProfilingTraceSample:
    """One measurement of one message; `timestamp` and `value` in ns."""

    timestamp: float
    endpoint_id: str
    topic: str
    metric: str
    value: float
    channel_kind: ProfileChannelType | None = None
    sample_seq: int | None = None
    trace_id: str | None = None
    span_id: str | None = None


@dataclass
class TraceSpan:
    """One span in the shape of OpenTelemetry: ids in lower-case hex, times in Unix nanoseconds.

    `kind` is `PRODUCER`, `CONSUMER`, `INTERNAL`, `CLIENT` or `SERVER`; `links` are `(trace_id, span_id)` pairs; `error`
    is the `error.type` of a failed operation. The same span leaves over OTLP with the same ids.
    """

    trace_id: str
    span_id: str
    parent_span_id: str | None
    name: str
    kind: str
    start_unix_ns: int
    end_unix_ns: int
    attributes: dict[str, str | int | float | bool] = field(default_factory=dict[str, str | int | float | bool])
    links: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    error: str | None = None


class Columns(Protocol):
    """What samples and spans can be made of."""

    def samples(self) -> list[ProfilingTraceSample]:
        """Make the samples."""
        ...

    def spans(self) -> list[TraceSpan]:
        """Make the spans."""
        ...


@dataclass
class ProcessProfilingTraceBatch:
    """Samples and spans of one process; `timestamp` in PROFILE_TIME ns.

    A batch that was read makes the objects in `samples`, and those in `spans`, when somebody first asks for them, and
    is pickled without them before (it has `columns` instead): they take the longest by far, and many readers want only
    some.
    """

    process_id: UUID
    pid: int
    host: str
    timestamp: float
    samples: list[ProfilingTraceSample]
    spans: list[TraceSpan] = field(default_factory=list[TraceSpan])
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    anchor_mono_ns: int = 0
    anchor_unix_ns: int = 0
    boot_id: str = ""

    def fill_later(self, columns: Columns) -> Self:
        """Make samples and spans of columns when they are asked for; returns itself."""
        del self.samples, self.spans
        self.columns = columns
        return self

    if not TYPE_CHECKING:  # or every name would be an attribute

        def __getattr__(self, name: str) -> Any:
            values = self.__dict__
            columns = values.get("columns")
            if columns is not None and name in ("samples", "spans"):
                values.setdefault(name, getattr(columns, name)())
                if {"samples", "spans"} <= values.keys():
                    values.pop("columns", None)
            if name in values:  # by now, if not by this thread
                return values[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

        def __delattr__(self, name: str) -> None:
            if "columns" in self.__dict__ and name in ("samples", "spans"):
                _ = self.samples, self.spans  # or what is gone would be made again
            object.__delattr__(self, name)


@dataclass
class ProfilingTraceStreamBatch:
    """What a profiling stream delivers at once, by process; `timestamp` in Unix seconds.

    `gap`: in the first batch of a stream that lost its server and found another: what happened. What processes measured
    while there was none is missing where they could not keep it; what they kept may be told twice.
    """

    timestamp: float
    batches: dict[UUID, ProcessProfilingTraceBatch]
    gap: str = ""


@dataclass
class ProfilingStreamControl:
    """How a profiling stream is served: seconds between batches, samples per process and batch.

    Spans come along with samples; with `include_spans` they come as soon as they are there, without any sample, and of
    processes without a ProcessControlClient, whose ids are not in `snapshot().processes`.
    """

    interval: float = 0.05
    max_samples: int = 1000
    process_ids: list[UUID] | None = None
    include_empty_batches: bool = False
    include_spans: bool = False
