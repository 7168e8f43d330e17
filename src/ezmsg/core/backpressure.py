"""Which channel still holds which slot of a publisher's ring. Pure: no loop, no clock.

Message n uses slot n mod N. A channel is one bit; a slot is free when no bit is set in it.
"""

from __future__ import annotations


class Backpressure:
    """The slots of one publisher and who holds them.

    `held[slot]` is the set of channels that hold it, one bit each: the publisher reads it directly, once a message.
    """

    __slots__ = ("_free_bits", "_next_bit", "held", "inflight", "num_buffers")

    def __init__(self, num_buffers: int) -> None:
        if num_buffers < 1:
            raise ValueError(f"num_buffers={num_buffers} must be positive")
        self.num_buffers = num_buffers
        self.held = [0] * num_buffers
        self.inflight = 0
        self._free_bits: list[int] = []
        self._next_bit = 1

    def add_channel(self) -> int:
        """A bit for a new channel."""
        if self._free_bits:
            return self._free_bits.pop()
        bit = self._next_bit
        self._next_bit <<= 1
        return bit

    def remove_channel(self, bit: int) -> bool:
        """Release everything a channel holds, and its bit; True when a slot became free."""
        freed = False
        for slot, holders in enumerate(self.held):
            if holders & bit:
                self.held[slot] = remaining = holders & ~bit
                if not remaining:
                    self.inflight -= 1
                    freed = True
        self._free_bits.append(bit)
        return freed

    def lease(self, message_id: int, bits: int) -> None:
        """The channels in `bits` hold the slot of this message, which must be free."""
        self.held[message_id % self.num_buffers] = bits
        self.inflight += 1

    def release(self, message_id: int, bit: int) -> bool:
        """A channel is done with a message; True when its slot became free. Releasing twice changes nothing."""
        slot = message_id % self.num_buffers
        holders = self.held[slot]
        if not holders & bit:
            return False
        self.held[slot] = remaining = holders & ~bit
        if remaining:
            return False
        self.inflight -= 1
        return True
