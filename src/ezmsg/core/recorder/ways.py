"""How many bytes of a publisher left its process by which way."""

from __future__ import annotations

from ezmsg.core.graphmeta import ProfileChannelType


class Ways:
    """Bytes by way, told from the bytes in all: nothing is counted per message."""

    __slots__ = ("_before", "_way")

    def __init__(self) -> None:
        """Nothing leaves."""
        # The way that bytes go now, and how many had gone each way when it was taken.
        self._way = ""
        self._before: dict[str, int] = {}

    def take(self, way: ProfileChannelType, total: int) -> None:
        """From now on bytes go this way; UNKNOWN: none do. `total` went so far, by whatever way."""
        self._before = self.counts(total)
        self._way = "" if way is ProfileChannelType.UNKNOWN else way.value.lower()

    def counts(self, total: int) -> dict[str, int]:
        """How many of `total` went which way."""
        before, way = self._before, self._way
        return before | {way: before.get(way, 0) + total - sum(before.values())} if way else before
