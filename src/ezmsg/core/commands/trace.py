"""`ezmsg trace`: the spans of the graph, of the last seconds or from now on, as a file that Perfetto opens."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ezmsg.core.commands.common import add_address_argument, graph_address_from_args
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import (
    ProcessProfilingTraceBatch,
    ProfilingStreamControl,
    ProfilingTraceControl,
    ProfilingTraceStreamBatch,
    TraceSpan,
)
from ezmsg.core.telemetry.chrometrace import ProcessSpans, chrome_trace

if TYPE_CHECKING:
    from ezmsg.core.commands.common import Subparsers

logger = logging.getLogger("ezmsg")

LAST_S = 10.0
UNITS_IN_NAME = 3
STANDARD_OUTPUT = Path("-")
INTERVAL_S = 0.05
SPANS_AT_ONCE = 20_000
# Processes deliver twice a second; what they had at the end is here by then.
DELIVERY_S = 1.0
# A graph without processes says nothing.
PAUSE_S = 0.2
# A capture that is killed leaves processes tracing no longer than this.
RENEW_S = 5.0
# About 2 kB each; of more the oldest are left out, and counted.
MOST_SPANS = 1_000_000


def setup_trace_cmdline(subparsers: Subparsers) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "trace",
        help="write what messages went through, for Perfetto",
        description="Write the spans of the graph as a file for https://ui.perfetto.dev or chrome://tracing: those of "
        "the last seconds, or with --live those that come. Messages are traced as EZMSG_TRACE_RATE (one a second and "
        "source topic) and EZMSG_TRACE_RATIO say, with --every all of them.",
    )
    add_address_argument(parser)
    when = parser.add_mutually_exclusive_group()
    when.add_argument(
        "--last",
        metavar="SECONDS",
        type=_seconds,
        default=LAST_S,
        help=f"how far to go back (default: {LAST_S:g}), as far as the GraphServer remembers",
    )
    when.add_argument("--live", metavar="SECONDS", type=_seconds, help="capture from now on, for so long or to Ctrl-C")
    parser.add_argument("--every", action="store_true", help="with --live: trace every message meanwhile")
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, default=Path("trace.json"),
        help="where to write (default: trace.json); - is standard output",
    )  # fmt: skip
    parser.set_defaults(_handler=handle_trace)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return value


async def handle_trace(args: argparse.Namespace) -> int:
    """Capture, and write the file."""
    if args.every and args.live is None:
        raise ValueError("--every traces messages that are still to come: give --live SECONDS, too")
    address = graph_address_from_args(args)
    now_ns = time.time_ns()
    async with GraphContext(address, auto_start=False) as context:
        if args.live is None:
            capture = Capture(context, now_ns - round(args.last * 1e9))
            await capture.read(0.0, asyncio.Event())
        else:
            capture = Capture(context, now_ns)
            with _interrupted() as stop:
                await capture.read(args.live, stop, every=args.every)
        processes = await capture.processes()
    _write(chrome_trace(processes, {"graph": str(address)}), args.output)
    _tell(args, processes, capture.dropped)
    return 0


class Capture:
    """Collects the spans of a graph that end after `since_ns` (Unix).

    Attributes:
        dropped: Spans that were recorded and are not here, by reason.
    """

    def __init__(self, context: GraphContext, since_ns: int) -> None:
        self._context, self._since_ns = context, since_ns
        # By process and id: what a process kept while the server was away may come twice.
        self._spans: dict[tuple[UUID, str], TraceSpan] = {}
        self._told: dict[UUID, ProcessProfilingTraceBatch] = {}
        self._next: asyncio.Future[ProfilingTraceStreamBatch | None] | None = None
        self._is_over = False
        self.dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many spans there are."""
        return len(self._spans)

    async def read(self, seconds: float, stop: asyncio.Event, *, every: bool = False) -> None:
        """Take what the server has, and what comes in so many seconds or until stopped.

        Args:
            seconds: How long.
            stop: Ends it.
            every: Trace every message meanwhile, also in processes that come later.
        """
        control = ProfilingStreamControl(
            interval=INTERVAL_S, max_samples=SPANS_AT_ONCE, include_empty_batches=True, include_spans=True
        )
        end_s, renew_s = time.monotonic() + seconds, 0.0
        async with contextlib.aclosing(self._context.subscribe_profiling_trace(control)) as stream:
            try:
                while time.monotonic() < end_s and not stop.is_set() and not self._is_over:
                    if every and time.monotonic() >= renew_s:
                        renew_s = time.monotonic() + RENEW_S / 2
                        await self._trace_every_message(RENEW_S)
                    await self._take_next(stream)
            finally:
                if every and not self._is_over:
                    await self._trace_every_message(0.0)
            end_s = time.monotonic() + DELIVERY_S
            has_more = False
            while not self._is_over and (has_more or time.monotonic() < end_s):
                has_more = await self._take_next(stream)
            if self._next is not None:
                self._next.cancel()
                await asyncio.wait([self._next])

    async def processes(self) -> list[ProcessSpans]:
        """What was collected, by process, with those first that have the first unit."""
        known = {} if self._is_over else (await self._context.snapshot()).processes
        units = {process_id: process.units for process_id, process in known.items()}
        spans: dict[UUID, list[TraceSpan]] = {}
        for (process_id, _), span in self._spans.items():
            spans.setdefault(process_id, []).append(span)
        named = [ProcessSpans(_name(self._told[process], units.get(process, [])), of) for process, of in spans.items()]
        return sorted(named, key=lambda process: process.name)

    async def _take_next(self, stream: AsyncGenerator[ProfilingTraceStreamBatch, None]) -> bool:
        """Take a batch, if there is one soon; whether the server has more already."""
        # Kept, should nothing come for a while: to cancel it would end the stream.
        upcoming = self._next = self._next or asyncio.ensure_future(anext(stream, None))
        await asyncio.wait([upcoming], timeout=PAUSE_S)
        if not upcoming.done():
            return False
        self._next = None
        batch = upcoming.result()
        if batch is None:
            logger.warning("the graph ended; what is here was measured before")
            self._is_over = True
            return False
        for process_id, told in batch.batches.items():
            before = self._told.get(process_id, told).dropped
            self._told[process_id] = told
            for reason, count in told.dropped.items():
                if reason.startswith("span:"):
                    self.dropped[reason] += count - before.get(reason, 0)
            for span in told.spans:
                if span.end_unix_ns >= self._since_ns:
                    self._spans[process_id, span.span_id] = span
        while len(self._spans) > MOST_SPANS:
            del self._spans[next(iter(self._spans))]
            self.dropped["span:capture_limit"] += 1
        return any(len(told.spans) >= SPANS_AT_ONCE for told in batch.batches.values())

    async def _trace_every_message(self, ttl_s: float) -> None:
        """Have every process trace every message for so long."""
        control = ProfilingTraceControl(True, metrics=[], trace_ratio=1.0, ttl_seconds=ttl_s)
        for answer in (await self._context.set_profiling_trace_all(control)).values():
            if not answer.ok:
                logger.warning("process %s does not trace every message: %s", answer.process_id, answer.error)


