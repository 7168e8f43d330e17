"""A process of a graph whose server is lost: `python lossworker.py ROLE ADDRESS ...`.

`send ... TOPIC WAY` publishes numbers on TOPIC/IN, which an edge of its own leads to TOPIC, over `shm` or `tcp`;
`receive ... TOPICS` takes them, in order and each once, or fails. A line of standard input is answered with what the
process holds; `stop` ends it with how many messages it sent, or received, of each topic.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading

import psutil

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.processclient import ProcessControlClient

PACE_S = 0.001


async def orders(done: asyncio.Event) -> None:
    """Answer what is asked, until the end."""
    me = psutil.Process()
    while (line := (await asyncio.to_thread(sys.stdin.readline)).strip()) and line != "stop":
        gc.collect()
        held = {
            "descriptors": me.num_fds(),
            "threads": threading.active_count(),
            "tasks": len(asyncio.all_tasks()),
            "megabytes": me.memory_info().rss >> 20,
        }
        print(json.dumps(held), flush=True)
    done.set()


async def send(address: str, topic: str, way: str) -> None:
    """Publish until told to stop."""
    process = ProcessControlClient(address)
    await process.register([topic])
    async with GraphContext(address) as context:
        await context.connect(f"{topic}/IN", topic)
        publisher = await context.publisher(f"{topic}/IN", force_tcp=way == "tcp", allow_local=False)
        done = asyncio.Event()
        ordered = asyncio.create_task(orders(done))
        print("ready", process.client_id, flush=True)
        number = 0
        while not done.is_set():
            await publisher.broadcast((number, b"x" * 1000))
            number += 1
            await asyncio.sleep(PACE_S)
        await publisher.sync()
        print(json.dumps({topic: number}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await ordered
    await process.close()


async def receive(address: str, *topics: str) -> None:
    """Receive until told to stop."""
    process = ProcessControlClient(address)
    await process.register(["RECEIVER"])
    async with GraphContext(address) as context:
        received = dict.fromkeys(topics, 0)

        subscribers = {topic: await context.subscriber(topic) for topic in topics}

        async def take(topic: str) -> None:
            subscriber = subscribers[topic]
            while True:
                async with subscriber.recv_zero_copy() as (number, _):
                    assert number == received[topic], f"{topic}: {number} instead of {received[topic]}"
                received[topic] += 1

        done = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            taking = [tasks.create_task(take(topic)) for topic in topics]
            ordered = tasks.create_task(orders(done))
            print("ready", process.client_id, flush=True)
            await done.wait()
            for task in taking:
                task.cancel()
            await ordered
        print(json.dumps(received), flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await process.close()


ROLES = {"send": send, "receive": receive}
if __name__ == "__main__":
    asyncio.run(ROLES[sys.argv[1]](*sys.argv[2:]))
