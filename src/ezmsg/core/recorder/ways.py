"""How many bytes of a publisher crossed channels of which kind."""

from __future__ import annotations

from collections.abc import Mapping

from ezmsg.core.graphmeta import ProfileChannelType


class Ways:
    """Bytes by kind of channel, told from the bytes of messages: nothing is counted per message."""

    __slots__ = ("_before", "_channels", "_since")

    def __init__(self) -> None:
        """There are no channels."""
        # How many there are of each kind now, and how many bytes had crossed them when there came to be so many.
        self._channels: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._since = 0

    def take(self, channels: Mapping[ProfileChannelType, int], total: int) -> None:
        """From now on there are so many channels of each kind. Messages of `total` bytes were sent so far."""
        self._before, self._since = self.counts(total), total
        self._channels = {kind.value.lower(): count for kind, count in channels.items()}

    def counts(self, total: int) -> dict[str, int]:
        """How many bytes crossed channels of each kind, of messages of `total` bytes."""
        counts, more = self._before.copy(), total - self._since
        for kind, count in self._channels.items():
            counts[kind] = counts.get(kind, 0) + count * more
        return counts
