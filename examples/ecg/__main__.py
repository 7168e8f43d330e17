"""`make demo`: a recorded electrocardiogram in real time through three processes, and what is seen of it.

The source plays the recording, the filter keeps 5 to 15 Hz, the detector finds heart beats. This process only looks: it
shows every edge while it runs, then one message's trace across all processes, and what arrived over OTLP.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.live import Live

from examples.ecg.messages import Heart
from examples.ecg.nodes import DISPLAY_INPUT
from examples.ecg.reference import compare, load_reference
from examples.ecg.screen import edge_table, trace_tree
from examples.otlp_receiver import HttpReceiver
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProfilingStreamControl, TraceSpan
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.processclient import ProcessControlClient

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
ROLES = ("detector", "filter", "source")
REFRESH_S = 0.5
ROOT = Path(__file__).parents[2]


@dataclass
class Seen:
    """What this process saw of the run."""

    beats_s: list[float] = field(default_factory=list[float])
    heart_rate_bpm: float | None = None
    spans: dict[str, list[TraceSpan]] = field(default_factory=lambda: defaultdict[str, list[TraceSpan]](list))
    process_of: dict[str, str] = field(default_factory=dict[str, str])


def parse_arguments() -> argparse.Namespace:
    """`--seconds`, or DEMO_SECONDS, of the recording to play."""
    parser = argparse.ArgumentParser(prog="python -m examples.ecg", description=__doc__)
    default = float(os.environ.get("DEMO_SECONDS", "15"))
    parser.add_argument(
        "--seconds", type=float, default=default, help="of the recording to play (default 15, at most 300)"
    )
    arguments = parser.parse_args()
    if not 1 <= arguments.seconds <= 300:
        parser.error(f"--seconds {arguments.seconds:g}: the recording can be played for 1 to 300 seconds")
    return arguments


@contextlib.contextmanager
def receiver_of_our_own(console: Console) -> Iterator[HttpReceiver | None]:
    """A receiver on loopback, where no endpoint is configured; telemetry goes where the variable says."""
    if os.environ.get(ENDPOINT):
        console.print(f"telemetry goes to {os.environ[ENDPOINT]} ({ENDPOINT})")
        yield None
        return
    with HttpReceiver() as receiver:
        os.environ[ENDPOINT] = receiver.endpoint
        os.environ.setdefault("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        os.environ.setdefault("OTEL_METRIC_EXPORT_INTERVAL", "1000")
        try:
            console.print(f"an OTLP receiver listens on {receiver.endpoint}; set {ENDPOINT} to use your own")
            yield receiver
        finally:
            del os.environ[ENDPOINT]


@contextlib.asynccontextmanager
async def nodes(address: str, seconds: float) -> AsyncIterator[dict[str, asyncio.subprocess.Process]]:
    """The three processes, ready; they end with the block."""
    processes: dict[str, asyncio.subprocess.Process] = {}
    try:
        for role in ROLES:
            process = processes[role] = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "examples.ecg.nodes", role, address, str(seconds),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True,
            )  # fmt: skip
            assert process.stdout is not None
            if (await process.stdout.readline()).strip() != b"ready":
                raise RuntimeError(f"the {role} process ended with exit code {await process.wait()}")
        yield processes
    finally:
        for process in processes.values():
            if process.stdin is not None:
                process.stdin.close()
        for process in processes.values():
            try:
                await asyncio.wait_for(process.communicate(), 1.5)
            except TimeoutError:
                process.kill()
                await process.wait()


async def watch_heart(context: GraphContext, seen: Seen) -> None:
    """Follow the heart until the last message."""
    subscriber = await context.subscriber(DISPLAY_INPUT)
    while True:
        async with subscriber.recv_zero_copy() as heart:
            assert isinstance(heart, Heart)
            seen.beats_s += heart.beats_s
            seen.heart_rate_bpm = heart.heart_rate_bpm
            if heart.is_last:
                return


async def watch_spans(context: GraphContext, seen: Seen, names: dict[int, str]) -> None:
    """Collect every span of the native stream."""
    stream = context.subscribe_profiling_trace(ProfilingStreamControl(interval=0.1, include_spans=True))
    async with contextlib.aclosing(stream):
        async for delivery in stream:
            for batch in delivery.batches.values():
                for span in batch.spans:
                    seen.spans[span.trace_id].append(span)
                    seen.process_of[span.span_id] = names.get(batch.pid, "display")


async def play(address: str, seconds: float, console: Console, seen: Seen) -> None:
    """Run the graph and show it."""
    async with GraphContext(address) as context:
        display = ProcessControlClient(address)
        await display.register(["DISPLAY"])
        heart = asyncio.create_task(watch_heart(context, seen))
        spans: asyncio.Task[None] | None = None
        try:
            async with nodes(address, seconds) as processes:
                names = {process.pid: role for role, process in processes.items()}
                spans = asyncio.create_task(watch_spans(context, seen, names))
                source = processes["source"].stdin
                assert source is not None
                source.write(b"start\n")
                await follow(context, heart, spans, console, seen)
        finally:
            for task in (heart, spans):
                if task is not None:
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            await display.close()


async def follow(
    context: GraphContext, heart: asyncio.Task[None], spans: asyncio.Task[None], console: Console, seen: Seen
) -> None:
    """Show the edges until the last message came."""
    loop = asyncio.get_running_loop()
    begin_s = loop.time()

    async def table() -> object:
        snapshots = await context.profiling_snapshot_all()
        return edge_table(snapshots.values(), loop.time() - begin_s, seen.heart_rate_bpm)

    with Live(console=console, auto_refresh=False, transient=False) as live:
        while not heart.done():
            await asyncio.wait([heart, spans], timeout=REFRESH_S, return_when=asyncio.FIRST_COMPLETED)
            if spans.done():
                spans.result()
            live.update(await table(), refresh=True)  # pyright: ignore[reportArgumentType]
    heart.result()
    await asyncio.sleep(1)  # what was recorded last is on its way


def report_run(console: Console, seen: Seen, seconds: float) -> bool:
    """One trace, and the beats against the reference; True when they agree."""
    if seen.spans:
        longest = max(seen.spans.values(), key=len)
        console.print("\n[bold]One message, from the electrode to the heart rate[/bold]")
        console.print(trace_tree(longest, seen.process_of))
    result = compare(seen.beats_s, load_reference(), seconds)
    agrees = abs(result.found - result.expected) <= 1 and bool(seen.spans)
    console.print(
        f"\n[bold]Heart beats[/bold] found {result.found}, reference {result.expected} "
        f"(matched {result.matched}, missed {result.missed}, extra {result.extra}): "
        + ("[green]agrees[/green]" if agrees else "[red]does not agree[/red]")
    )
    return agrees


def report_otlp(console: Console, receiver: HttpReceiver, seen: Seen) -> bool:
    """What the receiver got; True when it is what the native stream delivered."""
    spans = receiver.store.spans
    received = Counter(span.span_id for span in spans)
    native = {span.span_id for trace in seen.spans.values() for span in trace}
    names = sorted(receiver.store.metric_names())
    traces = len({span.trace_id for span in spans})
    same = native <= set(received) and max(received.values(), default=1) == 1
    console.print(
        f"\n[bold]Over OTLP[/bold] {len(spans)} spans in {traces} traces, {len(names)} metrics; "
        f"of {len(native)} spans of the native stream {len(native & set(received))} arrived, each once: "
        + ("[green]yes[/green]" if same else "[red]no[/red]")
    )
    console.print(", ".join(names), style="dim", highlight=False, soft_wrap=False)
    return same


def main() -> int:
    """Run the demo; the exit code is 0 when everything agreed."""
    arguments = parse_arguments()
    logging.getLogger("ezmsg").setLevel(logging.ERROR)
    os.environ.setdefault("EZMSG_PROCESS_NAME", "ecg-display")
    os.environ.setdefault("OTEL_SERVICE_NAME", "ecg-demo")
    console = Console(soft_wrap=True)
    seen = Seen()
    with receiver_of_our_own(console) as receiver:
        server = GraphServer()
        server.start("127.0.0.1:0")
        try:
            console.print(
                f"playing {arguments.seconds:g} s of an electrocardiogram through the graph at {server.address}"
            )
            asyncio.run(play(str(server.address), arguments.seconds, console, seen))
        finally:
            server.stop()
        agrees = report_run(console, seen, arguments.seconds)
        if receiver is not None:
            agrees = report_otlp(console, receiver, seen) and agrees
    return 0 if agrees else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
