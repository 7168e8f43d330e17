"""Publishes a wave, in chunks of a tenth of a second, without asyncio and without any unit.

ezmsg start
python -m examples.sync_subscriber      # or async_subscriber: they hear the same topic
python -m examples.sync_publisher       # in another terminal
ezmsg shutdown
"""

from __future__ import annotations

import sys
import time

import numpy as np

import ezmsg.core as ez

TOPIC = "WAVE"
CHUNKS = 20
CHUNK_S = 0.1
SAMPLES = 100


def main() -> None:
    """Send all chunks, each in its time."""
    with ez.sync.init(auto_start=False) as graph:
        publisher = graph.publisher(TOPIC)
        times_s = np.arange(SAMPLES) * CHUNK_S / SAMPLES
        for number in range(CHUNKS):
            wave = np.sin(2 * np.pi * 3 * (number * CHUNK_S + times_s))
            # Waits while a subscriber is too slow; with a timeout, a TimeoutError says so.
            publisher.publish({"number": number, "of": CHUNKS, "wave": wave}, timeout=5)
            time.sleep(CHUNK_S)
        print(f"sent {CHUNKS} chunks")


if __name__ == "__main__":
    try:
        main()
    except ConnectionError as error:
        sys.exit(str(error))
