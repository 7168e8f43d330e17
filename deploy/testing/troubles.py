"""What goes wrong in the end: a graph that is stuck and then gone, whose spans nobody takes, and a collector that
cannot send and then is gone.

    python -m deploy.testing.troubles        # plays it, and then serves what Prometheus knows until Ctrl-C

It has a stack of its own, so that it can be played beside `deploy.testing.scenario`.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ezmsg.core as ez
from deploy.testing.alerts import await_alert
from deploy.testing.binaries import Binaries, ensure
from deploy.testing.otlp import send_old_points, send_spans
from deploy.testing.programs import Program, exporting, program
from deploy.testing.stack import Stack, StackError, wait_until
from examples.otlp_receiver import HttpReceiver
from ezmsg.core.graphmeta import ProcessControlErrorCode

SERVICE = "troubled"
STALE_S = 75.0
"""Longer than what is called stale: Prometheus is asked for a moment that is still to come, in which nothing came."""
LIMITS = "ezmsg:message_age:limit_seconds"
"""What a rule records for the first time some seconds after Prometheus has begun."""
FULL = f'ezmsg_telemetry_queue_usage{{job="{SERVICE}"}} >= ezmsg_telemetry_queue_limit'
SLOW_EXPORT = f"""histogram_quantile(0.99, sum by (ezmsg_telemetry_signal)
    (rate(ezmsg_telemetry_export_duration_seconds{{job="{SERVICE}"}}[10s]))) > 1"""
"""Spans are sent to a receiver that never answers."""
SLOW_ANSWER_S = 0.3
"""Thrice what the dashboard calls slow. A process whose loop is blocked for 0.7 s takes that long sooner or later."""
QUEUED_SPANS = 45_000
"""Of the 50000 that the collector keeps for Tempo."""


@dataclass
class Troubled:
    """What is known of it. `killed_s` is when all of the graph was killed."""

    stack: Stack
    start_s: float
    killed_s: float = 0.0
    end_s: float = 0.0


@contextlib.contextmanager
def play(binaries: Binaries, directory: Path) -> Iterator[Troubled]:
    """Play it; Prometheus still answers in the block, everything else is gone."""
    with (
        Stack(binaries, directory) as stack,
        stack.telling(),
        HttpReceiver() as hanging,
        open(directory / "graph.log", "w") as log,
    ):
        troubled = Troubled(stack, time.time())
        hanging.behave("black_hole")
        environment = exporting(
            stack.endpoint,
            SERVICE,
            EZMSG_TRACE_RATIO="1",
            OTEL_BSP_MAX_QUEUE_SIZE="8",
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{hanging.endpoint}/v1/traces",
        )
        with program(["deploy.testing.troubled"], environment, log) as graph:
            address = graph.said()
            with program(["deploy.testing.troubled", address], environment, log) as doomed:
                for alert in ("PublisherStalled", "MessageTooOld", "EventLoopLag", "TelemetryDropping"):
                    await_alert(troubled.stack.prometheus, f"Ezmsg{alert}")
                await_alert(troubled.stack.prometheus, "EzmsgBackpressure", "messaging_destination_name=STUCK/OUTPUT")
                wait_until(lambda: stack.prometheus.query(FULL), "the queue of spans of the agent is full")
                wait_until(lambda: stack.prometheus.query(LIMITS), "Prometheus knows the limits of topics")
                wait_until(lambda: stack.prometheus.query(SLOW_EXPORT), "an export of spans has taken long")
                asyncio.run(_wait_in_vain(address))
                asyncio.run(_kill_while_asked(address, doomed))
            await_alert(troubled.stack.prometheus, "EzmsgControlFailures", "by=process error_type=PROCESS_DISCONNECTED")
            await_alert(troubled.stack.prometheus, "EzmsgTelemetryDropping", "ezmsg_telemetry_reason=no_goodbye")
        troubled.killed_s = time.time()
        _fail_to_export(troubled)
        stack.collector.kill()
        await_alert(troubled.stack.prometheus, "EzmsgCollectorDown")
        troubled.end_s = time.time()
        yield troubled


async def _wait_in_vain(address: str) -> None:
    """Ask for what takes too long: a publisher that is stuck, a process whose loop is blocked."""
    async with ez.GraphContext(address) as graph:
        with contextlib.suppress(TimeoutError):
            await graph.sync(timeout=1.0)
        await graph.resume()
        took_s = 0.0
        while took_s < SLOW_ANSWER_S:
            asked_s = time.monotonic()
            await graph.process_request("DOOMED", "ANYTHING", timeout=30.0)
            took_s = time.monotonic() - asked_s


async def _kill_while_asked(address: str, doomed: Program) -> None:
    """Ask a process for something and kill it, before it answers."""
    async with ez.GraphContext(address) as graph:
        doomed.stop()
        asked = asyncio.create_task(graph.process_request("DOOMED", "ANYTHING", timeout=30.0))
        await asyncio.sleep(0)
        await graph.snapshot()  # answered after the request was passed on
        doomed.kill()
        if (answer := await asked).error_code is not ProcessControlErrorCode.PROCESS_DISCONNECTED:
            raise StackError(f"a process that was killed meanwhile answers {answer}")


def _fail_to_export(troubled: Troubled) -> None:
    """Let Prometheus refuse the points of a clock that is wrong, and Tempo want a key; then let spans pile up."""
    troubled.stack.tempo.behave("status", code="PERMISSION_DENIED")
    send_old_points(troubled.stack.endpoint)
    send_spans(troubled.stack.endpoint, 1)
    for exporter in ("otlp_http/prometheus", "otlp_grpc/tempo"):
        await_alert(troubled.stack.prometheus, "EzmsgCollectorExportFailing", f"exporter={exporter}")
    troubled.stack.tempo.stop()
    send_spans(troubled.stack.endpoint, QUEUED_SPANS)
    full = "otelcol_exporter_queue_size / otelcol_exporter_queue_capacity > 0.8"
    wait_until(lambda: troubled.stack.prometheus.query(full), "the queue of spans is full")


def main() -> None:
    """Play it and wait."""
    with tempfile.TemporaryDirectory(prefix="ezmsg-stack-") as directory, play(ensure(), Path(directory)) as troubled:
        print(f"Prometheus at {troubled.stack.prometheus.url}; Ctrl-C ends it", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(60)


if __name__ == "__main__":
    main()
