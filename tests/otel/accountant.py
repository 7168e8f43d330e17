"""A process that does as it is told, and knows what it did: `python accountant.py ADDRESS`.

Each line of standard input is an order: `send N` passes N messages to itself and says `sent`; `die N` does so and kills
itself at once. At the end of the lines it leaves in order.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.processclient import ProcessControlClient

UNIT = "ACCOUNTANT"


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
            for number in range(int(count)):
                await publisher.broadcast(number)
                async with subscriber.recv_zero_copy():
                    pass
            if what == b"die":
                os.kill(os.getpid(), signal.SIGKILL)
            print("sent", flush=True)
        await client.close()
    transport.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
