"""A unit that runs, and whose streams a test holds in its hands."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import ezmsg.core as ez
from tests.core.runtime.running import DEADLINE_S, running

ADDRESS = "UNIT"


class Rig:
    """Sends to the inputs of a running unit, and receives from its outputs.

    Args:
        context: A session with the GraphServer of the run.
        outputs: A subscriber to each output.
    """

    def __init__(self, context: ez.GraphContext, outputs: dict[str, ez.Subscriber]) -> None:
        self._context, self._outputs = context, outputs
        self._inputs: dict[str, ez.Publisher] = {}

    async def send(self, stream: str, *messages: Any) -> None:
        """Send messages one after the other, and wait until the unit has handled the last."""
        if stream not in self._inputs:
            self._inputs[stream] = await self._context.publisher(f"{ADDRESS}/{stream}")
        publisher = self._inputs[stream]
        for message in messages:
            await publisher.broadcast(message)
        async with asyncio.timeout(DEADLINE_S):
            await publisher.sync()
        publisher.resume()

    async def receive(self, stream: str, count: int = 1) -> list[Any]:
        """The next messages of an output."""
        async with asyncio.timeout(DEADLINE_S):
            return [await self._outputs[stream].recv() for _ in range(count)]


@contextlib.asynccontextmanager
async def rig(unit: ez.Unit, context: ez.GraphContext, address: Any) -> AsyncIterator[Rig]:
    """Run a unit, in this process."""
    outputs = {
        name: await context.subscriber(f"{ADDRESS}/{name}")
        for name, stream in unit.streams.items()
        if isinstance(stream, ez.OutputStream)
    }
    async with running(ez.GraphRunner(components={ADDRESS: unit}, graph_address=address), context):
        yield Rig(context, outputs)
