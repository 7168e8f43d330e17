"""The second process of a cell, and the lines by which the first one leads it.

first → second   go, stop, bye; end of file: the first has died
second → first   ready; {"sent": n} after stop
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import measures
import payloads
import wiring
from cells import Cell

START_TIMEOUT_S = 20.0
END_TIMEOUT_S = 10.0

T = TypeVar("T")


class SecondProcess:
    """Seen from the first process: `async with` starts it, waits until it is ready, and ends it."""

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments

    async def __aenter__(self) -> SecondProcess:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                line = await self._read()
            if line != "ready":
                raise measures.MeasurementError(f"the second process said {line!r} instead of 'ready'")
        except BaseException:
            await self._kill()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: Any) -> None:
        if kind is not None:
            await self._kill()
            return
        self._write("bye")
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                code = await self._process.wait()
        except TimeoutError:
            await self._kill()
            raise measures.MeasurementError(f"the second process did not end within {END_TIMEOUT_S:g} s") from None
        if code != 0:
            raise measures.MeasurementError(f"the second process ended with exit code {code}")

    def go(self) -> None:
        self._write("go")

    async def stop(self) -> int:
        """Let it send its end mark; the number of messages it sent before."""
        self._write("stop")
        return json.loads(await self._read())["sent"]

    async def watch(self, measuring: Coroutine[Any, Any, T]) -> T:
        """The result of `measuring`, or an error as soon as the process dies."""
        measured = asyncio.create_task(measuring)
        ended = asyncio.create_task(self._process.wait())
        try:
            await asyncio.wait({measured, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not measured.done():
                raise measures.MeasurementError(f"the second process ended with exit code {ended.result()}")
            return measured.result()
        finally:
            measured.cancel()
            ended.cancel()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def _read(self) -> str:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise measures.MeasurementError(f"the second process ended with exit code {await self._process.wait()}")
        return line.decode().strip()

    async def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class Orders:
    """What the first process says, seen from the second one: read by a thread, so that its death is always seen."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.stop = threading.Event()
        self.bye = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            match line.strip():
                case "go":
                    self._loop.call_soon_threadsafe(self.go.set)
                case "stop":
                    self.stop.set()
                case "bye":
                    self._loop.call_soon_threadsafe(self.bye.set)
                    return
        os._exit(1)


def say(line: str) -> None:
    print(line, flush=True)


async def serve(implementation: str, cell: Cell, addresses: wiring.Addresses) -> None:
    """Be the second process: send for a throughput or a fan-out, echo for a round trip."""
    orders = Orders()
    async with wiring.make(implementation, cell, addresses) as wires:
        if cell.measure == "roundtrip":
            (receive,) = await wires.receivers("PING")
            send = await wires.sender("PONG")
            say("ready")
            await measures.echo(send, receive)
        else:
            send = await wires.sender("DATA", cell.subscribers)
            say("ready")
            await orders.go.wait()
            sent = await measures.pump(send, payloads.make(cell.payload), orders.stop)
            say(json.dumps({"sent": sent}))
        await orders.bye.wait()
