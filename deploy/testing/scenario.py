"""What is played through the stack: a graph with faults, and a collector and a Prometheus that crash meanwhile.

    python -m deploy.testing.scenario        # plays it, and then serves what Prometheus knows until Ctrl-C

STACK_SECONDS is how long the graph runs; a minimum is needed for alerts to be evaluated and rates to be meaningful.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import ezmsg.core as ez
from deploy.testing.alerts import await_alert
from deploy.testing.binaries import Binaries, ensure
from deploy.testing.programs import INTERVAL_MS, Program, exporting, program
from deploy.testing.promql import Prometheus
from deploy.testing.stack import PATIENCE_S, Stack, wait_until
from ezmsg.core.dag import CyclicException
from ezmsg.core.graphmeta import HistogramValue, ProcessProfilingSnapshot

SERVICE, HEALTHY = "planted", "healthy"
PROCESSES = f'ezmsg_graph_process_count{{job="{SERVICE}"}}'
BOOT_ID = "/proc/sys/kernel/random/boot_id"
PLANTED = {
    "EzmsgBackpressure": "",
    "EzmsgBuffersExhausted": "",
    "EzmsgMessagesDropped": "",
    "EzmsgTaskErrors": "ezmsg_unit_address=SINK error_type=ValueError",
    "EzmsgControlFailures": "by=server error_type=CYCLE",
}
"""Alerts about faults of a graph that goes on, and what tells them from others."""
EDGES = (
    ("SOURCE/OUTPUT", "CHECK/INPUT"),
    ("SOURCE/OUTPUT", "SLOW/INPUT"),
    ("SOURCE/OUTPUT", "LEAKY/INPUT"),
    ("SLOW/OUTPUT", "SINK/INPUT"),
)
ENDPOINTS = {*EDGES, ("SOURCE/OUTPUT", ""), ("SLOW/OUTPUT", "")}

Counts = dict[tuple[str, str], int]
"""Messages sent, by topic and "", and consumed, by topic and subscription."""


def seconds() -> float:
    """How long the graph runs."""
    return float(os.environ.get("STACK_SECONDS", "24"))


@dataclass
class Played:
    """What is known of a scenario that was played; `native` as told by the native API once nothing moved any more."""

    stack: Stack
    start_s: float
    collector_killed_s: float = 0.0
    quiet_s: float = 0.0
    end_s: float = 0.0
    processes: int = 0
    native_counts: Counts = field(default_factory=dict[tuple[str, str], int])
    native_counters: dict[tuple[str, str, str], int] = field(default_factory=dict[tuple[str, str, str], int])
    native_histograms: dict[tuple[str, str, str], HistogramValue] = field(
        default_factory=dict[tuple[str, str, str], HistogramValue]
    )


@contextlib.contextmanager
def play(binaries: Binaries, directory: Path) -> Iterator[Played]:
    """Play it; the stack runs on in the block, the graph has ended."""
    with Stack(binaries, directory) as stack, stack.telling():
        played = Played(stack, time.time())
        with _graph(stack, directory) as (address, graph, elsewhere), _healthy(stack, directory) as healthy:
            _crash_and_recover(played, lambda: asyncio.run(_change_settings(address)))
            wait_until(lambda: _has_all(stack), "metrics of all edges are in Prometheus")
            scraped = "min(count_over_time(otelcol_exporter_sent_spans[30s]))"
            wait_until(
                lambda: (stack.prometheus.number(scraped) or 0) >= 2, "the collector was asked twice for its own"
            )
            for alert, labels in PLANTED.items():
                await_alert(stack.prometheus, alert, f"job={SERVICE} {labels}")
            firing = f'ALERTS{{alertstate="firing", job="{SERVICE}"}}'
            wait_until(lambda: stack.prometheus.query(firing), "an alert fires")
            played.processes = int(stack.prometheus.number(PROCESSES) or 0)
            elsewhere.end_in_order()
            wait_until(
                lambda: stack.prometheus.number(PROCESSES) == played.processes - 1, "a process less is in Prometheus"
            )
            asyncio.run(_fall_silent(address, played))
            played.quiet_s = time.time()
            graph.end_in_order()
            healthy.end_in_order()
        _await_goodbye(played)
        played.end_s = time.time()
        yield played


def _crash_and_recover(played: Played, change_settings: Callable[[], None]) -> None:
    stack, pause_s = played.stack, seconds() / 4
    sent = f'sum(messaging_client_sent_messages_total{{job="{SERVICE}"}})'
    wait_until(lambda: (stack.prometheus.number(sent) or 0) > 0, "the first messages are counted in Prometheus")
    time.sleep(pause_s)
    change_settings()
    stack.collector.kill()
    played.collector_killed_s = time.time()
    time.sleep(pause_s / 2)
    stack.collector.start()
    time.sleep(pause_s)
    stack.prometheus_server.kill()
    time.sleep(pause_s / 2)
    stack.prometheus_server.start()
    time.sleep(pause_s)


async def _change_settings(address: str) -> None:
    """Change a setting, and ask for two things that are refused: an edge that closes a cycle, an unknown setting."""
    async with ez.GraphContext(address) as graph:
        await graph.update_setting("SOURCE", "rate_hz", 120.0, timeout=30.0)
        with contextlib.suppress(CyclicException):
            await graph.connect("SINK/INPUT", "SLOW/OUTPUT")
        with contextlib.suppress(RuntimeError):
            await graph.update_setting("SOURCE", "color", "blue", timeout=30.0)


async def _fall_silent(address: str, played: Played) -> None:
    """Stop the source, and note what the native API says once every message has gone its way."""
    async with ez.GraphContext(address) as graph:
        await graph.update_setting("SOURCE", "rate_hz", 0.0, timeout=30.0)
        async with asyncio.timeout(PATIENCE_S):
            while not _is_silent(await graph.profiling_snapshot_all(timeout_per_process=30.0), played):
                await asyncio.sleep(0.2)
    # Counts are not all: what belongs to them comes with the same export or the next.
    counted_s = time.time()
    newest = f"max(timestamp({PROCESSES}))"
    wait_until(
        lambda: (played.stack.prometheus.number(newest) or 0) > counted_s + 2 * INTERVAL_MS / 1000,
        "Prometheus has two exports more",
    )


def _is_silent(snapshots: dict[UUID, ProcessProfilingSnapshot], played: Played) -> bool:
    """Note what the native API says; whether every message went its way, and nothing since Prometheus counted them."""
    played.native_counts.clear()
    for snapshot in snapshots.values():
        for edge in snapshot.edges:
            key = edge.topic, edge.subscription or ""
            for name, histogram in edge.histograms.items():
                played.native_histograms[*key, name] = histogram
            if key in ENDPOINTS:
                played.native_counters.update({(*key, name): count for name, count in edge.counters.items()})
                played.native_counts[key] = edge.counters["consumed" if edge.subscription else "sent"]
    if played.native_counts.keys() != ENDPOINTS:
        return False
    went = {edge: played.native_counts[edge] + played.native_counters[*edge, "dropped"] for edge in EDGES}
    sent = {edge: played.native_counts[edge[0], ""] for edge in EDGES}
    return went == sent and counted_messages(played.stack.prometheus) == played.native_counts


def counted_messages(prometheus: Prometheus, at_s: float | None = None) -> Counts:
    """The same, as Prometheus has them."""
    topic, subscription = "messaging_destination_name", "messaging_destination_subscription_name"
    found = prometheus.query(
        f'sum by ({topic}, {subscription}) ({{job="{SERVICE}", '
        '__name__=~"messaging_client_(sent|consumed)_messages_total"})',
        at_s,
    )
    counts = {(one["metric"][topic], one["metric"].get(subscription, "")): int(one["value"][1]) for one in found}
    return {key: count for key, count in counts.items() if key in ENDPOINTS}


def _has_all(stack: Stack) -> bool:
    return set(EDGES) <= {
        (one["messaging_destination_name"], one["messaging_destination_subscription_name"])
        for one in stack.prometheus.series(f'ezmsg_message_age_seconds{{job="{SERVICE}"}}')
    }


def _await_goodbye(played: Played) -> None:
    names = "ezmsg_publisher_message_inflight|ezmsg_publisher_buffer_limit|ezmsg_graph_process_count"
    levels = f'max({{job="{SERVICE}", __name__=~"{names}"}})'
    wait_until(lambda: played.stack.prometheus.number(levels) == 0, "all processes have said goodbye")


@contextlib.contextmanager
def _graph(stack: Stack, directory: Path) -> Iterator[tuple[str, Program, Program]]:
    environment = exporting(stack.endpoint, SERVICE)
    boot_id = directory / "boot_id"
    boot_id.write_text(f"{uuid.uuid4()}\n", encoding="utf-8")
    with open(directory / "graph.log", "w") as log, contextlib.ExitStack() as ended:
        graph = ended.enter_context(program(["deploy.testing.graph"], environment, log))
        address = graph.said()
        # Another boot id is another host, as far as clocks and shared memory are concerned.
        as_elsewhere = ("unshare", "--mount", "sh", "-c", f'mount --bind {boot_id} {BOOT_ID} && exec "$@"', "sh")
        elsewhere = ended.enter_context(program(["deploy.testing.elsewhere", address], environment, log, as_elsewhere))
        assert elsewhere.said() == "ready"
        yield address, graph, elsewhere


@contextlib.contextmanager
def _healthy(stack: Stack, directory: Path) -> Iterator[Program]:
    """A graph in which nothing is wrong, beside the other."""
    environment = exporting(stack.endpoint, HEALTHY)
    with open(directory / "healthy.log", "w") as log, program(["deploy.testing.healthy"], environment, log) as healthy:
        healthy.said()
        yield healthy


def main() -> None:
    """Play it and wait."""
    with tempfile.TemporaryDirectory(prefix="ezmsg-stack-") as directory, play(ensure(), Path(directory)) as played:
        print(f"Prometheus at {played.stack.prometheus.url}; Ctrl-C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(60)


if __name__ == "__main__":
    main()
