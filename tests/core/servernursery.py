"""GraphServers at one address that can be killed, one after the other: `python servernursery.py ADDRESS`.

Forked, so that the next is there at once. A line of standard input is an order: `start`, `kill`, or `wait` for its end.
"""

from __future__ import annotations

import os
import signal
import sys

from ezmsg.core.graphserver import GraphServer


def serve(address: str) -> None:
    """Be a server, until it ends."""
    server = GraphServer()
    server.start(address)
    print("ready", os.getpid(), flush=True)
    server.join()
    os._exit(0)


def main(address: str) -> None:
    """Take orders."""
    child = 0
    print("ready", flush=True)
    while order := sys.stdin.readline().strip():
        if order == "start":
            child = os.fork()
            if child == 0:
                serve(address)
            continue
        if order == "kill":
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        child = 0
        print("ended", flush=True)
    if child:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1])
