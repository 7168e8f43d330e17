"""Writes logs of messages beside the event loop: a queue with a bound, and a thread that empties it into files."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import pickle
import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ezmsg.core.net.loglimit import LogLimiter
from ezmsg.core.profiling import PROFILES
from ezmsg.util.logcontext import LogContext, log_context
from ezmsg.util.messagecodec import LogStart, log_line

logger = logging.getLogger("ezmsg")

WAITING_BYTES = 64 << 20
"""How much may wait to be written."""
CLOSE_GRACE_S = 10.0
"""How long the end of a run waits for what is left."""


@dataclass(slots=True)
class _Message:
    context: LogContext
    pickled: bytes | None
    line: str
    """If it could not be pickled."""
    size: int


@dataclass(slots=True)
class _Command:
    """Open or close a file, after what was queued before."""

    path: Path
    is_open: bool
    done: Future[None]


def _promise() -> Future[None]:
    """A future that nobody can cancel: whoever fulfils it need not look."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


class LogWriter:
    """Writes messages to all files that are open, in order.

    Args:
        name: Whose it is, for the log of the program.
        write_period_s: Write so often only; 0 for at once.
        waiting_bytes: How much may wait; messages that would go beyond are lost.

    Attributes:
        lost: Messages that were not written, or not everywhere, since the beginning; counted for telemetry, too.
    """

    def __init__(self, name: str, write_period_s: float = 0.0, waiting_bytes: int = WAITING_BYTES) -> None:
        self.lost = 0
        self._name, self._period_s, self._limit = name, write_period_s, waiting_bytes
        self._paths: set[Path] = set()
        """Open, or about to be; of the caller's thread."""
        self._queue: deque[_Message | _Command] = deque()
        self._waiting = 0
        self._is_urgent = self._is_closed = False
        self._changed = threading.Condition()
        self._ended = _promise()
        self._log = LogLimiter()
        self._files: dict[Path, IO[bytes]] = {}
        """Of the thread that writes."""
        # A daemon: a file system that hangs keeps no program from its end.
        threading.Thread(target=self._run, name=f"ezmsg log writer of {name}", daemon=True).start()

    # -- the caller's thread ------------------------------------------------------------------------------------------

    async def open(self, path: Path) -> bool:
        """Begin a log, in place of whatever file was there; False if it is open already.

        Raises:
            OSError: It cannot be written.
        """
        if path in self._paths:
            return False
        self._paths.add(path)
        try:
            await self._command(path, is_open=True)
        except OSError:
            self._paths.discard(path)
            raise
        return True

    async def end(self, path: Path) -> bool:
        """Finish a log, once all before is written; False if there is none."""
        if path not in self._paths:
            return False
        self._paths.discard(path)
        await self._command(path, is_open=False)
        return True

    async def _command(self, path: Path, *, is_open: bool) -> None:
        command = _Command(path, is_open, _promise())
        with self._changed:
            if self._ended.done():
                raise OSError(f"the log writer of {self._name} has ended")
            self._queue.append(command)
            self._is_urgent = True
            self._changed.notify()
        await asyncio.wrap_future(command.done)

    def write(self, message: Any) -> None:
        """Put a message into all files that are open; what it holds may change afterwards."""
        if not self._paths:
            return
        context = log_context()
        try:
            pickled, line = pickle.dumps(message, protocol=5), ""
            size = len(pickled)
        except Exception:  # perhaps it becomes JSON all the same
            pickled = None
            try:
                line = log_line(message, *context)
            except Exception as error:
                self._lose(f"a message of type {type(message).__qualname__} cannot be logged: {error}")
                return
            size = len(line)
        with self._changed:
            is_full = self._waiting and self._waiting + size > self._limit
            if not is_full:
                self._queue.append(_Message(context, pickled, line, size))
                self._waiting += size
                if not self._period_s or self._waiting > self._limit // 2:
                    self._is_urgent = True
                    self._changed.notify()
        if is_full:
            self._lose(f"{self._waiting} bytes wait to be written already: the files are too slow for the messages")

    def _lose(self, reason: str) -> None:
        with self._changed:
            self.lost += 1
            lost = self.lost
        PROFILES.unlogged(self._name)
        self._log.warning("lost", f"{self._name} lost {lost} messages; {reason}")

    async def close(self, grace_s: float = CLOSE_GRACE_S) -> None:
        """Write what waits, and finish all logs; give up after `grace_s` seconds."""
        with self._changed:
            self._is_closed = self._is_urgent = True
            self._changed.notify()
        self._paths.clear()
        try:
            async with asyncio.timeout(grace_s):
                await asyncio.wrap_future(self._ended)
        except TimeoutError:
            with self._changed:
                left = sum(isinstance(item, _Message) for item in self._queue)
                self.lost += left
            PROFILES.unlogged(self._name, left)
            logger.error("%s could not finish its logs within %g s", self._name, grace_s)
        if self.lost:
            logger.warning("%s lost %d messages in all", self._name, self.lost)

    # -- the thread that writes ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._write_some():
                pass
        except Exception:
            logger.exception("the log writer of %s fails", self._name)
        for path in list(self._files):
            self._finish(path)
        with self._changed:
            self._ended.set_result(None)
            for item in self._queue:
                if isinstance(item, _Command):
                    item.done.set_exception(OSError(f"the log writer of {self._name} has ended"))

    def _write_some(self) -> bool:
        """Wait for what is to be done, and do it; False at the end."""
        with self._changed:
            if not self._is_urgent:
                # With a period, whoever only writes messages does not wake us up.
                self._changed.wait_for(lambda: self._is_urgent, self._period_s or None)
            self._is_urgent = False
            items, is_last = list(self._queue), self._is_closed
            self._queue.clear()
        for item in items:
            if isinstance(item, _Command):
                self._obey(item)
                continue
            self._write(item)
            with self._changed:
                self._waiting -= item.size
        for path, file in list(self._files.items()):
            try:
                file.flush()
            except OSError as error:
                self._fail(path, error)
        return not is_last

    def _obey(self, command: _Command) -> None:
        try:
            if command.is_open:
                self._files[command.path] = _begin(command.path)
            elif command.path in self._files:
                self._finish(command.path)
        except Exception as error:
            command.done.set_exception(error)
        else:
            command.done.set_result(None)

    def _write(self, message: _Message) -> None:
        if not self._files:
            return
        try:
            obj = None if message.pickled is None else pickle.loads(message.pickled)
            line = message.line if message.pickled is None else log_line(obj, *message.context)
        except Exception as error:
            self._lose(f"a message cannot be logged: {error}")
            return
        data = line.encode() + b"\n"
        for path, file in list(self._files.items()):
            try:
                file.write(data)
            except OSError as error:
                self._fail(path, error)

    def _fail(self, path: Path, error: OSError) -> None:
        """A file cannot be written to: it gets no more."""
        with contextlib.suppress(OSError):  # for the same reason
            self._files.pop(path).close()
        self._lose(f"{path} is written no more: {error}")

    def _finish(self, path: Path) -> None:
        try:
            self._files[path].close()
        except OSError as error:
            self._fail(path, error)
        else:
            del self._files[path]


def _begin(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        logger.warning("%s is replaced by a new log", path)
    file = path.open("wb", buffering=0)
    try:
        file.write(log_line(LogStart()).encode() + b"\n")
    except OSError:
        file.close()
        raise
    return io.BufferedWriter(file)
