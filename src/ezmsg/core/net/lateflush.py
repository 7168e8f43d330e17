"""Sends what a stream has gathered where its loop does not come to it, because user code computes.

A stream sends its first frame of a turn of the loop at once, and gathers those that follow until the turn ends. Whoever
sends a few messages and then computes without ever waiting would hold up all but the first. One thread for all streams
of the process looks every few milliseconds, while any of them gathers, and sends what has waited for a whole round.
"""

from __future__ import annotations

import threading
import weakref
from typing import Final, Protocol

from ezmsg.core.net import forking

PERIOD_S: Final = 0.004
QUIET_PERIODS: Final = 50
"""Without anything to do before it waits to be woken: waking it costs a stream as much as a message."""


class Gathering(Protocol):
    """A stream that gathers frames."""

    @property
    def gathered(self) -> int:
        """Which turn it gathers frames of; 0 if it has none to send."""
        ...

    def flush_late(self) -> None:
        """Send them; called by another thread than that of the loop."""
        ...


class LateFlusher:
    """Begins its thread with the first stream, and ends it with the last."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        # Weak: a loop that is closed does not close its streams.
        self._streams: weakref.WeakKeyDictionary[Gathering, int] = weakref.WeakKeyDictionary()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        # Whether the thread waits for `wake` rather than for time to pass.
        self.is_idle = False

    def watch(self, stream: Gathering) -> None:
        """Send what this stream gathers, if its loop is late."""
        with self._lock:
            self._streams[stream] = 0
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="ezmsg late flush", daemon=True)
                thread.start()  # where no thread can be started, the next stream tries again
                self._thread = thread

    def forget(self, stream: Gathering) -> None:
        """The stream is closed. Once it was the last, waits for the thread to end."""
        with self._lock:
            self._streams.pop(stream, None)
            thread = None if self._streams else self._thread
            if thread is not None:
                self._thread = None
        self._wake.set()
        if thread is not None:
            thread.join()

    def wake(self) -> None:
        """A stream begins to gather; call it when `is_idle`."""
        self.is_idle = False
        self._wake.set()

    def _run(self) -> None:
        me = threading.current_thread()
        quiet = 0
        while True:
            with self._lock:
                if self._thread is not me:
                    return
                if not self._streams:
                    self._thread = None
                    return
                waiting = [(stream, seen) for stream, seen in self._streams.items() if stream.gathered]
                for stream, _ in waiting:
                    self._streams[stream] = stream.gathered
            for stream, seen in waiting:
                if stream.gathered == seen:
                    stream.flush_late()
            quiet = 0 if waiting else quiet + 1
            if quiet < QUIET_PERIODS:
                if self._wake.wait(PERIOD_S):
                    self._wake.clear()
                continue
            quiet = 0
            self._wake.clear()
            self.is_idle = True
            # Once more: a stream that began before it could see that nobody looks.
            with self._lock:
                is_needed = any(stream.gathered for stream in self._streams)
            if not is_needed:
                self._wake.wait()
            self.is_idle = False

    def after_fork(self) -> None:
        """In a forked child: no stream, no thread."""
        self._begin()


LATE: Final = LateFlusher()

forking.on_fork(LATE.after_fork)
