"""A process of the control plane, for tests that kill or stop it: `python processworker.py ROLE [ADDRESS [UNIT]]`.

It prints `ready` and what others need to know, and ends when its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.graphmeta import ProcessControlRequest, ProcessControlResponse
from ezmsg.core.graphserver import GraphServer
from ezmsg.core.processclient import ProcessControlClient


async def serve(address: str = "127.0.0.1:0") -> None:
    """Be the GraphServer."""
    server = GraphServer()
    server.start(address)
    print("ready", server.address, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.stop()


async def own(address: str, unit: str) -> None:
    """Own a unit; STUCK never ends and says that it began, anything else is an echo. Publishes what a line tells to."""

    async def handler(request: ProcessControlRequest) -> ProcessControlResponse:
        if request.operation == "STUCK":
            print("stuck", flush=True)
            await asyncio.Event().wait()
        return ProcessControlResponse(request.request_id, True, payload=request.payload)

    client = ProcessControlClient(address)
    client.set_request_handler(handler)
    await client.register([unit])
    async with GraphContext(address) as context:
        publisher = await context.publisher(f"{unit}/OUT")
        print("ready", client.client_id, flush=True)
        while count := await asyncio.to_thread(sys.stdin.readline):
            for number in range(int(count)):
                await publisher.broadcast(number)
            print("published", flush=True)
        await client.close()


async def ask(address: str, unit: str, count: str) -> None:
    """Have so many requests pending."""
    async with GraphContext(address) as context:
        asked = [asyncio.create_task(context.process_request(unit, "STUCK", timeout=60)) for _ in range(int(count))]
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for task in asked:
            task.cancel()


async def watch(address: str, last: str) -> None:
    """Read events of topology up to a number; then say how many came, and how many were missed."""
    context = GraphContext(address)
    came = missed = 0
    async for event in context.subscribe_topology_events():
        came, missed = came + 1, missed + event.missed
        if came == 1:
            print("ready", flush=True)
        if event.seq >= int(last):
            break
    print(came, missed, flush=True)
    await asyncio.to_thread(sys.stdin.read)


ROLES = {"serve": serve, "own": own, "ask": ask, "watch": watch}
asyncio.run(ROLES[sys.argv[1]](*sys.argv[2:]))
