"""`ezmsg perf hotpath`: what one message costs, from `broadcast` to the end of its reception, in one process and loop.

The transports `shm` and `tcp` do what they do between processes, but there nobody else runs beside: that shows the cost
of the code, not the latency between two processes.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import itertools
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.netprotocol import Address
from ezmsg.util.perf.envinfo import environment
from ezmsg.util.perf.util import quiet, table

OPTIONS: dict[str, dict[str, Any]] = {
    "local": {"allow_local": True, "force_tcp": False},
    "shm": {"allow_local": False, "force_tcp": False},
    "tcp": {"allow_local": False, "force_tcp": True},
}
"""How a publisher takes a transport."""
TOPIC = "hotpath"


class Case(NamedTuple):
    """One thing to measure."""

    api: str
    transport: str
    payload_size: int


@dataclass
class Result:
    """How long a message of a case took.

    Attributes:
        samples_us: Mean of each round, in µs.
        median_us: Median of the rounds.
    """

    api: str
    transport: str
    payload_size: int
    samples_us: list[float]
    median_us: float


def run(args: argparse.Namespace) -> int:
    """Measure all cases, print them, and write them to a file if so wanted."""
    cases = [Case(*case) for case in itertools.product(args.apis, args.transports, args.payload_sizes)]
    samples: dict[Case, list[float]] = {case: [] for case in cases}
    shuffled = random.Random(args.seed)
    with quiet(args.quiet):
        # Round after round: what the machine does in between hits all cases alike.
        for _ in range(args.samples):
            for case in shuffled.sample(cases, len(cases)):
                samples[case].append(measure(case, args.count, args.warmup, args.num_buffers) * 1e6)
    results = [Result(*case, samples_us=taken, median_us=statistics.median(taken)) for case, taken in samples.items()]
    print(_report(results))
    if args.json_out is not None:
        settings = {name: getattr(args, name) for name in ("count", "warmup", "samples", "num_buffers", "seed")}
        document = {"environment": environment(), "settings": settings, "results": [asdict(it) for it in results]}
        args.json_out.write_text(json.dumps(document, indent=1) + "\n")
    return 0


def _report(results: list[Result]) -> str:
    rows = [
        [
            f"{result.api} {result.transport} {result.payload_size} B",
            f"{result.median_us:.2f}",
            f"{min(result.samples_us):.2f}",
            f"{max(result.samples_us):.2f}",
            f"{1e6 / result.median_us:,.0f}",
        ]
        for result in results
    ]
    return table(["case", "median µs", "lowest", "highest", "messages/s"], rows)


def measure(case: Case, count: int, warmup: int, num_buffers: int) -> float:
    """Mean time of a message, in s."""
    payload = np.zeros(case.payload_size, np.uint8)
    options = OPTIONS[case.transport] | {"num_buffers": num_buffers}
    server = GraphServer()
    server.start("127.0.0.1:0")
    try:
        if case.api == "sync":
            return _measure_sync(server.address, payload, count, warmup, options)
        return asyncio.run(_measure_async(server.address, payload, count, warmup, options))
    finally:
        server.stop()


async def _measure_async(address: Address, payload: Any, count: int, warmup: int, options: dict[str, Any]) -> float:
    async with GraphContext(address) as context:
        subscriber = await context.subscriber(TOPIC)
        publisher = await context.publisher(TOPIC, **options)

        async def exchange(messages: int) -> float:
            began_s = time.perf_counter()
            for _ in range(messages):
                await publisher.broadcast(payload)
                async with subscriber.recv_zero_copy():
                    pass
            return time.perf_counter() - began_s

        await exchange(warmup)
        return await exchange(count) / count


def _measure_sync(address: Address, payload: Any, count: int, warmup: int, options: dict[str, Any]) -> float:
    # Whoever measures the other API only need not have this one.
    new_context: Callable[..., Any] = importlib.import_module("ezmsg.core.sync").SyncContext
    with new_context(address) as context:
        subscriber = context.create_subscription(TOPIC)
        publisher = context.create_publisher(TOPIC, **options)

        def exchange(messages: int) -> float:
            began_s = time.perf_counter()
            for _ in range(messages):
                publisher.publish(payload)
                with subscriber.recv_zero_copy():
                    pass
            return time.perf_counter() - began_s

        exchange(warmup)
        return exchange(count) / count
