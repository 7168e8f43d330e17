"""Measure one cell once, with the ezmsg (or whatever else) of this interpreter; print the result as one line of JSON.

python benchmarks/worker.py --implementation ours|peer|pyzmq|zenoh|iceoryx2 --cell NAME [--seconds S] [--warmup S]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import traceback
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version

import cells
import measures
import wiring
from cells import Cell
from partners import Partner, partners, serve
from wiring import Wiring, lane

DISTRIBUTIONS = {"ours": "ezmsg", "peer": "ezmsg", "zenoh": "eclipse-zenoh"}
# Starting, warming up a ring of large messages and ending, on a machine that is busy with something else.
OVERHEAD_S = 180.0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--implementation", choices=(*cells.IMPLEMENTATIONS, *cells.RIVALS), required=True)
    parser.add_argument("--cell", choices=list(cells.BY_NAME), required=True, metavar="NAME")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--warmup", type=float, default=0.3)
    parser.add_argument("--role", help="be a partner of the process that measures")
    parser.add_argument("--addresses", help="of those that were started before it (JSON)")
    return parser.parse_args(arguments)


def partners_of(options: argparse.Namespace, cell: Cell, wires: Wiring) -> AbstractAsyncContextManager[list[Partner]]:
    command = [sys.executable, __file__, "--implementation", options.implementation, "--cell", cell.name]
    return partners(cell, wires, command)


async def roundtrip(options: argparse.Namespace, cell: Cell, wires: Wiring) -> dict[str, float]:
    (receive,) = await wires.receivers(lane(cell.hops))
    async with partners_of(options, cell, wires):
        send = await wires.sender(lane(0))
        return await measures.roundtrip(send, receive, cell.payload, warmup_s=options.warmup, seconds=options.seconds)


async def handoff(options: argparse.Namespace, cell: Cell, wires: Wiring) -> dict[str, float]:
    (receive,) = await wires.receivers(lane(0))
    send = await wires.sender(lane(0))
    return await measures.handoff(send, receive, cell.payload, warmup_s=options.warmup, seconds=options.seconds)


async def throughput(options: argparse.Namespace, cell: Cell, wires: Wiring) -> dict[str, float]:
    receivers = await wires.receivers(lane(cell.hops), cell.share)
    async with partners_of(options, cell, wires) as (*others, source):

        async def stop() -> tuple[int, list[int]]:
            source.stop()
            passed = [number for other in others for number in await other.passed()]
            return sum(await source.passed()), passed

        return await measures.throughput(
            receivers,
            stop,
            cell.payload,
            flows=cell.publishers,
            warmup_s=options.warmup,
            seconds=options.seconds,
            # Every slot has been used, and has grown if it had to.
            warmup_messages=2 * cells.NUM_BUFFERS * cell.publishers,
            may_lose=wires.may_lose,
        )


MEASURES = {"roundtrip": roundtrip, "relaytime": roundtrip, "handoff": handoff}


async def measure(options: argparse.Namespace, cell: Cell) -> dict[str, float]:
    """One measurement, with everything it needs started before and ended after it."""
    async with (
        asyncio.timeout(OVERHEAD_S + options.warmup + options.seconds),
        wiring.make(options.implementation, cell) as wires,
    ):
        return await MEASURES.get(cell.measure, throughput)(options, cell, wires)


def versions(implementation: str) -> dict[str, str]:
    package = DISTRIBUTIONS.get(implementation, implementation)
    return {"python": platform.python_version(), "numpy": version("numpy"), package: version(package)}


def main() -> None:
    options = parse()
    cell = cells.BY_NAME[options.cell]
    try:
        if options.role is not None:
            asyncio.run(serve(options.implementation, cell, options.role, json.loads(options.addresses)))
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
