"""Measure how late a loop of 1 kHz wakes while spans leave its process; print the result as one line of JSON.

python benchmarks/wakeworker.py --way quiet|agent|thread [--endpoint URL] [--seconds S] [--rate SPANS]

The loop passes messages to itself each time it wakes, so many that `rate` spans a second become of them, in every way
the same: `quiet` makes no spans; `agent` has this package make them and an agent of the graph export them; `thread` is
the same graph with OpenTelemetry by hand, whose exporter is a thread of this process. The GraphServer has a process of
its own, as with `ezmsg serve`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from importlib.metadata import version
from typing import Any

import instruments
import wiring
from cells import Cell

PERIOD_NS = 1_000_000
NS_PER_S = 1_000_000_000
WARMUP_S = 1.5
"""An agent takes a second to begin."""
SPANS_PER_MESSAGE = 2
START_TIMEOUT_S = 90.0
CELL = Cell("throughput", "local", "ndarray-64B")


class Beat:
    """Wakes every millisecond, does its work, and notes how late it woke."""

    def __init__(self, send: Any, receive: Any, rate: float) -> None:
        self._send, self._receive = send, receive
        self._per_beat = rate / SPANS_PER_MESSAGE * PERIOD_NS / NS_PER_S
        self.messages = 0

    async def run(self, seconds: float) -> list[int]:
        """For so many seconds; how late it was, in ns, in order of size."""
        clock = time.perf_counter_ns
        late: list[int] = []
        owed, began = 0.0, clock()
        due, end = began + PERIOD_NS, began + int(seconds * NS_PER_S)
        while (now := clock()) < end:
            await asyncio.sleep(max(0, due - now) / NS_PER_S)
            woke = clock()
            late.append(woke - due)
            # Beats that were missed altogether are not caught up with.
            due += PERIOD_NS * max(1, -(-(woke - due) // PERIOD_NS))
            owed += self._per_beat
            while owed >= 1:
                owed -= 1
                await self._send(self.messages)
                async with self._receive():
                    self.messages += 1
        return sorted(late)


def serve() -> None:
    """A GraphServer until standard input ends; prints its address."""
    from ezmsg.core.graphserver import GraphServer

    server = GraphServer()
    server.start("127.0.0.1:0")
    print(json.dumps(list(server.address)), flush=True)
    sys.stdin.read()
    server.stop()


def go_before_others() -> None:
    """Give this process, as the owner of such a loop would, a core whenever it wants one, where that is allowed.

    What else goes on at a machine would hide what telemetry does; its other processes stay where they are.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


async def measure(options: argparse.Namespace, address: list[Any]) -> dict[str, float]:
    wires: Any = wiring.EzmsgWiring(CELL, {"server": address})
    if options.way == "thread":
        wires = instruments.ByHand(wires, options.endpoint)
    async with wires:
        (receive,) = await wires.receivers("LANE0")
        beat = Beat(await wires.sender("LANE0"), receive, options.rate)
        await beat.run(WARMUP_S)
        before, cpu_s = beat.messages, time.process_time()
        late = await beat.run(options.seconds)
        return {
            "p50": late[len(late) // 2] / 1e3,
            "p99": late[len(late) * 99 // 100] / 1e3,
            "beats": len(late),
            "messages": beat.messages - before,
            "cpu": (time.process_time() - cpu_s) / options.seconds,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--way", choices=("quiet", "agent", "thread"), default="quiet")
    parser.add_argument("--endpoint", default="")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rate", type=float, default=5000.0, help="spans a second")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": options.endpoint} if options.way == "agent" else {}
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(
        command, env=os.environ | exporting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())
        go_before_others()
        # Its timeouts are exact to the microsecond, those of epoll to the millisecond.
        loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            found = runner.run(measure(options, address))
        server.stdin.close()
        server.wait(START_TIMEOUT_S)
    print(json.dumps({"metrics": found, "versions": {"ezmsg": version("ezmsg")}}))


if __name__ == "__main__":
    main()
