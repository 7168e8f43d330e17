"""Functions of units that block a thread: `main` in the main thread, `thread` functions, calls that tasks wait for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ezmsg.core.decorators import Function
from ezmsg.core.runtime.executor import DaemonExecutor
from ezmsg.core.runtime.mainthread import MainThread
from ezmsg.core.runtime.messages import Tally

logger = logging.getLogger("ezmsg")

# How soon to look again whether a thread is done: it cannot be waited for without blocking another.
POLL_S = 0.01


class BlockingCalls:
    """Starts them, and sees how they end.

    Args:
        main_thread: Where a `main` function runs.
        workers: Where calls run that tasks wait for; None where asyncio sees to them.
    """

    def __init__(self, main_thread: MainThread, workers: DaemonExecutor | None) -> None:
        self._main_thread, self._workers = main_thread, workers
        self._threads: ThreadPoolExecutor | None = None

    def open_threads(self, count: int) -> None:
        """Have threads for so many functions."""
        # Without workers of ours nobody is to be left behind: threads that are waited for.
        kind = ThreadPoolExecutor if self._workers is None else DaemonExecutor
        self._threads = kind(count, "ezmsg thread")

    async def run_thread(self, function: Function) -> None:
        """Run a function in a thread, and wait for it."""
        await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def run_main(self, main: Function) -> None:
        """Run a function in the main thread, and wait for it; it may also end by being interrupted."""

        def run() -> None:
            with contextlib.suppress(KeyboardInterrupt):
                main()

        await asyncio.wrap_future(self._main_thread.run(run))

    async def end(self, grace_s: float | None, tally: Tally) -> None:
        """Wait for what runs, interrupt a `main` function that goes on, and count what goes on nevertheless.

        Args:
            grace_s: How long to wait, each time; None waits as long as it takes.
            tally: Where it is counted.
        """
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if not await _until(self._is_idle, grace_s) and self._main_thread.interrupt():
            await _until(lambda: not self._main_thread.is_running, grace_s)
        if self._main_thread.is_running:
            tally.pending += 1
            logger.warning("the main function goes on although it was told to end")
        if isinstance(self._threads, DaemonExecutor) and self._threads.unfinished:
            tally.pending += self._threads.unfinished
            logger.warning("%d thread functions go on and are left behind", self._threads.unfinished)
        if self._workers is not None and self._workers.unfinished:
            tally.workers += self._workers.unfinished
            logger.warning("%d blocking calls of tasks go on and are left behind", self._workers.unfinished)

    def _is_idle(self) -> bool:
        pools = (self._threads, self._workers)
        return not self._main_thread.is_running and not any(
            isinstance(pool, DaemonExecutor) and pool.unfinished for pool in pools
        )


async def _until(is_so: Callable[[], bool], timeout_s: float | None) -> bool:
    loop = asyncio.get_running_loop()
    deadline_s = None if timeout_s is None else loop.time() + timeout_s
    while not is_so():
        if deadline_s is not None and loop.time() > deadline_s:
            return False
        await asyncio.sleep(POLL_S)
    return True
