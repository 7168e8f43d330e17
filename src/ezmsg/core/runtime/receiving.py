"""The loops that hand messages to tasks. The innermost of them is most of what a unit costs per message."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container
from functools import partial
from typing import Any, Final

from ezmsg.core.errors import SubscriberClosed
from ezmsg.core.runtime.endings import Complete, NormalTermination
from ezmsg.core.subclient import Subscriber
from ezmsg.core.turns import ONE_TURN

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


async def receive(
    subscriber: Subscriber,
    handle: Handle,
    failed: Failed,
    is_ending: Callable[[], bool],
    *,
    leaky: bool = False,
    beside: Container[str] = (),
) -> None:
    """Hand every message of a subscriber to `handle`, one at a time; the subscriber is closed where that alone ends.

    One coroutine does it all: each one around another would cost every message.

    Args:
        subscriber: Where messages come from.
        handle: Awaited for each message, which is released afterwards. An exception stands on the message's span.
        failed: Told of exceptions.
        is_ending: Whether the run ends, and closes the subscriber itself.
        leaky: Give `handle` a copy of each message, and release the message before.
        beside: Publishers, by id, that are about to be stopped where `handle` ends the run, and held up until then.

    Raises:
        Complete: `handle` raised it, or there is nothing more to come.
        NormalTermination: `handle` raised it.
    """
    take = partial(_Own, subscriber) if leaky else subscriber.recv_zero_copy
    due_s, rests = 0.0, subscriber.rests
    ending: Ending | None = None
    try:
        while ending is None:
            try:
                while True:
                    lease = take()
                    async with lease as message:
                        try:
                            await handle(message)
                        except (Complete, NormalTermination) as end:
                            ending = end  # raised only behind the block: for the message nothing went wrong
                            break
                    # When it was taken is known; the time now would be one more look at the clock for every message.
                    if lease.start_s > due_s:
                        due_s = lease.start_s + TURNS_AFTER_S
                        rests = await _rest(subscriber, rests)
            except (Exception, asyncio.CancelledError) as error:
                if is_cancelled(error):
                    raise
                if (isinstance(error, SubscriberClosed) and error.topic == subscriber.topic) or failed(error):
                    return
        raise ending
    finally:
        if not is_ending():  # else it would hold publishers up
            if isinstance(ending, NormalTermination):
                # The graph need not hear of it, which is about to lose the whole run. And a publisher of this loop that
                # nobody holds up would keep the interpreter from who ends the run.
                subscriber.stop(but=beside)
            else:
                subscriber.close()


class _Own:
    """As a lease, but of a copy: the message itself is released before the block begins."""

    __slots__ = ("_lease",)

    def __init__(self, subscriber: Subscriber) -> None:
        self._lease = subscriber.recv_zero_copy()

    @property
    def start_s(self) -> float:
        """When the message was taken."""
        return self._lease.start_s

    async def __aenter__(self) -> Any:
        return await self._lease.take_own()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._lease.finish(None if kind is None else kind.__qualname__)


async def _rest(subscriber: Subscriber, rests: int) -> int:
    """Let the loop run, if the subscriber did not do so since it had rested so often; how often that is now."""
    if subscriber.rests == rests:
        for _ in range(TURNS):
            await ONE_TURN
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
