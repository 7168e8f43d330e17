"""Whoever takes part in a cell beside the measuring: tasks of its loop, or processes led by lines.

Each partner has a role (`Cell.roles`) and ends when the end marks have passed it.

first process → partner   go, stop (to the source), bye; end of file: the first process has died
partner → first process   its addresses when it is ready; how many messages passed it
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import measures
import payloads
import wiring
from cells import Cell
from wiring import lane

START_TIMEOUT_S = 90.0
END_TIMEOUT_S = 60.0

Play = Callable[[], Awaitable[list[int]]]
"""Plays a role to its end: how many messages passed each of its ends."""


async def prepare(role: str, cell: Cell, wires: wiring.Wiring, stop: threading.Event) -> Play:
    """Open the ends that a role needs."""
    kind, number = role.split("-")
    match kind:
        case "source":
            message = payloads.make(cell.payload)
            sends = [await wires.sender(lane(0), cell.subscribers) for _ in range(cell.publishers)]
            return lambda: asyncio.gather(*(measures.pump(send, message, stop) for send in sends))
        case "hop":
            (receive,) = await wires.receivers(lane(int(number)))
            send = await wires.sender(lane(int(number) + 1))
            return lambda: asyncio.gather(measures.relay(receive, send))
        case "receivers":
            receivers = await wires.receivers(lane(cell.hops), cell.share, first=int(number) * cell.share)
            return lambda: asyncio.gather(*(measures.drain(receive, cell.publishers) for receive in receivers))
        case _:
            raise ValueError(f"nobody plays {role!r}")


class Partner(Protocol):
    def go(self) -> None: ...

    def stop(self) -> None: ...

    async def passed(self) -> list[int]:
        """How many messages passed each of its ends, once it has ended."""
        ...


class TaskPartner:
    def __init__(self, play: Play, stop: threading.Event, group: asyncio.TaskGroup) -> None:
        self._play = play
        self._group = group
        self.stop = stop.set

    def go(self) -> None:
        async def play() -> list[int]:
            return await self._play()

        self._task = self._group.create_task(play())

    async def passed(self) -> list[int]:
        return await self._task


class ProcessPartner:
    """`async with` starts it, waits until it is ready, and ends it."""

    addresses: wiring.Addresses
    """All there are, with its own."""

    def __init__(self, command: list[str], role: str, group: asyncio.TaskGroup) -> None:
        self._command = command
        self._role = role
        self._group = group
        self._is_dismissed = False

    async def __aenter__(self) -> ProcessPartner:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                self.addresses = await self._read()
        except BaseException:
            await self._kill()
            raise
        self._group.create_task(self._watch())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc_info: Any) -> None:
        self._is_dismissed = True
        if kind is not None:
            await self._kill()
            return
        self._write("bye")
        try:
            async with asyncio.timeout(END_TIMEOUT_S):
                code = await self._process.wait()
        except TimeoutError:
            await self._kill()
            raise measures.MeasurementError(f"the {self._role} did not end within {END_TIMEOUT_S:g} s") from None
        if code != 0:
            raise self._ended(code)

    async def _watch(self) -> None:
        """Take the measurement down as soon as the process dies."""
        code = await self._process.wait()
        if not self._is_dismissed:
            raise self._ended(code)

    def _ended(self, code: int) -> measures.MeasurementError:
        return measures.MeasurementError(f"the process of {self._role} ended with exit code {code}")

    def go(self) -> None:
        self._write("go")

    def stop(self) -> None:
        self._write("stop")

    async def passed(self) -> list[int]:
        return await self._read()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def _read(self) -> Any:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise self._ended(await self._process.wait())
        return json.loads(line)

    async def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


@contextlib.asynccontextmanager
async def partners(cell: Cell, wires: wiring.Wiring, command: list[str]) -> AsyncIterator[list[Partner]]:
    """Everyone of a cell, on their way; `command` starts a process that serves a role with addresses, given as JSON.

    An error of one of them interrupts the block.
    """
    try:
        async with asyncio.TaskGroup() as group, contextlib.AsyncExitStack() as stack:
            found = [await _partner(role, cell, wires, command, group, stack) for role in cell.roles]
            for partner in found:
                partner.go()
            yield found
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _partner(
    role: str,
    cell: Cell,
    wires: wiring.Wiring,
    command: list[str],
    group: asyncio.TaskGroup,
    stack: contextlib.AsyncExitStack,
) -> Partner:
    if cell.transport == "local":
        stop = threading.Event()
        return TaskPartner(await prepare(role, cell, wires, stop), stop, group)
    arguments = ["--role", role, "--addresses", json.dumps(wires.addresses)]
    process = await stack.enter_async_context(ProcessPartner(command + arguments, role, group))
    # Whoever starts later finds the addresses of all before it: those who receive bind, those who send connect.
    wires.addresses.update(process.addresses)
    return process


class Orders:
    """What the first process says, seen from a partner: read by a thread, so that its death is always seen."""

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


def say(what: Any) -> None:
    print(json.dumps(what), flush=True)


async def serve(implementation: str, cell: Cell, role: str, addresses: wiring.Addresses) -> None:
    """Be a partner in a process of its own."""
    orders = Orders()
    async with wiring.make(implementation, cell, addresses) as wires:
        play = await prepare(role, cell, wires, orders.stop)
        say(wires.addresses)
        await orders.go.wait()
        say(await play())
        await orders.bye.wait()
