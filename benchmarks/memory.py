"""What our runtime keeps in memory: per process, per publisher and subscriber, and per edge.

    python -m benchmarks.memory [--count 200] [--level metrics]

The difference that many of a kind make, divided by their number, in two runs: one counts what Python allocates
(tracemalloc, which itself needs memory), the other asks the system what is resident. The GraphServer has a process of
its own, and so have far subscribers. The kernel's socket buffers are in none of the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import secrets
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

Sample = dict[str, int]
"""`heap`: allocated by Python; `private`, `shared`: resident; all in bytes. `descriptors`: open ones."""
Step = tuple[str, int, Sample]
"""What was added (empty: nothing, compare with this), how many of it, and what there is now."""

MESSAGE_BYTES = 64
COLUMNS = ("heap", "private", "shared", "descriptors")
SETTLE_S = 0.75
"""By then the telemetry thread has read its ring and made histograms of it."""
TIMEOUT_S = 120.0
LEGEND = """\
heap: allocated by Python; private, shared: resident memory of the process, of its own and shared memory it has touched
Publishers have 32 buffers. Recorder: a ring of {ring:,} bytes per thread that writes, in `heap` from the first endpoint
on, in `private` as far as it was written; it is the third line, and in none of the lines after it."""


async def sample() -> Sample:
    await asyncio.sleep(SETTLE_S)
    gc.collect()
    heap = tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux: nobody tells what is shared
        import psutil

        process = psutil.Process()
        return {"heap": heap, "private": process.memory_info().rss, "shared": 0, "descriptors": process.num_fds()}
    status = dict(line.split(":", 1) for line in lines)
    private, shared = (int(status[name].split()[0]) * 1024 for name in ("RssAnon", "RssShmem"))
    return {"heap": heap, "private": private, "shared": shared, "descriptors": len(os.listdir("/proc/self/fd"))}


class FarSubscribers:
    """Many subscribers in another process, seen from the process that publishes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def sample(self, received: int) -> Sample:
        """What there is in the other process as soon as it has received so many messages."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{received}\n".encode())
        return json.loads(await self._process.stdout.readline())

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


async def be_far(context: Any, count: int) -> None:
    """Subscribe, receive, and answer each line, which is a number of messages, with a sample."""
    received = 0

    async def drain(subscriber: Any) -> None:
        nonlocal received
        while True:
            async with subscriber.recv_zero_copy():
                received += 1

    tasks = [asyncio.create_task(drain(await context.subscriber(f"FAR{number}"))) for number in range(count)]
    while line := await asyncio.to_thread(sys.stdin.readline):
        while received < int(line):
            await asyncio.sleep(0.01)
        print(json.dumps(await sample()), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def grow(server: tuple[str, int], count: int, start_far: Callable[[], Awaitable[FarSubscribers]]) -> list[Step]:
    """Add one kind after the other."""
    import numpy as np

    steps: list[Step] = [("", 1, await sample())]

    async def add(what: str, number: int = 1) -> None:
        steps.append((what, number, await sample()))

    from ezmsg.core.graphcontext import GraphContext
    from ezmsg.core.recorder.ring import ROWS

    await add("process: importing ezmsg.core")
    async with GraphContext(server) as context:
        await add("process: a session")
        message = np.zeros(MESSAGE_BYTES // 8)
        subscriber, publisher = await context.subscriber("FIRST"), await context.publisher("FIRST")
        for _ in range(ROWS):
            await publisher.broadcast(message)
            async with subscriber.recv_zero_copy():
                pass
        await add("process: a first pair, and a recorder's ring written all over")
        publishers = [await context.publisher(f"NEAR{number}") for number in range(count)]
        await add("publisher", count)
        subscribers = [await context.subscriber(f"SUB{number}") for number in range(count)]
        await add("subscriber", count)
        for number in range(count):
            await context.connect(f"NEAR{number}", f"SUB{number}")
        await add("edge within a process", count)
        # Every buffer is used, twice.
        rounds = 2 * publishers[0].num_buffers
        for publisher, subscriber in zip(publishers, subscribers, strict=True):
            for _ in range(rounds):
                await publisher.broadcast(message)
                async with subscriber.recv_zero_copy():
                    pass
        await add("… after messages", count)
        for subscriber in subscribers:
            subscriber.close()
        for subscriber in subscribers:
            await subscriber.wait_closed()

        far = await start_far()
        before = await far.sample(0)
        await add("")
        for number in range(count):
            await context.connect(f"NEAR{number}", f"FAR{number}")
        await add("edge to another process, publishing end", count)
        far_connected = await far.sample(0)
        for publisher in publishers:
            for _ in range(rounds):
                await publisher.broadcast(message)
        far_used = await far.sample(rounds * count)
        await add("… after messages", count)
        steps += [
            ("", 1, before),
            ("edge from another process, receiving end", count, far_connected),
            ("… after messages", count, far_used),
        ]
        await far.end()
    return steps


def differences(steps: list[Step]) -> list[tuple[str, dict[str, float]]]:
    """What one of each kind adds."""
    return [
        (what, {column: (after[column] - before[column]) / number for column in COLUMNS})
        for (_, _, before), (what, number, after) in pairwise(steps)
        if what
    ]


def table(heap: list[Step], resident: list[Step]) -> str:
    """Text for people, of the run that counts allocations and of the one that does not."""
    lines = [f"{'what one adds':<62}{'heap':>12}{'private':>12}{'shared':>12}{'descriptors':>13}"]
    for (what, allocated), (_, figures) in zip(differences(heap), differences(resident), strict=True):
        merged = figures | {"heap": allocated["heap"]}
        sizes = "".join(f"{merged[name]:>12,.0f}" for name in COLUMNS[:-1])
        lines.append(f"{what:<62}{sizes}{merged['descriptors']:>13.1f}")
    return "".join(line + "\n" for line in lines)


async def play(options: argparse.Namespace) -> None:
    server = (options.host, options.port)
    if options.role == "far":
        from ezmsg.core.graphcontext import GraphContext

        async with GraphContext(server) as context:
            await be_far(context, options.count)
        return

    async def start_far() -> FarSubscribers:
        pipe = asyncio.subprocess.PIPE
        return FarSubscribers(
            await asyncio.create_subprocess_exec(*command(options, "far", *server), stdin=pipe, stdout=pipe)
        )

    print(json.dumps(await grow(server, options.count, start_far)))


def command(options: argparse.Namespace, role: str, host: str, port: int, *, traced: bool | None = None) -> list[str]:
    arguments = [sys.executable, "-m", "benchmarks.memory", "--count", str(options.count)]
    arguments += ["--role", role, "--host", host, "--port", str(port)]
    return arguments + (["--traced"] if (options.traced if traced is None else traced) else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="publishers, subscribers and edges of each kind")
    parser.add_argument("--level", default="metrics", choices=["off", "metrics", "trace"], help="EZMSG_OTEL_LEVEL")
    for name in ("--role", "--host", "--port", "--traced"):  # of the processes that this one starts
        kind: dict[str, Any] = {"action": "store_true"} if name == "--traced" else {}
        parser.add_argument(name, help=argparse.SUPPRESS, **kind)
    options = parser.parse_args()
    if options.role is not None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        if options.traced:
            tracemalloc.start()
        options.port = int(options.port)
        asyncio.run(play(options))
        return

    for name in [name for name in os.environ if name.startswith(("EZMSG_", "OTEL_"))]:
        del os.environ[name]
    os.environ |= {
        "EZMSG_AUTHKEY": secrets.token_hex(32),
        "EZMSG_OTEL_LEVEL": options.level,
        "EZMSG_DISABLE_BACKPRESSURE_WARNING": "1",
        "EZMSG_LOGLEVEL": "WARNING",
    }
    from ezmsg.core.graphserver import GraphServer
    from ezmsg.core.recorder.ring import ROWS
    from ezmsg.core.recorder.rows import ROW_BYTES

    def run(*, traced: bool) -> list[Step]:
        server = GraphServer()
        server.start()
        try:
            arguments = command(options, "near", *server.address, traced=traced)
            done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, timeout=TIMEOUT_S)
        finally:
            server.stop()
        return json.loads(done.stdout)

    print(table(run(traced=True), run(traced=False)), LEGEND.format(ring=ROWS * ROW_BYTES), sep="\n")


if __name__ == "__main__":
    main()
