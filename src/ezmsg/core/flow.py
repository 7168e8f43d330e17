"""Flow control of a publisher: its ring of slots, who stands in line for them, who is to blame, and pauses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final
from uuid import UUID

from ezmsg.core import config
from ezmsg.core.backpressure import Backpressure
from ezmsg.core.currentmessage import begin_trace, get_current_message
from ezmsg.core.errors import PublisherClosed
from ezmsg.core.profiling import (
    ProfileRegistry,
    PublisherMetrics,
    TraceIds,
    message_clock,
    new_span_id,
    new_trace_id,
)
from ezmsg.core.remotes import Remotes
from ezmsg.core.transport import Outlet
from ezmsg.core.turns import ONE_TURN, Eagerness

logger = logging.getLogger("ezmsg")

BACKPRESSURE_WARNING_INTERVAL_S: Final = 5.0
NOT_YET_S: Final = float("inf")


class Flow:
    """What decides when a broadcast may send: the base of `Publisher`, which sends.

    Message n takes slot n modulo their number, and waits while a channel still holds it.
    """

    # The hot path finds slots faster than the entries of a large `__dict__`.
    __slots__ = (
        "_blocked", "_delayed", "_eagerness", "_freed", "_held", "_holder", "_is_closed", "_line", "_looks", "_loop",
        "_metrics", "_next_id", "_outlets", "_profiles", "_remotes", "_running", "_slot", "_slots", "_stalled_s",
        "_turning", "_waiting", "_warned_s", "_warns", "id", "num_buffers", "topic",
    )  # fmt: skip

    id: UUID
    topic: str
    _profiles: ProfileRegistry
    _metrics: PublisherMetrics
    _remotes: Remotes

    def _prepare_flow(self, num_buffers: int, start_paused: bool) -> None:
        self.num_buffers = num_buffers
        self._outlets: set[Outlet] = set()
        self._slots = Backpressure(num_buffers, self._slot_freed)
        self._held = self._slots.held
        self._eagerness = Eagerness()
        self._loop = asyncio.get_running_loop()
        # The next message: its number, and its slot.
        self._next_id = 0
        self._slot = 0
        # Whether a broadcast must look closer before it sends: in every round of the ring, while paused or closed, and
        # while others stand in line.
        self._looks = True
        self._freed: asyncio.Future[None] | None = None
        self._running = asyncio.Event()
        # Broadcasts that wait stand in line; `_waiting` counts them, so that newcomers do not overtake. Nor do they
        # overtake those that let the loop turn once, which `_turning` counts: they turn as well.
        self._line = asyncio.Lock()
        self._waiting = self._turning = 0
        # Broadcasts that do either: they may still record that they failed.
        self._delayed = 0
        self._stalled_s = 0.0
        # On which topic the subscriber is that held a slot last.
        self._holder = ""
        self._is_closed = False
        self._blocked = start_paused
        if not start_paused:
            self._running.set()
        self._warned_s = -BACKPRESSURE_WARNING_INTERVAL_S
        self._warns = not config.backpressure_warning_disabled()

    # -- pauses -------------------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether `broadcast` sends, as opposed to waiting for `resume()` or being closed."""
        return not self._blocked

    def pause(self) -> None:
        """Make every `broadcast` wait from now on."""
        self._blocked = self._looks = True
        self._running.clear()

    def resume(self) -> None:
        """Let `broadcast` go on."""
        if not self._is_closed:
            self._blocked = False
        self._running.set()

    async def sync(self) -> None:
        """Pause, and wait until every message sent so far was released. Stays paused until `resume()`."""
        self.pause()
        while self._slots.inflight:
            await self._any_release()

    def warn_no_more(self) -> None:
        """Do not warn of backpressure any more."""
        self._warns = False

    # -- waiting ------------------------------------------------------------------------------------------------------

    async def _clear_to_send(self, start_s: float) -> float:
        """Stand in line, and wait out a pause or a held slot; returns how much of it was backpressure, in s.

        Whoever called `broadcast` first, at `start_s`, sends first: the caller sends before anybody else runs.
        """
        if self._is_closed:
            raise PublisherClosed(self.topic)
        stalled_s = NOT_YET_S
        self._delayed += 1
        try:
            if self._turning or not (self._slot or self._waiting or self._blocked):
                # One turn of the loop per round of the ring: a publisher that nobody holds up must not starve it.
                self._profiles.relieve()
                self._turning += 1
                try:
                    await ONE_TURN
                finally:
                    self._turning -= 1
                if not (self._held[self._slot] or self._waiting or self._blocked):
                    self._looks = self._turning > 0
                    return 0.0
            self._waiting += 1
            self._looks = True
            try:
                async with self._line:
                    began_s, stalled_s = message_clock(), self._stalled_s
                    while not self._is_closed:
                        if self._blocked:
                            await self._running.wait()
                        elif self._slots.held[self._slot]:
                            await self._stall()
                        else:
                            return min(self._stalled_s - stalled_s, message_clock() - began_s)
                    raise PublisherClosed(self.topic)
            finally:
                self._waiting -= 1
                self._looks = self._blocked or self._waiting > 0 or self._turning > 0
        except (Exception, asyncio.CancelledError) as error:
            self._record_unsent(start_s, max(0.0, self._stalled_s - stalled_s), type(error).__qualname__)
            raise
        finally:
            self._delayed -= 1
            if self._is_closed:
                self._leave_registry()

    def _record_unsent(self, start_s: float, wait_s: float, error: str) -> None:
        """Record, if it is or would be part of a trace, that a broadcast ended before anything was sent."""
        metrics, context = self._metrics, get_current_message()
        if context is not None:
            origin_s, within = context.origin_s, context.known_trace()
            trace = None if within is None else (within[0], new_span_id(), within[1], context.links)
        else:
            origin_s = start_s
            begins = start_s >= metrics.next_root_s and metrics.begin_root(start_s)
            trace = begin_trace(metrics.ids) if begins else None
            if isinstance(trace, TraceIds):
                trace = (new_trace_id(), new_span_id(), 0, ())
        metrics.record_failed(self._next_id, origin_s, start_s, wait_s, error, trace)

    async def _stall(self) -> None:
        began_s = message_clock()
        if self._warns and began_s - self._warned_s > BACKPRESSURE_WARNING_INTERVAL_S:
            self._warned_s = began_s
            logger.warning("%s under subscriber backpressure!", self.topic)
        slot, context = self._slot, get_current_message()
        self._metrics.waits.began(began_s, slot, "" if context is None else context.holds)
        # Also where it looks without sleeping: who lets go of the slot is to blame.
        self._slots.is_awaited = True
        try:
            if not (self._remotes.outlets and await self._eagerness.sees(self._can_go_on)):
                if self._eagerness.is_dense:
                    self._profiles.relieve(is_idle=True)
                slept_s = message_clock()
                await self._any_release()
                self._eagerness.slept(message_clock() - slept_s)
        finally:
            stalled_s = message_clock() - began_s
            self._stalled_s += stalled_s
            self._metrics.wait_ended(round(stalled_s * 1e9), self._holder_of(slot))

    def _holder_of(self, slot: int) -> str:
        """The topic of the subscriber that holds a slot, else of who held one last; may be asked from any thread."""
        held = self._held[slot]
        return self._last_of(held & -held)

    def _last_of(self, bit: int) -> str:
        """The topic of the subscriber that held a slot last, of the channel with this bit, else of all."""
        for outlet in list(self._outlets):
            if outlet.bit == bit:
                return outlet.holder
        return self._holder

    def _can_go_on(self) -> bool:
        return not self._held[self._slot] or self._blocked

    async def _any_release(self) -> None:
        if self._freed is None:
            self._freed = self._loop.create_future()
            self._slots.is_awaited = True
        # Shielded: a broadcast and any number of `sync` may wait for the same release, and one of them be cancelled.
        await asyncio.shield(self._freed)

    def _leave_registry(self) -> None:
        """Closed: record nothing more, once every broadcast has ended."""
        if not self._delayed:
            self._profiles.unregister_publisher(self.id)

    # -- slots --------------------------------------------------------------------------------------------------------

    def releaser(self, bit: int) -> Callable[[int], None]:
        """What is called, for a channel with this bit, with the id of a message that it is done with."""
        return self._slots.releaser(bit)

    def _slot_freed(self, bit: int = 0) -> None:
        self._slots.is_awaited = False
        self._holder = self._last_of(bit)
        freed, self._freed = self._freed, None
        if freed is not None and not freed.done():
            freed.set_result(None)
