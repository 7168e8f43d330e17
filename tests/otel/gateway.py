"""A graph between two HTTP services: `python gateway.py URL`; it prints its own URL, and ends with its standard input.

What is posted to it is published in the trace of the request's headers; what arrives at the end of the graph is posted
to URL, with the trace in the headers.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import urllib.request
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ezmsg.core as ez
import ezmsg.otel
from ezmsg.core.graphserver import GraphServer


class Door(ThreadingHTTPServer):
    """Publishes what is posted."""

    daemon_threads = True

    def __init__(self, publisher: ez.Publisher, loop: asyncio.AbstractEventLoop) -> None:
        self.publisher, self.loop = publisher, loop
        super().__init__(("127.0.0.1", 0), Handler)

    async def publish(self, headers: Mapping[str, str], body: bytes) -> None:
        with ezmsg.otel.extract(headers):
            await self.publisher.broadcast(body)


class Handler(BaseHTTPRequestHandler):
    server: Door

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asyncio.run_coroutine_threadsafe(self.server.publish(dict(self.headers), body), self.server.loop).result()
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def deliver(url: str, body: bytes) -> None:
    headers: dict[str, str] = {}
    ezmsg.otel.inject(headers)
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)):
        pass


async def sink(subscriber: ez.Subscriber, url: str) -> None:
    while True:
        async with subscriber.recv_zero_copy() as body:
            await asyncio.to_thread(deliver, url, body)


async def main(url: str) -> None:
    server = GraphServer()
    await asyncio.to_thread(server.start, "127.0.0.1:0")
    async with ez.GraphContext(server.address) as graph:
        publisher = await graph.publisher("WEB/OUT")
        subscriber = await graph.subscriber("SINK/IN")
        await graph.connect("WEB/OUT", "SINK/IN")
        delivering = asyncio.create_task(sink(subscriber, url))
        door = Door(publisher, asyncio.get_running_loop())
        threading.Thread(target=door.serve_forever, daemon=True).start()
        print(f"http://127.0.0.1:{door.server_port}", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        delivering.cancel()
        await asyncio.gather(delivering, return_exceptions=True)
    await asyncio.to_thread(server.stop)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
