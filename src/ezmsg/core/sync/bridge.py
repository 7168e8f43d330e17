"""An event loop in a thread of its own, and how other threads have something done there.

What a call costs is the way there and back: two wake-ups of a thread, some 20 µs. So calls that mostly end at once
begin without a task, and waiting takes a bare lock: half of what `asyncio.run_coroutine_threadsafe` takes.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

from ezmsg.core.errors import CallTimeout, SyncContextClosed
from ezmsg.core.quickloop import new_loop

T = TypeVar("T")

# How often a waiting thread looks whether the loop's thread still lives.
LOOK_S = 1.0
# How long a call that is given up may take to end; longer only where user code keeps the loop.
CANCEL_TIMEOUT_S = 1.0


class Bridge:
    """Runs an event loop in a daemon thread, with a resource entered there for as long as it runs.

    Args:
        resource: Entered on the loop before `start` returns, and left at the end.
        name: Of the thread.
    """

    def __init__(self, resource: AbstractAsyncContextManager[Any], name: str) -> None:
        self._resource = resource
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._is_stopping = False
        self._is_closed = False

    def start(self) -> None:
        """Start the loop, and enter the resource.

        Raises:
            BaseException: What entering raises; the thread has ended then.
        """
        self._loop = new_loop()
        self._living = self._loop.create_task(self._live())
        try:
            self._thread.start()
        except RuntimeError:  # there is no room for a thread
            self._living.cancel()
            self._main()
            raise
        try:
            self._ready.wait()
        except BaseException:
            self.stop()
            raise
        if self._error is not None:
            self._thread.join()
            raise self._error

    def stop(self) -> None:
        """Leave the resource, and end the thread; waits for it. From any thread, any number of times."""
        with suppress(SyncContextClosed):  # it ended already, or was never started
            self.post(self._stop)
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def is_closed(self) -> bool:
        """Whether the loop has ended, in this process."""
        return self._is_closed and not self._thread.is_alive()

    def post(self, function: Callable[..., object], *args: Any, context: Context | None = None) -> None:
        """Have a function called on the loop; nobody waits for it. What one thread posts happens in that order.

        Args:
            function: What to call.
            args: With what.
            context: To run it in; None for a copy of the caller's.

        Raises:
            SyncContextClosed: The thread has ended, or is that of another process (after a fork).
        """
        if self._is_closed or not self._thread.is_alive():
            raise SyncContextClosed
        try:
            self._loop.call_soon_threadsafe(function, *args, context=context)
        except RuntimeError:
            raise SyncContextClosed from None

    def run(self, coroutine: Coroutine[Any, Any, T], what: str, timeout_s: float | None = None) -> T:
        """Run a coroutine on the loop, as a task, and wait for its result.

        Args:
            coroutine: What to run, in a copy of the caller's context.
            what: What it does, for the error.
            timeout_s: How long it may take; None for as long as it takes.

        Raises:
            CallTimeout: It took longer, and was cancelled.
            SyncContextClosed: The loop ended.
            BaseException: Whatever it raises.
        """
        call = Call(self, coroutine, copy_context())
        return call.result(what, timeout_s, call.begin_task)

    def run_brief(self, coroutine: Coroutine[Any, Any, T], what: str, timeout_s: float | None, context: Context) -> T:
        """As `run`, for what mostly ends without waiting: up to its first wait it runs without a task.

        Until then it may not ask for its task, as `asyncio.timeout` does.

        Args:
            coroutine: What to run.
            what: What it does, for the error.
            timeout_s: How long it may take; None for as long as it takes.
            context: To run it in.
        """
        call = Call(self, coroutine, context)
        return call.result(what, timeout_s, call.begin)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop; for use on it."""
        return self._loop

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs, in this process."""
        return self._thread.is_alive()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            self._loop.run_until_complete(self._living)
        except asyncio.CancelledError:
            pass  # how it is stopped
        except BaseException as error:
            self._error = error
        finally:
            self._is_closed = True
            self._close_loop()
            self._ready.set()

    def _stop(self) -> None:
        # Once: a second time would cut short how the resource is left.
        if not self._is_stopping:
            self._is_stopping = True
            self._living.cancel()

    async def _live(self) -> None:
        async with self._resource:
            self._ready.set()
            await self._loop.create_future()

    def _close_loop(self) -> None:
        loop = self._loop
        loop.run_until_complete(asyncio.sleep(0))  # let begin what was posted
        self._end_tasks()
        loop.run_until_complete(loop.shutdown_asyncgens())
        self._end_tasks()  # begun meanwhile
        loop.close()

    def _end_tasks(self) -> None:
        """Cancel what runs. When this returns no task is left, and none can begin: the loop does not run."""
        while left := asyncio.all_tasks(self._loop):
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.wait(left))


class Call(Generic[T]):
    """One coroutine of the loop, whose end another thread waits for."""

    __slots__ = ("_bridge", "_context", "_coroutine", "_ended", "_error", "_result", "_task")

    _result: T

    def __init__(self, bridge: Bridge, coroutine: Coroutine[Any, Any, T], context: Context) -> None:
        self._bridge = bridge
        self._coroutine = coroutine
        self._context = context
        self._error: BaseException | None = None
        self._task: asyncio.Task[T] | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    # -- the thread that waits ----------------------------------------------------------------------------------------

    def result(self, what: str, timeout_s: float | None, begin: Callable[[], None]) -> T:
        """Have it begun, and wait for its end."""
        try:
            self._bridge.post(begin, context=self._context)
            is_ended = self._wait(timeout_s)
        except BaseException:  # KeyboardInterrupt may strike anywhere in here
            self._give_up()
            raise
        if not is_ended:
            self._give_up()
            # It may just have ended, and what it did must not be lost.
            if not self._wait(CANCEL_TIMEOUT_S) or isinstance(self._error, asyncio.CancelledError):
                raise CallTimeout(what, timeout_s or 0.0)
        if self._error is None:
            return self._result
        if isinstance(self._error, asyncio.CancelledError):
            raise SyncContextClosed
        try:
            raise self._error
        finally:
            self._error = None  # its traceback holds this frame

    def _wait(self, timeout_s: float | None) -> bool:
        acquire = self._ended.acquire
        if timeout_s is None:
            while not acquire(timeout=LOOK_S):
                self._require_thread()
            return True
        deadline_s = time.monotonic() + timeout_s
        while not acquire(timeout=max(0.0, min(timeout_s, LOOK_S))):
            self._require_thread()
            timeout_s = deadline_s - time.monotonic()
            if timeout_s <= 0:
                return False
        return True

    def _require_thread(self) -> None:
        # It ended before it got to us; or this process is a fork of the one it is in.
        if not self._bridge.is_alive:
            raise SyncContextClosed

    def _give_up(self) -> None:
        try:
            self._bridge.post(self._cancel)
        except SyncContextClosed:
            if inspect.getcoroutinestate(self._coroutine) == inspect.CORO_CREATED:
                self._coroutine.close()

    # -- the loop -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Run up to the first wait; only the rest needs a task."""
        try:
            awaited = self._coroutine.send(None)
        except StopIteration as end:
            self._result = end.value
            self._ended.release()
        except BaseException as error:
            self._error = error
            self._ended.release()
        else:
            self._go_on(_Resumed(self._coroutine, awaited))

    def begin_task(self) -> None:
        """Run it as a task."""
        self._go_on(self._coroutine)

    def _go_on(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._task = self._bridge.loop.create_task(coroutine, context=self._context)
        self._task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[T]) -> None:
        self._task = None
        try:
            self._result = task.result()
        except BaseException as error:
            self._error = error
        self._ended.release()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            self._coroutine.close()  # it ended, or did not begin


class _Resumed(Coroutine[Any, Any, T]):
    """The rest of a coroutine that has begun, and waits for `awaited`.

    No coroutine itself: one that is cancelled before its first step never hears of it, nor would what it is to go on
    with, which by then stands in some line.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], awaited: Any) -> None:
        self._coroutine = coroutine
        self._awaited = awaited
        self._is_told = False

    def send(self, value: Any) -> Any:
        if self._is_told:
            return self._coroutine.send(value)
        self._is_told = True
        awaited, self._awaited = self._awaited, None
        return awaited

    def throw(self, *error: Any) -> Any:
        self._is_told, self._awaited = True, None
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._coroutine.__await__()
