"""A unit that publishes the messages of a log again, and one that keeps what it receives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import ezmsg.core as ez
from ezmsg.core.currentmessage import reset_current_message, set_current_message
from ezmsg.core.errors import ConfigError, LogLineUnreadable
from ezmsg.util.logcontext import Replayed, Roots
from ezmsg.util.messagecodec import LoggedMessage, LogStart, is_torn, read_line

logger = logging.getLogger("ezmsg")

FILES_MAX = 1000
"""Files that wait to be replayed; who sends more has to wait."""
_BATCH_BYTES = 1 << 20
"""How much is read at once, at least."""


@dataclass
class ReplayStatusMessage:
    """How far a replay is."""

    filename: Path
    idx: int
    """Lines of the log that were replayed."""
    total: int
    """Lines of the log, its first included, which is no message."""
    done: bool = False
    """Whether nothing more will come of it."""


@dataclass(frozen=True)
class FileReplayMessage:
    """A log to replay."""

    filename: Path | None = None
    """The log; None for nothing."""
    rate: float | None = None
    """None for as fast as messages are taken, 0 for as they were received, more for so many messages per second."""
    speed: float = field(default=1.0, kw_only=True)
    """With rate 0: so many times as fast as they were received."""


class MessageReplaySettings(ez.Settings, FileReplayMessage):
    """Settings of a MessageReplay: a log to begin with."""

    progress: bool = False
    """Whether to log how far it is, every 10 %."""


class MessageReplayState(ez.State):
    """State of a MessageReplay."""

    replay_files: asyncio.Queue[FileReplayMessage] = field(default_factory=lambda: asyncio.Queue(FILES_MAX))
    pace: Pace


class Pace:
    """When the messages of a log are due; it can be paused and stopped."""

    def __init__(self) -> None:
        self.is_stopped = False
        self._is_paused = False
        self._changed = asyncio.Event()
        self._clock: Callable[[], float] = asyncio.get_running_loop().time
        self._rate: float | None = None
        self._speed = 1.0
        self._began_s: float | None = None
        self._first_timestamp: float | None = None
        self._count = 0

    def pause(self, is_paused: bool) -> None:
        """Hold up what is due, or go on where it was held up."""
        self._is_paused = is_paused
        self._changed.set()

    def stop(self) -> None:
        """Nothing is due any more."""
        self.is_stopped = True
        self._changed.set()

    def begin(self, rate: float | None, speed: float = 1.0) -> None:
        """Begin a log; its first message is due at once.

        Raises:
            ConfigError: `speed` is not above 0.
        """
        if not speed > 0:
            raise ConfigError("speed", speed, "a number above 0")
        self.is_stopped = False
        self._speed = speed
        self._rate, self._began_s, self._first_timestamp, self._count = rate, None, None, 0

    async def is_due(self, timestamp: float | None) -> bool:
        """Wait until a message is due that was received at this time; False if the replay was stopped."""
        wanted_s = self._place_s(timestamp)
        began_s = self._clock() if self._began_s is None else self._began_s
        while not self.is_stopped:
            self._changed.clear()
            if self._is_paused:
                paused_s = self._clock()
                await self._changed.wait()
                began_s += self._clock() - paused_s
                continue
            delay_s = began_s + wanted_s - self._clock()
            if delay_s <= 0:
                self._began_s = began_s
                return True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._changed.wait()
        return False

    def _place_s(self, timestamp: float | None) -> float:
        """How long after the first message one is due."""
        if self._first_timestamp is None:
            self._first_timestamp = timestamp
        number = self._count
        self._count += 1
        if self._rate is not None and self._rate > 0:
            return number / self._rate
        if self._rate == 0 and timestamp is not None and self._first_timestamp is not None:
            return (timestamp - self._first_timestamp) / self._speed
        return 0.0


class MessageReplay(ez.Unit):
    """Publishes the messages of logs again, one log after the other.

    Messages are as old when they are published as they were when they were logged: what measures their age further on
    measures the same. Those that were traced are traced again, each in a trace of its own that links to the recorded
    one; of the others so many begin a trace as without a log.

    Lines that cannot be read are reported in the log of the program, and left out. For each log OUTPUT_TOTAL tells how
    many messages were published, when it is done. INPUT_STOP ends the replay, and forgets the logs that wait.
    """

    SETTINGS = MessageReplaySettings
    STATE = MessageReplayState

    INPUT_FILE = ez.InputStream(FileReplayMessage)
    INPUT_PAUSED = ez.InputStream(bool)
    INPUT_STOP = ez.InputStream(bool)

    OUTPUT_MESSAGE = ez.OutputStream(Any)
    OUTPUT_TOTAL = ez.OutputStream(int)
    OUTPUT_REPLAY_STATUS = ez.OutputStream(ReplayStatusMessage)

    async def initialize(self) -> None:
        """Begin with the log of the settings."""
        self.STATE.pace = Pace()
        if self.SETTINGS.filename is not None:
            await self.STATE.replay_files.put(self.SETTINGS)

    @ez.subscriber(INPUT_FILE)
    async def queue_file(self, message: FileReplayMessage) -> None:
        """Replay a log when those before are done."""
        if message.filename is not None:
            await self.STATE.replay_files.put(message)

    @ez.subscriber(INPUT_PAUSED)
    async def set_paused(self, message: bool) -> None:
        """Pause the replay, or go on."""
        self.STATE.pace.pause(message)

    @ez.subscriber(INPUT_STOP)
    async def stop(self, message: bool) -> None:
        """End the replay, and forget the logs that wait."""
        if message:
            while not self.STATE.replay_files.empty():
                self.STATE.replay_files.get_nowait()
            self.STATE.pace.stop()

    @ez.publisher(OUTPUT_MESSAGE)
    @ez.publisher(OUTPUT_TOTAL)
    @ez.publisher(OUTPUT_REPLAY_STATUS)
    async def replay(self) -> AsyncIterator[Any]:
        """Publish the messages of one log after the other."""
        while True:
            wanted = await self.STATE.replay_files.get()
            try:
                self.STATE.pace.begin(wanted.rate, wanted.speed)
                reader = await asyncio.to_thread(_Reader, Path(wanted.filename))
            except (OSError, ConfigError) as error:
                logger.error("%s cannot replay %s: %s", self.address, wanted.filename, error)
                continue
            try:
                async for output in self._replay(reader):
                    yield output
            finally:
                reader.close()

    async def _replay(self, reader: _Reader) -> AsyncIterator[Any]:
        pace: Pace = self.STATE.pace
        roots = Roots()
        status = ReplayStatusMessage(reader.path, 0, reader.total)
        published = tenths = 0
        yield self.OUTPUT_REPLAY_STATUS, deepcopy(status)
        while not pace.is_stopped and (batch := await asyncio.to_thread(reader.next_batch)):
            for entry in batch:
                if entry is not None and not isinstance(entry.msg, LogStart):
                    if not await pace.is_due(entry.timestamp):
                        break
                    token = set_current_message(Replayed(entry, roots.begin()))
                    try:
                        yield self.OUTPUT_MESSAGE, entry.msg
                    finally:
                        with contextlib.suppress(ValueError):  # closed by the loop, in another context
                            reset_current_message(token)
                    published += 1
                status.idx += 1
                yield self.OUTPUT_REPLAY_STATUS, deepcopy(status)
                if self.SETTINGS.progress and tenths < status.idx * 10 // status.total:
                    tenths = status.idx * 10 // status.total
                    logger.info("%s: %d %% of %s", self.address, tenths * 10, reader.path)
        status.done = True
        yield self.OUTPUT_REPLAY_STATUS, deepcopy(status)
        yield self.OUTPUT_TOTAL, published


class _Reader:
    """Reads a log, for use in a thread.

    Attributes:
        total: Lines of the log.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._number = 0
        self._file: IO[bytes] = path.open("rb")
        try:
            self.total = sum(1 for line in self._file if line.strip())
            self._file.seek(0)
        except OSError:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def next_batch(self) -> list[LoggedMessage | None]:
        """Some more lines, None for each that cannot be read; nothing at the end."""
        batch: list[LoggedMessage | None] = []
        size = 0
        while size < _BATCH_BYTES and (line := self._file.readline()):
            self._number += 1
            size += len(line)
            if not line.strip():
                continue
            try:
                batch.append(read_line(line, self.path, self._number))
            except LogLineUnreadable as error:
                if is_torn(line):
                    logger.warning("the last line of %s is torn, %d bytes are left out", self.path, len(line))
                else:
                    logger.warning("%s", error)
                batch.append(None)
        return batch


class MessageCollectorState(ez.State):
    """State of a MessageCollector."""

    messages: list[Any] = field(default_factory=list[Any])


class MessageCollector(ez.Unit):
    """Keeps copies of all messages it receives, without a bound, and publishes them; for tests and short runs."""

    STATE = MessageCollectorState

    INPUT_MESSAGE = ez.InputStream(Any)
    OUTPUT_MESSAGE = ez.OutputStream(Any)

    @ez.subscriber(INPUT_MESSAGE)
    @ez.publisher(OUTPUT_MESSAGE)
    async def on_message(self, message: Any) -> AsyncIterator[Any]:
        """Keep a message and publish it."""
        self.STATE.messages.append(deepcopy(message))
        yield self.OUTPUT_MESSAGE, message

    @property
    def messages(self) -> list[Any]:
        """What it received, in the process it ran in."""
        return self.STATE.messages
