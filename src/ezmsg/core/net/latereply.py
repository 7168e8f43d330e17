"""An answer that comes later, without a task: what is passed on between two connections goes straight through."""

from __future__ import annotations

from collections.abc import Callable

from ezmsg.core.wire.records import Record


class LateReply:
    """An answer that is given later: at once, where a task or a future would take turns of the loop.

    Args:
        revoked: Called once, instead of an answer that is given, when nobody waits for it any more.
    """

    __slots__ = ("_revoked", "_send")

    def __init__(self, revoked: Callable[[], None]) -> None:
        self._revoked = revoked
        self._send: Callable[[LateReply, Record | None], None] | None = None

    def begin(self, send: Callable[[LateReply, Record | None], None]) -> None:
        """The connection knows of it: `send` sends the answer, or (None) says that there is none."""
        self._send = send

    def give(self, answer: Record) -> None:
        """Answer; does nothing when it was answered, or nobody waits any more."""
        send, self._send = self._send, None
        if send is not None:
            send(self, answer)

    def cancel(self) -> None:
        """Nobody waits any more."""
        send, self._send = self._send, None
        if send is not None:
            self._revoked()
            send(self, None)
