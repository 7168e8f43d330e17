"""Shared memory without a name: whoever has the descriptor has the memory, and it goes with the last of them.

No asyncio here, and nothing of who shares what with whom: see the transports, and the server's desk for named memory.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import sys
import tempfile
from collections.abc import Generator

from ezmsg.core.errors import SharedMemoryUnavailable
from ezmsg.core.freememory import free_memory_bytes
from ezmsg.core.net import forking

_SHARED_MEMORY = "/dev/shm"


class Segment:
    """Memory behind one descriptor, which this object owns. Closed in forked children; their mappings stay.

    Mappings are never closed: one is gone with the last view of it, so an array that somebody kept stays readable, also
    after the segment is closed.

    Args:
        fd: The descriptor, from now on this object's. Keep other threads from forking until it is here (see
            `forking.no_fork`), or the child keeps it open.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        forking.track(self)

    def __repr__(self) -> str:
        return f"<Segment {f'fd={self._fd} size={self.size}' if self._fd >= 0 else 'closed'}>"

    def __del__(self) -> None:
        self.close()

    @classmethod
    def create(cls, size: int) -> Segment:
        """New memory, zeroed and reserved: writing to it cannot fail later.

        Args:
            size: In bytes; 0 is a segment that is still to grow.

        Raises:
            SharedMemoryUnavailable: There is not so much memory, or no descriptor is left.
        """
        if size < 0:
            raise ValueError(f"a segment of {size} bytes cannot be: the size must not be negative")
        with _unavailable("create", size), forking.no_fork():
            segment = cls(_new_descriptor())
        try:
            segment.grow(size)
        except BaseException:
            segment.close()
            raise
        return segment

    @classmethod
    def of(cls, fd: int) -> Segment:
        """The segment behind a descriptor that was received or opened; owned from now on, also if this fails."""
        return cls(fd)

    def fileno(self) -> int:
        """The descriptor, still owned by the segment."""
        if self._fd < 0:
            raise ValueError("the segment is closed")
        return self._fd

    @property
    def size(self) -> int:
        """In bytes, as it is now: whoever has the descriptor may have grown it."""
        return os.fstat(self.fileno()).st_size

    # -- how much ---------------------------------------------------------------------------------------------------

    def grow(self, size: int) -> None:
        """Enlarge to so many bytes, reserved; never shrinks. What is mapped stays as it is.

        Raises:
            SharedMemoryUnavailable: There is not so much memory; the segment is as before.
        """
        before = self.size
        if size <= before:
            return
        try:
            self._reserve("enlarge" if before else "create", before, size)
        except SharedMemoryUnavailable:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, before)
            raise

    def reserve(self, offset: int, length: int) -> None:
        """Take the memory of a range again that was given back with `punch`.

        Raises:
            SharedMemoryUnavailable: There is not so much memory.
        """
        self._check_range(offset, length)
        if length:
            self._reserve("reserve", offset, offset + length)

    def _reserve(self, action: str, start: int, stop: int) -> None:
        # Where nothing is reserved, a full file system ends whoever writes (SIGBUS).
        with _unavailable(action, stop):
            free = free_memory_bytes()
            if free is not None and stop - start > free:
                raise OSError(errno.ENOMEM, f"about {free} bytes of memory are free")
            if hasattr(os, "posix_fallocate"):
                try:
                    os.posix_fallocate(self._fd, start, stop - start)
                    return
                except OSError as error:
                    if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                        raise
            os.ftruncate(self._fd, max(stop, self.size))

    def punch(self, offset: int, length: int) -> None:
        """Give the whole pages of a range back to the system, as far as it takes them (Linux); they read as zeros.

        Touching a mapping there takes new memory, where there may be none: `reserve` it first.
        """
        self._check_range(offset, length)
        start = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (offset + length) // mmap.PAGESIZE * mmap.PAGESIZE
        if sys.platform != "linux" or stop <= start:
            return
        with contextlib.suppress(OSError), mmap.mmap(self._fd, stop - start, offset=start) as window:
            window.madvise(mmap.MADV_REMOVE)

    # -- access -----------------------------------------------------------------------------------------------------

    def map(self, size: int | None = None, *, writable: bool) -> memoryview:
        """A new view of the first `size` bytes, all by default. It holds the memory by itself; just drop it.

        Before Python 3.13 it also takes a descriptor, until it is dropped.

        Raises:
            SharedMemoryUnavailable: The address space of this process, or its descriptors, are used up.
        """
        return self.map_range(0, self.size if size is None else size, writable=writable)

    def map_range(self, offset: int, size: int, *, writable: bool) -> memoryview:
        """As `map`, of `size` bytes from `offset` on, a multiple of the page size."""
        fd, available = self.fileno(), self.size
        if offset % mmap.ALLOCATIONGRANULARITY or offset < 0 or not 0 < size <= available - offset:
            raise ValueError(f"cannot map {size} bytes at {offset} of a segment of {available}")
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        with _unavailable("map", size):
            if sys.version_info >= (3, 13):
                return memoryview(mmap.mmap(fd, size, access=access, offset=offset, trackfd=False))
            return memoryview(mmap.mmap(fd, size, access=access, offset=offset))

    def read(self, offset: int, length: int) -> bytearray:
        """A copy of a range, for who cannot map it: no address space is needed but that of the copy."""
        self._check_range(offset, length)
        copy = bytearray(length)
        rest = memoryview(copy)
        while rest:
            count = os.preadv(self._fd, [rest], offset + length - len(rest))
            if not count:
                raise ValueError(f"the segment was cut to {self.size} bytes while it was read")
            rest = rest[count:]
        return copy

    def _check_range(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"{length} bytes at {offset} are not within a segment of {self.size}")

    def close(self) -> None:
        """Close the descriptor; what is mapped stays. Safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def memory_directory() -> str:
    """Where files are memory, or at least temporary."""
    is_usable = os.path.isdir(_SHARED_MEMORY) and os.access(_SHARED_MEMORY, os.W_OK | os.X_OK)
    return _SHARED_MEMORY if is_usable else tempfile.gettempdir()


def _new_descriptor() -> int:
    if sys.platform == "linux" and hasattr(os, "memfd_create"):
        try:
            fd = os.memfd_create("ezmsg", os.MFD_CLOEXEC)
        except OSError as error:
            # An old kernel, or a sandbox that forbids it.
            if error.errno not in (errno.ENOSYS, errno.EPERM):
                raise
        else:
            os.fchmod(fd, 0o600)  # it can be opened through /proc
            return fd
    with tempfile.TemporaryFile(dir=memory_directory(), buffering=0) as file:
        return os.dup(file.fileno())


@contextlib.contextmanager
def _unavailable(action: str, size: int) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise SharedMemoryUnavailable(action, size, error.errno or errno.EIO, error.strerror or str(error)) from error
    except OverflowError as error:
        raise SharedMemoryUnavailable(action, size, errno.EFBIG, "no segment can be so large") from error
