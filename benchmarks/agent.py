"""What the telemetry agent can export, and what it costs.

    python -m benchmarks.agent [--seconds 60] [--rate 5000] [--protocol grpc] [--compression gzip]

1. One pipeline of the agent, from records as they come over the wire to the answer of a receiver, with its own encoder
   and with that of the SDK, in turns.
2. The agent as a process, fed by a GraphServer: its share of a core at a fixed rate, then at full rate for a while,
   with its memory.

The receiver is a process that reads every span. Rows are random where rows vary: ids, times, sizes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import psutil
from grpc import Compression
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from examples.otlp_receiver import GrpcReceiver, HttpReceiver
from examples.otlp_store import Request, Signal, Store
from ezmsg.core.control import ControlClient
from ezmsg.core.graphmeta import ProfileChannelType
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.net.address import boot_id
from ezmsg.core.recorder.rows import EXTRA, PROCESS, PUBLISH, SAMPLED, SPAN_ROW, meta_word
from ezmsg.core.wire.records import (
    ClockAnchor,
    EndpointRecord,
    OpenTelemetry,
    ProcessTelemetry,
    TelemetryBatch,
    decode_record,
    encode_record,
)
from ezmsg.otel.ledger import Ledger
from ezmsg.otel.otlp import ExporterSender, SpanRoute, span_route
from ezmsg.otel.registry import Registry
from ezmsg.otel.resource import ResourceFactory
from ezmsg.otel.settings import Settings
from ezmsg.otel.spanencoder import ObjectEncoder, SpanBatch
from ezmsg.otel.spanpipeline import SpanPipeline
from ezmsg.otel.watch import Watch

EDGES = 8
RECORD_ROWS = 1024
COMPARED = {"templates": 100_000, "SDK": 5_000}
"""Spans in each round."""
ROUNDS = 5
OUTSTANDING = 30_000
"""Spans under way at full rate; more would only wait."""
SETTLE_S = 2.0
TIMEOUT_S = 60.0


class Rows:
    """Rows of a process that passes messages on: publish and process spans of several edges, in turns."""

    def __init__(self, seed: int = 1) -> None:
        self._random = np.random.default_rng(seed)
        self._made = 0
        self.endpoints: list[EndpointRecord] = []
        for edge in range(EDGES):
            topic, unit = f"SYSTEM/STAGE{edge}/OUTPUT", f"SYSTEM/STAGE{edge}"
            source, sink = str(2 * edge).zfill(36), str(2 * edge + 1).zfill(36)
            self.endpoints += [
                EndpointRecord(2 * edge + 1, topic, "", f"{topic}:{source}", source, 3, 32, unit, "produce"),
                EndpointRecord(
                    2 * edge + 2, topic, "SYSTEM/SINK/INPUT", f"INPUT:{sink}", source, 1, 0, unit, "consume"
                ),
            ]

    def take(self, count: int) -> bytes:
        """So many new rows, as they travel."""
        numbers = self._made + np.arange(count)
        self._made += count
        rows, random = np.zeros(count, SPAN_ROW), self._random
        metas = [meta_word(PUBLISH, 2 * edge + 1, flags=SAMPLED) for edge in range(EDGES)]
        metas += [meta_word(PROCESS, 2 * edge + 2, ProfileChannelType.SHM, SAMPLED) for edge in range(EDGES)]
        rows["meta"] = np.array(metas)[numbers % len(metas)]
        rows["message_id"] = numbers // len(metas)
        rows["extra_meta"], rows["fanout"], rows["f"] = EXTRA, 2, random.integers(100, 100_000, count)
        clock = time.perf_counter_ns() - np.sort(random.integers(0, 250_000_000, count))[::-1]
        rows["a"] = clock
        is_process = numbers % len(metas) >= EDGES
        for name in "bcde":
            clock = clock + random.integers(0, 200_000, count)
            rows[name] = clock
        rows["d"][~is_process] = 0
        rows["e"][~is_process] = random.integers(1_000, 20_000, count)[~is_process]
        rows["trace_id"] = np.frombuffer(random.bytes(16 * count), "V16")
        for name in ("span_id", "parent_id"):
            rows[name] = random.integers(1, 1 << 63, count, dtype=np.uint64)
        return rows.tobytes()


# -- the receiver -----------------------------------------------------------------------------------------------------


class Counter(Store):
    """Counts spans and forgets them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def add(self, signal: Signal, headers: Mapping[str, str], request: Request) -> None:
        if signal == "traces":
            self.count += sum(len(scope.spans) for of in request.resource_spans for scope in of.scope_spans)


