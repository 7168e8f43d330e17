"""A process with a session and units, for tests that kill it: `python controlworker.py ADDRESS`.

It prints `ready`, its session and its client id once the server knows all, and ends when its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys

from ezmsg.core.graphcontext import GraphContext
from ezmsg.core.processclient import ProcessControlClient
from tests.core.metadatamaking import graph


async def main(address: str) -> None:
    """Be a session with an edge and metadata of BOTH and META, and a process that owns BOTH and MINE."""
    process = ProcessControlClient(address)
    async with GraphContext(address) as context:
        await context.connect("KILLED", "BEHIND")
        await context.register_metadata(graph("BOTH", "META"))
        await process.register(["BOTH", "MINE"])
        await process.report_settings_update("BOTH", {"gain": 2})
        await process.report_settings_update("MINE", {"gain": 3})
        print("ready", context._session_id, process.client_id, flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await process.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
