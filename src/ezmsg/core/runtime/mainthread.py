"""The main thread of a process during a run: it waits for the end, runs a `main` function, and can be interrupted."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future

# A signal that comes just before this thread falls asleep, or to another thread, does not wake it; its handler runs
# when it looks up.
LOOK_UP_S = 0.2

Job = tuple[Callable[[], object], "Future[object]"]


class MainThread:
    """Runs functions in the thread that calls `serve`, for others that call `run`.

    Where that is the main thread of the interpreter, a function that does not return can be interrupted: it gets a
    KeyboardInterrupt, from the handler of SIGINT, which has to call `take_interrupt` and `raise_if_due`.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread_id: int | None = None
        self._is_running = self._is_interrupt_due = self._was_interrupted = False
        # Of SIGINT, if it does what it has to. One of the program's own is called once: it may well count.
        self.handler: Callable[..., object] | None = None
        # Of the function that runs: it got its interrupt, or has ended.
        self._heard = threading.Event()

    @property
    def is_running(self) -> bool:
        """Whether a function runs."""
        return self._is_running

    def serve(self) -> None:
        """Run what is asked for, until `end`."""
        self._thread_id = threading.get_ident()
        while (job := self._next()) is not None:
            self._do(*job)

    def _next(self) -> Job | None:
        while True:
            with contextlib.suppress(queue.Empty):
                return self._jobs.get(timeout=LOOK_UP_S)

    def run(self, function: Callable[[], object]) -> Future[object]:
        """Run a function there; from any thread. An interrupted one ends with KeyboardInterrupt."""
        future: Future[object] = Future()
        self._jobs.put((function, future))
        return future

    def end(self) -> None:
        """Let `serve` return, once the function that runs has ended, which is interrupted; from any thread."""
        self._jobs.put(None)
        self.interrupt()

    def interrupt(self) -> bool:
        """Have the function that runs get a KeyboardInterrupt, from any thread; False where that is not possible.

        It gets one only: what it does then to end in order is not interrupted.
        """
        thread_id = self._thread_id
        if not self._is_running or thread_id is None or thread_id != threading.main_thread().ident:
            return False
        if self._was_interrupted:
            return True
        if signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, signal.SIG_DFL, None):
            return False
        self._signal(thread_id)
        threading.Thread(
            target=self._insist, args=[thread_id, self._heard], name="ezmsg interrupt", daemon=True
        ).start()
        return True

    def _signal(self, thread_id: int) -> None:
        self._is_interrupt_due = True
        with contextlib.suppress(ProcessLookupError):
            # To the thread, not the process: a system call it waits in has to end.
            signal.pthread_kill(thread_id, signal.SIGINT)

    def _insist(self, thread_id: int, heard: threading.Event) -> None:
        # One that comes just before the thread falls asleep does not wake it, and it might never look up.
        while not heard.wait(LOOK_UP_S) and signal.getsignal(signal.SIGINT) == self.handler:
            self._signal(thread_id)

    def take_interrupt(self) -> bool:
        """For the handler of SIGINT: whether the signal came from `interrupt`."""
        was_due, self._is_interrupt_due = self._is_interrupt_due, False
        return was_due

    def raise_if_due(self) -> None:
        """For the handler of SIGINT: interrupt the function that runs, if that did not happen yet."""
        if not self._was_interrupted:
            self.raise_if_running()

    def raise_if_running(self) -> None:
        """For the handler of SIGINT: interrupt the function that runs, if one does."""
        if self._is_running:
            self._was_interrupted = True
            self._heard.set()
            raise KeyboardInterrupt

    def _do(self, function: Callable[[], object], future: Future[object]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        self._heard = heard = threading.Event()
        # Two blocks: an interrupt may also come when the function has just ended.
        try:
            try:
                self._was_interrupted, self._is_running = False, True
                result = function()
            finally:
                self._is_running = False
                heard.set()
        except BaseException as error:  # whoever asked for it gets it
            future.set_exception(error)
        else:
            future.set_result(result)
