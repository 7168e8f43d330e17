"""A process that does as it is told, and knows what it did: `python accountant.py ADDRESS`.

Each line of standard input is an order: `send N` passes N messages to itself and says `sent`; `window N` does so with N
windows of WINDOW messages, each with a span of its own, and one made of them; `die N` is `send N`, and kills itself
at once. At the end of the lines it leaves in order.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import ezmsg.core as ez
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.processclient import ProcessControlClient
from ezmsg.core.pubclient import Publisher
from ezmsg.core.subclient import Subscriber

UNIT = "ACCOUNTANT"
WINDOW = 4


async def send(publisher: Publisher, subscriber: Subscriber, count: int) -> None:
    for number in range(count):
        await publisher.broadcast(number)
        async with subscriber.recv_zero_copy():
            pass


async def windows(context: GraphContext, publisher: Publisher, subscriber: Subscriber, count: int) -> None:
    results, made = await context.publisher("WINDOW"), await context.subscriber("WINDOW")
    for window in range(count):
        for number in range(WINDOW):
            await publisher.broadcast(number)
        for number in range(WINDOW):
            async with subscriber.recv_zero_copy():
                with ez.profile("part", {"window": window, "number": number}):
                    pass
                if number == WINDOW - 1:
                    await results.broadcast(window)
        async with made.recv_zero_copy():
            pass


async def main(address: str) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with GraphContext(address) as context:
        client = ProcessControlClient(address)
        await client.register([UNIT])
        subscriber = await context.subscriber("ACCOUNT")
        publisher = await context.publisher("ACCOUNT")
        print("ready", flush=True)
        while order := await reader.readline():
            what, count = order.split()
            if what == b"window":
                await windows(context, publisher, subscriber, int(count))
            else:
                await send(publisher, subscriber, int(count))
            if what == b"die":
                os.kill(os.getpid(), signal.SIGKILL)
            print("sent", flush=True)
        await client.close()
    transport.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
