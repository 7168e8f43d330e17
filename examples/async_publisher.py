"""Publishes a wave, in chunks of a tenth of a second, with asyncio and without any unit.

ezmsg start
python -m examples.async_subscriber     # or sync_subscriber: they hear the same topic
python -m examples.async_publisher      # in another terminal
ezmsg shutdown
"""

from __future__ import annotations

import asyncio
import sys

import numpy as np

import ezmsg.core as ez

TOPIC = "WAVE"
CHUNKS = 20
CHUNK_S = 0.1
SAMPLES = 100


async def main() -> None:
    """Send all chunks, each in its time."""
    async with ez.GraphContext(auto_start=False) as graph:
        publisher = await graph.publisher(TOPIC)
        times_s = np.arange(SAMPLES) * CHUNK_S / SAMPLES
        for number in range(CHUNKS):
            wave = np.sin(2 * np.pi * 3 * (number * CHUNK_S + times_s))
            await publisher.broadcast({"number": number, "of": CHUNKS, "wave": wave})
            await asyncio.sleep(CHUNK_S)
        print(f"sent {CHUNKS} chunks")
        # Leaving the context delivers what was sent, and closes the publisher.


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except ConnectionError as error:
        sys.exit(str(error))
