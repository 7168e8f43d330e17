"""The memory of named segments: held here while somebody holds them, opened by the holders under a path."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from typing import NamedTuple
from uuid import uuid4

from ezmsg.core import config
from ezmsg.core.errors import SharedMemoryUnavailable
from ezmsg.core.net import forking
from ezmsg.core.segment import Segment, memory_directory
from ezmsg.core.server.books.segments import SegmentBook, SegmentState
from ezmsg.core.wire.limits import SHM_SEGMENTS
from ezmsg.core.wire.records import CreateShm, ShmOpened


class _Memory(NamedTuple):
    segment: Segment
    path: str
    is_file: bool

    def close(self) -> None:
        self.segment.close()
        if self.is_file:
            with contextlib.suppress(OSError):
                os.unlink(self.path)


class SharedMemoryDesk:
    """Keeps the memory, but takes none: that is left to who asks for it, as filling pages would hold up everybody.

    On Linux holders open our descriptor through `/proc`: the memory has no name in any file system, and nothing is left
    of it when this process is killed. Elsewhere, and for holders that cannot, it is a file that we remove.
    """

    def __init__(self) -> None:
        self._book = SegmentBook(SHM_SEGMENTS, config.max_shm_bytes())
        self._memory: dict[str, _Memory] = {}

    def create(self, holder_id: str, record: CreateShm) -> ShmOpened:
        """A new segment, empty until its holder enlarges it.

        Raises:
            ConfigError: No segment can be laid out like this.
            SharedMemoryLimit: There is too much shared memory already.
            SharedMemoryUnavailable: The system has no more.
        """
        segment = self._book.create(holder_id, f"ezmsg-{uuid4().hex}", record.num_buffers, record.buf_size)
        try:
            self._memory[segment.name] = _make(record.as_file)
        except BaseException:
            self._book.release(holder_id)
            raise
        return self._opened(segment)

    def attach(self, holder_id: str, name: str) -> ShmOpened:
        """One more holder.

        Raises:
            UnknownSharedMemory: There is no such segment.
        """
        return self._opened(self._book.attach(holder_id, name))

    def _opened(self, segment: SegmentState) -> ShmOpened:
        memory = self._memory[segment.name]
        status = os.fstat(memory.segment.fileno())
        return ShmOpened(*segment, memory.path, status.st_dev, status.st_ino)

    def release(self, holder_id: str) -> None:
        """A holder is gone."""
        name = self._book.release(holder_id)
        if name in self._memory:
            self._memory.pop(name).close()

    def close(self) -> None:
        """Let all memory go."""
        for memory in self._memory.values():
            memory.close()
        self._memory.clear()


def _make(as_file: bool) -> _Memory:
    if not as_file:
        segment = Segment.create(0)
        path = f"/proc/{os.getpid()}/fd/{segment.fileno()}"
        if _leads_to(path, segment):
            return _Memory(segment, path, is_file=False)
        segment.close()
    try:
        with forking.no_fork():
            fd, path = tempfile.mkstemp(prefix="ezmsg-", dir=memory_directory())
            return _Memory(Segment.of(fd), path, is_file=True)
    except OSError as error:
        raise SharedMemoryUnavailable("create", 0, error.errno or errno.EIO, error.strerror or str(error)) from error


def _leads_to(path: str, segment: Segment) -> bool:
    # Without /proc it does not, nor with the /proc of another pid namespace.
    try:
        return os.path.samestat(os.stat(path), os.fstat(segment.fileno()))
    except OSError:
        return False
