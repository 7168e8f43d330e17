"""Which named segments of shared memory exist, and who holds them. One is gone with its last holder."""

from __future__ import annotations

from typing import NamedTuple

from ezmsg.core.errors import SharedMemoryLimit, UnknownSharedMemory
from ezmsg.core.wire.segments import check_layout


class SegmentState(NamedTuple):
    """One segment."""

    name: str
    num_buffers: int
    buf_size: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.num_buffers * self.buf_size


class SegmentBook:
    """Segments by name. A holder holds one.

    Args:
        max_segments: How many may exist.
        max_bytes: How large they may be together.
    """

    def __init__(self, max_segments: int, max_bytes: int) -> None:
        self._max_segments, self._max_bytes = max_segments, max_bytes
        self._segments: dict[str, SegmentState] = {}
        self._holders: dict[str, set[str]] = {}
        self._held: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._segments)

    @property
    def size(self) -> int:
        """Bytes of all segments together."""
        return sum(segment.size for segment in self._segments.values())

    def create(self, holder_id: str, name: str, num_buffers: int, buf_size: int) -> SegmentState:
        """A new segment with its first holder.

        Raises:
            ConfigError: No segment can be laid out like this.
            SharedMemoryLimit: There are too many, or they would be too large together.
        """
        segment = SegmentState(name, *check_layout(num_buffers, buf_size))
        used = self.size
        if len(self._segments) >= self._max_segments or used + segment.size > self._max_bytes:
            raise SharedMemoryLimit(segment.size, used, self._max_bytes, len(self._segments), self._max_segments)
        self._segments[name], self._holders[name] = segment, {holder_id}
        self._held[holder_id] = name
        return segment

    def attach(self, holder_id: str, name: str) -> SegmentState:
        """One more holder.

        Raises:
            UnknownSharedMemory: There is no such segment, or no more.
        """
        segment = self._segments.get(name)
        if segment is None:
            raise UnknownSharedMemory(name)
        self._holders[name].add(holder_id)
        self._held[holder_id] = name
        return segment

    def release(self, holder_id: str) -> str | None:
        """A holder is gone, if it was one; returns the segment that is gone with it."""
        name = self._held.pop(holder_id, None)
        if name is None:
            return None
        holders = self._holders[name]
        holders.discard(holder_id)
        if holders:
            return None
        del self._segments[name], self._holders[name]
        return name
