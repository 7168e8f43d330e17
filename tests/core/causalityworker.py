"""A process of a graph in which messages lead to messages: `python causalityworker.py ROLE ADDRESS [BOOT_ID_FILE]`.

It prints `ready` once it is part of the graph, and ends when its standard input ends. A source publishes one message
for each line. With a file that says so, it is of another host.
"""

from __future__ import annotations

import asyncio
import sys

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.net import address
from ezmsg.core.processclient import ProcessControlClient


async def source(context: GraphContext, lines: asyncio.StreamReader) -> None:
    """Publish on A."""
    publisher = await context.publisher("A", force_tcp=True)
    print("ready", flush=True)
    while await lines.readline():
        await publisher.broadcast(0)


async def relay(context: GraphContext, topic: str) -> None:
    """Publish on another topic what comes on A."""
    subscriber, publisher = await context.subscriber("A"), await context.publisher(topic)
    print("ready", flush=True)
    while True:
        async with subscriber.recv_zero_copy() as message:
            await publisher.broadcast(message)


async def join(context: GraphContext) -> None:
    """Publish on D one message for each pair from B and C."""
    left, right = await context.subscriber("B"), await context.subscriber("C")
    publisher = await context.publisher("D")
    print("ready", flush=True)
    while True:
        await left.recv()
        await right.recv()
        await publisher.broadcast(0)


async def main(role: str, graph: str) -> None:
    """Play one role until standard input ends."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with GraphContext(graph) as context:
        client = ProcessControlClient(graph)
        await client.register([role.upper()])
        if role == "source":
            await source(context, lines)
        else:
            work = asyncio.create_task(join(context) if role == "join" else relay(context, role.upper()))
            await lines.read()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        await client.close()
    transport.close()


if __name__ == "__main__":
    if len(sys.argv) > 3:
        address.BOOT_ID_FILE = sys.argv[3]
    asyncio.run(main(sys.argv[1], sys.argv[2]))
