"""A message that the loop took for another thread."""

from __future__ import annotations

from contextvars import copy_context
from types import TracebackType
from typing import Any

from ezmsg.core.errors import SyncContextClosed
from ezmsg.core.lease import Lease
from ezmsg.core.subclient import Subscriber
from ezmsg.core.sync.bridge import Bridge

Failure = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class Hold:
    """At most one message: taken and left on the loop, looked at by the thread that made this.

    Attributes:
        context: In which it must be taken and left.
        error: What happened while it was held.
        is_held: Whether a message is.
        lease: The lease on the message.
        obj: The message.
    """

    __slots__ = ("context", "error", "is_held", "lease", "obj")

    lease: Lease
    obj: Any

    def __init__(self) -> None:
        # The thread's own context is not the loop's to run in.
        self.context = copy_context()
        self.error: Failure = (None, None, None)
        self.is_held = False

    async def take(self, subscriber: Subscriber) -> None:
        """Take the next message; on the loop, in `context`."""
        lease = subscriber.recv_zero_copy()
        self.obj = await lease.__aenter__()
        self.lease, self.is_held = lease, True

    def leave(self) -> None:
        """Let go of the message, if there is one; on the loop, in `context`."""
        if self.is_held:
            self.is_held = False
            self.obj = None
            self.lease.__aexit__(*self.error)

    def leave_soon(self, bridge: Bridge) -> None:
        """Have it left, whether it is held already or just being taken; from any thread."""
        try:
            bridge.post(self.leave, context=self.context)
        except SyncContextClosed:
            bridge.stop()
            if bridge.is_closed:
                self.context.run(self.leave)  # in place of the loop, which is no more
            self.is_held = False  # else it is of another process
