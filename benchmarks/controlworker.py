"""Measure one cell of the control plane once, with the ezmsg of this interpreter; print the result as one line of JSON.

python benchmarks/controlworker.py --cell NAME [--seconds S] [--scale F]

The GraphServer has a process of its own, as with `ezmsg serve`, and so has the partner of a cell that needs one. Only
the public API, which ours and upstream have in common.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version
from statistics import median
from time import perf_counter
from typing import Any

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import DynamicSettingsMetadata, GraphMetadata, UnitMetadata
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.processclient import ProcessControlClient

START_TIMEOUT_S = 90.0
END_TIMEOUT_S = 60.0
Address = tuple[str, int]
READERS = 50
COMPONENTS = 1000
UNIT = "SYSTEM/UNIT"
GO, THERE, BACK = "GO", "THERE", "BACK"


@dataclass(frozen=True)
class Setting:
    """Where and how much is measured: sizes are multiplied by `scale`."""

    address: Address
    seconds: float
    scale: float

    def size(self, full: int) -> int:
        return max(2, round(full * self.scale))


# -- processes --------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def process(role: str, *arguments: object) -> AsyncIterator[str]:
    """A process that plays a role until the block is left; gives the line with which it said that it is ready."""
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, __file__, "--role", role, *map(str, arguments)]
    started = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert started.stdin is not None
    assert started.stdout is not None
    try:
        line = await asyncio.wait_for(started.stdout.readline(), START_TIMEOUT_S)
        if not line:
            raise RuntimeError(f"the process of {role} ended with exit code {await started.wait()}")
        yield line.decode().strip()
        started.stdin.close()
        await asyncio.wait_for(started.wait(), END_TIMEOUT_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await started.wait()


async def until_dismissed(ready: str) -> None:
    print(ready, flush=True)
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    await reader.read()
    transport.close()


async def serve() -> None:
    server = GraphServer()
    server.start(("127.0.0.1", 0))
    await until_dismissed(str(server.address))
    server.stop()


async def own(host: str, port: str) -> None:
    client = ProcessControlClient((host, int(port)))
    await client.register([UNIT])
    await until_dismissed("ready")
    await client.close()


async def answer(host: str, port: str) -> None:
    """Publish on THERE when something comes on GO, and on BACK what comes on THERE."""
    async with GraphContext((host, int(port))) as context:
        go, there = await context.subscriber(GO), await context.subscriber(THERE)
        to_there, back = await context.publisher(THERE), await context.publisher(BACK)

        async def relay(subscriber: Any, publisher: Any) -> None:
            while True:
                async with subscriber.recv_zero_copy() as message:
                    await publisher.broadcast(message)

        # What it publishes itself on THERE is not what is measured on BACK: numbers tell them apart.
        tasks = [asyncio.create_task(relay(go, to_there)), asyncio.create_task(relay(there, back))]
        await until_dismissed("ready")
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


ROLES: dict[str, Callable[..., Awaitable[None]]] = {"serve": serve, "own": own, "answer": answer}


# -- requests ---------------------------------------------------------------------------------------------------------


async def ping(setting: Setting, in_flight: int) -> float:
    """Requests per second."""
    async with process("own", *setting.address), GraphContext(setting.address) as context:
        for _ in range(20):
            await context.process_ping(UNIT)
        answered = 0
        start = perf_counter()
        end = start + setting.seconds

        async def ask() -> None:
            nonlocal answered
            while perf_counter() < end:
                await context.process_ping(UNIT)
                answered += 1

        await asyncio.gather(*(ask() for _ in range(in_flight)))
        return answered / (perf_counter() - start)


# -- the graph --------------------------------------------------------------------------------------------------------


async def edges(setting: Setting, full: int, *, is_chain: bool) -> float:
    """Milliseconds to connect so many edges, one after the other."""
    async with GraphContext(setting.address) as context:
        await context.connect("FIRST", "EDGE")
        count = setting.size(full)
        pairs = [(f"T{n}", f"T{n + 1}") if is_chain else (f"A{n}", f"B{n}") for n in range(count)]
        start = perf_counter()
        for pair in pairs:
            await context.connect(*pair)
        return (perf_counter() - start) * 1e3


def metadata(components: int) -> GraphMetadata:
    """Units as they are, with settings of a few fields."""
    units = {}
    for number in range(components):
        address = f"SYSTEM/GROUP{number // 20}/UNIT{number}"
        units[address] = UnitMetadata(
            address=address,
            name=f"UNIT{number}",
            component_type="module.submodule.Unit",
            settings_type="module.submodule.UnitSettings",
            initial_settings=(b"x" * 100, {"gain": 1.0, "order": 4, "kind": "butter", "axis": "time"}),
            dynamic_settings=DynamicSettingsMetadata(True, f"{address}/INPUT_SETTINGS", "module.UnitSettings"),
            settings_schema=None,
            streams={},
            tasks=[],
            main=None,
            threads=[],
        )
    return GraphMetadata(1, "SYSTEM", units)


async def snapshot(setting: Setting, full_edges: int) -> float:
    """Milliseconds of a snapshot; the median of several."""
    async with GraphContext(setting.address) as context:
        await context.register_metadata(metadata(setting.size(COMPONENTS)))
        count = setting.size(full_edges)
        # One hundred sources with as many targets each, of a tenth as many topics.
        pairs = [(f"S{n // 100}", f"T{n % 100 + n // 100}") for n in range(count)]
        for begin in range(0, count, 100):
            await asyncio.gather(*(context.connect(*pair) for pair in pairs[begin : begin + 100]))
        times: list[float] = []
        end = perf_counter() + setting.seconds
        while len(times) < 3 or perf_counter() < end:
            start = perf_counter()
            found = await context.snapshot()
            times.append((perf_counter() - start) * 1e3)
            assert sum(map(len, found.graph.values())) == count
        return median(times)


# -- events -----------------------------------------------------------------------------------------------------------


async def fanout(setting: Setting, full_events: int, *, is_live: bool) -> float:
    """Events per second until the last of the readers has them all; made meanwhile, or there before."""
    count = setting.size(full_events)
    async with GraphContext(setting.address) as context:

        async def make() -> None:
            for number in range(count):
                await (context.disconnect if number % 2 else context.connect)("A", "B")

        streams = [context.subscribe_topology_events() for _ in range(READERS)]

        async def read(stream: Any) -> None:
            for _ in range(count):
                await anext(stream)

        if is_live:
            await context.connect("X", "Y")
            for stream in streams:
                await anext(stream)
        else:
            await make()
        start = perf_counter()
        await asyncio.gather(*map(read, streams), *([make()] if is_live else []))
        seconds = perf_counter() - start
        await asyncio.gather(*(stream.aclose() for stream in streams))
        return count / seconds


# -- the first message ------------------------------------------------------------------------------------------------


async def first(setting: Setting, what: str) -> float:
    """Milliseconds from making an endpoint until its first message was heard; the median of many."""
    times: list[float] = []
    async with contextlib.AsyncExitStack() as stack:
        context = await stack.enter_async_context(GraphContext(setting.address))
        if what != "both":
            await stack.enter_async_context(process("answer", *setting.address))
        go, back = await context.publisher(GO), await context.subscriber(BACK)
        end = perf_counter() + setting.seconds
        while len(times) < 5 or perf_counter() < end:
            # The other process hears it, too, and answers what it hears.
            start = perf_counter()
            match what:
                case "both":
                    made = [await context.publisher("LOCAL"), await context.subscriber("LOCAL")]
                    await made[0].broadcast(1)
                    await made[1].recv()
                case "subscriber":
                    made = [await context.subscriber(THERE)]
                    await go.broadcast(1)
                    await made[0].recv()
                case _:
                    made = [await context.publisher(THERE)]
                    await made[0].broadcast(1)
                    await back.recv()
            times.append((perf_counter() - start) * 1e3)
            if what == "subscriber":
                await back.recv()
            for endpoint in made:
                endpoint.close()
            for endpoint in made:
                await endpoint.wait_closed()
    return median(times)


# -- all of it --------------------------------------------------------------------------------------------------------

CELLS: dict[str, tuple[str, Callable[[Setting], Awaitable[float]]]] = {
    "ping-sequential": ("rate", lambda setting: ping(setting, 1)),
    "ping-32-in-flight": ("rate", lambda setting: ping(setting, 32)),
    "connect-500-pairs": ("time", lambda setting: edges(setting, 500, is_chain=False)),
    "connect-500-chain": ("time", lambda setting: edges(setting, 500, is_chain=True)),
    "snapshot-1000-edges": ("time", lambda setting: snapshot(setting, 1000)),
    "snapshot-10000-edges": ("time", lambda setting: snapshot(setting, 10000)),
    "fanout-50-live": ("rate", lambda setting: fanout(setting, 500, is_live=True)),
    "fanout-50-replay": ("rate", lambda setting: fanout(setting, 500, is_live=False)),
    "first-local": ("time", lambda setting: first(setting, "both")),
    "first-new-subscriber": ("time", lambda setting: first(setting, "subscriber")),
    "first-new-publisher": ("time", lambda setting: first(setting, "publisher")),
}
"""By name: the metric, and what measures it."""


async def measure(options: argparse.Namespace) -> dict[str, float]:
    metric, function = CELLS[options.cell]
    async with process("serve") as line:
        host, port = line.rsplit(":", 1)
        return {metric: await function(Setting((host, int(port)), options.seconds, options.scale))}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cell", choices=list(CELLS))
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--role", choices=list(ROLES), help=argparse.SUPPRESS)
    parser.add_argument("address", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        if options.role is not None:
            asyncio.run(ROLES[options.role](*options.address))
            return
        metrics = asyncio.run(measure(options))
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    print(json.dumps({"metrics": metrics, "versions": {"ezmsg": version("ezmsg")}}))


if __name__ == "__main__":
    main()
