"""One process of a chain, for tests: `python chain.py ROLE ADDRESS COUNT`; roles source, relay and sink.

It prints `ready` once it is part of the graph. The source sends COUNT messages for each line that comes on standard
input; all end when it ends.
"""

from __future__ import annotations

import asyncio
import sys

import numpy as np

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.processclient import ProcessControlClient


async def source(context: GraphContext, start: asyncio.Event, count: int) -> None:
    """Send numbered arrays."""
    publisher = await context.publisher("SOURCE/OUT")
    await context.connect("SOURCE/OUT", "RELAY/IN")
    print("ready", flush=True)
    while True:
        await start.wait()
        start.clear()
        publisher.resume()
        for number in range(count):
            await publisher.broadcast(np.full(100, number))
        await publisher.sync()
        print("sent", flush=True)


async def relay(context: GraphContext, start: asyncio.Event, count: int) -> None:
    """Pass messages on."""
    subscriber = await context.subscriber("RELAY/IN")
    publisher = await context.publisher("RELAY/OUT")
    await context.connect("RELAY/OUT", "SINK/IN")
    print("ready", flush=True)
    while True:
        async with subscriber.recv_zero_copy() as message:
            await publisher.broadcast(message + 1)


async def sink(context: GraphContext, start: asyncio.Event, count: int) -> None:
    """Take messages, in order."""
    subscriber = await context.subscriber("SINK/IN")
    print("ready", flush=True)
    while True:
        for number in range(count):
            async with subscriber.recv_zero_copy() as message:
                assert message[0] == number + 1
        print("received", flush=True)


ROLES = {"source": source, "relay": relay, "sink": sink}


async def main(role: str, address: str, count: int) -> None:
    """Play one role until standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    start = asyncio.Event()
    async with GraphContext(address) as context:
        client = ProcessControlClient(address)
        await client.register([role.upper()])
        work = asyncio.create_task(ROLES[role](context, start, count))
        while await reader.readline():
            start.set()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await client.close()
    transport.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
