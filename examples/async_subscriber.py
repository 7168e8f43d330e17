"""Receives the wave of `async_publisher` (or `sync_publisher`), with asyncio and without any unit."""

from __future__ import annotations

import asyncio
import sys

import ezmsg.core as ez

TOPIC = "WAVE"


async def main() -> None:
    """Print the range of each chunk, until the last."""
    async with ez.GraphContext(auto_start=False) as graph:
        subscriber = await graph.subscriber(TOPIC)
        print("listening", flush=True)
        while True:
            # The very memory it came in: look at it within the block, copy what is to be kept.
            async with subscriber.recv_zero_copy() as message:
                wave = message["wave"]
                print(f"chunk {message['number']:2}: {wave.min():+.2f} to {wave.max():+.2f}", flush=True)
                if message["number"] == message["of"] - 1:
                    return


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except ConnectionError as error:
        sys.exit(str(error))
