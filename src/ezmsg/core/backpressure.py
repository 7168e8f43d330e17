"""Which channel still holds which slot of a publisher's ring. Pure: no loop, no clock.

Message n uses slot n mod N. A channel is one bit; a slot is free when no bit is set in it.
"""

from __future__ import annotations

from collections.abc import Callable


class Backpressure:
    """The slots of one publisher and who holds them.

    `held[slot]` is the set of channels that hold it, one bit each. The publisher leases inline, once a message: it sets
    the bits of a free slot.

    Args:
        num_buffers: How many slots there are.
        on_free: Called when a slot became free while `is_awaited`, with the bit of the channel that held it last.
    """

    __slots__ = ("_free_bits", "_next_bit", "_on_free", "held", "is_awaited", "num_buffers")

    def __init__(self, num_buffers: int, on_free: Callable[[int], None]) -> None:
        if num_buffers < 1:
            raise ValueError(f"num_buffers={num_buffers} must be positive")
        self.num_buffers = num_buffers
        self.held = [0] * num_buffers
        self.is_awaited = False
        self._on_free = on_free
        self._free_bits: list[int] = []
        self._next_bit = 1

    @property
    def inflight(self) -> int:
        """How many slots are held."""
        return self.num_buffers - self.held.count(0)

    def add_channel(self) -> int:
        """A bit for a new channel."""
        if self._free_bits:
            return self._free_bits.pop()
        bit = self._next_bit
        self._next_bit <<= 1
        return bit

    def remove_channel(self, bit: int) -> None:
        """Release everything a channel holds, and its bit."""
        for slot, holders in enumerate(self.held):
            if holders & bit:
                self._release_slot(slot, bit, holders & ~bit)
        self._free_bits.append(bit)

    def release(self, bit: int, message_id: int) -> None:
        """A channel is done with a message. Releasing twice changes nothing."""
        slot = message_id % self.num_buffers
        holders = self.held[slot]
        if holders & bit:
            self._release_slot(slot, bit, holders & ~bit)

    def releaser(self, bit: int) -> Callable[[int], None]:
        """A function that releases a message for one channel: as `release`, for less."""
        held, num_buffers = self.held, self.num_buffers

        def release(message_id: int) -> None:
            slot = message_id % num_buffers
            if held[slot] == bit:
                # The common case, inline: the last holder, or the only one.
                held[slot] = 0
                if self.is_awaited:
                    self._on_free(bit)
            else:
                self.release(bit, message_id)

        return release

    def _release_slot(self, slot: int, bit: int, remaining: int) -> None:
        self.held[slot] = remaining
        if not remaining and self.is_awaited:
            self._on_free(bit)
