"""A few words to say what endpoints record."""

from collections.abc import Sequence

from ezmsg.core.graphmeta import ProcessProfilingTraceBatch, ProfileChannelType, ProfilingTraceControl
from ezmsg.core.profiling import EdgeMetrics, ProfileRegistry, PublisherMetrics, message_clock

LOCAL, SHM, TCP = ProfileChannelType.LOCAL, ProfileChannelType.SHM, ProfileChannelType.TCP
UNKNOWN = ProfileChannelType.UNKNOWN
SECOND = 1_000_000_000


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def ids(trace: tuple[int, int, int] | None) -> tuple[bytes, int, int] | None:
    """A trace as endpoints take it: its id is bytes."""
    return None if trace is None else (trace[0].to_bytes(16, "big"), *trace[1:])


def publish(
    metrics: PublisherMetrics,
    number: int,
    start: int = 0,
    *,
    end: int | None = None,
    wait: int = 0,
    serialize: int = 0,
    size: int = 0,
    inflight: int = 1,
    trace: tuple[int, int, int] | None = None,
    links: Sequence[tuple[bytes, int]] = (),
) -> None:
    end = start if end is None else end
    metrics.sample_inflight(inflight)
    times_s = (time / 1e9 for time in (start, start, end, wait, serialize))
    of_trace = ids(trace)
    metrics.published(number, *times_s, size, 1, None if of_trace is None else (*of_trace, links))


def wait(metrics: PublisherMetrics, wait_ns: int, holder: str) -> None:
    """A publisher waited for a subscriber."""
    metrics.waits.began(message_clock(), 0, "")
    metrics.wait_ended(wait_ns, holder)


def receive(
    metrics: EdgeMetrics,
    number: int,
    *,
    origin: int = 0,
    published: int = 0,
    channel: int = 0,
    start: int = 0,
    end: int = 0,
    size: int = 0,
    trace: tuple[int, int, int] | None = None,
    error: str | None = None,
) -> None:
    times_s = (time / 1e9 for time in (origin, published, channel, start, end))
    metrics.processed(number, *times_s, size, ids(trace), error)


def begin_trace(registry: ProfileRegistry, sample_mod: int = 1, **filters: object) -> None:
    registry.set_trace_control(ProfilingTraceControl(True, sample_mod, **filters))  # type: ignore[arg-type]


def told(batch: ProcessProfilingTraceBatch) -> list[tuple[str, float, int | None]]:
    return [(sample.metric, sample.value, sample.sample_seq) for sample in batch.samples]
