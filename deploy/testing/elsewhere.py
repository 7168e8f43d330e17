"""`python -m deploy.testing.elsewhere HOST:PORT`: of the graph, and on another host as far as its clock is concerned.

Run it where `/proc/sys/kernel/random/boot_id` is another one. It listens to the source over TCP, opens a span of its
own for each message, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

import ezmsg.core as ez


async def listen(address: str) -> None:
    """Take messages until cancelled."""
    async with ez.GraphContext(address) as graph:
        subscriber = await graph.subscriber("ELSEWHERE/INPUT")
        await graph.connect("SOURCE/OUTPUT", "ELSEWHERE/INPUT")
        print("ready", flush=True)
        while True:
            async with subscriber.recv_zero_copy() as samples:
                begin_ns = subscriber.begin_profile()
                float(samples.sum())
                subscriber.end_profile(begin_ns, "sum")


async def main(address: str) -> None:
    """Listen until standard input ends."""
    listening = asyncio.create_task(listen(address))
    await asyncio.to_thread(sys.stdin.read)
    listening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await listening


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
