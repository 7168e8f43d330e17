"""Several things at once, of which the first error is the error of all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

# Each wait is worth sharing, but hundreds of handshakes at once would take longer than a peer waits for one.
AT_ONCE = 16


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


async def in_turns(functions: Sequence[Callable[[], Coroutine[Any, Any, object]]]) -> None:
    """As `together`, for any number of them: begins only so many at once.

    Raises:
        Exception: As the first that failed; those whose turn had not come are not begun.
    """
    for first in range(0, len(functions), AT_ONCE):
        await together(*(function() for function in functions[first : first + AT_ONCE]))
