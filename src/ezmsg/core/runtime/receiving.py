"""The loops that hand messages to tasks. The innermost of them is most of what a unit costs per message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ezmsg.core.errors import SubscriberClosed
from ezmsg.core.runtime.endings import Complete, NormalTermination
from ezmsg.core.subclient import Subscriber
from ezmsg.core.turns import one_turn

TURNS_AFTER_S: Final = 0.01
"""Where messages have been there for so long without a pause, the loop is let run: a task that never waits for anything
would let no request be answered, and could not be cancelled, before its queue is empty. Not oftener: a publisher of the
same loop that finds some of its slots free, in place of all, is slower by a sixth."""
TURNS: Final = 4
"""What it takes to read a request, to begin with it, and to answer; some 20 µs where there is nothing to do."""

Handle = Callable[[Any], Awaitable[None]]
"""What is done with a message."""
Failed = Callable[[BaseException], bool]
"""Told of an exception in a task; whether the loop has to end."""

Ending = Complete | NormalTermination


def is_cancelled(error: BaseException) -> bool:
    """Whether `error` is there because the running task was cancelled, and not something that it waited for."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


async def receive(subscriber: Subscriber, handle: Handle, failed: Failed, *, leaky: bool = False) -> None:
    """Hand every message of a subscriber to `handle`, one at a time.

    Args:
        subscriber: Where messages come from.
        handle: Awaited for each message, which is released afterwards. An exception stands on the message's span.
        failed: Told of exceptions.
        leaky: Give `handle` a copy of each message, and release the message before.

    Raises:
        Complete: `handle` raised it, or there is nothing more to come.
        NormalTermination: `handle` raised it.
    """
    until_end = _until_end_leaky if leaky else _until_end
    while True:
        try:
            ending = await until_end(subscriber, handle)
        except (Exception, asyncio.CancelledError) as error:
            if is_cancelled(error):
                raise
            if isinstance(error, SubscriberClosed) and error.topic == subscriber.topic:
                return
            if failed(error):
                return
        else:
            raise ending


async def _until_end(subscriber: Subscriber, handle: Handle) -> Ending:
    take = subscriber.recv_zero_copy
    due_s, rests = 0.0, subscriber.rests
    while True:
        lease = take()
        async with lease as message:
            try:
                await handle(message)
            except (Complete, NormalTermination) as ending:
                return ending  # not raised: for the message nothing went wrong
        # When it was taken is known; the time now would be one more look at the clock for every message.
        if lease.start_s > due_s:
            due_s = lease.start_s + TURNS_AFTER_S
            rests = await _rest(subscriber, rests)


async def _until_end_leaky(subscriber: Subscriber, handle: Handle) -> Ending:
    due_s, rests = 0.0, subscriber.rests
    while True:
        lease = subscriber.recv_zero_copy()
        own = await lease.take_own()
        failure: str | None = None
        try:
            await handle(own)
        except (Complete, NormalTermination) as ending:
            return ending
        except BaseException as error:
            failure = type(error).__qualname__
            raise
        finally:
            lease.finish(failure)
        if lease.start_s > due_s:
            due_s = lease.start_s + TURNS_AFTER_S
            rests = await _rest(subscriber, rests)


async def _rest(subscriber: Subscriber, rests: int) -> int:
    """Let the loop run, if the subscriber did not do so since it had rested so often; how often that is now."""
    if subscriber.rests == rests:
        for _ in range(TURNS):
            await one_turn()
    return subscriber.rests


class Several:
    """The tasks that share one stream: each message is handed to one after the other.

    Args:
        handles: What each task does with a message, by its label.
        failed: Told the label of a task and its exception; whether the task has to end.
        terminate: Called when one of them ends the run.
    """

    def __init__(
        self,
        handles: dict[str, Handle],
        failed: Callable[[str, BaseException], bool],
        terminate: Callable[[str], object],
    ) -> None:
        self._handles = handles
        self._label = ", ".join(handles)
        self._failed, self._terminate = failed, terminate
        self._told: BaseException | None = None
        self._is_over = False

    async def __call__(self, message: Any) -> None:
        """Hand it on; raises the first exception when all are done, and Complete when none is left."""
        failure: BaseException | None = None
        for label, handle in list(self._handles.items()):
            try:
                await handle(message)
            except (Complete, NormalTermination) as ending:
                del self._handles[label]
                if isinstance(ending, NormalTermination):
                    self._terminate(label)
            except (Exception, asyncio.CancelledError) as error:
                if is_cancelled(error):
                    raise
                self._is_over |= self._failed(label, error)
                failure = failure or error
        self._told = failure
        if not self._handles:
            raise Complete
        if failure is not None:
            raise failure

    def has_failed(self, error: BaseException) -> bool:
        """For `receive`: the exceptions of tasks were told of already, but not those of receiving."""
        return self._is_over if error is self._told else self._failed(self._label, error)
