"""Measure one cell once, with the ezmsg (or pyzmq) of this interpreter; print the result as one line of JSON.

python benchmarks/worker.py --implementation ours|peer|pyzmq --cell NAME [--seconds S] [--warmup S]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from importlib.metadata import version
from typing import Any, TypeVar

import cells
import measures
import payloads
import wiring
from cells import Cell
from second import SecondProcess, serve

IMPLEMENTATIONS = ("ours", "peer", "pyzmq")
# Starting, warming up a ring of large messages and ending, on a machine that is busy with something else.
OVERHEAD_S = 60.0

T = TypeVar("T")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--implementation", choices=IMPLEMENTATIONS, required=True)
    parser.add_argument("--cell", choices=list(cells.BY_NAME), required=True, metavar="NAME")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--warmup", type=float, default=0.3)
    parser.add_argument("--second", metavar="ADDRESSES", help="be the second process, with these addresses (JSON)")
    return parser.parse_args(arguments)


@contextlib.asynccontextmanager
async def second_process(options: argparse.Namespace, addresses: wiring.Addresses) -> AsyncIterator[SecondProcess]:
    arguments = [__file__, "--implementation", options.implementation, "--cell", options.cell]
    async with SecondProcess([*arguments, "--second", json.dumps(addresses)]) as process:
        yield process


@contextlib.asynccontextmanager
async def task_beside(coroutine: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """The other end in the same loop. It ends by itself, or with an error of the measurement."""
    task = asyncio.create_task(coroutine)
    try:
        yield task
        await task
    finally:
        task.cancel()


async def roundtrip(options: argparse.Namespace, cell: Cell, wires: wiring.Wiring) -> dict[str, float]:
    (receive,) = await wires.receivers("PONG")
    send = await wires.sender("PING")
    play = measures.roundtrip(send, receive, cell.payload, warmup_s=options.warmup, seconds=options.seconds)
    if cell.two_processes:
        async with second_process(options, wires.addresses) as process:
            return await process.watch(play)
    (receive_ping,) = await wires.receivers("PING")
    async with task_beside(measures.echo(await wires.sender("PONG"), receive_ping)):
        return await play


async def throughput(options: argparse.Namespace, cell: Cell, wires: wiring.Wiring) -> dict[str, float]:
    receivers = await wires.receivers("DATA", cell.subscribers)

    def count(stop: Callable[[], Awaitable[int]]) -> Coroutine[Any, Any, dict[str, float]]:
        return measures.throughput(
            receivers,
            stop,
            cell.payload,
            warmup_s=options.warmup,
            seconds=options.seconds,
            # Every slot has been used, and has grown if it had to.
            warmup_messages=2 * cells.NUM_BUFFERS,
        )

    if cell.two_processes:
        async with second_process(options, wires.addresses) as process:
            process.go()
            return await process.watch(count(process.stop))
    stopping = threading.Event()
    send = await wires.sender("DATA", cell.subscribers)
    async with task_beside(measures.pump(send, payloads.make(cell.payload), stopping)) as pumping:

        async def stop() -> int:
            stopping.set()
            return await pumping

        return await count(stop)


async def measure(options: argparse.Namespace, cell: Cell) -> dict[str, float]:
    """One measurement, with everything it needs started before and ended after it."""
    async with (
        asyncio.timeout(OVERHEAD_S + options.warmup + options.seconds),
        wiring.make(options.implementation, cell) as wires,
    ):
        return await (roundtrip if cell.measure == "roundtrip" else throughput)(options, cell, wires)


def versions(implementation: str) -> dict[str, str]:
    package = "pyzmq" if implementation == "pyzmq" else "ezmsg"
    return {"python": platform.python_version(), "numpy": version("numpy"), package: version(package)}


def main() -> None:
    options = parse()
    cell = cells.BY_NAME[options.cell]
    try:
        if options.second is not None:
            asyncio.run(serve(options.implementation, cell, json.loads(options.second)))
            return
        result = asyncio.run(measure(options, cell))
    except Exception:
        # The error is the last word: nothing that an interrupted program says while it is taken down hides it.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    print(json.dumps({"metrics": result, "versions": versions(options.implementation)}))


if __name__ == "__main__":
    main()
