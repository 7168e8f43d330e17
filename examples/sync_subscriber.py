"""Receives the wave of `sync_publisher` (or `async_publisher`) in a callback, without asyncio and without any unit."""

from __future__ import annotations

import sys
from typing import Any

import ezmsg.core as ez

TOPIC = "WAVE"


def main() -> None:
    """Print the range of each chunk, until the last."""
    with ez.sync.init(auto_start=False) as graph:

        def show(message: dict[str, Any]) -> None:
            wave = message["wave"]
            print(f"chunk {message['number']:2}: {wave.min():+.2f} to {wave.max():+.2f}", flush=True)
            if message["number"] == message["of"] - 1:
                graph.shutdown()  # ends spin(), from here or from any other thread

        graph.create_subscription(TOPIC, show, zero_copy=True)
        print("listening", flush=True)
        ez.sync.spin(graph)


if __name__ == "__main__":
    try:
        main()
    except ConnectionError as error:
        sys.exit(str(error))
