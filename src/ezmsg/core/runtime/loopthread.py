"""An event loop in a thread of its own, which can be left behind when what runs in it never ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

from ezmsg.core.quickloop import new_loop
from ezmsg.core.runtime.executor import DaemonExecutor

logger = logging.getLogger("ezmsg")
T = TypeVar("T")

# For tasks that user code began and left, and for async generators, when the loop ends.
GRACE_S = 1.0
END_A_RUN = "raise NormalTermination to end a run"
# For idle worker threads to be gone.
WORKERS_S = 0.2


class LoopThread:
    """An event loop in a daemon thread: a task that blocks it keeps nobody from leaving.

    Args:
        name: Of the thread.
        strict: Keep asyncio's own executor, whose threads are waited for, and report what fails while the loop ends.

    Attributes:
        executor: Where blocking calls run that are awaited; None where asyncio has its own.
        suppressed: Errors that nobody waited for, while the run ended.
        on_exit: Called in the loop's thread with a SystemExit or KeyboardInterrupt that a task raised.
    """

    def __init__(self, name: str, *, strict: bool = False) -> None:
        self.loop = new_loop()
        self.executor: DaemonExecutor | None = None if strict else DaemonExecutor()
        self.suppressed = 0
        self.on_exit: Callable[[BaseException], object] = self._ignore
        self._strict = strict
        self._stopped = asyncio.Event()
        self._is_quiet = False
        self._submitted: set[Future[Any]] = set()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to run."""
        if self.executor is not None:
            self.loop.set_default_executor(self.executor)
        self.loop.set_exception_handler(self._complain)
        self._thread.start()

    def call(self, callback: Callable[..., object], *args: Any) -> None:
        """Call something in the loop, soon; from any thread. Does nothing once the loop is closed."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(callback, *args)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in the loop; from another thread. Ends with an error when the loop does."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        self._submitted.add(future)
        future.add_done_callback(self._submitted.discard)
        return future

    def quiet(self) -> None:
        """From now on errors that nobody waits for are counted in `suppressed`, not logged."""
        self._is_quiet = not self._strict

    @property
    def is_current(self) -> bool:
        """Whether it is the thread that asks."""
        return threading.current_thread() is self._thread

    def end(self) -> None:
        """End the loop, soon; from any thread."""
        self.call(self._stopped.set)

    def stop(self, timeout_s: float | None) -> bool:
        """End the loop; whether the thread ended in time (None: however long that takes)."""
        self.end()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        loop = self.loop
        asyncio.set_event_loop(loop)
        try:
            self._run_until_stopped()
            self._clear_up()
        except BaseException as error:  # its descriptors were closed, for example
            self._abandon(error)
            logger.exception("the event loop %r ended", self._thread.name)
        finally:
            self._end_executor()
            asyncio.set_event_loop(None)
            with contextlib.suppress(OSError):  # as above
                loop.close()

    def _abandon(self, error: BaseException) -> None:
        for future in list(self._submitted):
            with contextlib.suppress(InvalidStateError):
                future.set_exception(error)

    def _run_until_stopped(self) -> None:
        while not self._stopped.is_set():
            stopped = self.loop.create_task(self._stopped.wait(), name="end of the loop")
            while not stopped.done():
                try:
                    self.loop.run_until_complete(stopped)
                except (SystemExit, KeyboardInterrupt) as error:
                    self.on_exit(error)
                except (RuntimeError, asyncio.CancelledError):
                    if self.loop.is_closed():
                        raise
                    logger.error("the event loop was told to stop by code of a unit, and goes on: %s", END_A_RUN)

    def _ignore(self, error: BaseException) -> None:
        logger.error("%s in a task was ignored: %s", type(error).__name__, END_A_RUN)

    def _clear_up(self) -> None:
        """End what user code left: its tasks, and generators that were not exhausted."""
        loop = self.loop
        deadline_s = None if self._strict else loop.time() + GRACE_S
        self._end_tasks(deadline_s)
        loop.run_until_complete(self._end_generators())
        if self._strict:
            loop.run_until_complete(loop.shutdown_default_executor())
        self._end_tasks(deadline_s)  # begun meanwhile

    async def _end_generators(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if self._strict else GRACE_S):
                await self.loop.shutdown_asyncgens()

    def _end_tasks(self, deadline_s: float | None) -> None:
        """Cancel tasks, also those that begin meanwhile, until none is left or it takes too long."""
        while left := asyncio.all_tasks(self.loop):
            for task in left:
                task.cancel()
            timeout_s = None if deadline_s is None else max(0.0, deadline_s - self.loop.time())
            self.loop.run_until_complete(asyncio.wait(left, timeout=timeout_s))
            if timeout_s == 0.0:
                break

    def _end_executor(self) -> None:
        if self.executor is not None:
            self.executor.shutdown(wait=False, cancel_futures=True)
            self.executor.join(WORKERS_S)

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if self._is_quiet:
            self.suppressed += 1
            logger.debug("%s, while the run ends: %r", context.get("message"), context.get("exception"))
            return
        loop.default_exception_handler(context)
