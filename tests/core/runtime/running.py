"""A run in another thread, for tests that look at it while it goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import ezmsg.core as ez

DEADLINE_S = 40


@contextlib.asynccontextmanager
async def running(runner: ez.GraphRunner, context: ez.GraphContext) -> AsyncIterator[None]:
    """Run it, and wait until its metadata is registered, which is when it starts; stop it with the block."""
    stream = context.subscribe_settings_events()
    task = asyncio.create_task(asyncio.to_thread(runner.run_blocking))
    try:
        async with contextlib.aclosing(stream):
            event = asyncio.ensure_future(anext(stream))
            await asyncio.wait([event, task], timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                event.cancel()
                await task
            await event
        yield
    finally:
        if not task.done():
            with contextlib.suppress(RuntimeError):  # it has ended in this moment
                await asyncio.to_thread(runner.stop)
        await task


async def until(is_so: Any) -> None:
    """Poll, where there is no event."""
    async with asyncio.timeout(DEADLINE_S):
        while not is_so():
            await asyncio.sleep(0.005)
