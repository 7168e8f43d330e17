"""Runs blocking calls in threads that do not keep the interpreter alive."""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Call = tuple[Future[Any], Callable[[], Any]]


class DaemonExecutor(ThreadPoolExecutor):
    """A thread pool of daemon threads; what they call runs in a copy of the context of whoever submitted it.

    The threads of a ThreadPoolExecutor are joined when the interpreter exits, however long they take. It is the base
    all the same, because an event loop takes nothing else as its default executor.

    Args:
        max_workers: Threads at most; None for what ThreadPoolExecutor takes.
        thread_name_prefix: How they are called.
    """

    def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "ezmsg worker") -> None:
        super().__init__(max_workers, thread_name_prefix)
        self._most = self._max_workers
        self._name = thread_name_prefix
        self._guard = threading.Lock()
        self._calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._unfinished = 0
        self._is_closed = False

    @property
    def unfinished(self) -> int:
        """Calls that run or wait for a thread."""
        return self._unfinished

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in a thread as soon as one is free."""
        future: Future[T] = Future()
        with self._guard:
            if self._is_closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._unfinished += 1
            self._calls.put((future, partial(contextvars.copy_context().run, fn, *args, **kwargs)))
            if self._unfinished > len(self._workers) < self._most:
                name = f"{self._name} {len(self._workers)}"
                worker = threading.Thread(target=self._work, name=name, daemon=True)
                self._workers.append(worker)
                worker.start()
        return future

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, run = call
            try:
                if future.set_running_or_notify_cancel():
                    _settle(future, run)
            finally:
                with self._guard:
                    self._unfinished -= 1
            del call, future, run  # else the last result would live until the next call

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the threads end when what they were given is done.

        Args:
            wait: Return only then.
            cancel_futures: Cancel what has not begun.
        """
        with self._guard:
            if cancel_futures:
                self._cancel_waiting()
            if not self._is_closed:
                self._is_closed = True
                for _ in self._workers:
                    self._calls.put(None)
        if wait:
            self.join()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the threads to end, after `shutdown`; whether they did in time."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        for worker in self._workers:
            worker.join(None if deadline_s is None else max(0.0, deadline_s - time.monotonic()))
        return not any(worker.is_alive() for worker in self._workers)

    def _cancel_waiting(self) -> None:
        ends = 0
        while True:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                break
            if call is None:
                ends += 1
                continue
            call[0].cancel()
            call[0].set_running_or_notify_cancel()
            self._unfinished -= 1
        for _ in range(ends):
            self._calls.put(None)


def _settle(future: Future[Any], run: Callable[[], Any]) -> None:
    try:
        result = run()
    except BaseException as error:  # whoever waits for it gets it, as from any executor
        future.set_exception(error)
    else:
        future.set_result(result)
