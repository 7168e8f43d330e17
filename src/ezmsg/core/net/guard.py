"""What a server allows its peers, each of them and all together, and how often one of them wanted more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Protocol

from ezmsg.core.errors import ServerFull
from ezmsg.core.wire.limits import HEAVY_BYTES, PEERS_BYTES, THROTTLE_BYTES


class Peer(Protocol):
    """A connection that memory is held for."""

    def fail(self, error: Exception, /) -> None:
        """End it at once, for this reason."""
        ...


class Guard:
    """The rules for the peers of one server.

    Args:
        accepts: Opcodes of the requests and notices that it knows; others are not even decoded.
        throttle_bytes: With more than so much waiting for a peer, nothing more is read from it.
        max_bytes: What may be held for all peers together, of what they have not read and of frames that they have
            begun to send: beyond that, the one that most is held for is dropped.

    Attributes:
        counts: What was refused, dropped, ignored or throttled, by what it was.
    """

    def __init__(
        self, accepts: Collection[int], *, throttle_bytes: int = THROTTLE_BYTES, max_bytes: int = PEERS_BYTES
    ) -> None:
        self.accepts = accepts
        self.throttle_bytes = throttle_bytes
        self.counts: Counter[str] = Counter()
        self._max_bytes = max_bytes
        # Peers that much is held for; usually none.
        self._held: dict[Peer, int] = {}

    @property
    def held_bytes(self) -> int:
        """What is held for all peers together; little is not counted."""
        return sum(self._held.values())

    def holds(self, peer: Peer, size: int) -> None:
        """So much is held for a peer now."""
        if size < HEAVY_BYTES:
            self._held.pop(peer, None)
            return
        self._held[peer] = size
        while (held := self.held_bytes) > self._max_bytes:
            heaviest = max(self._held, key=self._held.__getitem__)
            largest = self._held.pop(heaviest)
            heaviest.fail(ServerFull("frames under way", largest, held - largest, self._max_bytes))