@contextlib.contextmanager
def _interrupted() -> Generator[asyncio.Event]:
    """Set by Ctrl-C, which ends a capture but not the command; a second one does."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def interrupt() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):  # not in the main thread
        loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield stop
    finally:
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)


def _name(told: ProcessProfilingTraceBatch, units: list[str]) -> str:
    """What a process is called: by its units, if they are few."""
    what = ", ".join(units) if 0 < len(units) <= UNITS_IN_NAME else f"{len(units)} units" if units else "process"
    return f"{what} (pid {told.pid} on {told.host})"


def _write(file: dict[str, Any], path: Path) -> None:
    if path == STANDARD_OUTPUT:
        json.dump(file, sys.stdout, separators=(",", ":"))
        print()
        return
    with path.open("w", encoding="utf-8") as output:
        json.dump(file, output, separators=(",", ":"))


def _tell(args: argparse.Namespace, processes: list[ProcessSpans], dropped: Counter[str]) -> None:
    spans = sum(len(process.spans) for process in processes)
    where = "" if args.output == STANDARD_OUTPUT else f" to {args.output}: open it at https://ui.perfetto.dev"
    print(f"wrote {spans} spans of {len(processes)} processes{where}", file=sys.stderr)
    if not spans:
        print("no message was traced: EZMSG_TRACE_RATE says how many are, --live N --every traces all", file=sys.stderr)
    for reason, count in (+dropped).items():
        print(f"{count} spans are missing: {reason}", file=sys.stderr)
