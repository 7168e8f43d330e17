"""Frames of the control plane: most are small and alone, and a server must not let a peer cost it too much."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from ezmsg.core.errors import EzmsgError
from ezmsg.core.net.framestream import COALESCED_BYTES, FrameStream
from ezmsg.core.net.guard import Guard
from ezmsg.core.wire.frames import FrameDecoder, new_body
from ezmsg.core.wire.limits import CONTROL_BUFFER_BYTES, CONTROL_FRAME_BYTES, HEAVY_BYTES, SMALL_RECORD_BYTES
from ezmsg.core.wire.records import LARGE_RECORDS

# A frame so long after the one before it goes out by itself: others are not likely to follow in the same turn.
PAUSE_S = 1e-4
# How long a server works for one peer before it looks after others.
SHARE_S = 0.005


class ControlStream(FrameStream):
    """A connection whose frames are records.

    Args:
        name: How the peer is called in errors and in the log.
        frame_limit: The largest record, in bytes; most may not even be so large.
        write_limit: How many bytes may wait for the peer before it is dropped.
        guard: The rules of a server for its peers; clients have none for their server.

    Attributes:
        on_drained: Called when nothing waits for the peer any more, after something did.
    """

    def __init__(self, name: str, frame_limit: int, write_limit: int, guard: Guard | None) -> None:
        large = LARGE_RECORDS
        if frame_limit < CONTROL_FRAME_BYTES:
            large = {opcode: min(frame_limit, size) for opcode, size in LARGE_RECORDS.items()}
        small = min(frame_limit, SMALL_RECORD_BYTES)
        decoder = FrameDecoder(small, capacity=CONTROL_BUFFER_BYTES, allocate=self._allocate, large=large)
        super().__init__(name, write_limit=write_limit, decoder=decoder)
        self._small, self._large = small, large
        self._guard = guard
        self._is_resting = False
        self._sent_s = 0.0
        self.on_drained: Callable[[], None] | None = None

    def limit_of(self, opcode: int) -> int:
        """How large such a record may be, in bytes."""
        return self._large.get(opcode, self._small)

    def write(self, frame: bytes) -> None:
        """Send a frame: at once if it is some time since the last one, else together with the others of this turn."""
        if self._is_closing or self._transport is None:
            return
        if not self._in_turn:
            now_s = monotonic()
            if now_s - self._sent_s >= PAUSE_S:
                # Most frames are alone: for them, no further turn of the loop to look for followers.
                self._sent_s = now_s
                self._transport.write(frame)
                if self._transport.get_write_buffer_size():
                    self._drop_if_slow()
                return
            self._in_turn = True
            self._loop.call_soon(self._end_turn)
        self._followers.append(frame)
        self._followers_bytes += len(frame)
        if self._followers_bytes > COALESCED_BYTES:
            self._flush()

    # -- within bounds ------------------------------------------------------------------------------------------------

    def _count(self, what: str) -> None:
        if self._guard is not None:
            self._guard.counts[what] += 1

    def _allocate(self, opcode: int, size: int) -> memoryview:
        self._report_held(size)
        return new_body(opcode, size)

    def _report_held(self, incoming: int) -> None:
        if self._guard is not None:
            self._guard.holds(self, incoming + self.write_buffer_size)

    def take(self, nbytes: int) -> None:
        """So many bytes came (0: go on with what is here).

        A server leaves the rest for later when much waits for the peer already, and when the peer had its share of this
        turn of the loop; meanwhile it reads nothing more from it.
        """
        guard = self._guard
        if guard is None:
            super().take(nbytes)
            return
        end_s = monotonic() + SHARE_S
        incoming = self._decoder.apart_bytes
        for frame in self._decoder.received(nbytes):
            if self._is_closing:
                continue
            self.frame_received(frame)
            if self._is_behind(guard.throttle_bytes):
                self._rest(None)
                return
            if monotonic() > end_s:
                self._rest(self._go_on)
                return
        if incoming and not self._decoder.apart_bytes:
            self._report_held(0)
        if self._is_resting:
            self._is_resting = False
            self.resume_reading()

    def _is_behind(self, most: int) -> bool:
        """Whether more than so much waits for the peer although it could have been sent."""
        if self.write_buffer_size <= most or self._transport is None:
            return False
        self._flush()
        return self._transport.get_write_buffer_size() > most

    def _rest(self, go_on: Callable[[], None] | None) -> None:
        """Read nothing more; what goes on is called in the next turn, or when the peer has caught up."""
        if not self._is_resting:
            self._is_resting = True
            self.pause_reading()
        if go_on is None:
            self._count("throttled")
        else:
            self._loop.call_soon(go_on)

    def _go_on(self) -> None:
        if not self._is_closing:
            self.buffer_updated(0)

    def _drop_if_slow(self) -> None:
        super()._drop_if_slow()
        if self.write_buffer_size >= HEAVY_BYTES:
            self._report_held(self._decoder.apart_bytes)

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._report_held(self._decoder.apart_bytes)
        if self._is_resting:
            self._go_on()
        if self.on_drained is not None:
            self.on_drained()

    # -- the end ------------------------------------------------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """End the connection at once for this reason, and log it."""
        if self._error is None and not self.closed:
            self._count(f"dropped:{error.code if isinstance(error, EzmsgError) else type(error).__name__}")
        super().fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed."""
        if self._guard is not None:
            self._guard.holds(self, 0)
        super().connection_lost(exc)
