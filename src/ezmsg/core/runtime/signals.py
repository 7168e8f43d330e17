"""SIGINT and SIGTERM during a run: in the process that runs it, and in its backend processes."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Self, cast

from ezmsg.core.net.forking import ENDING_SIGNALS
from ezmsg.core.runtime.mainthread import MainThread

# What a program that did not ask for anything else has.
DEFAULTS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
# One Ctrl-C may come twice: from the terminal, and passed on by the program that started this one.
SAME_S = 0.1
PATIENCE = 3
"""So many signals end the process at once, whatever it does."""


class Interrupts:
    """Counts the signals that ask for the end of a run, in a `with` block around it.

    Does nothing outside the main thread of the interpreter, which signals do not reach, and leaves alone signals for
    which the program has a handler of its own.

    Args:
        main_thread: A `main` function in it is interrupted, too.
        on_interrupt: Called in the handler, with the number of signals so far and the last of them.
    """

    def __init__(self, main_thread: MainThread, on_interrupt: Callable[[int, int], object]) -> None:
        self._main_thread = main_thread
        self._on_interrupt = on_interrupt
        self._installed: dict[int, Any] = {}
        self._count = 0
        self._last_s = -math.inf

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING_SIGNALS:
                if _is_default(number, signal.getsignal(number)):
                    self._installed[number] = signal.signal(number, self._handle)
            if signal.SIGINT in self._installed:
                self._main_thread.handler = self._handle
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._installed.items():
            signal.signal(number, handler)
        self._main_thread.handler = None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._main_thread.take_interrupt():
            self._main_thread.raise_if_due()
            return
        now_s = time.monotonic()
        if now_s - self._last_s < SAME_S:
            return
        self._last_s = now_s
        self._count += 1
        if self._count >= PATIENCE:
            die_of(number)
        self._on_interrupt(self._count, number)
        self._main_thread.raise_if_running()


def _is_default(number: signal.Signals, handler: Any) -> bool:
    """Whether the program left a signal alone, perhaps to `asyncio.run`, which cancels a task of a loop that runs.

    A run that is begun by a coroutine keeps that loop from running.
    """
    if isinstance(handler, partial):
        handler = cast("partial[object]", handler).func
    return handler == DEFAULTS[number] or getattr(handler, "__qualname__", None) == "Runner._on_sigint"


def die_of(number: int) -> None:
    """End this process as this signal ends one that does not handle it. From the main thread only."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or replaced by something else
            stream.flush()
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)


def prepare_backend(main_thread: MainThread, on_terminate: Callable[[str], object]) -> None:
    """In a backend process: leave SIGINT, which reaches the whole process group, to the process that runs the graph.

    Args:
        main_thread: Interrupted by SIGINT if it is told to be.
        on_terminate: Called in the handler of SIGTERM.
    """

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        if main_thread.take_interrupt():
            main_thread.raise_if_due()

    def on_termination(number: int, frame: FrameType | None) -> None:
        on_terminate(f"process {os.getpid()} got SIGTERM")

    main_thread.handler = on_interrupt
    signal.set_wakeup_fd(-1)  # of a loop of the parent
    signal.signal(signal.SIGINT, on_interrupt)
    signal.signal(signal.SIGTERM, on_termination)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
