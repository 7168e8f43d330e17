"""A process of a graph, for tests that kill it: `python worker.py ROLE ADDRESS TOPIC [force_tcp]`.

It prints `ready` once it is part of the graph, then one line per event, and ends when its standard input ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

import numpy as np

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.processclient import ProcessControlClient


def say(text: str) -> None:
    """One line to whoever started this."""
    print(text, flush=True)


async def end_of_input() -> None:
    """Wait until whoever started this is done with it."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    transport.close()


async def publish(context: GraphContext, topic: str, force_tcp: bool) -> None:
    """Publish numbered arrays as fast as the subscribers take them."""
    publisher = await context.publisher(topic, force_tcp=force_tcp, num_buffers=8)
    say("ready")
    number = 0
    while True:
        await publisher.broadcast(np.full(1000, number))
        number += 1
        if number % 1000 == 0:
            say(f"sent {number}")


async def subscribe(context: GraphContext, topic: str, force_tcp: bool) -> None:
    """Take messages and say how many."""
    subscriber = await context.subscriber(topic)
    say("ready")
    count = 0
    while True:
        async with subscriber.recv_zero_copy() as message:
            assert message[0] == message[-1]
            count += 1
        if count == 1 or count % 1000 == 0:
            say(f"received {count}")


async def hold(context: GraphContext, topic: str, force_tcp: bool) -> None:
    """Take one message and never let it go."""
    subscriber = await context.subscriber(topic)
    say("ready")
    async with subscriber.recv_zero_copy():
        say("holding")
        await asyncio.Event().wait()


async def idle(context: GraphContext, topic: str, force_tcp: bool) -> None:
    """Have a publisher and a registered unit, and a forked child that lives on when this process is killed."""
    await context.publisher(topic, force_tcp=force_tcp)
    await context.connect(topic, f"{topic}/BEHIND")
    client = ProcessControlClient(context.graph_address)
    await client.register([f"{topic}/UNIT"])
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    say(f"ready {child}")
    await asyncio.Event().wait()


ROLES = {"publish": publish, "subscribe": subscribe, "hold": hold, "idle": idle}


async def main(role: str, address: str, topic: str, force_tcp: bool) -> None:
    """Be one role until standard input ends."""
    async with GraphContext(address) as context:
        work = asyncio.create_task(ROLES[role](context, topic, force_tcp))
        ended = asyncio.create_task(end_of_input())
        await asyncio.wait([work, ended], return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], "force_tcp" in sys.argv))