def receive(protocol: str) -> None:
    """Print an endpoint, then, for each line that comes, how many spans came."""
    store = Counter()
    with (GrpcReceiver if protocol == "grpc" else HttpReceiver)(store) as receiver:
        print(receiver.endpoint, flush=True)
        for _ in sys.stdin:
            print(store.count, flush=True)


class ReceiverProcess:
    """The receiver, as a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.endpoint = self._line()

    @property
    def count(self) -> int:
        """Spans that arrived."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def receiver_process(protocol: str) -> Iterator[ReceiverProcess]:
    command = [sys.executable, "-m", "benchmarks.agent", "--receive", "--protocol", protocol]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield ReceiverProcess(process)
        assert process.stdin is not None
        process.stdin.close()


# -- pipelines --------------------------------------------------------------------------------------------------------


class AsItIs:
    """An exporter of the SDK with its own encoder, for a pipeline of the agent."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, batch: SpanBatch[list[ReadableSpan]], /) -> SpanExportResult:
        return self._exporter.export(batch.spans)

    def shutdown(self) -> None:
        self._exporter.shutdown()


def sdk_route(settings: Settings) -> SpanRoute:
    """The exporter of the SDK, with its own encoder."""
    otlp = settings.traces.otlp
    assert otlp is not None
    exporter: SpanExporter
    if otlp.protocol == "grpc":
        # It refuses `none` in the variable.
        compression = Compression.Gzip if otlp.compression == "gzip" else Compression.NoCompression
        exporter = GrpcSpanExporter(endpoint=otlp.endpoint, insecure=True, compression=compression)
    else:
        exporter = HttpSpanExporter(endpoint=otlp.endpoint)
    return ExporterSender(otlp.target, AsItIs(exporter), Watch()), ObjectEncoder()


def export(route: SpanRoute, settings: Settings, frames: list[tuple[int, bytes]]) -> float:
    """Seconds of this process's CPU time for decoding records, encoding spans and sending them; all must arrive."""
    registry, ledger = Registry(ResourceFactory()), Ledger()
    pipeline = SpanPipeline(*route, registry.resource, ledger, settings)
    pipeline.start()
    expected = 0
    began_s = time.process_time()
    for frame in frames:
        record = decode_record(*frame)
        assert isinstance(record, ProcessTelemetry)
        pipeline.offer(registry.apply(record), record.anchor, record.batch.spans)
        expected += RECORD_ROWS
        while pipeline.usage > settings.span_queue // 2:
            time.sleep(0.001)
    assert pipeline.flush(TIMEOUT_S)
    took_s = time.process_time() - began_s
    pipeline.stop(TIMEOUT_S)
    assert ledger.totals().exported["span"] == expected, ledger.totals()
    return took_s


