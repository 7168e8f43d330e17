"""A process on one of two hosts: `python hostworker.py ROLE ADDRESS TOPIC HOST`.

It prints `ready`, answers what it is told on standard input, and ends when that ends.

serve       a GraphServer at ADDRESS
publish     numbered messages on TOPIC, from HOST; `stop` → `sent N`
quiet       a publisher that sends nothing
subscribe   messages of TOPIC, which must be 0, 1, 2 …; `until N` → `count M` as soon as there are so many
dial        connects to ADDRESS: prints the class of the error and its text
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import numpy as np

from ezmsg.core.errors import EzmsgError
from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphserver import GraphServer

PACE_S = 0.002
SMALL, LARGE, LARGE_EVERY = 100, 40_000, 16


def say(text: str) -> None:
    print(text, flush=True)


async def told() -> AsyncIterator[list[str]]:
    """What is said on standard input, to its end."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode().split()
    transport.close()


def message(number: int) -> np.ndarray:
    """Now and then one that fills the connection."""
    return np.full(LARGE if number % LARGE_EVERY == 0 else SMALL, number)


async def serve(address: str, topic: str, host: str) -> None:
    server = GraphServer()
    server.start(address)
    say("ready")
    async for _ in told():
        pass
    server.stop()


async def publish(address: str, topic: str, host: str) -> None:
    sent = 0
    stopping = asyncio.Event()

    async def stream() -> None:
        nonlocal sent
        while not stopping.is_set():
            await publisher.broadcast(message(sent))
            sent += 1
            await asyncio.sleep(PACE_S)

    async with GraphContext(address) as context:
        publisher = await context.publisher(topic, host=host, force_tcp=True, num_buffers=8)
        say("ready")
        streaming: asyncio.Task[None] | None = None
        async for command in told():
            if command == ["go"]:
                streaming = asyncio.create_task(stream())
            elif command == ["stop"] and streaming is not None:
                stopping.set()
                await streaming
                say(f"sent {sent}")


async def quiet(address: str, topic: str, host: str) -> None:
    async with GraphContext(address) as context:
        await context.publisher(topic, host=host, force_tcp=True)
        say("ready")
        async for _ in told():
            pass


async def subscribe(address: str, topic: str, host: str) -> None:
    count = 0
    reached = asyncio.Condition()

    async def receive() -> None:
        nonlocal count
        while True:
            got = await subscriber.recv()
            if len(got) != len(message(count)) or not (got == count).all():
                say(f"disorder: {got[0]} instead of {count}")
                return
            async with reached:
                count += 1
                reached.notify_all()

    async def tell(number: int) -> None:
        async with reached:
            await reached.wait_for(lambda: count >= number)
        say(f"count {count}")

    async with GraphContext(address) as context:
        subscriber = await context.subscriber(topic)
        say("ready")
        receiving = asyncio.create_task(receive())
        telling: set[asyncio.Task[None]] = set()
        async for _, number in told():
            telling.add(asyncio.create_task(tell(int(number))))
        for task in [receiving, *telling]:
            task.cancel()
        await asyncio.gather(receiving, *telling, return_exceptions=True)


async def dial(address: str, topic: str, host: str) -> None:
    try:
        async with GraphContext(address):
            say("connected")
    except (EzmsgError, OSError) as error:
        say(f"{type(error).__name__}: {error}")


ROLES = {role.__name__: role for role in (serve, publish, quiet, subscribe, dial)}

if __name__ == "__main__":
    asyncio.run(ROLES[sys.argv[1]](*sys.argv[2:]))
