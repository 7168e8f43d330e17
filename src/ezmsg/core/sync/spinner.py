"""Hands the messages of many subscriptions to the callbacks, in the thread that spins."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from ezmsg.core.currentmessage import reset_current_message, set_current_message
from ezmsg.core.errors import CallTimeout, SubscriberClosed, SyncContextClosed
from ezmsg.core.sync.bridge import Bridge
from ezmsg.core.sync.endpoints import SyncSubscriber
from ezmsg.core.sync.hold import Hold

logger = logging.getLogger("ezmsg")


class _Turn:
    """What one spinning thread holds: a message, and the one before until the loop has let go of it.

    That takes the same way there and back as taking the next.
    """

    def __init__(self) -> None:
        self._nothing = self.previous = self.hold = Hold()

    def next(self) -> None:
        self.previous, self.hold = self.hold, Hold()

    def end(self, bridge: Bridge) -> None:
        if self.previous.is_held:
            self.previous.leave_soon(bridge)
        # Held, or just being taken when this was interrupted.
        if self.hold is not self._nothing:
            self.hold.leave_soon(bridge)


class Spinner:
    """The subscriptions of one SyncContext that have a callback. Several threads may spin."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._subscriptions: tuple[SyncSubscriber, ...] = ()
        # Of threads that wait for any message; on the loop.
        self._waiting: set[asyncio.Future[None]] = set()
        self.is_stopped = False

    def add(self, subscription: SyncSubscriber) -> None:
        """Spin this one, too."""
        self._subscriptions = (*self._subscriptions, subscription)
        self._bridge.post(self._wake)

    def remove(self, subscription: SyncSubscriber) -> None:
        """Spin it no more."""
        self._subscriptions = tuple(known for known in self._subscriptions if known is not subscription)

    def stop(self) -> None:
        """Whoever waits returns."""
        self.is_stopped = True
        with suppress(SyncContextClosed):
            self._bridge.post(self._wake)

    def spin_once(self, timeout_s: float | None) -> bool:
        """Handle one message of every subscription that has any; wait for one if none has.

        Args:
            timeout_s: How long to wait; None waits until a message comes or spinning is stopped.

        Returns:
            Whether there was any.
        """
        turn = _Turn()
        try:
            return self._round(turn, timeout_s)
        finally:
            turn.end(self._bridge)

    def spin(self) -> None:
        """Handle messages until spinning is stopped."""
        turn = _Turn()
        try:
            while not self.is_stopped:
                self._round(turn, None)
        finally:
            turn.end(self._bridge)

    def _round(self, turn: _Turn, timeout_s: float | None) -> bool:
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        done: list[SyncSubscriber] = []
        while not self.is_stopped:
            todo = [known for known in self._subscriptions if known not in done]
            ready = [known for known in todo if known.has_message]
            left_s = None if ready or deadline_s is None else max(0.0, deadline_s - time.monotonic())
            if not ready and (done or left_s == 0.0):
                break
            turn.next()
            taking = self._take(turn, ready or todo, may_wait=not ready)
            try:
                taken = self._bridge.run_brief(taking, "waiting for any message", left_s, turn.hold.context)
            except CallTimeout:
                break
            if taken is None:
                continue
            done.append(taken)
            if turn.hold.is_held:
                _handle(taken, turn.hold)
        return bool(done)

    # -- on the loop --------------------------------------------------------------------------------------------------

    async def _take(
        self, turn: _Turn, candidates: Sequence[SyncSubscriber], *, may_wait: bool
    ) -> SyncSubscriber | None:
        """Take a message of the first candidate that has one; None if none has after all."""
        turn.previous.context.run(turn.previous.leave)
        while True:
            for candidate in candidates:
                if candidate.has_message:
                    try:
                        await turn.hold.take(candidate.subscriber)
                    except Exception:
                        logger.exception("%r gets a message less", candidate)
                    return candidate
            if not may_wait or self.is_stopped:
                return None
            await self._any_message(candidates)
            may_wait = False

    async def _any_message(self, candidates: Sequence[SyncSubscriber]) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        for candidate in candidates:
            candidate.subscriber.watch(waiter)
        try:
            with suppress(SubscriberClosed):
                await waiter
        finally:
            self._waiting.discard(waiter)
            for candidate in candidates:
                candidate.subscriber.unwatch(waiter)

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)


def _handle(subscription: SyncSubscriber, hold: Hold) -> None:
    """Call back; what that raises is logged, and recorded as the failure of this message."""
    callback = subscription.callback
    assert callback is not None
    token = set_current_message(hold.lease)
    try:
        callback(hold.obj if subscription.zero_copy else hold.lease.own(hold.obj))
    except Exception:
        hold.error = sys.exc_info()
        logger.exception("the callback %r of %r failed", callback, subscription)
    except BaseException:
        hold.error = sys.exc_info()
        raise
    finally:
        reset_current_message(token)
