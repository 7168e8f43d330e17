"""What can go wrong with shared memory."""

from __future__ import annotations

import errno

from ezmsg.core.errors.root import EzmsgError

__all__ = [
    "SharedMemoryClosed",
    "SharedMemoryElsewhere",
    "SharedMemoryLimit",
    "SharedMemoryUnavailable",
    "UnknownSharedMemory",
]


_REMEDIES = {
    errno.ENOSPC: "Enlarge /dev/shm (docker: --shm-size), or share less",
    errno.ENOMEM: "Raise the memory limit of this container or process (ulimit -v), or share less",
    errno.EFBIG: "Share less, or raise the limit on file sizes (ulimit -f)",
    errno.EMFILE: "Raise the limit on descriptors (ulimit -n), or close what is not needed",
    errno.EDQUOT: "Close what is not needed, or raise EZMSG_SHM_MAX_BYTES where the GraphServer is started",
    errno.ENFILE: "Close what is not needed: the system has no descriptors left",
}


class SharedMemoryUnavailable(EzmsgError, OSError):
    """Memory to share could not be had; what was there before is as it was. `errno` says why."""

    code = "SHARED_MEMORY_UNAVAILABLE"

    def __init__(self, action: str, size: int, number: int, reason: str) -> None:
        remedy = _REMEDIES.get(number, "See whether this system allows shared memory")
        super().__init__(f"cannot {action} shared memory of {size} bytes: {reason}. {remedy}")
        self.action, self.size, self.reason = action, size, reason
        self.errno = number


class SharedMemoryLimit(SharedMemoryUnavailable):
    """The GraphServer keeps as much named shared memory as it may."""

    code = "SHARED_MEMORY_LIMIT"

    def __init__(self, size: int, used: int, limit: int, segments: int, max_segments: int) -> None:
        super().__init__(
            "create", size, errno.EDQUOT,
            f"the GraphServer keeps {used} of at most {limit} bytes, in {segments} of at most {max_segments} segments",
        )  # fmt: skip
        self.used, self.limit, self.segments, self.max_segments = used, limit, segments, max_segments


class SharedMemoryElsewhere(EzmsgError, OSError):
    """The memory exists, but not where this process could open it."""

    code = "SHARED_MEMORY_ELSEWHERE"

    def __init__(self, server: str, reason: str) -> None:
        super().__init__(
            f"shared memory of the GraphServer at {server} cannot be opened here: {reason}. It needs the same host and "
            "user; containers need the same pid namespace (docker: --pid) or the same /dev/shm (docker: --ipc)"
        )
        self.server, self.reason = server, reason


class UnknownSharedMemory(EzmsgError, ValueError):
    """No shared memory of that name exists, or no more."""

    code = "UNKNOWN_SHARED_MEMORY"

    def __init__(self, name: str) -> None:
        super().__init__(f"the GraphServer has no shared memory named {name!r}: it is gone with its last holder")
        self.name = name


class SharedMemoryClosed(EzmsgError, BufferError):
    """Shared memory was used after the end of its context or of the GraphServer."""

    code = "SHARED_MEMORY_CLOSED"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"shared memory {name!r} cannot be used any more: {reason}")
        self.name, self.reason = name, reason