def frames_of(count: int) -> list[tuple[int, bytes]]:
    rows, anchor = Rows(), ClockAnchor(boot_id(), time.perf_counter_ns(), time.time_ns())
    made: list[tuple[int, bytes]] = []
    for seq in range(count // RECORD_ROWS):
        batch = TelemetryBatch(seq, "process", 0, rows.endpoints if seq == 0 else [], spans=rows.take(RECORD_ROWS))
        made.append(encode_record(ProcessTelemetry("link", anchor, batch)))
    return made


def compare(settings: Settings) -> None:
    """Print what a span costs by either encoder."""
    frames = {name: frames_of(count) for name, count in COMPARED.items()}
    costs: dict[str, list[float]] = {name: [] for name in COMPARED}
    for _ in range(ROUNDS):
        for name in COMPARED:
            route = span_route(settings.traces) if name == "templates" else sdk_route(settings)
            assert route is not None
            costs[name].append(export(route, settings, frames[name]) / (len(frames[name]) * RECORD_ROWS))
    print(f"{'decode, encode, send':<24}{'µs a span':>12}{'spans a second and core':>26}")
    for name, seconds in costs.items():
        print(f"{name:<24}{median(seconds) * 1e6:>12.2f}{1 / median(seconds):>26,.0f}")
    ratios = [sdk / ours for sdk, ours in zip(costs["SDK"], costs["templates"], strict=True)]
    print(f"SDK / templates: {median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})\n")


# -- the agent as a process -------------------------------------------------------------------------------------------


@dataclass
class Usage:
    """What a process needed in a span of time."""

    spans: int
    seconds: float
    cpu_s: float
    rss: list[int]

    @property
    def rate(self) -> float:
        return self.spans / self.seconds

    @property
    def share(self) -> float:
        """Of one core."""
        return self.cpu_s / self.seconds


class Deaf:
    """Answers nothing, heeds nothing."""

    def on_request(self, connection: object, record: object) -> Any:
        raise NotImplementedError

    def on_notice(self, connection: object, record: object) -> None: ...

    def on_closed(self, connection: object, error: Exception | None) -> None: ...


@contextlib.asynccontextmanager
async def measured_process(server: GraphServer, rows: Rows) -> AsyncIterator[ControlClient]:
    """A telemetry link, as a process has one."""
    client = await ControlClient.connect(server.address, Deaf(), name="benchmark")
    now = time.perf_counter_ns(), time.time_ns()
    await client.request(OpenTelemetry(os.getpid(), "host", boot_id(), "bench", now[1], *now, "link"))
    client.notify(TelemetryBatch(0, "process", now[0], rows.endpoints))
    yield client
    await client.close()


async def feed(
    client: ControlClient, receiver: ReceiverProcess, agent: psutil.Process, rows: Rows, seconds: float, rate: float
) -> Usage:
    """Deliver rows at a rate, or as fast as they are exported, and look at the agent."""
    interval_s = RECORD_ROWS / rate if rate else 0.0
    began_s, before, already = time.monotonic(), cpu_s(agent), receiver.count
    sent, rss, seq = 0, [agent.memory_info().rss], 1
    while (elapsed_s := time.monotonic() - began_s) < seconds:
        if elapsed_s > len(rss):
            rss.append(agent.memory_info().rss)
        while not rate and sent - (receiver.count - already) > OUTSTANDING:
            await asyncio.sleep(0.01)
        client.notify(TelemetryBatch(seq, "process", 0, spans=rows.take(RECORD_ROWS)))
        sent, seq = sent + RECORD_ROWS, seq + 1
        await asyncio.sleep(max(0.0, began_s + seq * interval_s - time.monotonic()))
    arrived, took_s = receiver.count - already, time.monotonic() - began_s
    usage = Usage(arrived, took_s, cpu_s(agent) - before, rss)
    async with asyncio.timeout(TIMEOUT_S):
        while receiver.count - already < sent:
            await asyncio.sleep(0.05)
    return usage


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def watch_agent(receiver: ReceiverProcess, seconds: float, rate: float) -> None:
    """Print what the agent of a GraphServer needs, first at a rate, then at full rate."""
    server = GraphServer()
    server.start("127.0.0.1:0")
    try:
        (agent,) = (child for child in psutil.Process().children() if "ezmsg.otel" in child.cmdline())
        rows = Rows()
        async with measured_process(server, rows) as client:
            await asyncio.sleep(SETTLE_S)
            for name, wanted, for_s in (("fixed rate", rate, min(seconds, 15.0)), ("full rate", 0.0, seconds)):
                usage = await feed(client, receiver, agent, rows, for_s, wanted)
                first, last = usage.rss[0] / 1e6, usage.rss[-1] / 1e6
                print(
                    f"{name:<12}{usage.rate:>10,.0f} spans/s {usage.share:>8.1%} of a core   memory: "
                    f"{first:.0f} MB at first, {max(usage.rss) / 1e6:.0f} MB at most, {last:.0f} MB after {for_s:.0f} s"
                )
    finally:
        await asyncio.to_thread(server.stop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long at full rate")
    parser.add_argument("--rate", type=float, default=5000.0, help="spans a second of the fixed rate")
    parser.add_argument("--protocol", default="http/protobuf", choices=["http/protobuf", "grpc"])
    parser.add_argument("--compression", default="none", choices=["none", "gzip"])
    parser.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.receive:
        receive(options.protocol)
        return
    with receiver_process(options.protocol) as receiver:
        os.environ |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": options.protocol,
            "OTEL_EXPORTER_OTLP_COMPRESSION": options.compression,
        }
        compare(Settings.from_environment())
        asyncio.run(watch_agent(receiver, options.seconds, options.rate))


if __name__ == "__main__":
    main()
