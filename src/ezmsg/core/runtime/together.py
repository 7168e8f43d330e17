"""Several things at once, of which the first error is the error of all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def together(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Wait for all of them; when one fails or this is cancelled, cancel and wait for the others.

    Raises:
        Exception: As the first that failed, itself and not in a group.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
