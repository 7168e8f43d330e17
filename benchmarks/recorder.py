"""What the recorder costs: per message at each level, and per row when rows become histograms.

    python -m benchmarks.recorder

Every figure is printed in nanoseconds and as a multiple of one `time.perf_counter_ns()`, measured in turns with it, so
that a busy machine slows both. The least of many repetitions counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import uuid4

from ezmsg.core.graphmeta import ProfileChannelType, ProfilingTraceControl
from ezmsg.core.profiling import EdgeMetrics, ProfileRegistry, PublisherMetrics, new_span_id, new_trace_id
from ezmsg.core.recorder.rows import ROW_BYTES, pack_row
from ezmsg.core.recorder.rows import clock as message_clock

MESSAGES = 5_000
REPEATS = 60
DRAINED = 25_000
TARGETS = {"off": 3, "metrics": 16, "sampled": 40}

clock = time.perf_counter_ns
Loop = Callable[[int], None]


def empty(n: int) -> None:
    for _ in range(n):
        pass


def clock_reads(n: int) -> None:
    for _ in range(n):
        clock()


def message_loop(publisher: PublisherMetrics, edge: EdgeMetrics) -> Loop:
    """What one hop between processes records, as a broadcast and a lease do it; their clock reads not counted."""
    now_s = message_clock()

    def loop(n: int) -> None:
        for i in range(n):
            if now_s >= publisher.next_root_s:
                publisher.begin_root(now_s)
            publisher.sent = i
            if publisher.timed:
                publisher.record(i, now_s, now_s, now_s, 0.0, 0.0, 1000, 2, None)
            if not edge.is_plain:
                edge.processed(i, now_s, now_s, now_s, now_s, now_s, 1000, None)
                continue
            edge.consumed += 1
            edge.receiver.last_code = edge.code
            edge.bytes += 1000
            if edge.timed:
                ring = edge.ring
                offset = ring.head
                pack_row(
                    ring.buffer, offset & ring.mask, edge.meta, i, now_s, now_s, now_s, now_s, now_s, 1000
                )  # fmt: skip
                ring.head = offset + ROW_BYTES

    return loop


def hop_loop(publisher: PublisherMetrics, edge: EdgeMetrics) -> Loop:
    """The same within one loop: the receiver's row speaks for the publish."""
    now_s = message_clock()

    def loop(n: int) -> None:
        for i in range(n):
            if now_s >= publisher.next_root_s:
                publisher.begin_root(now_s)
            publisher.sent = i
            publisher.last_start_s = now_s
            edge.consumed += 1
            edge.receiver.last_code = edge.code
            if edge.timed:
                ring = edge.ring
                offset = ring.head
                pack_row(
                    ring.buffer, offset & ring.mask, edge.hop_meta, i, now_s, now_s, now_s, now_s, now_s, 1
                )  # fmt: skip
                ring.head = offset + ROW_BYTES

    return loop


def sampled_loop(publisher: PublisherMetrics, edge: EdgeMetrics) -> Loop:
    """The same for a message with a trace."""
    now_s = message_clock()
    publish_trace = (new_trace_id(), new_span_id(), 0, ())
    process_id = new_span_id()

    def loop(n: int) -> None:
        for i in range(n):
            publisher.sent = i
            if publisher.timed:
                publisher.record(i, now_s, now_s, now_s, 0.0, 0.0, 1000, 2, publish_trace)
            if not edge.is_plain:
                continue
            edge.consumed += 1
            edge.receiver.last_code = edge.code
            edge.bytes += 1000
            if edge.timed:
                edge.ring.put_span(
                    edge.meta, i, now_s, now_s, now_s, now_s, now_s, 1000,
                    publish_trace[0], process_id, publish_trace[1], 0.0, 0, 0,
                )  # fmt: skip

    return loop


def measure(loops: dict[str, Loop]) -> dict[str, float]:
    """Nanoseconds per turn of each loop, the loops taking turns."""
    best = dict.fromkeys(loops, float("inf"))
    for _ in range(REPEATS):
        for name, loop in loops.items():
            began = clock()
            loop(MESSAGES)
            best[name] = min(best[name], (clock() - began) / MESSAGES)
    return best


def endpoints(registry: ProfileRegistry) -> tuple[PublisherMetrics, EdgeMetrics]:
    publisher = registry.register_publisher(uuid4(), "T", 32)
    return publisher, registry.register_subscriber(uuid4(), "T").edge(publisher.id, "T", ProfileChannelType.SHM)


def hot_path() -> None:
    """Print what a message costs."""
    off, metrics, traced, thinned = (ProfileRegistry() for _ in range(4))
    for registry in (off, metrics, traced, thinned):
        registry.set_trace_sampling(0.0)
    off.set_level("off")
    traced.set_trace_control(ProfilingTraceControl(True))
    thinned.recorder.budget.mask = 15
    thinned.set_level("metrics")
    loops: dict[str, Loop] = {
        "empty": empty,
        "clock": clock_reads,
        "off": message_loop(*endpoints(off)),
        "metrics": message_loop(*endpoints(metrics)),
        "metrics, one loop": hop_loop(*endpoints(metrics)),
        "sampled": sampled_loop(*endpoints(metrics)),
        "native trace": message_loop(*endpoints(traced)),
        "thinned 1/16": message_loop(*endpoints(thinned)),
    }
    best = measure(loops)
    one = best["clock"] - best["empty"]
    print(f"one clock read: {one:.1f} ns")
    print(f"{'publish + receive':<20}{'ns':>10}{'clock reads':>14}{'target':>9}")
    for name in list(loops)[2:]:
        cost = best[name] - best["empty"]
        target = TARGETS.get(name)
        print(f"{name:<20}{cost:>10.0f}{cost / one:>14.1f}{'<= ' + str(target) if target else '':>9}")


def drain(edges: int, *, sampled_every: int = 0) -> float:
    """Nanoseconds per row, without extra rows, to read a full ring and count it, half of the rows of publishers."""
    rows = DRAINED if sampled_every != 1 else DRAINED // 2
    registry = ProfileRegistry()
    pairs = [endpoints(registry) for _ in range(edges)]
    best = float("inf")
    number = 0
    for _ in range(10):
        for i in range(rows // 2):
            publisher, edge = pairs[i % edges]
            start = 1.0 + number / 1e6
            ids = (bytes(16), number + 1, 0) if sampled_every and number % sampled_every == 0 else None
            trace = None if ids is None else (*ids, ())
            publisher.published(number // edges, start, start, start + 7e-7 + i % 5000 / 1e9, 0.0, 0.0, 100, 1, trace)
            times = (start, start + 5e-8, start + 9e-8, start + 3e-7, start + 9e-6 + i / 1e9)
            edge.processed(number // edges, *times, 100, ids)
            number += 1
        recorder = registry.recorder
        with recorder.reading:
            began = clock()
            recorder.drain()
            best = min(best, (clock() - began) / rows)
    assert registry.snapshot().recorded["row"] == 10 * rows
    return best


def reading() -> None:
    """Print what a row costs the thread that reads."""
    print(f"\n{'drain and count':<34}{'ns a row':>10}   (target < 200, {DRAINED} rows)")
    for edges in (1, 10, 200):
        print(f"{f'{edges} publishers and edges':<34}{drain(edges):>10.1f}")
    print(f"{'10, one message in 10 sampled':<34}{drain(10, sampled_every=10):>10.1f}")
    print(f"{'1, every message sampled':<34}{drain(1, sampled_every=1):>10.1f}")


if __name__ == "__main__":
    hot_path()
    reading()
