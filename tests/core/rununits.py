"""Units and collections that tests run, in this process and in others."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import ezmsg.core as ez
from ezmsg.core.pubclient import Publisher


class CounterSettings(ez.Settings):
    count: int = 3


class Counter(ez.Unit):
    """Publishes 0, 1, 2 … and completes."""

    SETTINGS = CounterSettings
    OUTPUT = ez.OutputStream(int)

    @ez.publisher(OUTPUT)
    async def publish(self) -> AsyncIterator[Any]:
        for number in range(self.SETTINGS.count):
            yield self.OUTPUT, number
        raise ez.Complete


class Endless(ez.Unit):
    """Publishes 0, 1, 2 … without end."""

    OUTPUT = ez.OutputStream(int)

    @ez.publisher(OUTPUT)
    async def publish(self) -> AsyncIterator[Any]:
        number = 0
        while True:
            yield self.OUTPUT, number
            number += 1
            await asyncio.sleep(0.001)


class PidOf(ez.Unit):
    """Publishes (its name, the id of its process), once."""

    OUTPUT = ez.OutputStream(tuple)

    @ez.publisher(OUTPUT)
    async def publish(self) -> AsyncIterator[Any]:
        yield self.OUTPUT, (self.name, os.getpid())
        raise ez.Complete


class Collector(ez.Unit):
    """Keeps what it receives, and ends the run after so many messages."""

    SETTINGS = CounterSettings
    INPUT = ez.InputStream(Any)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.received: list[Any] = []

    @ez.subscriber(INPUT)
    async def receive(self, message: Any) -> None:
        self.received.append(message)
        if len(self.received) == self.SETTINGS.count:
            raise ez.NormalTermination


class Forwarder(ez.Unit):
    """Publishes what it receives."""

    INPUT = ez.InputStream(Any)
    OUTPUT = ez.OutputStream(Any)

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def forward(self, message: Any) -> AsyncIterator[Any]:
        yield self.OUTPUT, message


class Burst(ez.Unit):
    """Publishes 0, 1, 2 … when it is told to, all at once, and ends the run with the last."""

    SETTINGS = CounterSettings
    INPUT = ez.InputStream(Any)
    OUTPUT = ez.OutputStream(int)

    @ez.subscriber(INPUT)
    @ez.publisher(OUTPUT)
    async def tell(self, message: Any) -> AsyncIterator[Any]:
        for number in range(self.SETTINGS.count):
            yield self.OUTPUT, number
        raise ez.NormalTermination


class ElsewhereSettings(ez.Settings):
    address: str
    count: int = 3


class PublishesElsewhere(ez.Unit):
    """Publishes 0, 1, 2 … in another graph, and ends the run."""

    SETTINGS = ElsewhereSettings

    async def setup(self) -> None:
        self.publisher = await Publisher.create("ELSEWHERE", self.SETTINGS.address)

    @ez.task
    async def publish(self) -> None:
        for number in range(self.SETTINGS.count):
            await self.publisher.broadcast(number)
        raise ez.NormalTermination


class FailsInSetup(ez.Unit):
    """Cannot be set up."""

    async def initialize(self) -> None:
        raise ValueError("no such device")


class Unpicklable(Exception):
    """An exception that comes through no line."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("odd")


class FailsOddly(ez.Unit):
    """Cannot be set up, for a reason that cannot be pickled."""

    async def initialize(self) -> None:
        raise Unpicklable(1, 2)


class WaitsInSetup(ez.Unit):
    """Is never set up."""

    async def initialize(self) -> None:
        await asyncio.Event().wait()


class Idle(ez.Unit):
    """Has a task that never ends."""

    @ez.task
    async def wait(self) -> None:
        await asyncio.Event().wait()


class Dies(ez.Unit):
    """Kills its process."""

    @ez.task
    async def die(self) -> None:
        os.kill(os.getpid(), 9)


class Chain(ez.Collection):
    """SOURCE → MIDDLE → SINK, each of them in a process of its own if `is_split`; SINK in this one."""

    SOURCE = Counter()
    MIDDLE = Forwarder()
    SINK = Collector()

    def __init__(self, count: int = 3, is_split: bool = False) -> None:
        super().__init__()
        self._count, self._is_split = count, is_split

    def configure(self) -> None:
        self.SOURCE.apply_settings(CounterSettings(self._count))
        self.SINK.apply_settings(CounterSettings(self._count))

    def network(self) -> ez.NetworkDefinition:
        return (self.SOURCE.OUTPUT, self.MIDDLE.INPUT), (self.MIDDLE.OUTPUT, self.SINK.INPUT)

    def process_components(self) -> tuple[ez.Component, ...]:
        return (self.SOURCE, self.MIDDLE) if self._is_split else ()
