"""How much of one kind a server keeps for all its peers together."""

from __future__ import annotations

from ezmsg.core.errors import ServerFull


class Budget:
    """Bytes that are taken and given back.

    Args:
        kind: Of what, as told to who is refused.
        limit: How many bytes there are.

    Attributes:
        used: Bytes that are taken.
    """

    def __init__(self, kind: str, limit: int) -> None:
        self._kind, self._limit = kind, limit
        self.used = 0

    def take(self, size: int, instead_of: int = 0) -> None:
        """Take `size` bytes, and give `instead_of` bytes back.

        Raises:
            ServerFull: There are not so many left; nothing was changed.
        """
        used = self.used - instead_of
        if size > instead_of and used + size > self._limit:
            raise ServerFull(self._kind, size, used, self._limit)
        self.used = used + size

    def give(self, size: int) -> None:
        """Give bytes back."""
        self.used -= size
