"""`ezmsg perf benchmark`: runs a matrix of graphs, and writes a line of JSON for each.

The first line of the file is what was measured, and on what; the others are a `Measurement` each.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from ezmsg.core.graphcontext import GraphContext
from ezmsg.util.perf import analysis
from ezmsg.util.perf.envinfo import environment
from ezmsg.util.perf.impl import Scenario, Tally, perform
from ezmsg.util.perf.util import keep_busy, quiet


@dataclass
class Measurement:
    """One run of one scenario.

    Attributes:
        config: fanin, fanout or relay.
        comms: How messages went.
        n_clients: Publishers, subscribers or relays.
        msg_size: Bytes of a message.
        received: Messages, at all subscribers together.
        sample_rate_hz: Messages a subscriber received per second, mean of all.
        data_rate_bps: Bytes per second, likewise.
        latency_s: Mean time from sending to receiving.
        latency_median_s: Median of it, mean of all subscribers.
    """

    config: str
    comms: str
    n_clients: int
    msg_size: int
    received: int
    sample_rate_hz: float
    data_rate_bps: float
    latency_s: float
    latency_median_s: float


def scenarios(args: argparse.Namespace) -> Iterator[Scenario]:
    """The tests of a matrix."""
    for size, clients, comms, config in itertools.product(args.msg_sizes, args.n_clients, args.comms, args.configs):
        yield Scenario(config, comms, clients, size, args.num_msgs, args.num_buffers, args.max_duration)


def measured(scenario: Scenario, tallies: list[Tally]) -> Measurement:
    """What a run of a scenario amounts to."""
    # The first message is where time begins to count.
    rates = [(tally.received - 1) / tally.seconds if tally.seconds else 0.0 for tally in tallies]
    rate = statistics.fmean(rates)
    return Measurement(
        config=scenario.config,
        comms=scenario.comms,
        n_clients=scenario.n_clients,
        msg_size=scenario.msg_size,
        received=sum(tally.received for tally in tallies),
        sample_rate_hz=rate,
        data_rate_bps=rate * scenario.msg_size,
        latency_s=statistics.fmean(tally.latency_s for tally in tallies),
        latency_median_s=statistics.fmean(tally.latency_median_s for tally in tallies),
    )


def benchmark(args: argparse.Namespace) -> int:
    """Run the matrix, write `perf_NAME.txt` and `report_NAME.html`."""
    name = args.name or f"{datetime.now():%y%m%d%H%M%S}"
    path, count = Path(f"perf_{name}.txt"), 0
    total = args.repeats * args.iters * sum(1 for _ in scenarios(args))
    # What keeps it from running is told now, not after the warm-up.
    asyncio.run(_find_server())
    with quiet(True), path.open("w") as file:
        keep_busy(args.warmup)
        file.write(json.dumps(environment()) + "\n")
        for _ in range(args.repeats):
            for scenario in scenarios(args):
                for _ in range(args.iters):
                    measurement = measured(scenario, perform(scenario))
                    file.write(json.dumps(asdict(measurement)) + "\n")
                    file.flush()
                    count += 1
                    print(f"{count}/{total}  {_line(measurement)}", file=sys.stderr, flush=True)
    print(f"written to {path}")
    return analysis.write_report(path, None, Path(f"report_{name}.html"), is_shown=not args.no_browser)


async def _find_server() -> None:
    async with GraphContext():
        pass


def _line(it: Measurement) -> str:
    case = f"{it.config} {it.comms} {it.n_clients} x {it.msg_size} B"
    return f"{case}: {it.sample_rate_hz:,.0f} messages/s, {it.latency_s * 1e6:,.1f} µs"
