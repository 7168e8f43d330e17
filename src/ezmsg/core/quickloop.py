"""An event loop of asyncio that is told what to call next at half the cost: tasks do so for every message.

asyncio makes seven Python calls for that, four of them to ask whether it is closed or debugs (ADR 11).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any


class _QuickHandle(asyncio.Handle):
    """Made without `__init__`, which takes as long as everything else."""

    __slots__ = ()


def new_loop() -> asyncio.AbstractEventLoop:
    """As `asyncio.new_event_loop`. A loop that is not asyncio's own, as of uvloop, is as it comes."""
    loop = asyncio.new_event_loop()
    if type(loop) is asyncio.SelectorEventLoop:
        _quicken(loop)
    return loop


def _quicken(loop: Any) -> None:
    is_as_known = type(getattr(loop, "_ready", None)) is deque
    if not is_as_known:
        return
    make, add, call_soon = object.__new__, loop._ready.append, loop.call_soon

    def quick(callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        if loop._closed or loop._debug:
            return call_soon(callback, *args, context=context)
        handle: Any = make(_QuickHandle)
        handle._context = copy_context() if context is None else context
        handle._loop, handle._callback, handle._args = loop, callback, args
        handle._cancelled = False
        handle._repr = handle._source_traceback = None
        add(handle)
        return handle

    loop.call_soon = quick
