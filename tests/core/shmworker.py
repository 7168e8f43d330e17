"""A process that holds shared memory, for tests that kill it: `python shmworker.py ROLE [ADDRESS [NAME]]`.

It prints `ready` and what others need to know, and ends when its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys

from ezmsg.core.graphserver import GraphServer, GraphService


async def main(role: str, address: str = "127.0.0.1:0", name: str = "") -> None:
    """Be one role until standard input ends."""
    if role == "serve":
        server = GraphServer()
        server.start(address)
        print("ready", server.address, flush=True)
        sys.stdin.read()
        server.stop()
        return
    service = GraphService(address)
    context = await (service.attach_shm(name) if role == "attach" else service.create_shm(2, 4096))
    with context.buffer(1) as view:
        view[:5] = b"hello"
        kept = view
    print("ready", context.name, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    context.close()
    await context.wait_closed()
    assert bytes(kept[:5]) == b"hello"


asyncio.run(main(*sys.argv[1:]))
